"""Tables for workflows and their links, and two columns for their steps. Nothing in use is rewritten."""

import uuid

import django.db.models.deletion
from django.db import migrations, models


class Migration(migrations.Migration):
    dependencies = [("django_taskq", "0008_worker_slots")]

    operations = [
        migrations.CreateModel(
            name="WorkflowLink",
            fields=[
                (
                    "pk",
                    models.CompositePrimaryKey(
                        "child_id", "position", blank=True, editable=False, primary_key=True, serialize=False
                    ),
                ),
                ("child_id", models.UUIDField()),
                ("position", models.IntegerField()),
                ("parent_id", models.UUIDField(db_index=True)),
                ("kind", models.SmallIntegerField(choices=[(0, "SUCCESS"), (1, "END"), (2, "FAILURE")])),
                ("opens", models.SmallIntegerField()),
                ("closes", models.SmallIntegerField()),
                ("carries", models.BooleanField()),
            ],
            options={
                "verbose_name": "link of a workflow",
                "verbose_name_plural": "links of workflows",
                "db_table": "taskq_link",
                "default_permissions": (),
            },
        ),
        migrations.CreateModel(
            name="Workflow",
            fields=[
                ("id", models.UUIDField(default=uuid.uuid4, editable=False, primary_key=True, serialize=False)),
                ("name", models.CharField(max_length=255, verbose_name="workflow")),
                (
                    "status",
                    models.CharField(
                        choices=[
                            ("RUNNING", "running"),
                            ("SUCCESSFUL", "successful"),
                            ("FAILED", "failed"),
                            ("CANCELLED", "cancelled"),
                        ],
                        default="RUNNING",
                        max_length=10,
                        verbose_name="status",
                    ),
                ),
                ("size", models.IntegerField(verbose_name="steps")),
                ("constant", models.TextField(editable=False, null=True)),
                ("enqueued_at", models.DateTimeField(verbose_name="enqueued at")),
                ("expires_at", models.DateTimeField(null=True, verbose_name="not after")),
                ("finished_at", models.DateTimeField(null=True, verbose_name="finished at")),
                ("cancel_requested_at", models.DateTimeField(null=True, verbose_name="cancellation requested at")),
                ("reason", models.TextField(blank=True, default="", verbose_name="reason")),
            ],
            options={
                "verbose_name": "workflow",
                "verbose_name_plural": "workflows",
                "db_table": "taskq_workflow",
                "permissions": [
                    ("cancel_workflow", "Can cancel workflows"),
                    ("resume_workflow", "Can resume workflows"),
                ],
                "default_permissions": ("view",),
                "indexes": [
                    models.Index(
                        condition=models.Q(("finished_at__isnull", True)), fields=["id"], name="taskq_workflow_running"
                    ),
                    models.Index(fields=["finished_at"], name="taskq_workflow_finished"),
                ],
            },
        ),
        migrations.AddField(
            model_name="taskrecord", name="waits_at", field=models.IntegerField(editable=False, null=True)
        ),
        migrations.AddField(
            model_name="taskrecord",
            name="workflow",
            field=models.ForeignKey(
                db_constraint=False,
                db_index=False,
                null=True,
                on_delete=django.db.models.deletion.DO_NOTHING,
                related_name="steps",
                to="django_taskq.workflow",
                verbose_name="workflow",
            ),
        ),
    ]
