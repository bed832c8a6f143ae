"""What travels: the frozen envelope of a run, what a worker is handed, and what became of it."""

from __future__ import annotations

import enum
import os
import random
import threading
import time
from dataclasses import dataclass
from datetime import datetime
from functools import lru_cache
from typing import Any, NamedTuple

from django_taskq import serializers
from django_taskq.exceptions import SerializationError
from django_taskq.gates import Gate, gates_of, is_gated, written
from django_taskq.steps import Link, workflow_of


class Tracking(enum.IntEnum):
    """From when on a run on a depot has a row. On the database every run has one from the start."""

    ROW = 0  # since it was enqueued
    START = 1  # from its claim on: copies that an exchange made
    END = 2  # once it lasts or is over (track_pending=False)
    FAILURE = 3  # once it lasts, or ends as anything but a success (and ignore_result=True)


@dataclass(frozen=True, slots=True)
class Message:
    """One run to enqueue. ``payload`` is the JSON text of ``[args, kwargs]``.

    ``headers`` is the JSON text of a dict of what this call changes (see :class:`Headers`), or None when the task's
    own options hold. Times are aware datetimes, with ``USE_TZ`` or without. ``exchange`` sends it to an exchange of
    its queue's broker, under ``routing_key``, instead of to the queue itself; every copy is then a run of its own,
    whose ``parent_id`` is this id. A step of a workflow ``is_waiting`` while links of it are unsatisfied;
    it ``follows_one`` when there is one link only, to a step that is to succeed.
    """

    id: str
    name: str
    queue_name: str
    priority: int
    payload: str
    headers: str | None
    enqueued_at: datetime
    run_after: datetime | None = None
    expires_at: datetime | None = None
    tracking: Tracking = Tracking.ROW
    exchange: str | None = None
    routing_key: str = ""
    parent_id: str | None = None
    workflow_id: str | None = None
    is_waiting: bool = False
    follows_one: bool = False

    def seconds(self) -> tuple[float | None, float, float | None]:
        """``expires_at``, ``enqueued_at`` and ``run_after`` as a delivery carries them."""
        expires_at = self.expires_at.timestamp() if self.expires_at else None
        return expires_at, self.enqueued_at.timestamp(), self.run_after.timestamp() if self.run_after else None


class Delivery(NamedTuple):
    """A message handed to a worker process, with its receipt.

    ``claim`` is the process's own number for it, rising in the order in which deliveries may start: (process, claim)
    names this claim of this run and no other. Times are POSIX seconds. ``is_suspect`` marks a run that was held by a
    worker that died without telling which of its runs had started.
    """

    id: str
    claim: int
    name: str
    queue_name: str
    payload: str
    headers: str | None
    expires_at: float | None
    enqueued_at: float
    run_after: float | None
    attempt: int
    crashes: int
    is_suspect: bool


class Room(NamedTuple):
    """What a process can take at once: up to ``limit`` deliveries of these queues, numbered from ``first_claim``."""

    first_claim: int
    limit: int
    queue_names: tuple[str, ...]


NO_ROOM = Room(0, 0, ())


class Parcel(NamedTuple):
    """What a depot hands out: the delivery, what a row of it needs besides, and the depot's own receipt for it."""

    delivery: Delivery
    priority: int
    tracking: Tracking
    parent_id: str | None
    receipt: Any = None


class Action(enum.Enum):
    """What the executor decided."""

    SUCCESS = "success"
    RETRY = "retry"
    FAILED = "failed"
    CANCELLED = "cancelled"
    RELEASED = "released"
    REPLACED = "replaced"


@dataclass(frozen=True, slots=True)
class Growth:
    """What a run adds to its workflow, to be written with its outcome.

    The messages are all ``is_waiting``; ``links`` hang them together, and to steps that are there already. ``ends``
    are links of the workflow to those that nothing waits for; they get their places when they are written. With
    ``name`` the workflow is a new one of that name, which begins with the run itself.
    """

    workflow_id: str
    messages: tuple[Message, ...]
    links: tuple[Link, ...]
    ends: tuple[Link, ...] = ()
    name: str | None = None


@dataclass(slots=True, eq=False)
class Outcome:
    """The executor's decision about one attempt.

    ``started_at`` and ``finished_at`` are POSIX seconds on the worker's clock (None: it never started). ``result`` is
    JSON text. ``delay`` (seconds from now) or ``run_after`` say when a RETRY is due. ``is_counted`` is False for a
    retry that costs no attempt; without an error it was snoozed, or waits for its ``gate``. ``trips`` is the class of
    an error that its task's breaker counts. ``is_recorded`` marks a success that the task's own transaction already
    wrote, and ``is_inside`` one that it is about to write. ``exception`` is the live error, kept for the task's watcher
    where there is one. A REPLACED run waits for its ``growth``, whose result will be its own.
    """

    delivery: Delivery
    action: Action
    started_at: float | None = None
    finished_at: float | None = None
    result: str | None = None
    error: ErrorText | None = None
    delay: float | None = None
    run_after: datetime | None = None
    is_counted: bool = True
    is_recorded: bool = False
    is_inside: bool = False
    exception: BaseException | None = None
    value: Any = None
    growth: Growth | None = None
    gate: Gate | None = None
    trips: str = ""

    @property
    def is_gated(self) -> bool:
        """Whether it passed gates, or has one to pass before its next start."""
        return self.gate is not None or is_gated(self.delivery.headers)

    @property
    def frees_others(self) -> bool:
        """Whether with its commit others may be ready that waited for it."""
        return self.has_followers or self.is_gated

    @property
    def is_snoozed(self) -> bool:
        """Whether the task asked to run again later, or waits for a lock: that is no attempt that failed."""
        return self.action is Action.RETRY and not self.is_counted and self.error is None

    @property
    def has_followers(self) -> bool:
        """Whether others may have waited for it, and be ready with the same commit: it is a step of a workflow."""
        return self.growth is not None or workflow_of(self.delivery.headers) is not None


