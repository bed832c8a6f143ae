"""What each command does to its worker. What cannot be done here raises ``InvalidCommand``, which is the answer."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Protocol

from django_taskq import client
from django_taskq.conf_workers import Autoscale
from django_taskq.exceptions import InvalidCommand, UnknownQueue
from django_taskq.worker import inspecting, stacks
from django_taskq.worker.fetcher import QueueOrder
from django_taskq.worker.options import WorkerOptions
from django_taskq.worker.orders import DUMP, Order
from django_taskq.worker.shutter import Shutter

if TYPE_CHECKING:
    from django_taskq.worker.crew import Crew

CANCELLED = "cancelled"  # a reason for which the shutter closes queues


class Boss(Protocol):
    """What is asked of the supervisor; from any thread."""

    crew: Crew
    shutter: Shutter
    options: WorkerOptions

    def call(self, function: Callable[[], object]) -> None: ...

    def stop(self, *, graceful: bool = True) -> None: ...

    def quiet(self, is_quiet: bool = True) -> None: ...

    def restart(self, why: str) -> None: ...

    def reshape(self, **changes: Any) -> None: ...

    def exchange(self, **changes: Any) -> None: ...


def obey(boss: Boss, name: str, arguments: dict[str, Any]) -> Any:
    """Do it, and return the answer, which is JSON. Commands about stored state are obeyed by reading that."""
    match name:
        case "ping":
            return inspecting.ping()
        case "inspect":
            return inspecting.inspect(boss, arguments["what"])
        case "quiet" | "work":
            boss.quiet(name == "quiet")
        case "restart":
            boss.restart("a command asked for it")
        case "shutdown":
            boss.stop()
        case "dump_stacks":
            boss.crew.tell(Order(DUMP))
            stacks.log()
            return stacks.dump()
        case "set_processes":
            _check_shape(boss.options, name)
            if boss.options.autoscale is not None:
                raise InvalidCommand(f"it scales between {boss.options.autoscale} by itself: see set_autoscale")
            boss.reshape(processes=arguments["number"])
        case "set_threads":
            _check_shape(boss.options, name)
            boss.exchange(threads=arguments["number"])
        case "set_autoscale":
            _autoscale(boss, Autoscale(arguments["least"], arguments["most"]))
        case "add_consumer":
            _add(boss, arguments["queue_name"])
        case "cancel_consumer":
            _cancel(boss, arguments["queue_name"])
    return None


def _check_shape(options: WorkerOptions, name: str) -> None:
    if options.groups:
        raise InvalidCommand(f"{name}: this worker's slots belong to queues ({options.served})")
    if options.max_tasks is not None:
        raise InvalidCommand(f"{name}: this worker ends after a number of runs, which its processes have shared out")


def _autoscale(boss: Boss, autoscale: Autoscale) -> None:
    _check_shape(boss.options, "set_autoscale")
    boss.reshape(autoscale=autoscale, processes=autoscale.clamp(boss.options.processes))


def _add(boss: Boss, queue_name: str) -> None:
    try:
        client.check_queue(queue_name)
    except UnknownQueue as error:
        raise InvalidCommand(str(error)) from None
    options = boss.options
    if queue_name not in options.order.names:
        _check_shape(options, "add_consumer")
        order, weights = options.order, options.order.weights
        # Among weights it gets the least; in strict order it comes last.
        names, weights = (*order.names, queue_name), None if weights is None else (*weights, 1)
        boss.exchange(order=QueueOrder(names, weights, order.rotate))
    closed = boss.shutter.reasons.get(CANCELLED, frozenset())
    boss.shutter.set(CANCELLED, closed - {queue_name})


def _cancel(boss: Boss, queue_name: str) -> None:
    if queue_name not in boss.options.order.names:
        raise InvalidCommand(f"this worker does not serve the queue {queue_name!r}: it serves {boss.options.served}")
    closed = boss.shutter.reasons.get(CANCELLED, frozenset())
    boss.shutter.set(CANCELLED, closed | {queue_name})
