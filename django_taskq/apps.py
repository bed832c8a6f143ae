"""The app's start: every process imports every ``tasks`` module, so that what can enqueue can also run."""

from __future__ import annotations

from contextlib import suppress
from importlib import import_module

from django.apps import AppConfig, apps
from django.conf import settings
from django.core.exceptions import ImproperlyConfigured
from django.utils.module_loading import import_string, module_has_submodule
from django.utils.translation import gettext_lazy as _


class TaskqConfig(AppConfig):
    """Registers checks and discovers tasks; touches neither database nor network, starts no thread."""

    name = "django_taskq"
    label = "django_taskq"
    verbose_name = _("Background tasks")
    default_auto_field = "django.db.models.BigAutoField"

    def ready(self) -> None:
        from django_taskq import checks  # noqa: F401 - registers them

        load_backends()
        discover_tasks()


def load_backends() -> None:
    """Load what ``TASKS`` names: a backend of ours makes the framework's queues and tasks known to this process."""
    for params in getattr(settings, "TASKS", {}).values():
        # What cannot be imported is for the framework to report; it may not even be in use.
        with suppress(ImportError):
            import_string(params.get("BACKEND", ""))


def discover_tasks() -> None:
    """Import ``tasks`` of every installed app. A module that fails to import is named, never passed over."""
    for config in apps.get_app_configs():
        if config.module is None or not module_has_submodule(config.module, "tasks"):
            continue
        try:
            import_module(f"{config.name}.tasks")
        except Exception as error:
            raise ImproperlyConfigured(
                f"The task module {config.name}.tasks could not be imported: {type(error).__name__}: {error}. "
                f"Mend it: without it this process would neither enqueue nor run its tasks."
            ) from error
