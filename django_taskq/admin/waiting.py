"""Why a run is not running, in a sentence."""

from __future__ import annotations

from django.db.models import Q
from django.utils import timezone
from django.utils.translation import gettext as _
from django.utils.translation import ngettext

from django_taskq import brokers, conf
from django_taskq.admin import workflow_words
from django_taskq.admin.queues import pause_of
from django_taskq.admin.words import duration, one_line, precise
from django_taskq.models import TaskRecord, Worker
from django_taskq.models.workflow_steps import awaited_by
from django_taskq.status import Status

COUNTED = 1000


def why_waiting(record: TaskRecord, using: str) -> str:
    """The sentence; "" for a run that has begun or ended."""
    status = record.shown_status
    if status == Status.RUNNING and record.cancel_requested_at is not None:
        asked = _("Cancellation was asked for at %(time)s. The worker that has it is told to stop it.")
        return asked % {"time": precise(record.cancel_requested_at)}
    if status == Status.SCHEDULED:
        return _scheduled(record, using)
    if status == Status.WAITING:
        found = awaited_by(using, [record]).get(record.pk)
        held = _("It is held back until other runs have ended, or until a limit or a paused key allows it.")
        return workflow_words.waits_for(found) if found else held
    if status == Status.READY:
        return _claimed(record) if record.status == Status.RUNNING else _ready(record, using)
    return ""


def serves(worker: Worker, queue_name: str) -> bool:
    """Whether a worker takes runs of this queue."""
    return queue_name in worker.slots_by_queue


def _scheduled(record: TaskRecord, using: str) -> str:
    if record.run_after is None:
        return _("It waits for a time that is not set.")
    left = (record.run_after - timezone.now()).total_seconds()
    if left > 0:
        words = {"time": precise(record.run_after), "left": duration(left), "attempt": record.attempt}
        if record.attempt > 1:
            return _("Attempt %(attempt)s is due in %(left)s, at %(time)s.") % words
        return _("It is due in %(left)s, at %(time)s.") % words
    if not Worker.objects.using(using).online().exists():
        return _("It is due, and no worker is online: start one with “manage.py taskworker”.")
    return _("It is due, and the next worker to look will make it ready.")


def _claimed(record: TaskRecord) -> str:
    process = record.worker
    if process is None:
        return _("A worker that is gone had claimed it; another one will give it back and take it.")
    return _("Worker %(worker)s has claimed it and begins it as soon as a slot is free.") % {
        "worker": one_line(str(process))
    }


def _ready(record: TaskRecord, using: str) -> str:
    queue = one_line(record.queue_name)
    pause = pause_of(record.queue_name, using)
    if pause is not None and pause.paused_at is not None:
        text = _("The queue %(queue)s has been paused since %(time)s: it starts once somebody resumes that.")
        return text % {"queue": queue, "time": precise(pause.paused_at)}
    online = list(Worker.objects.using(using).online())
    if not online:
        return _("No worker is online: start one with “manage.py taskworker”.")
    if not any(serves(worker, record.queue_name) for worker in online):
        return _(
            "No worker online serves the queue %(queue)s: start one with “manage.py taskworker --queues %(queue)s”."
        ) % {"queue": queue}
    alias = brokers.alias_of(record.queue_name)
    if record.publish_after is not None:
        # Of a run that has just been enqueued this holds for a second or so, however well all goes.
        return _(
            "That the broker %(broker)s has got it is not noted yet. Workers publish it again after %(time)s, as soon "
            "as the broker answers."
        ) % {"broker": one_line(alias), "time": precise(record.publish_after)}
    if not conf.get_settings().broker(alias).is_database:
        return _("It waits at the broker %(broker)s, and starts as soon as a worker is free to take it.") % {
            "broker": one_line(alias)
        }
    same = TaskRecord.objects.using(using).filter(status=Status.READY, queue_name=record.queue_name)
    first = same.filter(Q(priority__gt=record.priority) | Q(priority=record.priority, pk__lt=record.pk))
    count = first[: COUNTED + 1].count()
    if count > COUNTED:
        return _("More than %(count)s runs of the queue %(queue)s are before it.") % {
            "count": f"{COUNTED:,}",
            "queue": queue,
        }
    if not count:
        return _("It is the next of the queue %(queue)s, and starts as soon as a worker is free.") % {"queue": queue}
    before = ngettext(
        "%(count)d run of the queue %(queue)s is before it.",
        "%(count)d runs of the queue %(queue)s are before it.",
        count,
    )
    return before % {"count": count, "queue": queue}
