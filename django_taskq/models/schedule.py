"""Periodic tasks, what became of each of their due times, and who runs them.

A due time is claimed by its :class:`ScheduleTick`: one row for each (periodic task, nominal due time), written in the
transaction that enqueues the run. The lease of the schedulers only saves work.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from datetime import datetime
from typing import Any, ClassVar

from django.db import models
from django.db.models import Q
from django.db.models.base import ModelBase
from django.utils.timezone import now
from django.utils.translation import gettext_lazy as _

from django_taskq import clock, schedules, serializers
from django_taskq.models.clock import aware, database_now, database_now_plus, stored
from django_taskq.models.payload import WithPayload
from django_taskq.schedules import CatchUp, Overlap, Schedule

NO_ARGUMENTS = "[[],{}]"
# When it runs and what happens to due times that cannot be kept: what an admin may override of a declared one.
TIMING = (
    "schedule",
    "timezone",
    "starts_at",
    "ends_at",
    "jitter",
    "catch_up",
    "catch_up_limit",
    "overlap",
    "max_lateness",
)
CALL = ("task_name", "payload", "queue_name", "priority", "expires")
# Written by schedulers alone: nobody who edits the rest may put back what they read earlier.
PROGRESS = ("next_due_at", "next_start_at", "last_due_at", "pending_due_at", "last_run_id")


CATCH_UPS = [
    (CatchUp.NONE.value, _("run none that was missed")),
    (CatchUp.LAST.value, _("run the last one that was missed")),
    (CatchUp.ALL.value, _("run all that were missed")),
]
OVERLAPS = [
    (Overlap.ALLOW.value, _("start beside it")),
    (Overlap.SKIP.value, _("leave this one out")),
    (Overlap.QUEUE_ONE.value, _("start when it ends; at most one waits")),
    (Overlap.CANCEL_PREVIOUS.value, _("cancel it")),
]


class Source(models.TextChoices):
    """Where a periodic task comes from."""

    DATABASE = "DATABASE", _("the database")
    CODE = "CODE", _("@task(schedule=...)")
    SETTINGS = "SETTINGS", _("TASKQ['SCHEDULE']")


class PeriodicTaskQuerySet(models.QuerySet["PeriodicTask"]):
    """What may be asked of schedules."""

    def active(self) -> PeriodicTaskQuerySet:
        """Those that run."""
        return self.filter(is_enabled=True, is_retired=False)

    def due(self) -> PeriodicTaskQuerySet:
        """Those with something to decide now, by the database's clock, the most urgent first."""
        return self.active().filter(next_start_at__lte=database_now(self.db)).order_by("next_start_at")

    def pending(self) -> PeriodicTaskQuerySet:
        """Those with a run that waits for the previous one to end."""
        return self.active().filter(pending_due_at__isnull=False)


