"""Permissions for the page of dead letters; they change no table."""

from django.db import migrations


class Migration(migrations.Migration):
    dependencies = [("django_taskq", "0005_depot_indexes")]

    operations = [
        migrations.AlterModelOptions(
            name="taskrecord",
            options={
                "permissions": [
                    ("retry_taskrecord", "Can retry task records"),
                    ("run_taskrecord", "Can run tasks again"),
                    ("cancel_taskrecord", "Can cancel task records"),
                    ("view_payload", "Can view arguments, results and tracebacks"),
                    ("replay_deadletter", "Can replay dead letters"),
                    ("discard_deadletter", "Can discard dead letters"),
                ],
                "verbose_name": "task record",
                "verbose_name_plural": "task records",
            },
        ),
    ]
