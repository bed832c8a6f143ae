"""Names and ids as people type them, and the errors when there is nothing of the kind."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any
from uuid import UUID

from django.core.management.base import CommandError

from django_taskq import conf, registry
from django_taskq.maintenance import records
from django_taskq.management.storage import USAGE_EXIT
from django_taskq.management.text import one_line
from django_taskq.models import TaskRecord
from django_taskq.task import Task


def find_task(name: str) -> Task[Any, Any]:
    """The registered task of this name. Raises ``CommandError`` with the nearest name."""
    task = registry.find(name)
    if task is None:
        raise CommandError(f"no task is named {name!r}.{suggest_task(name)}", returncode=USAGE_EXIT)
    return task


def suggest_task(name: str) -> str:
    """``' Did you mean "x"?'`` for the task with this last part or the nearest name, or nothing."""
    known = [task.name for task in registry.all_tasks()]
    endings = [full for full in known if full.rpartition(".")[2] == name.rpartition(".")[2]]
    return f' Did you mean "{endings[0]}"?' if endings else conf.suggest(name, known)


def find_record(text: str) -> TaskRecord:
    """The run with this id. Raises ``CommandError``."""
    found = records().filter(pk=parse_id(text)).first()
    if found is None:
        raise CommandError(
            f"no run has the id {one_line(text)}: it was rolled back, pruned, or never enqueued.",
            returncode=USAGE_EXIT,
        )
    return found


def find_records(texts: Sequence[str]) -> list[TaskRecord]:
    """The runs with these ids, before anything is done to any of them."""
    return [find_record(text) for text in dict.fromkeys(texts)]


def parse_id(text: str) -> UUID:
    """An id. Raises ``CommandError``."""
    try:
        return UUID(text)
    except ValueError:
        raise CommandError(
            f"{text!r} is not the id of a run: those look like 01890a5d-ac96-774b-bcce-b302099a8057.",
            returncode=USAGE_EXIT,
        ) from None
