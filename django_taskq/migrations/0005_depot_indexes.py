"""Indexes for the outbox and for copies. On PostgreSQL they are built while the table is in use.

Building one reads the whole table, and the plain form keeps every writer out for that long.
"""

from django.db import migrations, models

from django_taskq.migrations._operations import AddIndexWhileInUse


class Migration(migrations.Migration):
    atomic = False
    dependencies = [("django_taskq", "0004_depots")]

    operations = [
        AddIndexWhileInUse(
            model_name="taskrecord",
            index=models.Index(
                condition=models.Q(("publish_after__isnull", False), ("status", "READY")),
                fields=["publish_after"],
                name="taskq_outbox",
            ),
        ),
        AddIndexWhileInUse(
            model_name="taskrecord",
            index=models.Index(
                condition=models.Q(("parent_id__isnull", False)),
                fields=["parent_id"],
                name="taskq_copies",
            ),
        ),
    ]
