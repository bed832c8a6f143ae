"""What holds the runs of a task back, worked out once for each task, and the gates of each of its calls.

:func:`gated` is asked for every message on its way to the broker, whoever built it. It costs nothing where neither a
task nor a queue of the project is limited.
"""

from __future__ import annotations

import inspect
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from django_taskq import conf, registry, serializers
from django_taskq.exceptions import EnqueueError, InvalidTask
from django_taskq.gates import Gate, Kind, bounded, gates_of, written
from django_taskq.keys import UNKNOWN, Key
from django_taskq.message import Feed, Headers, Message, Tracking

if TYPE_CHECKING:
    from django_taskq.options import TaskOptions


class Flow:
    """The gates of one task."""

    def __init__(self, task: str, options: TaskOptions, signature: inspect.Signature) -> None:
        """Raises :exc:`InvalidTask` for options that contradict each other, and for keys of unknown arguments."""
        self._task = task
        self._options = options
        for name, limit in (
            ("concurrency_key", "concurrency"),
            ("rate_key", "rate_limit"),
            ("rate_burst", "rate_limit"),
        ):
            if getattr(options, name) is not None and getattr(options, limit) is None:
                raise InvalidTask(f"{task}: {name} goes with {limit}, which is not given.")
        keys = {
            option: Key(task, option, source, signature)
            for option in ("concurrency_key", "rate_key", "lock")
            if (source := getattr(options, option)) is not None
        }
        self._keys = {Kind.TASK: keys.get("concurrency_key"), Kind.RATE: keys.get("rate_key")}
        self._lock = keys.get("lock")
        if not options.track_pending and (self.declared() or self._lock):
            raise InvalidTask(f"{task}: its limits hold for runs with a row, and track_pending=False spares it.")

    @classmethod
    def of(cls, task: str, options: TaskOptions, signature: inspect.Signature) -> Flow | None:
        """The flow of a task; None for one that nothing holds back."""
        flow = cls(task, options, signature)
        return flow if flow.declared() or flow._lock else None

    def declared(self) -> list[Gate]:
        """Its limits as wholes, without keys: what is declared by the code that runs now."""
        options, gates = self._options, []
        if (breaker := options.breaker) is not None:
            gates.append(Gate(Kind.BREAKER, self._task, most=breaker.failures, rest=breaker.rest))
        if options.concurrency is not None:
            gates.append(Gate(Kind.TASK, self._task, most=options.concurrency))
        if (rate := options.rate_limit) is not None:
            burst = rate.burst if options.rate_burst is None else options.rate_burst
            gates.append(Gate(Kind.RATE, self._task, rate=rate.per_second, burst=burst))
        return gates

    def gates(self, args: Sequence[Any], kwargs: Mapping[str, Any]) -> list[Gate]:
        """The gates of this call. Raises what :meth:`.Key.of` raises."""
        found = []
        if self._lock is not None:
            found.append(lock(self._lock.of(args, kwargs)))
        for gate in self.declared():
            key = self._keys.get(Kind(gate.kind))
            found.append(gate if key is None else gate._replace(sub=bounded(key.of(args, kwargs))))
        return sorted(found, key=lambda gate: gate.rank)


def lock(name: str) -> Gate:
    """The gate of a lock, which tasks share by its name."""
    return Gate(Kind.LOCK, bounded(name), most=1)


def queue_gates(queue_name: str) -> list[Gate]:
    """What a queue's settings let through."""
    queue = conf.get_settings().queues.get(queue_name)
    gates = []
    if queue is not None and queue.concurrency is not None:
        gates.append(Gate(Kind.QUEUE, queue_name, most=queue.concurrency))
    if queue is not None and queue.rate_limit is not None:
        gates.append(Gate(Kind.QUEUE_RATE, queue_name, rate=queue.rate_limit.per_second, burst=queue.rate_limit.burst))
    return gates


def all_declared() -> list[Gate]:
    """The limits, as wholes, of every task and queue that this process knows."""
    gates = [gate for name in conf.get_settings().queues for gate in queue_gates(name)]
    for task in registry.all_tasks():
        gates += [] if task.flow is None else task.flow.declared()
    return gates


def is_used() -> bool:
    """Whether any task or queue that this process knows is limited."""
    return registry.is_limited() or conf.get_settings().has_limited_queues


def holds_back(message: Message) -> bool:
    """Whether a call like this one has gates to pass."""
    if not is_used() or message.exchange is not None:
        return False
    task = registry.find(message.name)
    return (task is not None and task.flow is not None) or bool(queue_gates(message.queue_name))


def gated(messages: Sequence[Message]) -> Sequence[Message]:
    """These messages with their gates.

    Raises :exc:`EnqueueError` where they cannot be worked out, or where an exchange would make copies that no limit
    could count.
    """
    return [_gated(message) for message in messages] if is_used() else messages


def _gated(message: Message) -> Message:
    task = registry.find(message.name)
    flow = None if task is None else task.flow
    if message.exchange is not None:
        if flow is not None:
            raise EnqueueError(
                f"{message.name} has limits, which are those of single runs: an exchange makes any number of copies. "
                f"Enqueue it to a queue, or have the copies' task enqueue it."
            )
        return message
    gates = queue_gates(message.queue_name)
    if flow is not None:
        gates = flow.gates(*_arguments(message)) + gates
    # Those of a group came with the call.
    gates += [gate for gate in gates_of(message.headers) if gate.kind == Kind.GROUP]
    if not gates:
        return message
    headers = Headers.loads(message.headers)
    gates.sort(key=lambda gate: gate.rank)
    return replace(
        message, headers=headers._replace(gates=written(gates)).dumps(), tracking=Tracking.ROW, follows_one=False
    )


def _arguments(message: Message) -> tuple[list[Any], dict[str, Any]]:
    """What is known of the arguments: those that come from other steps are not."""
    args, kwargs = serializers.loads(message.payload)
    match Headers.loads(message.headers).feed:
        case Feed.FRONT:
            return [UNKNOWN, *args], kwargs
        case Feed.FAILURE:
            return [UNKNOWN, UNKNOWN, *args], kwargs
    return args, kwargs
