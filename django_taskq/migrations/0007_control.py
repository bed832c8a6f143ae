"""Tables for commands to workers, paused queues and limits set at run time. New ones only: nothing in use is locked."""

import django.db.models.deletion
from django.db import migrations, models


class Migration(migrations.Migration):
    dependencies = [("django_taskq", "0006_dead_letter_permissions")]

    operations = [
        migrations.CreateModel(
            name="Queue",
            fields=[
                ("id", models.BigAutoField(auto_created=True, primary_key=True, serialize=False, verbose_name="ID")),
                ("name", models.CharField(max_length=100, unique=True, verbose_name="queue")),
                ("paused_at", models.DateTimeField(null=True, verbose_name="paused at")),
                ("paused_by", models.CharField(blank=True, max_length=300, verbose_name="paused by")),
                ("reason", models.CharField(blank=True, max_length=500, verbose_name="reason")),
            ],
            options={
                "verbose_name": "queue",
                "verbose_name_plural": "queues",
                "db_table": "taskq_queue",
                "permissions": [("pause_queue", "Can pause and resume queues")],
                "default_permissions": ("view",),
            },
        ),
        migrations.CreateModel(
            name="TaskLimits",
            fields=[
                ("id", models.BigAutoField(auto_created=True, primary_key=True, serialize=False, verbose_name="ID")),
                ("task_name", models.CharField(max_length=255, unique=True, verbose_name="task")),
                ("soft_time_limit", models.FloatField(null=True, verbose_name="soft time limit")),
                ("time_limit", models.FloatField(null=True, verbose_name="time limit")),
                ("set_by", models.CharField(blank=True, max_length=300, verbose_name="set by")),
                ("set_at", models.DateTimeField(verbose_name="set at")),
            ],
            options={
                "verbose_name": "limits of a task",
                "verbose_name_plural": "limits of tasks",
                "db_table": "taskq_task_limits",
                "permissions": [("set_limits", "Can set the time limits of tasks")],
                "default_permissions": ("view",),
            },
        ),
        migrations.CreateModel(
            name="Command",
            fields=[
                ("id", models.BigAutoField(auto_created=True, primary_key=True, serialize=False, verbose_name="ID")),
                ("name", models.CharField(max_length=50, verbose_name="command")),
                ("arguments", models.TextField(default="{}", verbose_name="arguments")),
                ("issued_by", models.CharField(blank=True, max_length=300, verbose_name="issued by")),
                ("user_id", models.CharField(blank=True, max_length=64, verbose_name="user id")),
                ("issued_at", models.DateTimeField(db_index=True, verbose_name="issued at")),
                ("expires_at", models.DateTimeField(verbose_name="not after")),
                (
                    "worker",
                    models.ForeignKey(
                        null=True,
                        on_delete=django.db.models.deletion.CASCADE,
                        related_name="+",
                        to="django_taskq.worker",
                        verbose_name="worker",
                    ),
                ),
            ],
            options={
                "verbose_name": "command",
                "verbose_name_plural": "commands",
                "db_table": "taskq_command",
                "permissions": [("control_worker", "Can give orders to workers")],
                "default_permissions": ("view",),
            },
        ),
        migrations.CreateModel(
            name="CommandReply",
            fields=[
                ("id", models.BigAutoField(auto_created=True, primary_key=True, serialize=False, verbose_name="ID")),
                ("is_ok", models.BooleanField(verbose_name="obeyed")),
                ("reply", models.TextField(default="null", verbose_name="reply")),
                ("at", models.DateTimeField(verbose_name="at")),
                (
                    "command",
                    models.ForeignKey(
                        on_delete=django.db.models.deletion.CASCADE,
                        related_name="reply_set",
                        to="django_taskq.command",
                        verbose_name="command",
                    ),
                ),
                (
                    "worker",
                    models.ForeignKey(
                        on_delete=django.db.models.deletion.CASCADE,
                        related_name="+",
                        to="django_taskq.worker",
                        verbose_name="worker",
                    ),
                ),
            ],
            options={
                "verbose_name": "reply",
                "verbose_name_plural": "replies",
                "db_table": "taskq_command_reply",
                "default_permissions": ("view",),
                "constraints": [models.UniqueConstraint(fields=("command", "worker"), name="taskq_one_reply")],
            },
        ),
    ]
