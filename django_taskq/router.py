"""Sends this app's rows to the database that ``TASKQ["DATABASE"]`` names, and migrates them only there."""

from __future__ import annotations

from typing import Any

from django.db.models import Model

from django_taskq import conf

APP_LABEL = "django_taskq"


class TaskqRouter:
    """For ``DATABASE_ROUTERS`` of projects whose ``TASKQ["DATABASE"]`` is not ``default``."""

    def db_for_read(self, model: type[Model], **hints: Any) -> str | None:
        """The queue's database for the queue's rows; no opinion on others."""
        return conf.get_settings().database if model._meta.app_label == APP_LABEL else None

    def db_for_write(self, model: type[Model], **hints: Any) -> str | None:
        """As for reading."""
        return self.db_for_read(model)

    def allow_relation(self, obj1: Model, obj2: Model, **hints: Any) -> bool | None:
        """Rows of this app may refer to each other; no opinion on others."""
        labels = {obj1._meta.app_label, obj2._meta.app_label}
        return True if labels == {APP_LABEL} else None

    def allow_migrate(self, db: str, app_label: str, **hints: Any) -> bool | None:
        """This app's tables stand on its own database and nowhere else; no opinion on other apps."""
        return db == conf.get_settings().database if app_label == APP_LABEL else None
