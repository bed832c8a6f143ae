"""Indexes of what is READY, by the place in line, and of what waits for limits. Built while the table is in use."""

from django.db import migrations, models
from django.db.models.functions import Coalesce

from django_taskq.migrations._operations import AddIndexWhileInUse, RemoveIndexWhileInUse


class Migration(migrations.Migration):
    atomic = False
    dependencies = [("django_taskq", "0011_flow")]

    operations = [
        AddIndexWhileInUse(
            model_name="taskrecord",
            index=models.Index(
                models.F("queue_name"),
                models.OrderBy(models.F("priority"), descending=True),
                Coalesce("place", "id"),
                condition=models.Q(("status", "READY")),
                name="taskq_line",
            ),
        ),
        AddIndexWhileInUse(
            model_name="taskrecord",
            index=models.Index(
                models.F("queue_name"),
                models.OrderBy(models.F("priority"), descending=True),
                Coalesce("place", "id"),
                condition=models.Q(("status", "WAITING"), ("waits_at", -2)),
                name="taskq_at_gate",
            ),
        ),
        RemoveIndexWhileInUse(model_name="taskrecord", name="taskq_ready"),
    ]
