"""What holds runs back: limits with their state, the permits of runs, and the keys of those that are to be unique.

A run without any of it has no row here. Who holds what is counted from the permits of live runs; nothing is added up
that a crash could leave wrong.
"""

from __future__ import annotations

from collections.abc import Collection
from typing import ClassVar
from uuid import UUID

from django.db import models
from django.db.models import Exists, F, OuterRef, Q, Subquery
from django.db.models.functions import Coalesce
from django.utils.translation import gettext_lazy as _

from django_taskq.gates import AT_GATE, Gate, Kind, dumps, gates_of, loads
from django_taskq.models.outbox import publication
from django_taskq.models.task import TaskRecord
from django_taskq.status import Status


class LimitQuerySet(models.QuerySet["Limit"]):
    """What may be asked of limits."""

    def in_force(self) -> LimitQuerySet:
        """With ``now_most``, ``now_rate`` and ``now_burst``: what was set for them, or as wholes, or declared."""
        whole = Limit.objects.using(self.db).filter(pk=OuterRef("base"))
        return self.annotate(
            **{
                f"now_{name}": Coalesce(f"set_{name}", Subquery(whole.values(f"set_{name}")[:1]), F(name))
                for name in ("most", "rate", "burst")
            }
        )

    def waited_for(self) -> LimitQuerySet:
        """Those at which somebody stands."""
        return self.filter(self._has_waiters())

    def by_waiters(self) -> LimitQuerySet:
        """Those with waiters first, as ``has_waiters`` says, and then by their keys."""
        return self.annotate(has_waiters=self._has_waiters()).order_by("-has_waiters", "pk")

    def _has_waiters(self) -> Exists:
        waiting = Permit.objects.using(self.db).filter(key=OuterRef("pk"), state__lt=PermitState.HELD)
        return Exists(waiting)

    def was_set(self) -> LimitQuerySet:
        """Those that something was set on, while they were in use."""
        return self.filter(set_at__isnull=False)


class Limit(models.Model):
    """One gate that runs pass: a limit, a lock or a breaker, for one key. ``base`` is the key of the limit as a whole.

    What the code declares is written by the newest run that came with it. What was set at run time goes before it; set
    on the row of the ``base`` it holds for all of its keys.
    """

    key = models.CharField(_("key"), max_length=500, primary_key=True)
    base = models.CharField(_("limit"), max_length=300)
    kind = models.CharField(_("kind"), max_length=10, choices=[(kind.value, kind.value) for kind in Kind])
    most = models.IntegerField(_("at once"), null=True)
    rate = models.FloatField(_("per second"), null=True)
    burst = models.IntegerField(_("burst"), null=True)
    rest = models.FloatField(_("rest"), null=True)
    # The run whose word the declaration is: ids rise with time, so an older one does not undo it.
    declared_by = models.UUIDField(null=True, editable=False)
    set_most = models.IntegerField(_("at once, set"), null=True)
    set_rate = models.FloatField(_("per second, set"), null=True)
    set_burst = models.IntegerField(_("burst, set"), null=True)
    set_by = models.CharField(_("set by"), max_length=300, blank=True, db_default="")
    set_at = models.DateTimeField(_("set at"), null=True)
    # In POSIX seconds: up to when the rate is used up, and when the next may pass, while somebody waits for that.
    spent_until = models.FloatField(null=True, editable=False)
    opens_at = models.FloatField(_("opens at"), null=True)
    # Of a breaker: failures in a row, what they were, and whether it is open.
    failures = models.IntegerField(_("failures"), db_default=0)
    failure = models.CharField(_("failure"), max_length=255, blank=True, db_default="")
    tripped_at = models.FloatField(_("tripped at"), null=True)

    objects: ClassVar = LimitQuerySet.as_manager()

    class Meta:
        db_table = "taskq_limit"
        verbose_name = _("limit")
        verbose_name_plural = _("limits")
        default_permissions = ("view",)
        permissions = [("change_limits", "Can change limits and release their holders")]
        indexes = [
            models.Index(fields=["opens_at"], name="taskq_limit_opening", condition=Q(opens_at__isnull=False)),
            models.Index(fields=["base"], name="taskq_limit_base"),
        ]

    def __str__(self) -> str:
        return self.key

    @property
    def sub(self) -> str:
        """What tells it apart from the other keys of its limit; "" for the limit as a whole."""
        return self.key[len(self.base) + 1 :]

    @classmethod
    def declared(cls, gate: Gate, by: UUID | None) -> Limit:
        """The row of a gate as this run, or this start of a worker, declares it; not saved."""
        own = {name: getattr(gate, name) for name in ("key", "base", "kind", "most", "rate", "burst", "rest")}
        return cls(**own, declared_by=by)

    def as_gate(self) -> Gate:
        """The gate of runs, as it is declared."""
        kind, _, name = self.base.partition(":")
        return Gate(kind, name, self.sub, self.most, self.rate, self.burst, self.rest)