class PeriodicTask(WithPayload, models.Model):
    """What to run, when, and how to treat due times that were missed or come while the last run is going on.

    ``schedule`` is the text form of :mod:`django_taskq.schedules`. Empty ``queue_name``, ``priority`` and ``expires``
    leave it to the task. ``expires`` and ``max_lateness`` are seconds after the due time.
    """

    name = models.CharField(_("name"), max_length=200, unique=True)
    task_name = models.CharField(_("task"), max_length=255)
    schedule = models.CharField(_("schedule"), max_length=300)
    timezone = models.CharField(_("time zone"), max_length=64, blank=True)
    starts_at = models.DateTimeField(_("not before"), null=True, blank=True)
    ends_at = models.DateTimeField(_("not after"), null=True, blank=True)
    jitter = models.FloatField(_("jitter"), default=0)
    catch_up = models.CharField(_("after a downtime"), max_length=10, choices=CATCH_UPS, default=CatchUp.LAST.value)
    catch_up_limit = models.PositiveIntegerField(_("at most so many runs"), default=100)
    overlap = models.CharField(
        _("while the last run goes on"),
        max_length=20,
        choices=OVERLAPS,
        default=Overlap.ALLOW.value,
    )
    max_lateness = models.FloatField(_("lateness limit"), null=True, blank=True)
    payload = models.TextField(_("arguments"), default=NO_ARGUMENTS)
    queue_name = models.CharField(_("queue"), max_length=100, blank=True)
    priority = models.SmallIntegerField(_("priority"), null=True, blank=True)
    expires = models.FloatField(_("expires"), null=True, blank=True)
    is_enabled = models.BooleanField(_("enabled"), default=True)
    is_one_off = models.BooleanField(_("one-off"), default=False)
    source = models.CharField(
        _("comes from"), max_length=10, choices=Source.choices, default=Source.DATABASE, editable=False
    )
    declared = models.TextField(null=True, editable=False)  # noqa: DJ001 - NULL is "not declared"
    is_retired = models.BooleanField(_("no longer in the code"), default=False, editable=False)
    next_due_at = models.DateTimeField(_("next run"), null=True, editable=False)
    next_start_at = models.DateTimeField(null=True, editable=False)
    last_due_at = models.DateTimeField(_("last run"), null=True, editable=False)
    pending_due_at = models.DateTimeField(null=True, editable=False)
    last_run_id = models.UUIDField(null=True, editable=False)
    created_at = models.DateTimeField(_("created at"), default=now, editable=False)

    objects: ClassVar = PeriodicTaskQuerySet.as_manager()

    class Meta:
        db_table = "taskq_periodic_task"
        verbose_name = _("periodic task")
        verbose_name_plural = _("periodic tasks")
        permissions = [
            ("schedule_task", "Can put tasks on a schedule (which runs code)"),
            ("run_periodictask", "Can run periodic tasks now"),
        ]
        indexes = [
            models.Index(
                fields=["next_start_at"],
                name="taskq_schedule_due",
                condition=Q(is_enabled=True, is_retired=False, next_start_at__isnull=False),
            ),
            models.Index(
                fields=["pending_due_at"], name="taskq_schedule_pending", condition=Q(pending_due_at__isnull=False)
            ),
        ]

    def __str__(self) -> str:
        return self.name

    def save(
        self,
        *args: Any,
        force_insert: bool | tuple[ModelBase, ...] = False,
        force_update: bool = False,
        using: str | None = None,
        update_fields: Iterable[str] | None = None,
    ) -> None:
        """Save; a new or changed timing, or being enabled again, plans the next run from now on.

        What schedulers write is left alone otherwise: they may have gone on since this was read.
        """
        if update_fields is None:
            names = {field.attname for field in self._meta.concrete_fields if not field.primary_key}
            is_new = self._state.adding or bool(force_insert)
            if is_new or self._has_new_timing(using):
                self.plan_next(clock.now())
                self.pending_due_at = None
            else:
                names -= set(PROGRESS)
            update_fields = None if is_new else names
        super().save(force_insert=force_insert, force_update=force_update, using=using, update_fields=update_fields)

    def _has_new_timing(self, using: str | None) -> bool:
        """Whether what is to be saved runs at other times than what is stored."""
        names = ("is_enabled", "is_retired", *TIMING)
        rows = PeriodicTask.objects.using(using or self._state.db).filter(pk=self.pk)
        return rows.values_list(*names).first() != tuple(getattr(self, name) for name in names)

    def get_schedule(self) -> Schedule:
        """The schedule. Raises ``InvalidSchedule`` when what is stored cannot be read here."""
        return schedules.parse(
            self.schedule,
            timezone=self.timezone or None,
            start=self.starts_at and aware(self.starts_at),
            end=self.ends_at and aware(self.ends_at),
            jitter=self.jitter,
            catch_up=self.catch_up,
            catch_up_limit=self.catch_up_limit,
            overlap=self.overlap,
            max_lateness=self.max_lateness,
        )

    @property
    def is_declared(self) -> bool:
        """Whether code or settings define it."""
        return self.source != Source.DATABASE

    @property
    def is_overridden(self) -> bool:
        """Whether its timing was changed here and differs from what code or settings say."""
        if self.declared is None:
            return False
        try:
            declared = json.loads(self.declared)
            return any(serializers.loads(declared[name]) != getattr(self, name) for name in TIMING)
        except (ValueError, KeyError, TypeError):
            return True  # edited by hand: whatever it said, what stands here is kept

    def restore_declared(self, *, timing: bool = True) -> None:
        """Take over what code or settings say, the timing only when ``timing``. Nothing is saved."""
        declared = json.loads(self.declared or "{}")
        for name in (*CALL, *(TIMING if timing else ())):
            if name in declared:
                setattr(self, name, serializers.loads(declared[name]))

    def plan_next(self, after: datetime, schedule: Schedule | None = None) -> None:
        """Set the next due time, the first after ``after``; none while it is disabled. Nothing is saved."""
        if not self.is_enabled or self.is_retired:
            self.next_due_at = self.next_start_at = None
            return
        schedule = schedule or self.get_schedule()
        due = schedule.next_run(after)
        self.next_due_at = due and stored(due)
        self.next_start_at = due and stored(schedule.starts_at(due, self.name))


