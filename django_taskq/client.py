"""The one way to enqueue: whoever wants a run builds messages and calls :func:`enqueue`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import timedelta, tzinfo
from typing import TYPE_CHECKING
from zoneinfo import ZoneInfo

from django.conf import settings as django_settings
from django.db import transaction
from django.utils import timezone, translation
from django.utils.module_loading import import_string

from django_taskq import back_pressure, conf, flow, registry, signals, uniqueness
from django_taskq.brokers import alias_of, get_broker, get_depots
from django_taskq.conf_brokers import DATABASE, DEFAULT_BROKER, REDIS_SCHEMES
from django_taskq.conflicts import persist
from django_taskq.exceptions import EnqueueError, PayloadTooLarge, UnknownQueue
from django_taskq.message import EXCHANGE, Headers, Message, Tracking
from django_taskq.result import Kind, OpenTransaction
from django_taskq.status import Status
from django_taskq.unique_keys import Decision, Holder, KeyedCall

if TYPE_CHECKING:
    from collections.abc import Callable

NO_DUPLICATES: Mapping[str, Holder] = {}


def enqueue(messages: Sequence[Message], *, has_room: bool = False) -> Mapping[str, Holder]:
    """Hand ``messages`` to the broker in one round trip; returns, by their ids, the runs that some are duplicates of.

    Raises :exc:`UnknownQueue`, :exc:`PayloadTooLarge` or :exc:`QueueFull` before anything is stored; errors of the
    database pass through as they are, because the transaction they broke is the caller's. ``has_room``: the caller has
    seen to it that they fit into their queues.
    """
    settings = conf.get_settings()
    for name in {message.queue_name for message in messages}:
        check_queue(name)
    for message in messages:
        # Four bytes is the most a character takes in UTF-8: only what might be too large is measured.
        if len(message.payload) * 4 > settings.max_payload:
            _check_size(message, settings.max_payload)
    messages = flow.gated(messages)
    duplicates, calls = NO_DUPLICATES, uniqueness.keyed(messages)
    if calls:
        messages, duplicates = _enqueue_keyed(messages, calls, has_room)
    else:
        messages = _hand_over(messages, has_room)
    if signals.task_enqueued.receivers:
        for message in messages:
            signals.send(signals.task_enqueued, message.name, message=message)
    if registry.is_watched():
        for message in messages:
            task = registry.find(message.name)
            if task is not None and task.watcher is not None:
                task.watcher.enqueued(message)
    # A workflow's steps are run once all of it is there.
    plain = [message.id for message in messages if message.workflow_id is None] if settings.eager else []
    if plain:
        run: Callable[[list[str]], None] = import_string("django_taskq.worker.eager.run")
        run(plain)
    return duplicates


def _enqueue_keyed(
    messages: Sequence[Message], calls: Sequence[KeyedCall], has_room: bool
) -> tuple[Sequence[Message], Mapping[str, Holder]]:
    """Hand over those that are no duplicates, with the decision about that in one transaction."""
    using = conf.get_settings().database
    decide: Callable[[str, Sequence[KeyedCall]], Decision] = import_string(
        "django_taskq.brokers.database.uniqueness.decide"
    )

    def work() -> tuple[Sequence[Message], Mapping[str, Holder]]:
        with transaction.atomic(using=using):
            stored, duplicates = decide(using, calls)
            chosen = [stored.get(message.id, message) for message in messages if message.id not in duplicates]
            return _hand_over(chosen, has_room) if chosen else chosen, duplicates

    return persist(using, work)


def _hand_over(messages: Sequence[Message], has_room: bool) -> Sequence[Message]:
    """Give these to the broker, as the receivers that watch it have changed them, and return them so."""
    if not has_room:
        back_pressure.make_room(messages)
    if not signals.enqueue_entered.receivers:
        get_broker().enqueue(messages)
        return messages
    chosen, token, error = list(messages), dict[str, object](), None
    signals.send(signals.enqueue_entered, None, messages=chosen, token=token)
    try:
        get_broker().enqueue(chosen)
    except BaseException as failure:
        error = failure
        raise
    finally:
        signals.send(signals.enqueue_left, None, messages=chosen, token=token, error=error)
    return chosen


def check(message: Message) -> None:
    """Raise the :exc:`EnqueueError` that :func:`enqueue` would raise for this one, so that it can be left out."""
    check_queue(message.queue_name)
    _check_size(message, conf.get_settings().max_payload)
    uniqueness.keyed(flow.gated((message,)))


def known_queues() -> set[str]:
    """Every queue a worker serves by default: declared in settings, or named by a registered task."""
    settings = conf.get_settings()
    routed = {rule.route.queue_name for rule in settings.routes if rule.route is not None and rule.route.queue_name}
    bound = {binding.queue_name for exchange in settings.exchanges.values() for binding in exchange.bindings}
    return {conf.DEFAULT_QUEUE, *settings.queues} | registry.queue_names() | routed | bound


def first_status(message: Message) -> Status:
    """The status with which the run of this call begins."""
    if message.run_after is not None and message.run_after > message.enqueued_at:
        return Status.SCHEDULED
    return Status.WAITING if flow.holds_back(message) else Status.READY


def kind_of(message: Message, marker: OpenTransaction | None) -> Kind:
    """What a handle on this call stands for.

    Inside a transaction every run has a row, whatever its task says: nothing may leave before that commits.
    """
    if message.exchange is not None:
        return Kind.COPIED
    has_row = message.tracking is Tracking.ROW or marker is not None or flow.holds_back(message)
    if has_row or not _is_on_depot(message.queue_name):
        return Kind.RUN
    return Kind.LATE if message.tracking is Tracking.END else Kind.SILENT


def _is_on_depot(queue_name: str) -> bool:
    """Whether this queue is kept outside the database."""
    return alias_of(queue_name) in get_depots() and not conf.get_settings().eager


def check_queue(name: str) -> None:
    """Raise :exc:`UnknownQueue` unless some worker would serve this queue."""
    if name == conf.DEFAULT_QUEUE or name in conf.get_settings().queues or name in registry.queue_names():
        return
    known = known_queues()
    if name in known:
        return
    if name.startswith(EXCHANGE):
        _check_exchange(name.removeprefix(EXCHANGE))
        return
    raise UnknownQueue(
        f"no queue is named {name!r}.{conf.suggest(name, known)} Known queues: {', '.join(sorted(known))}. "
        f"Add it to TASKQ['QUEUES'] if it is new."
    )


def _check_exchange(name: str) -> None:
    settings = conf.get_settings()
    if name in settings.exchanges or settings.broker(DEFAULT_BROKER).scheme not in (DATABASE, *REDIS_SCHEMES):
        return  # one that was declared at run time, perhaps: the broker knows
    raise EnqueueError(
        f"no exchange is named {name!r}.{conf.suggest(name, settings.exchanges)} Add it to TASKQ['EXCHANGES'] on a "
        f"broker that has exchanges, such as RabbitMQ; the default broker has none."
    )


def ambient_headers() -> Headers | None:
    """The language and time zone active here, where they are not the project's own; None when both are."""
    language = zone = None
    if django_settings.USE_I18N:
        active = translation.get_language()
        language = active if active != django_settings.LANGUAGE_CODE else None
    if timezone.get_current_timezone() is not timezone.get_default_timezone():
        zone = _zone_name(timezone.get_current_timezone())
    return Headers(language=language, timezone=zone) if language or zone else None


def _zone_name(zone: tzinfo) -> str | None:
    """An IANA name, or minutes from UTC for a fixed offset as browsers give it; None for a zone with neither."""
    if isinstance(zone, ZoneInfo):
        return zone.key
    offset = zone.utcoffset(None)
    return None if offset is None else f"{offset // timedelta(minutes=1):+d}"


def _check_size(message: Message, limit: int) -> None:
    payload = message.payload
    # Plain text, as nearly all is, takes a byte for each character: no second copy of what may be enormous.
    size = len(payload) if payload.isascii() else len(payload.encode())
    if size > limit:
        raise PayloadTooLarge(
            f"the arguments of {message.name} take {size:,} bytes and TASKQ['MAX_PAYLOAD'] allows {limit:,}. "
            f"Store the data and pass its key, or raise the limit."
        )
