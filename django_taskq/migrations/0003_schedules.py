"""Periodic tasks, what became of their due times, and the lease of the schedulers."""

import django.db.models.deletion
import django.utils.timezone
from django.db import migrations, models


class Migration(migrations.Migration):
    dependencies = [
        ("django_taskq", "0002_storage"),
    ]

    operations = [
        migrations.CreateModel(
            name="SchedulerLease",
            fields=[
                ("id", models.BigAutoField(auto_created=True, primary_key=True, serialize=False, verbose_name="ID")),
                ("holder", models.CharField(max_length=300)),
                ("expires_at", models.DateTimeField()),
            ],
            options={
                "verbose_name": "lease of the schedulers",
                "verbose_name_plural": "lease of the schedulers",
                "db_table": "taskq_scheduler_lease",
            },
        ),
        migrations.CreateModel(
            name="PeriodicTask",
            fields=[
                ("id", models.BigAutoField(auto_created=True, primary_key=True, serialize=False, verbose_name="ID")),
                ("name", models.CharField(max_length=200, unique=True, verbose_name="name")),
                ("task_name", models.CharField(max_length=255, verbose_name="task")),
                ("schedule", models.CharField(max_length=300, verbose_name="schedule")),
                ("timezone", models.CharField(blank=True, max_length=64, verbose_name="time zone")),
                ("starts_at", models.DateTimeField(blank=True, null=True, verbose_name="not before")),
                ("ends_at", models.DateTimeField(blank=True, null=True, verbose_name="not after")),
                ("jitter", models.FloatField(default=0, verbose_name="jitter")),
                (
                    "catch_up",
                    models.CharField(
                        choices=[
                            ("none", "run none that was missed"),
                            ("last", "run the last one that was missed"),
                            ("all", "run all that were missed"),
                        ],
                        default="last",
                        max_length=10,
                        verbose_name="after a downtime",
                    ),
                ),
                ("catch_up_limit", models.PositiveIntegerField(default=100, verbose_name="at most so many runs")),
                (
                    "overlap",
                    models.CharField(
                        choices=[
                            ("allow", "start beside it"),
                            ("skip", "leave this one out"),
                            ("queue_one", "start when it ends; at most one waits"),
                            ("cancel_previous", "cancel it"),
                        ],
                        default="allow",
                        max_length=20,
                        verbose_name="while the last run goes on",
                    ),
                ),
                ("max_lateness", models.FloatField(blank=True, null=True, verbose_name="lateness limit")),
                ("payload", models.TextField(default="[[],{}]", verbose_name="arguments")),
                ("queue_name", models.CharField(blank=True, max_length=100, verbose_name="queue")),
                ("priority", models.SmallIntegerField(blank=True, null=True, verbose_name="priority")),
                ("expires", models.FloatField(blank=True, null=True, verbose_name="expires")),
                ("is_enabled", models.BooleanField(default=True, verbose_name="enabled")),
                ("is_one_off", models.BooleanField(default=False, verbose_name="one-off")),
                (
                    "source",
                    models.CharField(
                        choices=[
                            ("DATABASE", "the database"),
                            ("CODE", "@task(schedule=...)"),
                            ("SETTINGS", "TASKQ['SCHEDULE']"),
                        ],
                        default="DATABASE",
                        editable=False,
                        max_length=10,
                        verbose_name="comes from",
                    ),
                ),
                ("declared", models.TextField(editable=False, null=True)),
                (
                    "is_retired",
                    models.BooleanField(default=False, editable=False, verbose_name="no longer in the code"),
                ),
                ("next_due_at", models.DateTimeField(editable=False, null=True, verbose_name="next run")),
                ("next_start_at", models.DateTimeField(editable=False, null=True)),
                ("last_due_at", models.DateTimeField(editable=False, null=True, verbose_name="last run")),
                ("pending_due_at", models.DateTimeField(editable=False, null=True)),
                ("last_run_id", models.UUIDField(editable=False, null=True)),
                (
                    "created_at",
                    models.DateTimeField(default=django.utils.timezone.now, editable=False, verbose_name="created at"),
                ),
            ],
            options={
                "verbose_name": "periodic task",
                "verbose_name_plural": "periodic tasks",
                "db_table": "taskq_periodic_task",
                "permissions": [
                    ("schedule_task", "Can put tasks on a schedule (which runs code)"),
                    ("run_periodictask", "Can run periodic tasks now"),
                ],
                "indexes": [
                    models.Index(
                        condition=models.Q(
                            ("is_enabled", True), ("is_retired", False), ("next_start_at__isnull", False)
                        ),
                        fields=["next_start_at"],
                        name="taskq_schedule_due",
                    ),
                    models.Index(
                        condition=models.Q(("pending_due_at__isnull", False)),
                        fields=["pending_due_at"],
                        name="taskq_schedule_pending",
                    ),
                ],
            },
        ),
        migrations.CreateModel(
            name="ScheduleTick",
            fields=[
                ("id", models.BigAutoField(auto_created=True, primary_key=True, serialize=False, verbose_name="ID")),
                ("due_at", models.DateTimeField(verbose_name="due at")),
                (
                    "decision",
                    models.CharField(
                        choices=[
                            ("ENQUEUED", "enqueued"),
                            ("BY_HAND", "run by hand"),
                            ("MISSED", "missed: nobody was there to run it"),
                            ("LATE", "skipped: too late"),
                            ("OVERLAP", "skipped: the last run was going on"),
                            ("SKIPPED", "skipped by hand"),
                            ("REFUSED", "could not be enqueued"),
                        ],
                        max_length=10,
                        verbose_name="decision",
                    ),
                ),
                ("first_due_at", models.DateTimeField(null=True, verbose_name="since")),
                ("count", models.PositiveIntegerField(default=1, verbose_name="due times")),
                ("run_id", models.UUIDField(null=True, verbose_name="run")),
                ("reason", models.TextField(blank=True, verbose_name="reason")),
                (
                    "decided_at",
                    models.DateTimeField(db_index=True, default=django.utils.timezone.now, verbose_name="decided at"),
                ),
                (
                    "periodic_task",
                    models.ForeignKey(
                        on_delete=django.db.models.deletion.CASCADE,
                        related_name="ticks",
                        to="django_taskq.periodictask",
                        verbose_name="periodic task",
                    ),
                ),
            ],
            options={
                "verbose_name": "due time",
                "verbose_name_plural": "due times",
                "db_table": "taskq_schedule_tick",
                "ordering": ["-due_at"],
                "constraints": [models.UniqueConstraint(fields=("periodic_task", "due_at"), name="taskq_one_tick")],
            },
        ),
    ]
