"""``manage.py demo_admin``: a web server and a worker, with something of every kind to look at in the admin."""

from __future__ import annotations

import time
from argparse import ArgumentParser
from datetime import timedelta
from pathlib import Path
from subprocess import Popen
from typing import Any
from urllib.error import URLError
from urllib.request import urlopen

from accounts.tasks import send_password_reset
from django.conf import settings
from django.contrib.auth.hashers import make_password
from django.contrib.auth.models import User
from django.core.management import BaseCommand, CommandError, call_command
from django.utils import timezone
from election.processes import manage, stop_on_signals, tail
from polling import generator
from polling.clearing import clear
from polling.models import Centre
from polling.tasks import assign_centre, load_voters

from django_taskq.models import TaskRecord
from showcase import tasks

NAME = PASSWORD = "demo"
START_TIMEOUT = 30  # seconds


class Command(BaseCommand):
    help = "Run server and worker, with finished, running, retrying, scheduled and failed work to look at."

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument("--port", type=int, default=8000)

    def handle(self, *, port: int, **options: Any) -> None:
        stop_on_signals()
        call_command("migrate", verbosity=0)
        clear()
        TaskRecord.objects.filter(name__startswith="showcase.").cancel()
        make_users()
        logs = [settings.OUTPUT_DIR / "server.log", settings.OUTPUT_DIR / "worker.log"]
        site = f"http://127.0.0.1:{port}"
        address = f"{site}/admin/"
        # Two processes, so that one is left over while the other runs the task that does not end.
        with (
            manage("runserver", "--noreload", str(port), log=logs[0]) as server,
            manage("taskworker", "--processes", "2", "--grace", "2", log=logs[1], SITE_URL=site) as worker,
        ):
            processes = dict(zip(logs, (server, worker), strict=True))
            try:
                wait_for_server(address, processes)
                enqueue_some_of_each()
                self.stdout.write(f"The admin is at {address}  log in as {NAME} with the password {PASSWORD}")
                self.stdout.write(f"E-mails and logs go to {settings.OUTPUT_DIR}. Ctrl-C stops server and worker.")
                while True:
                    check(processes)
                    time.sleep(0.5)
            except KeyboardInterrupt:
                self.stdout.write("\nStopping server and worker ...")


def make_users() -> None:
    """The one to log in as, and some to send e-mails to."""
    administrator, _ = User.objects.get_or_create(username=NAME, defaults={"email": "demo@example.com"})
    administrator.is_staff = administrator.is_superuser = administrator.is_active = True
    administrator.set_password(PASSWORD)
    administrator.save()
    password = make_password(None)  # nobody can log in with it
    names = [f"clerk{number:02}" for number in range(1, 21)]
    User.objects.bulk_create(
        (User(username=name, email=f"{name}@example.com", password=password) for name in names), ignore_conflicts=True
    )


def enqueue_some_of_each() -> None:
    """Work that will be finished, running, retrying, scheduled and failed."""
    register = settings.OUTPUT_DIR / "voters.csv"
    generator.generate(register, voters=2500, centres=4, seed=2026)
    load_voters.enqueue(register).get(timeout=60)
    assign_centre.enqueue_many(((pk,), {}) for pk in Centre.objects.values_list("pk", flat=True))
    for user in User.objects.filter(username__startswith="clerk")[:3]:
        send_password_reset.enqueue(user.pk)

    tasks.watch_turnout.using(priority=10).enqueue(minutes=600)
    tasks.fetch_results.enqueue("results.example.com")
    tasks.close_polls.using(run_after=timezone.now() + timedelta(days=1)).enqueue("Ruritania")
    tasks.count_ballots.enqueue(1000, found=[400, 350])
    tasks.count_ballots.enqueue(1000, found=[700, 350])


def wait_for_server(address: str, processes: dict[Path, Popen[bytes]]) -> None:
    """Return once the server answers."""
    deadline = time.monotonic() + START_TIMEOUT
    while time.monotonic() < deadline:
        check(processes)
        try:
            urlopen(address, timeout=5).close()
            return
        except URLError:
            time.sleep(0.1)
    raise CommandError(f"The server did not answer within {START_TIMEOUT} s.")


def check(processes: dict[Path, Popen[bytes]]) -> None:
    """Raise ``CommandError``, with the end of its log, when one of the two has ended."""
    for log, process in processes.items():
        if process.poll() is not None:
            raise CommandError(f"{log.stem} ended with exit code {process.returncode}:\n{tail(log)}")