class ErrorText(NamedTuple):
    """An error as text: dotted class name, message, and the traceback ('' where there is none)."""

    class_path: str
    message: str
    traceback: str = ""

    @property
    def summary(self) -> str:
        """One line for lists: class and message, bounded."""
        name = self.class_path.rpartition(".")[2]
        text = f"{name}: {self.message}" if self.message else name
        return " ".join(text.split())[:500]


class Feed(enum.StrEnum):
    """Where the values of a step's links go."""

    FRONT = "front"  # before its own arguments
    REFERENCES = "references"  # where the references stand in its arguments
    FAILURE = "failure"  # it is an error callback: the failed step and its error come first


class Headers(NamedTuple):
    """What one call or its surroundings change for its run; stored only where it differs from the defaults.

    ``backend`` is the alias of the ``django.tasks`` backend that took the call, where it is not the task's own.
    ``routing_key`` goes with a call to an exchange. ``trace`` is the W3C trace context of the call.

    A step of a ``workflow`` (its id) may have a ``label``. Its arguments are completed as ``feed`` says
    (:class:`Feed`); it starts ``countdown`` seconds after it has become ready, and may start until ``expires`` seconds
    after that. One that ``adopts`` has put others in its place, whose result is its own; one that was ``grown`` came
    while the workflow ran.

    ``gates`` are what it has to pass, as :func:`~django_taskq.gates.written` has it. ``unique`` is the key that its run
    has for itself; when a later call has ``replaced`` its arguments, a message of it that is older has others.
    """

    language: str | None = None
    timezone: str | None = None
    time_limit: float | None = None
    soft_time_limit: float | None = None
    memory_limit: int | None = None
    max_retries: int | None = None
    ignore_result: bool | None = None
    rerun_of: str | None = None
    backend: str | None = None
    routing_key: str | None = None
    trace: dict[str, str] | None = None
    workflow: str | None = None
    label: str | None = None
    feed: str | None = None
    adopts: bool | None = None
    grown: bool | None = None
    countdown: float | None = None
    expires: float | None = None
    gates: list[Any] | None = None
    unique: str | None = None
    replaced: bool | None = None

    def dumps(self) -> str | None:
        """JSON text, or None when nothing differs."""
        changed = {name: value for name, value in zip(self._fields, self, strict=True) if value is not None}
        return serializers.dumps(changed) if changed else None

    @classmethod
    @lru_cache(maxsize=256)
    def loads(cls, text: str | None) -> Headers:
        """The inverse of :meth:`dumps`; keys of a newer version are ignored, so that old workers keep running.

        The steps of a workflow that are alike have the same text, so it is not read for each of them.
        """
        if text is None:
            return NO_HEADERS
        stored = serializers.loads(text)
        if not isinstance(stored, dict):
            raise SerializationError("the headers of a run are not a dict")
        return cls(**{key: value for key, value in stored.items() if key in cls._fields})


NO_HEADERS = Headers()


def with_routing_key(headers: str | None, routing_key: str | None) -> str | None:
    """These headers, as text, for a call to an exchange."""
    return Headers.loads(headers)._replace(routing_key=routing_key).dumps()


def with_gate(headers: str | None, gate: Gate) -> str | None:
    """These headers, as text, with one more gate to pass."""
    gates = {each.key: each for each in (*gates_of(headers), gate)}
    found = written(sorted(gates.values(), key=lambda each: each.rank))
    return Headers.loads(headers)._replace(gates=found).dumps()


# A message to an exchange bears this and the exchange's name as its queue, which no queue can be named.
EXCHANGE = "exchange:"

# Our own generator: a project that seeds the global one must not get the same ids again, nor be disturbed by us.
_random = random.Random()
_id_lock = threading.Lock()
_last_id = 0


def new_ids(count: int) -> list[str]:
    """``count`` new run ids: UUID version 7 (RFC 9562) as 36 characters, rising within this process.

    48 bits of milliseconds and 74 random bits; within one millisecond, and when the clock steps back, the last id
    plus a random step, so that ids made later sort later. They are hard to meet by chance, not to guess: no secret.
    """
    global _last_id
    with _id_lock:
        fresh = (time.time_ns() // 1_000_000) << 74 | _random.getrandbits(74)
        start = fresh if fresh >> 74 > _last_id >> 74 else _last_id + 1 + _random.getrandbits(32)
        _last_id = start + count - 1
    return [_format_id(number) for number in range(start, start + count)]


def _format_id(number: int) -> str:
    # 122 free bits around the fixed version (7) and variant (binary 10).
    high = number >> 62
    text = f"{high >> 12:012x}7{high & 0xFFF:03x}{1 << 63 | number & (1 << 62) - 1:016x}"
    return f"{text[:8]}-{text[8:12]}-{text[12:16]}-{text[16:20]}-{text[20:]}"


def _start_afresh() -> None:
    global _last_id, _id_lock
    _last_id, _id_lock = 0, threading.Lock()
    _random.seed()


# A forked child must not continue its parent's sequence: both would make the same ids.
os.register_at_fork(after_in_child=_start_afresh)
