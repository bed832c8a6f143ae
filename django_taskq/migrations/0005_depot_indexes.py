"""Indexes for the outbox and for copies. On PostgreSQL they are built while the table is in use.

Building one reads the whole table, and the plain form keeps every writer out for that long.
"""

from typing import Any

from django.db import migrations, models


class AddIndexWhileInUse(migrations.AddIndex):
    """``CREATE INDEX CONCURRENTLY`` where the database has it, which wants a migration outside of a transaction."""

    def database_forwards(self, app_label, schema_editor, from_state, to_state):
        model = to_state.apps.get_model(app_label, self.model_name)
        if self.allow_migrate_model(schema_editor.connection.alias, model):
            schema_editor.add_index(model, self.index, **how(schema_editor))

    def database_backwards(self, app_label, schema_editor, from_state, to_state):
        model = from_state.apps.get_model(app_label, self.model_name)
        if self.allow_migrate_model(schema_editor.connection.alias, model):
            index = from_state.models[app_label, self.model_name_lower].get_index_by_name(self.index.name)
            schema_editor.remove_index(model, index, **how(schema_editor))


def how(schema_editor: Any) -> dict[str, bool]:
    return {"concurrently": True} if schema_editor.connection.vendor == "postgresql" else {}


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
