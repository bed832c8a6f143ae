"""Who follows whom in a process: a state of permits, and its index. Built while the table is in use."""

from django.db import migrations, models

from django_taskq.migrations._operations import AddIndexWhileInUse


class Migration(migrations.Migration):
    atomic = False
    dependencies = [("django_taskq", "0012_line_index")]

    operations = [
        migrations.AlterField(
            model_name="permit",
            name="state",
            field=models.SmallIntegerField(choices=[(0, "new"), (1, "waiting"), (2, "held"), (3, "next")]),
        ),
        AddIndexWhileInUse(
            model_name="permit",
            index=models.Index(
                fields=["worker_id", "key", "claim"], name="taskq_permit_next", condition=models.Q(("state", 3))
            ),
        ),
    ]
