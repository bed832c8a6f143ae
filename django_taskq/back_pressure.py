"""Queues with a bound: a call that does not fit is refused, or what waits makes room for it, as the settings say.

No lock is held on a queue: of several callers at the same moment each may be told that there is room. What is
dropped is gone with a commit of its own, unless the caller has a transaction open; a call that fails after that has
left room for the next one.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import nullcontext

from django.db import connections
from django.utils.module_loading import import_string

from django_taskq import conf, flow
from django_taskq.brokers import alias_of, get_depots, get_rows
from django_taskq.conf_brokers import QueueConfig, WhenFull
from django_taskq.exceptions import DepotError, QueueFull
from django_taskq.message import Message, Tracking

# By dotted path: it has models.
_ROWS = "django_taskq.brokers.database.bounding.make_room"


def make_room(messages: Sequence[Message]) -> None:
    """Have these fit into the bounds of their queues.

    Raises :exc:`QueueFull` where they do not, and nothing is dropped then. What is due later, or waits for other
    steps, does not join its queue now, and is never refused.
    """
    queues = conf.get_settings().queues
    names = {message.queue_name for message in messages}
    bounded = sorted(name for name in names if name in queues and queues[name].max_length is not None)
    if not bounded:
        return
    in_transaction = connections[conf.get_settings().database].in_atomic_block
    # In one go where there are several: what the last of them refuses must not have cost the first one anything.
    with nullcontext() if len(bounded) == 1 else get_rows().transaction():
        for name in bounded:
            joining = [message for message in messages if message.queue_name == name and _joins_now(message)]
            if joining:
                _make_room(name, queues[name], joining, in_transaction)


def _joins_now(message: Message) -> bool:
    return not message.is_waiting and (message.run_after is None or message.run_after <= message.enqueued_at)


def _make_room(name: str, queue: QueueConfig, joining: Sequence[Message], in_transaction: bool) -> None:
    most = queue.max_length or 0
    if len(joining) > most:
        raise QueueFull(
            f"{len(joining):,} runs at once never fit into queue {name!r}, whose max_length is {most:,}. Enqueue fewer "
            f"at once, or raise TASKQ['QUEUES'][{name!r}]['max_length']."
        )
    loose, with_rows = _sorted(name, joining, in_transaction)
    if loose and not _fits_on_depot(name, len(loose), most):
        raise QueueFull(_refusal(name, len(loose), most))
    make_room: Callable[..., bool] = import_string(_ROWS)
    using = conf.get_settings().database
    if with_rows and not make_room(using, name, queue, with_rows, with_gates=flow.is_used()):
        why = ", and too little of a lower priority waits there" if queue.when_full is WhenFull.DROP_LOWEST else ""
        raise QueueFull(_refusal(name, len(with_rows), most, why))


def _sorted(name: str, joining: Sequence[Message], in_transaction: bool) -> tuple[Sequence[Message], Sequence[Message]]:
    """Those that will be nothing but messages on a depot, and those with a row: every one inside a transaction."""
    if in_transaction or alias_of(name) not in get_depots() or conf.get_settings().eager:
        return [], joining
    loose = [message for message in joining if message.tracking is not Tracking.ROW]
    return loose, [message for message in joining if message.tracking is Tracking.ROW]


def _fits_on_depot(name: str, count: int, most: int) -> bool:
    try:
        return get_depots()[alias_of(name)].size(name) + count <= most
    except DepotError:
        return True  # handing them over will say what is wrong, or go on without the depot


def _refusal(name: str, count: int, most: int, why: str = "") -> str:
    runs = "a run does" if count == 1 else f"{count:,} runs do"
    return (
        f"{runs} not fit into queue {name!r}: its max_length is {most:,}{why}. Try again when workers have caught up, "
        f"or raise TASKQ['QUEUES'][{name!r}]['max_length']."
    )
