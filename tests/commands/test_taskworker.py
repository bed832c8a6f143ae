"""``taskworker``: what it says, when it says it, and how it ends. Real processes."""

from __future__ import annotations

import os
import pty
import re
import subprocess
import sys
import time
from collections.abc import Callable
from io import StringIO
from typing import Any

import pytest

from django_taskq import __version__, conf
from django_taskq.management import banner
from django_taskq.management.commands.taskworker import Command
from django_taskq.management.worker_arguments import parse
from django_taskq.models import TaskRecord, Worker
from django_taskq.task import task
from django_taskq.worker import supervisor
from tests.commands.conftest import Project
from tests.docs.test_reference import arguments
from tests.testapp.tasks import add, nap
from tests.waiting import wait_for
from tests.workers import WorkerProcess

Start = Callable[..., WorkerProcess]


def options(**given: Any) -> Any:
    nothing = vars(Command().create_parser("manage.py", "taskworker").parse_args([]))
    return parse(conf.get_settings(), nothing | given)


def test_the_command_line_is_stronger_than_the_settings(settings: Any) -> None:
    settings.TASKQ = {"PROCESSES": 3, "THREADS": 2, "GRACE": 7, "QUEUES": ["mail"]}
    found = options()
    assert (found.processes, found.threads, found.grace, found.max_tasks) == (3, 2, 7, None)
    assert found.order.rotate
    found = options(processes=1, threads=4, grace=0.0, queues="mail=2,default=1", max_tasks=9, burst=True)
    assert (found.processes, found.threads, found.grace, found.max_tasks) == (1, 4, 0, 9)
    assert (str(found.order), found.burst) == ("mail=2,default=1", True)


def test_every_option_says_its_setting_and_default() -> None:
    text = " ".join(Command().create_parser("manage.py", "taskworker").format_help().split())
    known = arguments("taskworker")
    assert {"--queues", "--processes", "--health-port"} <= set(known)
    assert all(option in text for option in known)
    assert text.count("Default:") == len(known)
    for name in ("PROCESSES", "THREADS", "GRACE", "HEALTH_PORT", "HEALTH_HOST", "HEALTH_FILE"):
        assert f"Default: TASKQ['{name}'], or else" in text


def test_the_banner_fits_a_terminal(settings: Any) -> None:
    worker = Worker(hostname="a-host-with-quite-a-long-name.example.org", pid=4711)
    settings.TASKQ = {"QUEUES": [f"queue-{number}" for number in range(20)]}
    for found in (options(), options(queues="default"), options(queues="default=3,queue-1=2")):
        lines = banner.for_terminal(worker, found).splitlines()
        assert len(lines) == 6
        assert max(map(len, lines)) < 80
        assert __version__ in lines[0]
        assert str(worker) in lines[0]
        assert "Ctrl+C to stop" in lines[-1]


def test_the_line_for_logs(settings: Any) -> None:
    line = banner.for_log(Worker(hostname="box", pid=4711), options(processes=2))
    assert line.startswith(f"taskworker ready: box:4711 version={__version__} queues=default processes=2 threads=1 ")
    assert "\n" not in line


def test_warnings(settings: Any, monkeypatch: pytest.MonkeyPatch, own_tasks: None) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    task(name="quick")(lambda: None)
    assert list(banner.warnings(options(threads=2))) == []
    settings.DEBUG = True
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    task(name="slow", time_limit=5)(lambda: None)
    debug, root, limits = banner.warnings(options(threads=2))
    assert debug.startswith("DEBUG is on")
    assert root.startswith("running as root")
    assert limits == (
        "time_limit is set, but a run past it is not killed where a process has several slots: the process is "
        "replaced without it: slow. Use --threads 1 and more --processes where a run that hangs must be ended."
    )
    assert len(list(banner.warnings(options(threads=1)))) == 2


def test_warning_of_no_tasks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("django_taskq.registry._tasks", {})
    assert any(text.startswith("no tasks found: put functions with @task into") for text in banner.warnings(options()))


