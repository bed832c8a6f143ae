"""``taskworker --reload`` and ``--runserver``: a project of its own, edited while it runs. Real processes."""

from __future__ import annotations

import os
import re
import signal
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping
from io import BytesIO
from pathlib import Path
from typing import Any
from urllib.error import URLError
from urllib.request import urlopen

import pytest
from django.core.management.base import CommandError

from django_taskq.management import development
from tests.commands.conftest import Project
from tests.conftest import ROOT
from tests.waiting import wait_for
from tests.workers import WorkerProcess

TASK = """
from django_taskq import task

@task
def say():
    print("this is", {word!r})

@task
def nap(seconds):
    import time
    time.sleep(seconds)
"""
SETTINGS = """
DEBUG = True
ALLOWED_HOSTS = ["*"]
ROOT_URLCONF = "shop.urls"
DATABASES["default"]["OPTIONS"] = {
    "transaction_mode": "IMMEDIATE", "timeout": 20, "init_command": "PRAGMA journal_mode=WAL",
}
"""
URLS = """
from django.http import HttpResponse
from django.urls import path

urlpatterns = [path("", lambda request: HttpResponse({word!r}))]
"""
READY = r"taskworker ready: "


class Terminal(WorkerProcess):
    """``manage.py taskworker`` in a project, and what it has shown so far."""

    def __init__(self, project: Project, *arguments: str) -> None:
        self.project = project
        inherited = {name: value for name, value in os.environ.items() if not name.startswith(("TASKQ_", "DJANGO_"))}
        environment = {
            **inherited,
            "PYTHONPATH": os.pathsep.join([str(project.directory), str(ROOT)]),
            "PYTHONDONTWRITEBYTECODE": "1",  # a file that is edited twice in a second has the same time twice
            "DJANGO_SETTINGS_MODULE": "settings",
        }
        super().__init__(("--processes", "1", *arguments), environment, project.directory / "terminal.log")

    def wait_for(self, pattern: str, count: int = 1) -> None:
        def shown() -> bool:
            assert self.returncode is None, self.log()
            return len(re.findall(pattern, self.log(), re.MULTILINE)) >= count

        wait_for(shown, 60, lambda: f"{count} times {pattern!r} in\n{self.log()}")

    def enqueue(self, *arguments: str) -> None:
        done = self.project.manage("taskq", "run", *arguments)
        assert done.returncode == 0, done.stderr

    def write(self, path: str, text: str) -> None:
        """A change that is seen, whatever the resolution of the file system's clock."""
        file = self.project.directory / path
        before = file.stat().st_mtime if file.exists() else 0.0
        file.write_text(text)
        if file.stat().st_mtime <= before:
            os.utime(file, (before + 1, before + 1))

    def press_ctrl_c(self) -> None:
        """What a terminal does: SIGINT for every process of the group."""
        os.killpg(self.pid, signal.SIGINT)

    def wait_until_gone(self) -> None:
        wait_for(lambda: not self.tree(), 20, lambda: f"the end of {self.tree()}; its log:\n{self.log()}")


Open = Callable[..., Terminal]


@pytest.fixture
def terminal(project: Project) -> Iterator[Open]:
    project.settings(SETTINGS)
    project.write("shop/tasks.py", TASK.format(word="old"))
    project.write("shop/urls.py", URLS.format(word="old page"))
    assert project.manage("migrate", "-v0").returncode == 0
    opened: list[Terminal] = []

    def start(*arguments: str) -> Terminal:
        opened.append(Terminal(project, *arguments))
        return opened[-1]

    yield start
    for each in opened:
        each.kill_tree()


def test_changed_code_runs(terminal: Open) -> None:
    """From one version over one that does not import to the next, in one command without orphans."""
    shown = terminal("--reload")
    shown.wait_for(READY)
    shown.enqueue("shop.tasks.say")
    shown.wait_for("^this is old$")

    shown.write("shop/tasks.py", "def broken(:\n")
    shown.wait_for("SyntaxError")
    shown.wait_for(r"^taskworker: worker has ended with 1; it starts again when a file has changed$")

    shown.write("shop/tasks.py", TASK.format(word="new"))
    shown.wait_for(READY, 2)
    shown.enqueue("shop.tasks.say")
    shown.wait_for("^this is new$")

    shown.press_ctrl_c()
    assert shown.wait() == 0
    shown.wait_until_gone()
    assert "KeyboardInterrupt" not in shown.log()


