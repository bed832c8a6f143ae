"""How many slots each queue of a worker has. It may be NULL: workers of older code go on, and do not say."""

from django.db import migrations, models


class Migration(migrations.Migration):
    dependencies = [("django_taskq", "0007_control")]

    operations = [
        migrations.AddField(
            model_name="worker",
            name="slots",
            field=models.JSONField(editable=False, null=True, verbose_name="slots"),
        ),
    ]