def test_a_reader_that_went_away_stops_nothing() -> None:
    class Closed(StringIO):
        def write(self, text: str) -> int:
            raise BrokenPipeError

    command = Command(stdout=Closed(), stderr=Closed())
    command._announcer(options(), verbosity=1)(Worker(hostname="box", pid=1))


@pytest.mark.database
@pytest.mark.django_db(transaction=True)
class TestRealWorkers:
    def test_ready_is_one_line_and_means_it(self, worker: Start) -> None:
        process = worker("--processes", "1", "--no-color")
        line = re.search(r"^taskworker ready: \S+:(\d+) .*$", process.log(), re.MULTILINE)
        assert line
        assert int(line[1]) == process.pid
        assert process.children()
        assert "Ctrl+C" not in process.log()
        process.terminate()
        assert process.wait() == 0

    def test_quiet(self, worker: Start) -> None:
        add.enqueue(1, 2)
        process = worker("--burst", "--processes", "1", "--verbosity", "0", ready=False)
        assert process.wait() == 0
        assert "ready" not in process.log()
        assert "warning" not in process.log()
        assert TaskRecord.objects.get().status == "SUCCESSFUL"

    def test_forced_stop(self, worker: Start) -> None:
        nap.enqueue(60)
        process = worker("--processes", "1")
        wait_for(lambda: TaskRecord.objects.filter(started_at__isnull=False).exists(), message=process.log)
        process.terminate()
        # The supervisor hears signals once a round, and two in one round count as one.
        heard_by = time.monotonic() + 5 * supervisor.TICK
        wait_for(lambda: time.monotonic() > heard_by)
        process.terminate()
        assert process.wait() == 4
        assert TaskRecord.objects.get().status == "READY"

    def test_max_tasks(self, worker: Start) -> None:
        for _ in range(3):
            add.enqueue(1, 2)
        process = worker("--max-tasks", "2", "--processes", "1", ready=False)
        assert process.wait() == 0
        assert sorted(TaskRecord.objects.values_list("status", flat=True)) == ["READY", "SUCCESSFUL", "SUCCESSFUL"]

    def test_on_a_terminal(self, worker_env: dict[str, str]) -> None:
        ours, theirs = pty.openpty()
        command = [sys.executable, "-m", "django", "taskworker", "--burst", "--processes", "1", "--no-color"]
        with subprocess.Popen(
            command, env=worker_env, stdin=subprocess.DEVNULL, stdout=theirs, stderr=subprocess.DEVNULL
        ) as process:
            os.close(theirs)
            text = _read_all(ours)
        assert process.returncode == 0
        lines = text.splitlines()
        assert len(lines) == 6
        assert re.fullmatch(rf"django_taskq {re.escape(__version__)}, worker \S+:{process.pid}", lines[0])
        assert [line.split()[0] for line in lines[1:5]] == ["database", "queues", "runs", "tasks"]
        assert lines[5] == "Ctrl+C to stop."


def test_a_new_project(project: Project) -> None:
    """The settings that startproject writes are not the best ones for SQLite, and the worker says where to look."""
    assert project.manage("migrate", "-v0").returncode == 0
    done = project.manage("taskq", "run", "shop.tasks.add", "--args", "[2, 3]")
    assert done.returncode == 0
    done = project.manage("taskworker", "--burst", "--processes", "1")
    assert done.returncode == 0
    assert done.stdout.startswith("taskworker ready: ")
    assert done.stdout.count("\n") == 1
    assert "warning: settings to look at (W001, W002, W003): python manage.py check --tag django_taskq" in done.stderr


def _read_all(descriptor: int) -> str:
    """Everything written to a terminal until its last user has closed it, which Linux reports as an error."""
    chunks = []
    while True:
        try:
            chunks.append(os.read(descriptor, 4096))
        except OSError:
            os.close(descriptor)
            return b"".join(chunks).decode()
