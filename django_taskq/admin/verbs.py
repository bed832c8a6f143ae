"""What a person may do to runs. Each verb takes a queryset of any size, and says what it did and what it passed over.

Rows are never loaded all at once. Who may do what is not decided here (:mod:`django_taskq.admin.actions`).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any
from uuid import UUID

from django.db import transaction
from django.db.models import Exists, OuterRef, Q
from django.utils.translation import gettext as _
from django.utils.translation import gettext_lazy, ngettext

from django_taskq import client, control, registry
from django_taskq.admin.words import one_line
from django_taskq.cancelling import cancel_records
from django_taskq.exceptions import EnqueueError, SerializationError, UnknownQueue
from django_taskq.message import Message, new_ids
from django_taskq.models import TaskAttempt, TaskRecord
from django_taskq.models.task import TaskQuerySet
from django_taskq.status import FINAL, PENDING, Status
from django_taskq.unique_keys import KEYED

COUNTED = 10_000  # what is passed over is counted up to here
AT_ONCE = 500
RETRYABLE = (Status.FAILED, Status.CANCELLED)


@dataclass(slots=True)
class Tally:
    """What a verb did. ``asked`` are runs that a worker has and that were marked; ``made`` are ids of new runs."""

    done: int = 0
    asked: int = 0
    made: list[str] = field(default_factory=list)
    passed_over: Counter[str] = field(default_factory=Counter)


def retry(records: TaskQuerySet) -> Tally:
    """Another attempt of the same runs, at once."""
    records = bare(records)
    tally = Tally(passed_over=_by_status(records.exclude(status__in=RETRYABLE)))
    tally.done = control.retry(records)
    if registry.is_unique():
        refused = records.filter(status__in=RETRYABLE, headers__contains=KEYED, workflow__isnull=True)[:COUNTED].count()
        tally.passed_over += Counter({_("unique, and another run has their key now"): refused})
    return tally


def cancel(records: TaskQuerySet) -> Tally:
    """Not to run; what a worker has already is marked instead."""
    records = bare(records)
    tally = Tally(passed_over=_by_status(records.filter(status__in=FINAL)))
    tally.asked = records.filter(status=Status.RUNNING, cancel_requested_at=None).count()
    again = records.filter(status=Status.RUNNING, cancel_requested_at__isnull=False).count()
    if again:
        tally.passed_over[_("asked before")] += again
    tally.done = max(0, cancel_records(records) - tally.asked)
    return tally


def run_again(records: TaskQuerySet) -> Tally:
    """New runs with the same arguments, linked to the old ones."""
    tally = Tally()
    for chunk in _chunks(bare(records)):
        pairs = []
        for record in chunk:
            refusal = _refusal(record)
            if refusal:
                tally.passed_over[refusal] += 1
            else:
                pairs.append(record)
        _enqueue([_again(record, id) for record, id in zip(pairs, new_ids(len(pairs)), strict=True)], tally)
    return tally


def delete(records: TaskQuerySet) -> Tally:
    """Gone with their attempts; what a worker holds stays, and so do steps: others wait for them or read them."""
    using, records = records.db, bare(records)
    single = records.filter(workflow__isnull=True)
    tally = Tally(passed_over=_by_status(single.filter(status=Status.RUNNING)))
    steps = records.filter(workflow__isnull=False)[:COUNTED].count()
    if steps:
        tally.passed_over[_("steps, which go with their workflow")] += steps
    every = TaskRecord.objects.using(using)
    for chunk in _chunks(single.exclude(status=Status.RUNNING).only("pk")):
        ids = [record.pk for record in chunk]
        with transaction.atomic(using=using):
            # The rows go first, by their status in this very statement: a worker may have claimed one meanwhile.
            # The foreign key of the attempts is checked at commit.
            tally.done += every.filter(pk__in=ids).exclude(status=Status.RUNNING)._raw_delete(using)
            orphans = TaskAttempt.objects.using(using).filter(task_id__in=ids)
            orphans.filter(~Exists(every.filter(pk=OuterRef("task_id"))))._raw_delete(using)
    return tally


def bare(records: TaskQuerySet) -> TaskQuerySet:
    """Without the list page's order, joins and deferred columns."""
    return records.order_by().select_related(None).defer(None)


def _by_status(records: TaskQuerySet) -> Counter[str]:
    fields = records.only("status", "started_at")[:COUNTED]
    return Counter(str(record.shown_status.label) for record in fields)


