"""The first minutes of a new user: what has to be typed, no more, until a run is seen as successful in the admin."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.conftest import ROOT
from tests.waiting import wait_for

SETTINGS = 'INSTALLED_APPS += ["django_taskq", "mysite"]\n'
TASKS = """\
from django_taskq import task

@task
def add(x, y):
    return x + y
"""
CALL = "from mysite.tasks import add; add.enqueue(2, 3)"

# What the user sees with a browser after `manage.py createsuperuser`.
LOOK = """
from django.contrib.auth import get_user_model
from django.test import Client

user = get_user_model().objects.create_superuser("admin", "admin@example.com", "secret")
client = Client(SERVER_NAME="localhost")
client.force_login(user)
for url in ("/admin/", "/admin/django_taskq/taskrecord/"):
    answer = client.get(url)
    print(answer.status_code)
    print(answer.content.decode())
"""


class NewUser:
    """Types commands in an empty directory and counts the lines."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.commands = 0
        self.lines = 0
        inherited = {name: value for name, value in os.environ.items() if not name.startswith(("TASKQ_", "DJANGO_"))}
        self.environment = {**inherited, "PYTHONPATH": str(ROOT), "PYTHONUNBUFFERED": "1"}
        self.worker: subprocess.Popen[bytes] | None = None

    def types(self, *command: str) -> str:
        self.commands += 1
        done = subprocess.run(
            [sys.executable, *command],
            cwd=self.directory,
            env=self.environment,
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout + done.stderr

    def starts_worker(self) -> None:
        self.commands += 1
        with (self.directory / "worker.log").open("wb") as log:
            self.worker = subprocess.Popen(
                [sys.executable, "manage.py", "taskworker"],
                cwd=self.directory,
                env=self.environment,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )

    def writes(self, path: str, text: str) -> None:
        """At the end of a file, or as a new one."""
        self.lines += len([line for line in text.splitlines() if line.strip()])
        with (self.directory / path).open("a") as file:
            file.write(text)

    def log(self) -> str:
        return (self.directory / "worker.log").read_text()


@pytest.fixture
def user(tmp_path: Path) -> Iterator[NewUser]:
    found = NewUser(tmp_path)
    yield found
    if found.worker is not None and found.worker.poll() is None:
        os.killpg(found.worker.pid, signal.SIGKILL)
        found.worker.wait()


def test_first_run(user: NewUser) -> None:
    # Given a new project with one line in INSTALLED_APPS, and a task of four lines
    user.types("-m", "django", "startproject", "mysite", ".")
    user.writes("mysite/settings.py", SETTINGS)
    user.writes("mysite/tasks.py", TASKS)
    user.types("manage.py", "migrate")

    # When a worker runs, and the task is called from the shell
    user.starts_worker()
    user.types("manage.py", "shell", "-c", CALL)

    # Then it is done
    assert user.worker is not None
    wait_for(lambda: re.search(r"mysite\.tasks\.add \S+ ok", user.log()), 20, user.log)

    # And the admin shows it
    assert (user.lines, user.commands) == (5, 4)
    index, runs = re.split(r"^200$", user.types("manage.py", "shell", "-c", LOOK), flags=re.MULTILINE)[1:]
    assert "/admin/django_taskq/taskrecord/" in index
    rows = re.findall(r"<tr\b.*?</tr>", runs, flags=re.DOTALL)
    (row,) = [row for row in rows if "mysite.tasks.add" in row]
    assert "Successful" in row
    assert "Traceback" not in runs

    # And the worker goes when it is told to
    user.worker.terminate()
    assert user.worker.wait(30) == 0, user.log()
    assert "Traceback" not in user.log()


def test_the_worker_before_migrate(user: NewUser) -> None:
    """It names the command to run, and runs nothing."""
    user.types("-m", "django", "startproject", "mysite", ".")
    user.writes("mysite/settings.py", SETTINGS)
    user.starts_worker()
    assert user.worker is not None
    assert user.worker.wait(30) not in (0, None)
    assert "manage.py migrate" in user.log()
    assert "Traceback" not in user.log()