@pytest.mark.parametrize(
    ("option", "mark"), [("--reload", ""), ("--runserver=0", r"\[worker\] ")], ids=["reload", "runserver"]
)
def test_a_first_start_that_cannot_import(terminal: Open, project: Project, option: str, mark: str) -> None:
    project.write("shop/tasks.py", "def broken(:\n")
    shown = terminal(option)
    shown.wait_for("SyntaxError: invalid syntax")
    shown.wait_for("^taskworker: the project cannot be loaded; it is tried again when a file has changed")
    shown.write("shop/tasks.py", "from shop.missing import nothing\n")
    shown.wait_for("No module named 'shop.missing'")

    shown.write("shop/missing.py", "nothing = 0\n")
    shown.wait_for(f"^{mark}{READY}")
    shown.write("shop/tasks.py", TASK.format(word="mended"))
    shown.wait_for(f"^{mark}{READY}", 2)
    shown.enqueue("shop.tasks.say")
    shown.wait_for(f"^{mark}this is mended$")
    shown.press_ctrl_c()
    assert shown.wait() == 0
    shown.wait_until_gone()


@pytest.mark.parametrize("stop", ["press_ctrl_c", "terminate"])
def test_the_wait_for_a_mend_is_ended(terminal: Open, project: Project, stop: str) -> None:
    project.write("shop/tasks.py", "def broken(:\n")
    shown = terminal("--reload")
    shown.wait_for("^taskworker: the project cannot be loaded")
    getattr(shown, stop)()
    assert shown.wait() == 1
    assert "KeyboardInterrupt" not in shown.log()


def test_without_reload_an_import_that_fails_ends_it(terminal: Open, project: Project) -> None:
    project.write("shop/tasks.py", "def broken(:\n")
    shown = terminal()
    assert shown.wait() == 1
    assert "cannot be loaded" not in shown.log()


def test_new_files_and_new_apps(terminal: Open) -> None:
    shown = terminal("--reload")
    shown.wait_for(READY)
    shown.write("shop/fresh.py", "")
    shown.wait_for("^taskworker: fresh.py changed: starting again$")
    shown.wait_for(READY, 2)

    # As startapp does it: nothing that this command has loaded knows the app.
    (shown.project.directory / "stock").mkdir()
    shown.project.write("stock/__init__.py", "")
    shown.project.write("stock/apps.py", "")
    shown.project.write("stock/tasks.py", TASK.format(word="stock"))
    shown.wait_for(READY, 3)
    settings = (shown.project.directory / "settings.py").read_text()
    shown.write("settings.py", f"{settings}\nINSTALLED_APPS += ['stock']\n")
    shown.wait_for(r"^taskworker: settings.py changed")
    shown.wait_for(READY, 4)
    shown.enqueue("stock.tasks.say")
    shown.wait_for("^this is stock$")

    shown.write("stock/tasks.py", TASK.format(word="new stock"))
    shown.wait_for(READY, 5)
    shown.enqueue("stock.tasks.say")
    shown.wait_for("^this is new stock$")


def test_what_runs_is_cut_short_and_runs_again(terminal: Open) -> None:
    shown = terminal("--reload", "--grace", "0.1")
    shown.wait_for(READY)
    shown.enqueue("shop.tasks.nap", "--args", "[60]")
    running = "from django_taskq.models import TaskRecord as R; import sys; sys.exit(not R.objects.filter({}))"
    check = "status='RUNNING', started_at__isnull=False"
    wait_for(lambda: not shown.project.manage("shell", "-c", running.format(check)).returncode, 30, shown.log)
    shown.write("shop/tasks.py", TASK.format(word="new").replace("sleep(seconds)", "sleep(seconds / 600)"))
    shown.wait_for(r"shop\.tasks\.nap \S+ ok .*attempt 1")


def test_no_orphans_of_a_command_that_is_killed(terminal: Open) -> None:
    shown = terminal("--reload")
    shown.wait_for(READY)
    assert len(shown.tree()) > 2
    shown.kill()
    shown.wait_until_gone()


