"""Columns for work that a depot keeps. NULL and without default, so no row is written and no table lock lasts."""

from django.db import migrations, models


class Migration(migrations.Migration):
    dependencies = [("django_taskq", "0003_schedules")]

    operations = [
        migrations.AddField(
            model_name="taskrecord",
            name="publish_after",
            field=models.DateTimeField(editable=False, null=True),
        ),
        migrations.AddField(
            model_name="taskrecord",
            name="parent_id",
            field=models.UUIDField(editable=False, null=True, verbose_name="copied from"),
        ),
    ]
