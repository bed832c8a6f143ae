"""What all processes of a worker have counted, put together in its supervisor."""

from __future__ import annotations

import logging
import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from multiprocessing.connection import Connection
from typing import Any

from django_taskq import signals
from django_taskq.message import Outcome
from django_taskq.worker.health.counts import LONGEST_LINE, Counts

logger = logging.getLogger("django_taskq")

CHUNK = 1 << 16  # bytes: what a pipe holds


class Totals:
    """Counts since the worker began, also of processes that have ended. From any thread."""

    def __init__(self) -> None:
        self._counts = Counts()
        self._lock = threading.Lock()
        self._pipes: dict[Connection, bytes] = {}

    def listen(self) -> None:
        """Count what the supervisor itself records: the runs of processes that died."""
        signals.task_finished.connect(self._on_recorded, dispatch_uid="django_taskq.health")
        signals.task_retried.connect(self._on_recorded, dispatch_uid="django_taskq.health")

    def forget(self) -> None:
        """The reverse of :meth:`listen`, and close what is open."""
        signals.task_finished.disconnect(dispatch_uid="django_taskq.health")
        signals.task_retried.disconnect(dispatch_uid="django_taskq.health")
        with self._lock:
            for pipe in self._pipes:
                pipe.close()
            self._pipes.clear()

    def admit(self, context: Any) -> Connection:
        """The writing end for one more process (of this multiprocessing context); whoever starts it closes his copy.

        The reading end is closed once that process, and what it may have forked, has ended.
        """
        reader, writer = context.Pipe(duplex=False)
        os.set_blocking(reader.fileno(), False)
        with self._lock:
            self._pipes[reader] = b""
        found: Connection = writer
        return found

    @contextmanager
    def counts(self) -> Iterator[Counts]:
        """All there is by now; it does not change meanwhile."""
        with self._lock:
            for pipe in list(self._pipes):
                self._drain(pipe)
            yield self._counts

    def _drain(self, pipe: Connection) -> None:
        with suppress(BlockingIOError):
            while chunk := os.read(pipe.fileno(), CHUNK):
                *lines, self._pipes[pipe] = (self._pipes[pipe] + chunk).split(b"\n")
                for line in lines:
                    self._merge(line)
                if len(self._pipes[pipe]) > LONGEST_LINE:
                    self._merge(self._pipes[pipe])
                    self._pipes[pipe] = b""
            del self._pipes[pipe]
            pipe.close()

    def _merge(self, line: bytes) -> None:
        try:
            self._counts.merge(line)
        except ValueError:
            # A task can write to any descriptor of its process. What it makes up is not worth more than a line.
            logger.warning("a worker process sent counts that cannot be read")

    def _on_recorded(self, outcome: Outcome, **kwargs: Any) -> None:
        with self._lock:
            self._counts.note([outcome])
