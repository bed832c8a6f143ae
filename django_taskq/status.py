"""The statuses of a run (see ``docs/states.md`` for the ways between them)."""

from __future__ import annotations

from django.db.models import TextChoices
from django.utils.translation import gettext_lazy as _


class Status(TextChoices):
    """Where a run is. RUNNING without a start time is claimed but not begun, and shown as READY."""

    SCHEDULED = "SCHEDULED", _("Scheduled")
    WAITING = "WAITING", _("Waiting")
    READY = "READY", _("Ready")
    RUNNING = "RUNNING", _("Running")
    SUCCESSFUL = "SUCCESSFUL", _("Successful")
    FAILED = "FAILED", _("Failed")
    CANCELLED = "CANCELLED", _("Cancelled")

    @property
    def is_final(self) -> bool:
        """Whether the run has ended for good."""
        return self in FINAL


FINAL = frozenset({Status.SUCCESSFUL, Status.FAILED, Status.CANCELLED})
PENDING = frozenset({Status.SCHEDULED, Status.WAITING, Status.READY})