class PermitState(models.IntegerChoices):
    """How far a run is at one gate."""

    NEW = 0, _("new")  # nobody has looked yet whether it may pass
    WAITING = 1, _("waiting")
    HELD = 2, _("held")
    FOLLOWING = 3, _("next")  # claimed, and started once the run before it in its process has ended


class PermitQuerySet(models.QuerySet["Permit"]):
    """What may be done to permits, besides what :mod:`django_taskq.brokers.database.admission` does."""

    def put_at_gates(self, ids: Collection[UUID]) -> None:
        """Have these runs, whose rows say that they wait at a gate, stand at their first one; no run twice."""
        there = Permit.objects.using(self.db).filter(task_id=OuterRef("pk"))
        runs = TaskRecord.objects.using(self.db).filter(pk__in=ids, status=Status.WAITING, waits_at=AT_GATE)
        arriving = runs.exclude(Exists(there)).order_by("pk").values_list("pk", "headers", "priority")
        permits, spoilt = [], []
        for pk, headers, priority in arriving:
            gates = gates_of(headers)
            if not gates:
                spoilt.append(pk)  # its worker will say so, and fail it alone
                continue
            permits.append(
                Permit(task_id=pk, key=gates[0].key, state=PermitState.NEW, priority=priority, gates=dumps(gates))
            )
        self.bulk_create(permits)
        if spoilt:
            ready = TaskRecord.objects.using(self.db).filter(pk__in=spoilt, status=Status.WAITING)
            ready.update(status=Status.READY, waits_at=None, **publication(self.db))

    def put_back(self, ids: Collection[UUID]) -> None:
        """:meth:`put_at_gates` for runs that had ended: what they have left at gates since then is not theirs again."""
        runs = TaskRecord.objects.using(self.db).filter(pk__in=ids, status=Status.WAITING, waits_at=AT_GATE)
        self.filter(task_id__in=runs.values("pk")).delete()
        self.put_at_gates(ids)


class Permit(models.Model):
    """One run at, or past, one gate. Ids rise in the order of arrival, which is the order of passing."""

    id = models.BigAutoField(primary_key=True)
    task_id = models.UUIDField()
    key = models.CharField(max_length=500)
    state = models.SmallIntegerField(choices=PermitState.choices)
    priority = models.SmallIntegerField()
    # This gate and those behind it, as JSON.
    gates = models.TextField()
    # Of one that a running task took by itself, or that follows: under which claim; it ends with that.
    worker_id = models.BigIntegerField(null=True)
    claim = models.BigIntegerField(null=True)

    objects: ClassVar = PermitQuerySet.as_manager()

    class Meta:
        db_table = "taskq_permit"
        default_permissions = ()
        verbose_name = _("permit")
        verbose_name_plural = _("permits")
        indexes = [
            models.Index(
                models.F("key"),
                models.F("priority").desc(),
                models.F("id"),
                name="taskq_permit_waiting",
                condition=Q(state__lt=2),
            ),
            models.Index(fields=["key"], name="taskq_permit_held", condition=Q(state=2)),
            # By an expression, so that nothing else has this order: asked for it, no planner takes another way.
            models.Index(models.F("id") * -1, name="taskq_permit_new", condition=Q(state=0)),
            models.Index(fields=["task_id"], name="taskq_permit_task"),
            models.Index(fields=["worker_id", "key", "claim"], name="taskq_permit_next", condition=Q(state=3)),
        ]

    def __str__(self) -> str:
        return f"{self.task_id} at {self.key}"

    @property
    def gate(self) -> Gate:
        """The gate itself, as the run has it."""
        return loads(self.gates)[0]


class UniqueKey(models.Model):
    """The run that has a key for itself: while it has not ended, or until a time.

    Locking this row is what decides between callers. Whether its run still counts is read from the run.
    """

    key = models.CharField(_("key"), max_length=500, primary_key=True)
    task_id = models.UUIDField()
    until = models.DateTimeField(_("until"), null=True)
    asked_at = models.DateTimeField(_("asked for at"))

    objects: ClassVar = models.Manager()

    class Meta:
        db_table = "taskq_unique"
        default_permissions = ("view",)
        verbose_name = _("unique key")
        verbose_name_plural = _("unique keys")

    def __str__(self) -> str:
        return self.key
