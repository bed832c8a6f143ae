"""Commands called in this process, and ``manage.py`` of throw-away projects in another."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from io import StringIO
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from django.core.management import call_command

from django_taskq import brokers, registry
from tests.conftest import ROOT
from tests.lettered_depot import LetteredDepot


class Output(NamedTuple):
    out: str
    err: str


class Project:
    """A project of one app in a directory of its own."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        (directory / "shop").mkdir()
        self.write("shop/__init__.py", "")
        self.write("shop/tasks.py", "from django_taskq import task\n\n@task\ndef add(x, y):\n    return x + y\n")
        self.settings()

    def write(self, name: str, text: str) -> None:
        (self.directory / name).write_text(text)

    def settings(self, more: str = "") -> None:
        """Write settings.py; ``more`` is Python at its end."""
        database = {"ENGINE": "django.db.backends.sqlite3", "NAME": str(self.directory / "db.sqlite3")}
        lines = ["SECRET_KEY = 'x'", "USE_TZ = True", 'INSTALLED_APPS = ["django_taskq", "shop"]']
        self.write("settings.py", "\n".join([*lines, f"DATABASES = {{'default': {database!r}}}", more]))

    def python(self, code: str, *arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
        """Run a program in the project."""
        inherited = {name: value for name, value in os.environ.items() if not name.startswith(("TASKQ_", "DJANGO_"))}
        path = os.pathsep.join([str(self.directory), str(ROOT)])
        return subprocess.run(
            [sys.executable, "-c", code, *arguments],
            cwd=self.directory,
            env={**inherited, "PYTHONPATH": path, "DJANGO_SETTINGS_MODULE": "settings", **environment},
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )

    def manage(self, *arguments: str, setup: str = "") -> subprocess.CompletedProcess[str]:
        """``manage.py``; ``setup`` is Python that runs before."""
        code = "import sys; from django.core.management import execute_from_command_line as run"
        return self.python(f"{setup}\n{code}\nrun(['manage.py', *sys.argv[1:]])", *arguments)


@pytest.fixture
def project(tmp_path: Path) -> Project:
    return Project(tmp_path)


@pytest.fixture
def call() -> Callable[..., Output]:
    """``taskq <verb> ...`` in this process: what it wrote to stdout and stderr."""

    def run(*arguments: str, **options: Any) -> Output:
        out, err = StringIO(), StringIO()
        call_command("taskq", *arguments, stdout=out, stderr=err, no_color=True, **options)
        return Output(out.getvalue(), err.getvalue())

    return run


@pytest.fixture
def depots(settings: Any, monkeypatch: pytest.MonkeyPatch) -> dict[str, LetteredDepot]:
    """Brokers that cannot fail unless they are told to: queue ``mail`` on ``bulk``, ``rows`` in the database."""
    made = {"default": LetteredDepot(), "bulk": LetteredDepot("bulk", "memory://ann:hunter2@mq")}
    monkeypatch.setattr(brokers, "make_depot", lambda config: made[config.alias])
    settings.TASKQ = {
        "BROKER_URL": "memory://",
        "BROKERS": {"bulk": {"URL": made["bulk"].config.url}, "rows": {"URL": "database://"}},
        "QUEUES": {"mail": {"broker": "bulk"}, "rows": {"broker": "rows"}},
    }
    return made


@pytest.fixture
def own_tasks() -> Iterator[None]:
    """Only the tasks that the test defines, the demonstration's among them."""
    before = dict(registry._tasks)
    registry._tasks.clear()
    yield
    sys.modules.pop("django_taskq.management.demo.tasks", None)
    registry._tasks.clear()
    registry._tasks.update(before)
