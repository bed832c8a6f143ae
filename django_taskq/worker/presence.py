"""The worker's row in the registry: registering, heartbeats, and noticing that the lease was lost."""

from __future__ import annotations

import socket
import time
from collections import Counter
from collections.abc import Callable, Collection
from pathlib import Path
from typing import Any

from django.db import transaction
from django.utils import timezone

from django_taskq import __version__, conf
from django_taskq.conflicts import persist
from django_taskq.models import Worker, WorkerProcess
from django_taskq.models.clock import database_now, database_now_plus
from django_taskq.worker import identity
from django_taskq.worker.options import WorkerOptions
from django_taskq.worker.service import Service


def register(table_path: Path, options: WorkerOptions, left_out: Collection[str] = ()) -> Worker:
    """A new row for this supervisor, its lease begun. ``left_out`` are queues that it does not serve for now."""
    settings, me = conf.get_settings(), identity.current()
    using = settings.database
    worker = Worker(
        hostname=socket.gethostname(),
        boot_id=me.boot_id,
        pid_namespace=me.pid_namespace,
        pid=me.pid,
        pid_started=me.pid_started,
        table_path=str(table_path),
        **_shape(options, left_out),
        version=__version__,
        lease_expires_at=database_now_plus(using, settings.lease_duration),
    )
    worker.save(using=using, force_insert=True)
    return worker


def _shape(options: WorkerOptions, left_out: Collection[str]) -> dict[str, Any]:
    """What the row says of the work it does, and how much at once."""
    posts = options.posts()
    slots = Counter({name: 0 for name in options.order.names if name not in left_out})
    for post in posts:
        slots.update({name: post.slots for name in post.order.names if name not in left_out})
    return {
        "queues": options.without(left_out).served[:1000],
        "processes": len(posts),
        "threads": options.threads,
        "slots": dict(slots),
    }


def register_process(worker_id: int) -> int:
    """A new row for a child to come; its id is what the child's claims are made under."""
    row = WorkerProcess(worker_id=worker_id)
    row.save(using=conf.get_settings().database, force_insert=True)
    return row.pk


def note_pid(process_id: int, pid: int) -> None:
    """Which process it became."""
    rows = WorkerProcess.objects.using(conf.get_settings().database).filter(pk=process_id)
    rows.update(pid=pid, pid_started=identity.start_time(pid))


class Presence(Service):
    """Heartbeats for the worker and all its processes, from a connection nothing else waits on."""

    name = "presence"

    def __init__(self, worker: Worker, on_lost: Callable[[], None]) -> None:
        """``on_lost`` is called once when another worker has taken this one for dead."""
        super().__init__()
        self._worker_id = worker.pk
        self._on_lost = on_lost
        self._is_lost = False
        self._changes: dict[str, Any] = {}
        self._last_beat: float | None = None
        self._steady_since = time.monotonic()

    @property
    def is_steady(self) -> bool:
        """Whether heartbeats have been getting through for as long as any other worker needs to send one too."""
        settings, now = conf.get_settings(), time.monotonic()
        if self._last_beat is None or now - self._last_beat > 2 * settings.heartbeat_interval:
            return False
        return now - self._steady_since > 2 * settings.heartbeat_interval

    @property
    def is_beating(self) -> bool:
        """Whether the last heartbeats got through."""
        late = 2 * conf.get_settings().heartbeat_interval
        return self._last_beat is not None and time.monotonic() - self._last_beat <= late

    def note(self, options: WorkerOptions, left_out: Collection[str] = ()) -> None:
        """Have the row say what the worker does now; from any thread."""
        self._changes = _shape(options, left_out)
        self.wake()

    def work(self) -> float:
        settings = conf.get_settings()
        if self._last_beat is None or time.monotonic() - self._last_beat > 2 * settings.heartbeat_interval:
            self._steady_since = time.monotonic()
        using = settings.database
        mine = Worker.objects.using(using).filter(pk=self._worker_id, stopped_at=None)
        kept = mine.update(
            heartbeat_at=database_now(using),
            lease_expires_at=database_now_plus(using, settings.lease_duration),
            **self._changes,
        )
        self._last_beat = time.monotonic()
        if not kept and not self._is_lost:
            self._is_lost = True
            self._on_lost()
        return settings.heartbeat_interval

    def sign_off(self) -> None:
        """The worker stopped in order."""
        using = conf.get_settings().database
        now = timezone.now()

        def write() -> None:
            mine = WorkerProcess.objects.using(using).filter(worker_id=self._worker_id, stopped_at=None)
            with transaction.atomic(using=using):
                Worker.objects.using(using).filter(pk=self._worker_id).update(stopped_at=now)
                mine.update(stopped_at=now)

        persist(using, write)
