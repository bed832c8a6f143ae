"""What a new user types, from start to end."""

from __future__ import annotations

import os
import re
import signal
import socket
import sqlite3
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from urllib.request import urlopen

import pytest

from tests.example.conftest import PROJECT
from tests.waiting import wait_for

Manage = Callable[..., subprocess.CompletedProcess[str]]


def test_models_and_migrations_agree(manage: Manage) -> None:
    ran = manage("makemigrations", "--check", "--dry-run")
    assert ran.returncode == 0, ran.stdout + ran.stderr


def test_demo_prints_every_voter_once_and_can_be_repeated(manage: Manage, tmp_path: Path) -> None:
    for _ in range(2):
        ran = manage("demo", "--voters", "1500", "--centres", "4")
        assert ran.returncode == 0, ran.stdout + ran.stderr
        assert "each of 1,500 voters stands on exactly one list" in ran.stdout
        assert "1,500/1,500 voters" in ran.stdout
        assert "\r" not in ran.stdout
        assert re.search(r"Took +\d+\.\d s", ran.stdout)
    lists = list((tmp_path / "output" / "lists").glob("*.pdf"))
    assert f"{len(lists)}/{len(lists)} lists" in ran.stdout
    assert workers_using(tmp_path) == []


def test_demo_fails_when_a_list_cannot_be_printed(manage: Manage, project_env: dict[str, str], tmp_path: Path) -> None:
    blocked = tmp_path / "no-font"
    blocked.mkdir()
    # A module that is found before the real one: printing fails, and nothing else does.
    (blocked / "sitecustomize.py").write_text(
        "from reportlab.pdfgen.canvas import Canvas\n"
        "def save(self): raise OSError('the printer is on fire')\n"
        "Canvas.save = save\n"
    )
    project_env["PYTHONPATH"] = f"{blocked}{os.pathsep}{project_env['PYTHONPATH']}"
    ran = manage("demo", "--voters", "300", "--centres", "2")
    assert ran.returncode == 1, ran.stdout + ran.stderr
    assert "polling.tasks.print_list failed" in ran.stderr
    assert "the printer is on fire" in ran.stderr
    assert workers_using(tmp_path) == []


def test_demo_says_what_is_wrong_with_its_arguments(manage: Manage) -> None:
    ran = manage("demo", "--voters", "3", "--centres", "4")
    assert ran.returncode == 1
    assert ran.stderr == "CommandError: 3 voters cannot fill 4 centres: each has at least one voter.\n"


@pytest.mark.parametrize("ending", [signal.SIGINT, signal.SIGTERM])
def test_demo_admin_shows_every_kind_and_leaves_nothing_running(
    ending: signal.Signals, project_env: dict[str, str], tmp_path: Path
) -> None:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    log = tmp_path / "demo_admin.log"
    with log.open("wb") as output:
        process = subprocess.Popen(
            [sys.executable, str(PROJECT / "manage.py"), "demo_admin", "--port", str(port)],
            env=project_env,
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
    try:
        wait_for(lambda: "Ctrl-C" in log.read_text() or process.poll() is not None, 60, log.read_text)
        assert f"http://127.0.0.1:{port}/admin/  log in as demo with the password demo" in log.read_text()
        with urlopen(f"http://127.0.0.1:{port}/admin/") as page:
            assert b"password" in page.read()
        wanted = {
            ("count_ballots", "SUCCESSFUL", 1),
            ("count_ballots", "FAILED", 1),
            ("watch_turnout", "RUNNING", 1),
            ("fetch_results", "SCHEDULED", 2),
            ("close_polls", "SCHEDULED", 1),
        }
        wait_for(lambda: runs_of_showcase(tmp_path) == wanted, 20, lambda: repr(runs_of_showcase(tmp_path)))
        (link,) = {
            m
            for mail in (tmp_path / "output" / "mail").iterdir()
            for m in re.findall(r"http://\S+?/accounts", mail.read_text())
        }
        assert link == f"http://127.0.0.1:{port}/accounts"
        process.send_signal(ending)
        assert process.wait(60) == 0, log.read_text()
    finally:
        process.kill()
        process.wait()
    assert workers_using(tmp_path) == []


def runs_of_showcase(directory: Path) -> set[tuple[str, str, int]]:
    """Task, status and attempt of the runs that are there to be looked at."""
    with sqlite3.connect(directory / "db.sqlite3", timeout=20) as connection:
        rows = connection.execute(
            "SELECT name, status, attempt FROM taskq_task WHERE name LIKE 'showcase.%'"
        ).fetchall()
    connection.close()
    return {(name.rpartition(".")[2], status, attempt) for name, status, attempt in rows}


def workers_using(directory: Path) -> list[int]:
    """The processes that were started for this directory's database and live."""
    mark = f"DATABASE_URL=sqlite:///{directory}/db.sqlite3".encode()
    return [int(entry.name) for entry in Path("/proc").glob("[0-9]*") if mark in _environment(entry).split(b"\0")]


def _environment(entry: Path) -> bytes:
    try:
        return (entry / "environ").read_bytes()
    except OSError:
        return b""
