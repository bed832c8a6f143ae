"""The scheduler as a service: it syncs what code declares, keeps the lease or stands by, and runs what is due."""

from __future__ import annotations

import logging
import os
import socket
import time

from django_taskq import declared, scheduler
from django_taskq.worker.service import Service

logger = logging.getLogger("django_taskq")

LEASE = 12.0  # seconds
# Each renewal is a write, which wakes every worker on SQLite: no more often than heartbeats.
RENEW_INTERVAL = 5.0
STANDBY_INTERVAL = 2.0
LOOK_INTERVAL = 1.0  # how soon a schedule edited in the admin takes effect
CONTESTED_PAUSE = 0.05  # what is due and was not decided is in the hands of another scheduler


class Scheduling(Service):
    """One scheduler; any number may run, on any hosts."""

    name = "scheduler"

    def __init__(self) -> None:
        super().__init__()
        self._holder = f"{socket.gethostname()}:{os.getpid()}"
        self._is_synced = False
        self._is_leading = False
        self._renew_at = 0.0
        self._may_have_queued = False

    def work(self) -> float:
        if not self._is_synced:
            declared.sync()
            self._is_synced = True
        if not self._leads():
            return STANDBY_INTERVAL
        until_due = scheduler.seconds_until_due()
        if until_due == 0.0 or self._may_have_queued:
            # Only a look that decides something leaves runs that wait for others: an idle one need not ask for them.
            self._may_have_queued = True
            scheduler.run_due()
            self._may_have_queued = scheduler.has_queued()
            until_due = scheduler.seconds_until_due()
        if until_due is None:
            return LOOK_INTERVAL
        return min(LOOK_INTERVAL, until_due or CONTESTED_PAUSE)

    def sign_off(self) -> None:
        """Let another scheduler look at once."""
        if self._is_leading:
            scheduler.lease().release(self._holder)

    def _leads(self) -> bool:
        now = time.monotonic()
        if now >= self._renew_at:
            was_leading, self._is_leading = self._is_leading, scheduler.lease().take(self._holder, LEASE)
            self._renew_at = now + (RENEW_INTERVAL if self._is_leading else 0.0)
            if self._is_leading and not was_leading:
                self._may_have_queued = True
                logger.info("this scheduler runs the schedules now")
        return self._is_leading