def _chunks(records: TaskQuerySet) -> Iterator[list[TaskRecord]]:
    """In id order, up to the newest row there is now: rows that a verb adds are not taken for its input."""
    newest: UUID | None = records.order_by("-pk").values_list("pk", flat=True).first()
    if newest is None:
        return
    rest = records.filter(pk__lte=newest).order_by("pk")
    chunk = list(rest[:AT_ONCE])
    while chunk:
        yield chunk
        chunk = list(rest.filter(pk__gt=chunk[-1].pk)[:AT_ONCE]) if len(chunk) == AT_ONCE else []


def _refusal(record: TaskRecord) -> str:
    """Why this run cannot be made again here, or ""."""
    if record.workflow_id is not None:
        return _("it is a step, which gets its values from its workflow: resume that")
    if registry.find(record.name) is None:
        return _("the task %(name)s is not registered here") % {"name": one_line(record.name)}
    try:
        client.check_queue(record.queue_name)
        record.headers_read  # noqa: B018 - it raises when it cannot be read
    except UnknownQueue:
        return _("no queue is named %(name)s any more") % {"name": one_line(record.queue_name)}
    except (SerializationError, AttributeError, TypeError):
        return _("its options cannot be read")
    return ""


def _again(record: TaskRecord, id: str) -> Message:
    now = datetime.now(UTC)
    life = None if record.expires_at is None else record.expires_at - record.enqueued_at
    return Message(
        id,
        record.name,
        record.queue_name,
        record.priority,
        record.payload,
        record.headers_read._replace(rerun_of=str(record.pk), unique=None, replaced=None).dumps(),
        now,
        expires_at=None if life is None else now + life,
    )


def _enqueue(messages: list[Message], tally: Tally) -> None:
    if not messages:
        return
    try:
        duplicates = client.enqueue(messages)
    except EnqueueError as error:
        if len(messages) == 1:
            tally.passed_over[one_line(str(error))[:300]] += 1
            return
        for message in messages:
            _enqueue([message], tally)
        return
    made = [message.id for message in messages if message.id not in duplicates]
    tally.done += len(made)
    tally.made += made
    tally.passed_over += Counter({_("unique, and a run with their key is there"): len(duplicates)})


@dataclass(frozen=True, slots=True)
class Verb:
    """A verb with its words. ``permission`` is the codename; ``takes`` are the statuses it can do something to."""

    name: str
    permission: str
    label: Any
    label_many: Any
    help: Any
    takes: frozenset[Status]
    perform: Callable[[TaskQuerySet], Tally]
    done: Callable[[int], str]

    def allows(self, record: TaskRecord) -> bool:
        """Whether it would do anything to this run."""
        if self.name == "cancel" and record.cancel_requested_at is not None:
            return False
        if record.workflow_id is not None and self.name in ("run", "delete"):
            return False
        return record.status in self.takes and (self.name != "run" or registry.find(record.name) is not None)

    @property
    def eligible(self) -> Q:
        """:attr:`takes` as a condition."""
        return Q(status__in=[status.value for status in self.takes])


def _verbs() -> Iterable[Verb]:
    yield Verb(
        "retry",
        "retry_taskrecord",
        gettext_lazy("Retry"),
        gettext_lazy("Retry: another attempt of the same run"),
        gettext_lazy("Same record, next attempt, history kept. Only failed and cancelled runs can be retried."),
        frozenset(RETRYABLE),
        retry,
        lambda n: ngettext("%(n)d run is to be tried again.", "%(n)d runs are to be tried again.", n) % {"n": n},
    )
    yield Verb(
        "run",
        "run_taskrecord",
        gettext_lazy("Run again"),
        gettext_lazy("Run again: a new run with the same arguments"),
        gettext_lazy("A new record linked to this one. Only tasks registered here can be run again, and no steps."),
        frozenset(Status),
        run_again,
        lambda n: ngettext("%(n)d new run was enqueued.", "%(n)d new runs were enqueued.", n) % {"n": n},
    )
    yield Verb(
        "cancel",
        "cancel_taskrecord",
        gettext_lazy("Cancel"),
        gettext_lazy("Cancel: do not run"),
        gettext_lazy("A run that has not started will not run. One that a worker has is marked. Ended ones stay."),
        PENDING | {Status.RUNNING},
        cancel,
        lambda n: ngettext("%(n)d run was cancelled.", "%(n)d runs were cancelled.", n) % {"n": n},
    )
    yield Verb(
        "delete",
        "delete_taskrecord",
        gettext_lazy("Delete"),
        gettext_lazy("Delete: remove record and history"),
        gettext_lazy("Record, attempts and result are removed for good. What a worker holds stays, and so do steps."),
        frozenset(Status) - {Status.RUNNING},
        delete,
        lambda n: ngettext("%(n)d record was deleted.", "%(n)d records were deleted.", n) % {"n": n},
    )


VERBS = {verb.name: verb for verb in _verbs()}
