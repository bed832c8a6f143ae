"""``manage.py taskbeat``: run the schedules alone, without running tasks. Any number may run, beside workers too.

Exit codes: 0 stopped in order, 1 runtime error, 2 wrong usage or settings, 3 database out of reach.
"""

from __future__ import annotations

import logging
import os
import signal
import socket
import time
from typing import Any

from django.core.management.base import BaseCommand, CommandError
from django.db.utils import InterfaceError, OperationalError

from django_taskq import __version__, registry, scheduler
from django_taskq.management import starting, storage
from django_taskq.worker import log
from django_taskq.worker.scheduling import Scheduling

logger = logging.getLogger("django_taskq")

STOP_SIGNALS = {signal.SIGTERM, signal.SIGINT}
STOP_SECONDS = 5.0


class Command(BaseCommand):
    """Keeps one :class:`Scheduling` going until SIGTERM or Ctrl+C."""

    help = (
        "Run the schedules without running tasks, until told to stop. Workers do so too: it is for hosts without one."
    )
    # Only this app's own are run, in handle().
    requires_system_checks = []

    def handle(self, *args: Any, **options: Any) -> None:
        verbosity: int = options["verbosity"]
        settings = storage.check_settings()
        starting.check_system(self._warn if verbosity else lambda text: None)
        if verbosity:
            log.configure_for_terminal(settings.log_format)
        log.connect(in_worker=True)
        starting.check_database(settings.database, self._warn)
        service = Scheduling()
        try:
            # Here, so that what cannot work at all is said before it is called ready.
            service.work()
            ready = self._ready_line()
        except (OperationalError, InterfaceError) as error:
            raise storage.unreachable(error, settings.database) from error
        except KeyboardInterrupt:
            raise CommandError("stopped before it was ready", returncode=storage.RUNTIME_EXIT) from None
        finally:
            storage.let_go(settings.database)
        # Blocked in every thread and fetched in this one: no handler runs in the middle of anything.
        before = signal.pthread_sigmask(signal.SIG_BLOCK, STOP_SIGNALS)
        service.start()
        if verbosity:
            self._announce(ready)
        signal.sigwait(STOP_SIGNALS)
        # A second one ends it at once, which loses nothing: what was begun is rolled back and another decides it.
        for number in STOP_SIGNALS:
            signal.signal(number, signal.SIG_DFL)
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
        self._stop(service, settings.database)

    def _stop(self, service: Scheduling, alias: str) -> None:
        if not service.stop(time.monotonic() + STOP_SECONDS):
            logger.warning("the scheduler did not end within %g s; its lease ends by itself", STOP_SECONDS)
            return
        try:
            service.sign_off()
        except (OperationalError, InterfaceError) as error:
            logger.warning("the lease could not be released and ends by itself: %s", storage.masked(error, alias))
        finally:
            storage.let_go(alias)

    def _ready_line(self) -> str:
        count = scheduler.periodic_tasks().active().count()
        name = f"{socket.gethostname()}:{os.getpid()}"
        return f"taskbeat ready: {name} version={__version__} schedules={count} tasks={len(registry.all_tasks())}"

    def _announce(self, line: str) -> None:
        try:
            self.stdout.write(line)
            self.stdout.flush()
        except OSError:
            pass  # nobody reads it any more, which is no reason to stop

    def _warn(self, text: str) -> None:
        self.stderr.write(f"warning: {text}", self.style.WARNING)
