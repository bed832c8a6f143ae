"""Commands to workers, and what workers answered: the audit of who told which worker to do what.

A row is only a request. Whoever can write this table can write one, so workers check each again; see
:mod:`django_taskq.control`, which issues them, and :mod:`django_taskq.worker.commands`, which obeys.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, ClassVar

from django.db import models
from django.db.models import BooleanField, Case, Value, When
from django.db.models.functions import Length, Substr
from django.utils.translation import gettext_lazy as _

from django_taskq.models.clock import database_now, database_now_plus


class CommandQuerySet(models.QuerySet["Command"]):
    """What may be asked of commands."""

    def issue(
        self,
        name: str,
        arguments: str,
        worker_ids: Iterable[int | None],
        *,
        issued_by: str = "",
        user_id: str = "",
        seconds: float,
    ) -> list[Command]:
        """One for each of these workers (None: one for all of them), good for so many seconds."""
        now, until = database_now(self.db), database_now_plus(self.db, seconds)
        who: dict[str, Any] = {"issued_by": issued_by[:300], "user_id": user_id[:64]}
        made = [
            Command(name=name, arguments=arguments, worker_id=worker_id, issued_at=now, expires_at=until, **who)
            for worker_id in worker_ids
        ]
        return self.bulk_create(made)

    def to_obey(self, most_text: int) -> CommandQuerySet:
        """With ``is_expired`` by the database's clock, and texts cut where somebody wrote more than is allowed."""
        expired = Case(When(expires_at__lte=database_now(self.db), then=Value(True)), default=Value(False))
        return self.defer("arguments").annotate(
            is_expired=models.ExpressionWrapper(expired, output_field=BooleanField()),
            size=Length("arguments"),
            text=Substr("arguments", 1, most_text),
        )


class Command(models.Model):
    """One order to one worker, or to all (``worker`` is None).

    ``arguments`` is a JSON object as text, so that reading the row never decodes what somebody else has written. Who
    issued it is kept by name, not by a foreign key: users may live in another database, or be none of Django's.
    """

    name = models.CharField(_("command"), max_length=50)
    arguments = models.TextField(_("arguments"), default="{}")
    worker = models.ForeignKey(
        "django_taskq.Worker", verbose_name=_("worker"), on_delete=models.CASCADE, null=True, related_name="+"
    )
    issued_by = models.CharField(_("issued by"), max_length=300, blank=True)
    user_id = models.CharField(_("user id"), max_length=64, blank=True)
    issued_at = models.DateTimeField(_("issued at"), db_index=True)
    expires_at = models.DateTimeField(_("not after"))

    objects: ClassVar = CommandQuerySet.as_manager()

    class Meta:
        db_table = "taskq_command"
        verbose_name = _("command")
        verbose_name_plural = _("commands")
        default_permissions = ("view",)
        permissions = [("control_worker", "Can give orders to workers")]

    def __str__(self) -> str:
        return f"{self.name} #{self.pk}"


class CommandReply(models.Model):
    """What one worker answered: a JSON value, or with ``is_ok`` False the reason as a JSON string."""

    command = models.ForeignKey(Command, verbose_name=_("command"), on_delete=models.CASCADE, related_name="reply_set")
    worker = models.ForeignKey(
        "django_taskq.Worker", verbose_name=_("worker"), on_delete=models.CASCADE, related_name="+"
    )
    is_ok = models.BooleanField(_("obeyed"))
    reply = models.TextField(_("reply"), default="null")
    at = models.DateTimeField(_("at"))

    class Meta:
        db_table = "taskq_command_reply"
        verbose_name = _("reply")
        verbose_name_plural = _("replies")
        default_permissions = ("view",)
        constraints = [models.UniqueConstraint(fields=["command", "worker"], name="taskq_one_reply")]

    def __str__(self) -> str:
        return f"{self.command_id} {self.worker_id}"
