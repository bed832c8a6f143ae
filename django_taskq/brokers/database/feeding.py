"""Completing the arguments of steps that were claimed with the values of the steps before them."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Sequence
from uuid import UUID

from django.db import connections

from django_taskq import serializers
from django_taskq.brokers.database.dialect import Dialect
from django_taskq.brokers.database.step_dialect import Parent, Taken
from django_taskq.exceptions import SerializationError
from django_taskq.message import NO_HEADERS, Delivery, Feed, Headers
from django_taskq.models import TaskAttempt
from django_taskq.status import Status
from django_taskq.steps import ADOPTED, ADOPTS, FailedStep, StepError, Value, filled, joined, workflow_of

_FED = '"feed":"'
AT_ONCE = 500


def feed(using: str, dialect: Dialect, deliveries: list[Delivery]) -> list[Delivery]:
    """These deliveries, those of steps with the values that their links bring; in one look for all of them."""
    hungry = [d.id for d in deliveries if d.headers is not None and (_FED in d.headers or ADOPTS in d.headers)]
    if not hungry:
        return deliveries
    parents: dict[str, list[Parent]] = defaultdict(list)
    for parent in dialect.parents(connections[using], hungry):
        parents[parent.child_id].append(parent)
    errors = _errors(using, [p for some in parents.values() for p in some if p.status != Status.SUCCESSFUL])
    fed = set(hungry)
    return [_complete(d, parents[d.id], errors) if d.id in fed else d for d in deliveries]


def readable(headers: str | None) -> Headers:
    """These headers, or none where they are spoilt: who runs the step says so, and fails it alone."""
    try:
        return Headers.loads(headers)
    except SerializationError:
        return NO_HEADERS


def brought(taken: Taken, result: str | None) -> Delivery:
    """A step that was claimed in the transaction that recorded this result of its parent."""
    delivery = taken.delivery
    how = readable(delivery.headers).feed
    if how is None:
        return delivery
    value = Value(taken.opens, taken.closes, taken.carries, result)
    return delivery._replace(payload=filled(delivery.payload, [value], refers=how == Feed.REFERENCES))


def values_of(using: str, dialect: Dialect, id: str) -> list[Value]:
    """What a workflow's links bring; errors stand for what did not succeed. Steps that were added bring nothing."""
    parents = [parent for parent in dialect.parents(connections[using], [id]) if parent.position < ADOPTED]
    errors = _errors(using, [parent for parent in parents if parent.status != Status.SUCCESSFUL])
    return [_value(parent, errors) for parent in parents]


def _complete(delivery: Delivery, parents: Sequence[Parent], errors: dict[str, str]) -> Delivery:
    headers = readable(delivery.headers)
    if headers.adopts:
        own = [_value(parent, errors) for parent in parents if parent.position >= ADOPTED]
        return delivery._replace(payload=f"[[{joined(own)}],{{}}]")
    how = headers.feed
    if how == Feed.FAILURE:
        failed = next((parent for parent in parents if parent.status == Status.FAILED), None)
        values = [] if failed is None else _told(failed, delivery, errors[failed.id])
    else:
        values = [_value(parent, errors) for parent in parents]
    return delivery._replace(payload=filled(delivery.payload, values, refers=how == Feed.REFERENCES))


def _value(parent: Parent, errors: dict[str, str]) -> Value:
    text = parent.result if parent.status == Status.SUCCESSFUL else errors[parent.id]
    return Value(parent.opens, parent.closes, parent.carries, text)


def _told(failed: Parent, delivery: Delivery, error: str) -> list[Value]:
    step = FailedStep(failed.id, failed.name, workflow_of(delivery.headers) or "")
    return [Value(0, 0, True, serializers.dumps(step)), Value(0, 0, True, error)]


def errors_of(using: str, ids: Iterable[str]) -> dict[str, tuple[str, str]]:
    """Class and message of the last error of each of these runs that has one."""
    wanted, found = [UUID(id) for id in ids], dict[str, tuple[str, str]]()
    for start in range(0, len(wanted), AT_ONCE):
        attempts = TaskAttempt.objects.using(using).filter(task_id__in=wanted[start : start + AT_ONCE]).order_by("id")
        for pk, class_path, message in attempts.values_list("task_id", "class_path", "message"):
            found[str(pk)] = class_path, message
    return found


def _errors(using: str, parents: Sequence[Parent]) -> dict[str, str]:
    """How steps ended that did not succeed, as JSON by id."""
    if not parents:
        return {}
    failed = errors_of(using, {parent.id for parent in parents if parent.status == Status.FAILED})
    told = {}
    for parent in parents:
        class_path, message = failed.get(parent.id) or _of_reason(parent)
        told[parent.id] = serializers.dumps(StepError(class_path, message, parent.id, parent.name))
    return told


def _of_reason(parent: Parent) -> tuple[str, str]:
    name, _, message = parent.reason.partition(": ")
    return name or str(parent.status), message
