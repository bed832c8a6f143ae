"""One life cycle for every background part of the supervisor: start, wake, stop."""

from __future__ import annotations

import logging
import threading
import time

from django.db import connections
from django.db.utils import Error

from django_taskq.conflicts import FIRST_PAUSE, TRIES, is_conflict
from django_taskq.worker.hygiene import drop_connections, forget_queries, isolate

logger = logging.getLogger("django_taskq")

MOST_BACKOFF = 2.0


class Service:
    """A thread that does one thing again and again. Starting and stopping twice is fine.

    :meth:`work` is one round; it returns the seconds until the next, unless :meth:`wake` comes first. Database errors
    are logged once and retried with growing pauses, on a fresh connection; other errors are logged each time.
    """

    name = "service"

    def __init__(self) -> None:
        self._thread: threading.Thread | None = None
        self._woken = threading.Event()
        self._is_stopping = False
        self._is_isolated = False
        self._failures = 0

    def work(self) -> float:
        """One round; returns seconds until the next."""
        raise NotImplementedError

    def start(self) -> None:
        """Begin; nothing happens when it runs already."""
        if self._thread is None and not self._is_stopping:
            self._thread = threading.Thread(target=self._run, name=f"taskq-{self.name}", daemon=True)
            self._thread.start()

    def stop(self, deadline: float) -> bool:
        """End, waiting until ``deadline`` (monotonic seconds) at most; False when it had not ended by then."""
        self._is_stopping = True
        self.wake()
        if self._thread is None:
            return True
        self._thread.join(max(0.0, deadline - time.monotonic()))
        return not self._thread.is_alive()

    def wake(self) -> None:
        """Have the next round begin at once."""
        self._woken.set()

    @property
    def is_alive(self) -> bool:
        """Whether its thread runs."""
        return self._thread is not None and self._thread.is_alive()

    def _run(self) -> None:
        while not self._is_stopping:
            self._woken.wait(self._round())
            self._woken.clear()
        connections.close_all()

    def _round(self) -> float:
        try:
            if not self._is_isolated:
                isolate()
                self._is_isolated = True
            pause = self.work()
            self._failures = 0
        except Exception as error:
            pause = self._after(error)
        forget_queries()
        return pause

    def _after(self, error: Exception) -> float:
        self._failures += 1
        if is_conflict(error) and self._failures < TRIES:
            return FIRST_PAUSE * 2.0**self._failures  # others came first, which is no fault of the connection
        if not isinstance(error, Error):
            logger.error("%s failed; it goes on", self.name, exc_info=error)
        elif self._failures == (TRIES if is_conflict(error) else 1):
            logger.warning("%s lost the database, trying again: %s: %s", self.name, type(error).__name__, error)
        drop_connections()
        return min(MOST_BACKOFF, 0.1 * 2.0 ** min(self._failures, 10))
