"""The app's start: every process imports every ``tasks`` module, so that what can enqueue can also run."""

from __future__ import annotations

import sys
from contextlib import suppress
from importlib import import_module
from typing import Any

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

    def __init__(self, app_name: str, app_module: Any) -> None:
        super().__init__(app_name, app_module)
        if is_for_development(sys.argv):
            from django_taskq.management import first_start

            # Now, before anybody's models or tasks are imported: that is what fails.
            first_start.install()

    def ready(self) -> None:
        from django_taskq import builtin, checks  # noqa: F401 - registers them

        load_backends()
        discover_tasks()


def is_for_development(arguments: list[str]) -> bool:
    """Whether this is ``manage.py taskworker`` that is to load changed code."""
    wanted = {argument.partition("=")[0] for argument in arguments[2:]} & {"--reload", "--runserver"}
    return arguments[1:2] == ["taskworker"] and bool(wanted)


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