class Decision(models.TextChoices):
    """What became of a due time."""

    ENQUEUED = "ENQUEUED", _("enqueued")
    BY_HAND = "BY_HAND", _("run by hand")
    MISSED = "MISSED", _("missed: nobody was there to run it")
    LATE = "LATE", _("skipped: too late")
    OVERLAP = "OVERLAP", _("skipped: the last run was going on")
    SKIPPED = "SKIPPED", _("skipped by hand")
    REFUSED = "REFUSED", _("could not be enqueued")


class ScheduleTick(models.Model):
    """One due time and what was decided; one row may stand for ``count`` of them in a row, the last at ``due_at``."""

    periodic_task = models.ForeignKey(
        PeriodicTask, on_delete=models.CASCADE, related_name="ticks", verbose_name=_("periodic task")
    )
    due_at = models.DateTimeField(_("due at"))
    decision = models.CharField(_("decision"), max_length=10, choices=Decision.choices)
    first_due_at = models.DateTimeField(_("since"), null=True)
    count = models.PositiveIntegerField(_("due times"), default=1)
    run_id = models.UUIDField(_("run"), null=True)
    reason = models.TextField(_("reason"), blank=True)
    decided_at = models.DateTimeField(_("decided at"), default=now, db_index=True)

    class Meta:
        db_table = "taskq_schedule_tick"
        ordering = ["-due_at"]
        verbose_name = _("due time")
        verbose_name_plural = _("due times")
        constraints = [models.UniqueConstraint(fields=["periodic_task", "due_at"], name="taskq_one_tick")]

    def __str__(self) -> str:
        return f"{self.due_at:%Y-%m-%d %H:%M:%S} {self.get_decision_display()}"


class SchedulerLeaseQuerySet(models.QuerySet["SchedulerLease"]):
    """Who does the looking. All times are compared by the database's clock."""

    def take(self, holder: str, seconds: float) -> bool:
        """Keep or take over the lease for ``seconds``; False while somebody else has it."""
        if self._take(holder, seconds):
            return True
        if self.filter(pk=1).exists():
            return False
        self.bulk_create([SchedulerLease(pk=1, holder="", expires_at=now())], ignore_conflicts=True)
        return self._take(holder, seconds)

    def _take(self, holder: str, seconds: float) -> bool:
        free = Q(holder=holder) | Q(expires_at__lte=database_now(self.db))
        return bool(self.filter(free, pk=1).update(holder=holder, expires_at=database_now_plus(self.db, seconds)))

    def release(self, holder: str) -> None:
        """Let the next one have it at once."""
        self.filter(holder=holder).update(expires_at=database_now(self.db))

    def holder(self) -> str | None:
        """Who schedules now; None when nobody does."""
        return self.filter(expires_at__gt=database_now(self.db)).values_list("holder", flat=True).first()


class SchedulerLease(models.Model):
    """One row: which scheduler looks. The others stand by, and two that look at once do no harm."""

    holder = models.CharField(max_length=300)
    expires_at = models.DateTimeField()

    objects: ClassVar = SchedulerLeaseQuerySet.as_manager()

    class Meta:
        db_table = "taskq_scheduler_lease"
        verbose_name = _("lease of the schedulers")
        verbose_name_plural = _("lease of the schedulers")

    def __str__(self) -> str:
        return self.holder


def call_of(periodic: PeriodicTask) -> dict[str, Any]:
    """The fields that say what is run and when, as ``declared`` stores them."""
    return {name: serializers.dumps(getattr(periodic, name)) for name in (*CALL, *TIMING)}


def timing_of(schedule: Schedule) -> dict[str, Any]:
    """A schedule as the fields of a :class:`PeriodicTask`."""
    return {
        "schedule": str(schedule),
        "timezone": schedule.timezone or "",
        "starts_at": schedule.start and stored(schedule.instant(schedule.start)),
        "ends_at": schedule.end and stored(schedule.instant(schedule.end)),
        "jitter": schedule.jitter,
        "catch_up": str(schedule.catch_up),
        "catch_up_limit": schedule.catch_up_limit,
        "overlap": str(schedule.overlap),
        "max_lateness": schedule.max_lateness,
    }
