"""The index of a workflow's steps. On PostgreSQL it is built while the table is in use, like those of 0005."""

from django.db import migrations, models

from django_taskq.migrations._operations import AddIndexWhileInUse


class Migration(migrations.Migration):
    atomic = False
    dependencies = [("django_taskq", "0009_workflows")]

    operations = [
        AddIndexWhileInUse(
            model_name="taskrecord",
            index=models.Index(
                condition=models.Q(("workflow__isnull", False)), fields=["workflow", "status"], name="taskq_steps"
            ),
        ),
    ]
