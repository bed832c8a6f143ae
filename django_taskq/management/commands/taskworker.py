"""``manage.py taskworker``: run tasks until told to stop.

Exit codes: 0 stopped in order, 1 runtime error, 2 wrong usage or settings, 3 database out of reach, 4 stopped by force
with runs cut short.
"""

from __future__ import annotations

import argparse
import math
import os
from collections.abc import Callable, Sequence
from typing import Any

from django.conf import Settings, UserSettingsHolder
from django.conf import settings as django_settings
from django.core.management.base import BaseCommand, CommandError, CommandParser
from django.db.utils import InterfaceError, OperationalError

from django_taskq import client, conf
from django_taskq.management import banner, brokers, starting, storage
from django_taskq.management.brokers import Report
from django_taskq.models import Worker
from django_taskq.worker import log
from django_taskq.worker.fetcher import QueueOrder
from django_taskq.worker.supervisor import Supervisor, WorkerOptions

# Said by banner.warnings for the number of threads that is really used.
SAID_ELSEWHERE = "django_taskq.W005"


class Command(BaseCommand):
    """Composes settings, options and checks into a :class:`Supervisor`, and its end into an exit code."""

    help = "Run background tasks until told to stop (Ctrl+C: finish what runs; twice: stop at once)."
    # Only this app's own are run, in handle(): a worker serves no URLs and renders no templates.
    requires_system_checks = []

    def add_arguments(self, parser: CommandParser) -> None:
        defaults = conf.Settings()
        parser.add_argument(
            "--queues",
            help="Queues to serve: 'a,b' in strict order, 'a=3,b=1' by weight. Default: all known queues in rotation.",
        )
        parser.add_argument(
            "--processes",
            type=_whole_number,
            help="Worker processes. Default: TASKQ['PROCESSES'], or else one for each processor.",
        )
        parser.add_argument(
            "--threads",
            type=_whole_number,
            help=f"Threads in each process. Default: TASKQ['THREADS'], or else {defaults.threads}.",
        )
        parser.add_argument(
            "--burst", action="store_true", help="Stop when nothing is left that could run now. Default: go on waiting."
        )
        parser.add_argument(
            "--max-tasks", type=_whole_number, help="Stop after so many runs. Default: there is no such limit."
        )
        parser.add_argument(
            "--grace",
            type=_seconds,
            help="Seconds that running tasks may take to finish when the worker is stopped. "
            f"Default: TASKQ['GRACE'], or else {defaults.grace:g}.",
        )
        parser.add_argument(
            "--no-scheduler",
            action="store_true",
            help="Leave the schedules to other workers or to taskbeat. Default: every worker can run them.",
        )

    def handle(self, *args: Any, **given: Any) -> None:
        verbosity: int = given["verbosity"]
        self._check_settings_module()
        settings = storage.check_settings()
        warn = self._warn if verbosity else lambda text: None
        starting.check_system(warn, SAID_ELSEWHERE)
        options = worker_options(settings, given)
        if verbosity:
            log.configure_for_terminal()
        log.connect(in_worker=True)
        reports: list[Report] = []
        supervisor = Supervisor(options, on_ready=self._announcer(options, verbosity, reports))
        starting.check_database(settings.database, self._warn)
        reports += brokers.check(options.order.names, warn)
        try:
            code = supervisor.run()
        except (OperationalError, InterfaceError) as error:
            raise storage.unreachable(error, settings.database) from error
        if code:
            raise SystemExit(code)

    def _check_settings_module(self) -> None:
        if not os.environ.get("DJANGO_SETTINGS_MODULE") or not _come_from_a_module():
            raise CommandError(
                "the settings were made with settings.configure(), and worker processes load theirs from a module by "
                "name. Put them into a module and name it in DJANGO_SETTINGS_MODULE or with --settings.",
                returncode=storage.USAGE_EXIT,
            )

    def _announcer(
        self, options: WorkerOptions, verbosity: int, reports: Sequence[Report] = ()
    ) -> Callable[[Worker], None]:
        def announce(worker: Worker) -> None:
            describe = banner.for_terminal if self.stdout.isatty() else banner.for_log
            try:
                for text in banner.warnings(options):
                    self._warn(text)
                self.stdout.write(describe(worker, options, reports))
                self.stdout.flush()
            except OSError:
                pass  # nobody reads it any more, which is no reason to stop

        return announce if verbosity else lambda worker: None

    def _warn(self, text: str) -> None:
        self.stderr.write(f"warning: {text}", self.style.WARNING)


def worker_options(settings: conf.Settings, given: dict[str, Any]) -> WorkerOptions:
    """The command line over the settings. Raises ``CommandError`` for queues that nobody knows."""
    try:
        order = QueueOrder.parse(given["queues"], sorted(client.known_queues()))
    except ValueError as error:
        raise CommandError(f"argument --queues: {error}", returncode=storage.USAGE_EXIT) from error
    return WorkerOptions(
        order,
        given["processes"] or settings.processes,
        given["threads"] or settings.threads,
        settings.grace if given["grace"] is None else given["grace"],
        given["burst"],
        given["max_tasks"],
        shows_runs=given.get("verbosity", 1) > 0,
        has_scheduler=not given.get("no_scheduler", False),
    )


def _come_from_a_module() -> bool:
    """``override_settings`` and ``configure`` both put a holder around what was there before."""
    lazy: Any = django_settings
    holder = lazy._wrapped
    while isinstance(holder, UserSettingsHolder):
        holder = holder.default_settings
    return isinstance(holder, Settings)


def _whole_number(text: str) -> int:
    try:
        value = int(text)
    except ValueError:
        value = 0
    if value < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is not usable: it takes a whole number of at least 1")
    return value


def _seconds(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = -1.0
    if not 0 <= value < math.inf:
        raise argparse.ArgumentTypeError(f"{text!r} is not usable: it takes a number of seconds of at least 0")
    return value
