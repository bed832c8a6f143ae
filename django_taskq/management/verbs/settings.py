"""``taskq settings``: every effective value, and where it comes from."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import fields
from datetime import timedelta
from typing import Any

from django.core.management.base import CommandParser

from django_taskq.conf_shown import DEFAULT, of_project
from django_taskq.management.text import one_line
from django_taskq.management.verbs.base import Verb, add_json_option
from django_taskq.management.verbs.lookup import find_task
from django_taskq.options import TaskOptions

TASK = "@task option"
# Where an option of a task is None, these settings hold.
FROM_SETTINGS = ("time_limit", "soft_time_limit")


class ShowSettings(Verb):
    """Passwords in URLs are masked."""

    help = "Show every setting, or every option of a task, and where its value comes from."

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("--task", metavar="NAME", help="Show the options of this task instead.")
        add_json_option(parser)

    def run(self, **options: Any) -> None:
        rows = of_project() if options["task"] is None else of_task(options["task"])
        if options["as_json"]:
            self.write_json({name: {"value": value, "source": source} for name, (value, source) in rows.items()})
            return
        for name, (value, source) in rows.items():
            shown = one_line(_text(value))
            line = f"{name:<24}{shown:<34} {source}"
            self.write(line if source == DEFAULT else self.style.MIGRATE_LABEL(line))


def of_task(name: str) -> dict[str, tuple[Any, str]]:
    """Values and sources of a task's options, by their names in ``@task``."""
    task = find_task(name)
    project = of_project()
    found: dict[str, tuple[Any, str]] = {"name": (task.name, DEFAULT if task.options.name is None else TASK)}
    for option in fields(TaskOptions):
        value = getattr(task.options, option.name)
        if option.name == "name":
            continue
        if option.name in FROM_SETTINGS and value is None:
            found[option.name] = project[option.name.upper()]
            continue
        if isinstance(value, tuple):
            value = [f"{cls.__module__}.{cls.__qualname__}" for cls in value]
            found[option.name] = (value, TASK if value else DEFAULT)
            continue
        if isinstance(value, type):
            value = f"{value.__module__}.{value.__qualname__}"
        found[option.name] = (value, DEFAULT if value == option.default else TASK)
    return found


def _text(value: Any) -> str:
    if isinstance(value, (str, timedelta)):
        return str(value)
    if isinstance(value, list):
        return ", ".join(map(str, value)) or "(none)"
    if isinstance(value, Mapping):
        return ", ".join(f"{key}: {item}" if item else str(key) for key, item in value.items()) or "(none)"
    return f"{value:g}" if isinstance(value, float) else str(value)
