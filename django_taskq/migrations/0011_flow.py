"""Tables for what holds runs back, and the place in line of those that were. Nothing in use is rewritten."""

from django.db import migrations, models


class Migration(migrations.Migration):
    dependencies = [
        ("django_taskq", "0010_step_index"),
    ]

    operations = [
        migrations.CreateModel(
            name="Limit",
            fields=[
                ("key", models.CharField(max_length=500, primary_key=True, serialize=False, verbose_name="key")),
                ("base", models.CharField(max_length=300, verbose_name="limit")),
                (
                    "kind",
                    models.CharField(
                        choices=[
                            ("breaker", "breaker"),
                            ("lock", "lock"),
                            ("task", "task"),
                            ("rate", "rate"),
                            ("group", "group"),
                            ("queue", "queue"),
                            ("queue-rate", "queue-rate"),
                        ],
                        max_length=10,
                        verbose_name="kind",
                    ),
                ),
                ("most", models.IntegerField(null=True, verbose_name="at once")),
                ("rate", models.FloatField(null=True, verbose_name="per second")),
                ("burst", models.IntegerField(null=True, verbose_name="burst")),
                ("rest", models.FloatField(null=True, verbose_name="rest")),
                ("declared_by", models.UUIDField(editable=False, null=True)),
                ("set_most", models.IntegerField(null=True, verbose_name="at once, set")),
                ("set_rate", models.FloatField(null=True, verbose_name="per second, set")),
                ("set_burst", models.IntegerField(null=True, verbose_name="burst, set")),
                ("set_by", models.CharField(blank=True, db_default="", max_length=300, verbose_name="set by")),
                ("set_at", models.DateTimeField(null=True, verbose_name="set at")),
                ("spent_until", models.FloatField(editable=False, null=True)),
                ("opens_at", models.FloatField(null=True, verbose_name="opens at")),
                ("failures", models.IntegerField(db_default=0, verbose_name="failures")),
                ("failure", models.CharField(blank=True, db_default="", max_length=255, verbose_name="failure")),
                ("tripped_at", models.FloatField(null=True, verbose_name="tripped at")),
            ],
            options={
                "verbose_name": "limit",
                "verbose_name_plural": "limits",
                "db_table": "taskq_limit",
                "permissions": [("change_limits", "Can change limits and release their holders")],
                "default_permissions": ("view",),
            },
        ),
        migrations.CreateModel(
            name="Permit",
            fields=[
                ("id", models.BigAutoField(primary_key=True, serialize=False)),
                ("task_id", models.UUIDField()),
                ("key", models.CharField(max_length=500)),
                ("state", models.SmallIntegerField(choices=[(0, "new"), (1, "waiting"), (2, "held")])),
                ("priority", models.SmallIntegerField()),
                ("gates", models.TextField()),
                ("worker_id", models.BigIntegerField(null=True)),
                ("claim", models.BigIntegerField(null=True)),
            ],
            options={
                "verbose_name": "permit",
                "verbose_name_plural": "permits",
                "db_table": "taskq_permit",
                "default_permissions": (),
            },
        ),
        migrations.CreateModel(
            name="UniqueKey",
            fields=[
                ("key", models.CharField(max_length=500, primary_key=True, serialize=False, verbose_name="key")),
                ("task_id", models.UUIDField()),
                ("until", models.DateTimeField(null=True, verbose_name="until")),
                ("asked_at", models.DateTimeField(verbose_name="asked for at")),
            ],
            options={
                "verbose_name": "unique key",
                "verbose_name_plural": "unique keys",
                "db_table": "taskq_unique",
                "default_permissions": ("view",),
            },
        ),
        migrations.AddField(
            model_name="taskrecord",
            name="place",
            field=models.UUIDField(editable=False, null=True),
        ),
        migrations.AddIndex(
            model_name="limit",
            index=models.Index(
                condition=models.Q(("opens_at__isnull", False)), fields=["opens_at"], name="taskq_limit_opening"
            ),
        ),
        migrations.AddIndex(
            model_name="limit",
            index=models.Index(fields=["base"], name="taskq_limit_base"),
        ),
        migrations.AddIndex(
            model_name="permit",
            index=models.Index(
                models.F("key"),
                models.OrderBy(models.F("priority"), descending=True),
                models.F("id"),
                condition=models.Q(("state__lt", 2)),
                name="taskq_permit_waiting",
            ),
        ),
        migrations.AddIndex(
            model_name="permit",
            index=models.Index(condition=models.Q(("state", 2)), fields=["key"], name="taskq_permit_held"),
        ),
        migrations.AddIndex(
            model_name="permit",
            index=models.Index(models.F("id") * -1, condition=models.Q(("state", 0)), name="taskq_permit_new"),
        ),
        migrations.AddIndex(
            model_name="permit",
            index=models.Index(fields=["task_id"], name="taskq_permit_task"),
        ),
    ]
