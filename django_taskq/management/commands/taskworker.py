"""``manage.py taskworker``: run tasks until told to stop.

Exit codes: 0 stopped in order, 1 runtime error, 2 wrong usage or settings, 3 database out of reach, 4 stopped by force
with runs cut short.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Sequence
from typing import Any

from django.conf import Settings, UserSettingsHolder
from django.conf import settings as django_settings
from django.core.management.base import BaseCommand, CommandError, CommandParser
from django.db.utils import InterfaceError, OperationalError

from django_taskq.conf_workers import SOLO
from django_taskq.exceptions import HookFailed
from django_taskq.management import banner, brokers, development, leash, starting, storage, worker_arguments
from django_taskq.management.brokers import Report
from django_taskq.models import Worker
from django_taskq.worker import log
from django_taskq.worker.health.station import CannotListen
from django_taskq.worker.options import WorkerOptions
from django_taskq.worker.solo import SoloSupervisor
from django_taskq.worker.supervisor import Supervisor

logger = logging.getLogger("django_taskq")

# Said by banner.warnings for the number of threads that is really used.
SAID_ELSEWHERE = "django_taskq.W005"


class Command(BaseCommand):
    """Composes settings, options and checks into a :class:`Supervisor`, and its end into an exit code."""

    help = "Run background tasks until told to stop (Ctrl+C: finish what runs; twice: stop at once)."
    # Only this app's own are run, in handle(): a worker serves no URLs and renders no templates.
    requires_system_checks = []
    # Whether what it says goes to the log: one of JSON has no other lines in it.
    _logs = False

    def add_arguments(self, parser: CommandParser) -> None:
        worker_arguments.add_to(parser)

    def handle(self, *args: Any, **given: Any) -> None:
        role = leash.taken()
        self._check_settings_module()
        if role is None and development.is_asked_for(given):
            code = development.run(given)
        elif role is not None and role.role == leash.SERVER:
            role.follow()
            code = development.serve(given)
        else:
            if role is not None and given["grace"] is None:
                given["grace"] = development.GRACE
            code = self._run_worker(given, role)
        if code:
            raise SystemExit(code)

    def _run_worker(self, given: dict[str, Any], role: leash.Leash | None) -> int:
        verbosity: int = given["verbosity"]
        settings = storage.check_settings()
        if verbosity:
            log_format = given.get("log_format") or settings.log_format
            self._logs = log.configure_for_terminal(log_format) and log_format == "json"
        log.connect(in_worker=True)
        warn = self._warn if verbosity else lambda text: None
        starting.check_system(warn, SAID_ELSEWHERE)
        options = worker_arguments.parse(settings, given)
        reports: list[Report] = []
        kind = SoloSupervisor if options.pool == SOLO else Supervisor
        supervisor = kind(options, on_ready=self._announcer(options, verbosity, reports))
        if role is not None:
            role.follow()  # now that nobody counts our threads any more
        starting.check_database(settings.database, self._warn)
        reports += brokers.check(options.order.names, warn)
        try:
            return supervisor.run()
        except HookFailed as error:
            raise CommandError(str(error), returncode=storage.RUNTIME_EXIT) from error
        except (OperationalError, InterfaceError) as error:
            raise storage.unreachable(error, settings.database) from error
        except CannotListen as error:
            raise CommandError(str(error), returncode=storage.RUNTIME_EXIT) from error

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
                if self._logs:
                    logger.info(banner.for_log(worker, options, reports))
                    return
                self.stdout.write(describe(worker, options, reports))
                self.stdout.flush()
            except OSError:
                pass  # nobody reads it any more, which is no reason to stop

        return announce if verbosity else lambda worker: None

    def _warn(self, text: str) -> None:
        if self._logs:
            logger.warning("%s", text)
        else:
            self.stderr.write(f"warning: {text}", self.style.WARNING)


def _come_from_a_module() -> bool:
    """``override_settings`` and ``configure`` both put a holder around what was there before."""
    lazy: Any = django_settings
    holder = lazy._wrapped
    while isinstance(holder, UserSettingsHolder):
        holder = holder.default_settings
    return isinstance(holder, Settings)
