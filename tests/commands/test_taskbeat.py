"""``taskbeat``: the scheduler alone, in real processes."""

from __future__ import annotations

import re
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from django.utils import timezone

from django_taskq import __version__
from django_taskq.models import PeriodicTask, SchedulerLease, TaskRecord
from tests.commands.conftest import Project
from tests.commands.test_bad_input import UNREACHABLE_DATABASE
from tests.servers import PostgresServer
from tests.testapp.tasks import add
from tests.waiting import wait_for

ERROR, USAGE, UNREACHABLE = 1, 2, 3
Start = Callable[..., "Beat"]


class Beat:
    """One ``taskbeat``."""

    def __init__(self, arguments: tuple[str, ...], env: dict[str, str], log: Path) -> None:
        self._log = log
        with log.open("wb") as file:
            command = [sys.executable, "-m", "django", "taskbeat", "--no-color", *arguments]
            self.process = subprocess.Popen(command, env=env, stdin=subprocess.DEVNULL, stdout=file, stderr=file)

    def log(self) -> str:
        return self._log.read_text()

    def wait_ready(self) -> re.Match[str]:
        def line() -> re.Match[str] | None:
            assert self.process.poll() is None, self.log()
            return re.search(r"^taskbeat ready: (\S+):(\d+) (.*)$", self.log(), re.MULTILINE)

        found = wait_for(line, 20, self.log)
        assert found
        return found


@pytest.fixture
def beat(worker_env: dict[str, str], tmp_path: Path) -> Iterator[Start]:
    started: list[Beat] = []

    def start(*arguments: str, ready: bool = True) -> Beat:
        made = Beat(arguments, worker_env, tmp_path / f"beat-{len(started)}.log")
        started.append(made)
        if ready:
            made.wait_ready()
        return made

    yield start
    for made in started:
        made.process.kill()
        made.process.wait()


def overdue(**given: Any) -> PeriodicTask:
    """A schedule that is due now."""
    row = PeriodicTask.objects.create(
        name="due", task_name=add.name, payload="[[1,2],{}]", schedule="every 1 hour", **given
    )
    now = timezone.now()
    PeriodicTask.objects.filter(pk=row.pk).update(next_due_at=now, next_start_at=now)
    return row


@pytest.mark.database
@pytest.mark.django_db(transaction=True)
class TestRealProcesses:
    @pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
    def test_it_runs_what_is_due_and_stops_in_order(self, beat: Start, number: int) -> None:
        overdue()
        made = beat()
        ready = made.wait_ready()
        assert int(ready[2]) == made.process.pid
        assert re.fullmatch(rf"version={re.escape(__version__)} schedules=1 tasks=\d+", ready[3])
        wait_for(lambda: TaskRecord.objects.exists(), 20, made.log)
        assert TaskRecord.objects.get().name == add.name
        assert SchedulerLease.objects.holder() == f"{ready[1]}:{ready[2]}"
        made.process.send_signal(number)
        assert made.process.wait(20) == 0, made.log()
        assert SchedulerLease.objects.holder() is None
        assert made.log().count("ready") == 1
        assert "Traceback" not in made.log()

    def test_several(self, beat: Start) -> None:
        PeriodicTask.objects.create(
            name="often", task_name=add.name, payload="[[1,2],{}]", schedule="every 1 second",
            starts_at=timezone.now() + timedelta(seconds=1),
        )  # fmt: skip
        first, second = beat(), beat()
        wait_for(lambda: TaskRecord.objects.exists(), 20, first.log)
        first.process.terminate()
        assert first.process.wait(20) == 0
        wait_for(lambda: (SchedulerLease.objects.holder() or "").endswith(f":{second.process.pid}"), 20, second.log)
        # None doubled: one run for each due time.
        row = PeriodicTask.objects.get()
        row.is_enabled = False
        row.save()
        second.process.terminate()
        assert second.process.wait(20) == 0
        ticks = list(row.ticks.all())
        assert TaskRecord.objects.count() == sum(tick.run_id is not None for tick in ticks)
        assert sum(tick.count for tick in ticks) == len({tick.due_at for tick in ticks})

    def test_it_stops_in_order_without_its_database(self, beat: Start, postgres_server: PostgresServer) -> None:
        made = beat()
        wait_for(lambda: SchedulerLease.objects.holder(), 20, made.log)
        postgres_server.stop()
        wait_for(lambda: "lost the database" in made.log(), 20, made.log)
        made.process.terminate()
        assert made.process.wait(20) == 0, made.log()
        assert "Traceback" not in made.log()

    def test_quiet(self, beat: Start) -> None:
        overdue()
        made = beat("--verbosity", "0", ready=False)
        wait_for(lambda: TaskRecord.objects.exists(), 20, made.log)
        made.process.terminate()
        # It may not have got to where it waits for signals; nothing is lost when it ends at once.
        assert made.process.wait(20) in (0, -signal.SIGTERM)
        assert "ready" not in made.log()


@pytest.mark.parametrize(
    ("settings", "error"),
    [
        ("TASKQ = {'THREDS': 2}", "TASKQ['THREDS'] is not a setting. Remove it or correct its name. Did you mean"),
        ("TASKQ = {'DATABASE': 'defualt'}", "TASKQ['DATABASE'] names the unknown alias 'defualt'."),
        (
            "TASKQ = {'SCHEDULE': {'x': {'task': 'shop.tasks.ad', 'schedule': '@daily'}}}",
            "no task is named 'shop.tasks.ad'. Did you mean \"shop.tasks.add\"?",
        ),
    ],
)
def test_wrong_settings(project: Project, settings: str, error: str) -> None:
    project.settings(settings)
    done = project.manage("taskbeat")
    assert (done.returncode, done.stdout) == (USAGE, "")
    assert error in done.stderr
    assert "Traceback" not in done.stderr


def test_wrong_use(project: Project) -> None:
    done = project.manage("taskbeat", "--processes", "2")
    assert (done.returncode, done.stdout) == (USAGE, "")
    assert "unrecognized arguments: --processes 2" in done.stderr


def test_before_migrate(project: Project) -> None:
    done = project.manage("taskbeat")
    assert (done.returncode, done.stdout) == (ERROR, "")
    assert done.stderr.splitlines()[-1].strip() == "python manage.py migrate"


def test_unreachable_database(project: Project) -> None:
    project.settings(UNREACHABLE_DATABASE)
    done = project.manage("taskbeat", setup="import django_taskq.management.storage as s; s.TRIES_SECONDS = 0.3")
    assert (done.returncode, done.stdout) == (UNREACHABLE, "")
    assert "the database 'default' (postgresql://ann:***@127.0.0.1:1/shop) cannot be reached: " in done.stderr
    assert "hunter2" not in done.stderr
    assert "Traceback" not in done.stderr


def test_it_needs_no_settings_module(project: Project) -> None:
    """Unlike a worker, it starts no processes that would have to find the settings."""
    code = (
        "import django\nfrom django.conf import settings\nfrom django.core.management import call_command\n"
        "settings.configure(INSTALLED_APPS=['django_taskq'], DATABASES={'default': "
        "{'ENGINE': 'django.db.backends.sqlite3', 'NAME': 'x'}})\ndjango.setup()\ncall_command('taskbeat')"
    )
    done = project.python(code, DJANGO_SETTINGS_MODULE="")
    assert "the tables of django_taskq on the database 'default' are not up to date" in done.stderr
    assert "settings.configure" not in done.stderr.splitlines()[-1]