def test_server_and_worker_in_one_terminal(terminal: Open) -> None:
    port = free_port()
    shown = terminal("--runserver", str(port))
    shown.wait_for(rf"^\[worker\] {READY}")
    assert wait_for(lambda: page(port), 60, shown.log) == "old page"
    shown.wait_for(r"^\[web\] .*GET / HTTP")
    shown.enqueue("shop.tasks.say")
    shown.wait_for(r"^\[worker\] this is old$")

    shown.write("shop/urls.py", URLS.format(word="new page"))
    shown.write("shop/tasks.py", TASK.format(word="new"))
    wait_for(lambda: page(port) == "new page", 60, shown.log)
    shown.wait_for(rf"^\[worker\] {READY}", 2)
    shown.enqueue("shop.tasks.say")
    shown.wait_for(r"^\[worker\] this is new$")

    shown.press_ctrl_c()
    assert shown.wait() == 0
    shown.wait_until_gone()
    assert "KeyboardInterrupt" not in shown.log()
    assert not [line for line in shown.log().splitlines() if not re.match(r"\[web\] |\[worker\] |taskworker: ", line)]


GIVEN = {"reload": False, "runserver": None, "burst": False, "max_tasks": None}


@pytest.mark.parametrize(
    ("given", "why"),
    [
        ({"reload": True, "burst": True}, "argument --reload: not together with --burst"),
        ({"reload": True, "max_tasks": 3}, "argument --reload: not together with --max-tasks"),
        ({"runserver": "", "burst": True}, "argument --runserver: not together with --burst"),
        ({"runserver": "nonsense:port"}, "argument --runserver: 'nonsense:port' is no port and no address:port"),
    ],
    ids=["reload-burst", "reload-max-tasks", "runserver-burst", "address"],
)
def test_refusals(settings: Any, given: Mapping[str, Any], why: str) -> None:
    settings.DEBUG = True
    with pytest.raises(CommandError, match=re.escape(why)) as caught:
        development.is_asked_for(GIVEN | given)
    assert caught.value.returncode == 2


def test_no_development_server_in_production(settings: Any) -> None:
    settings.DEBUG = False
    with pytest.raises(CommandError, match="it is for development, and DEBUG is off"):
        development.is_asked_for(GIVEN | {"runserver": "8000"})


@pytest.mark.parametrize("address", ["", "8001", "0.0.0.0:8001", "[::1]:8001", "localhost:8001"])
def test_addresses(settings: Any, address: str) -> None:
    settings.DEBUG = True
    assert development.is_asked_for(GIVEN | {"runserver": address})
    assert not development.is_asked_for(GIVEN)


def test_whole_lines_with_a_mark(monkeypatch: pytest.MonkeyPatch) -> None:
    shown = BytesIO()
    monkeypatch.setattr(development, "_write_all", lambda fileno, data: shown.write(data))
    terminal = development.Terminal()
    with Path(os.devnull).open("w") as nowhere:
        monkeypatch.setattr(sys, "stdout", nowhere)
        terminal.write("[a] ", b"one\ntwo\rthree\n(Pdb) ")
        terminal.write("[a] ", b"next\n(Pdb) ")
        terminal.write("[b] ", b"interrupts\n")
        terminal.say("done")
        monkeypatch.undo()
    assert shown.getvalue().decode() == (
        "[a] one\n[a] two\rthree\n[a] (Pdb) next\n[a] (Pdb) \n[b] interrupts\ntaskworker: done\n"
    )


def test_a_prompt_is_passed_on_without_a_line_end() -> None:
    seen: list[bytes] = []

    class Seen(development.Terminal):
        def write(self, mark: str, data: bytes) -> None:
            seen.append(data)
            if data == b"(Pdb) ":
                answered.stdin.write(b"c\n")  # type: ignore[union-attr]
                answered.stdin.close()  # type: ignore[union-attr]

    code = "print('one'); print('(Pdb) ', end='', flush=True); print(input())"
    with subprocess.Popen([sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as answered:
        assert answered.stdout is not None
        development.pass_on(Seen(), "", answered.stdout)
    assert seen == [b"one\n", b"(Pdb) ", b"c\n"]


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def page(port: int) -> str:
    try:
        with urlopen(f"http://127.0.0.1:{port}/", timeout=5) as answer:
            return str(answer.read().decode())
    except (URLError, OSError):
        return ""
