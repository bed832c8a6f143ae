"""``taskq show ID``: everything recorded about one run."""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime
from typing import Any

from django.core.management.base import CommandParser
from django.utils import timezone

from django_taskq.exceptions import SerializationError
from django_taskq.management.text import one_line, several_lines
from django_taskq.management.verbs import limits_shown
from django_taskq.management.verbs.base import Verb, add_json_option
from django_taskq.management.verbs.lookup import find_record
from django_taskq.models import TaskRecord, WorkerProcess

ALWAYS_SHOWN = ("id", "name", "status", "queue_name", "priority", "attempt", "args", "kwargs")


class Show(Verb):
    """Times are in the project's time zone as text, in UTC as JSON."""

    help = "Show one run: status, times, arguments, result, errors."

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("id", metavar="ID", help="The run's id.")
        add_json_option(parser)

    def run(self, **options: Any) -> None:
        document = describe(find_record(options["id"]))
        if options["as_json"]:
            self.write_json(document)
            return
        attempts = document.pop("attempts")
        for key, value in document.items():
            if key in ALWAYS_SHOWN or value not in (None, "", 0):
                self.write(f"{key:<22}{one_line(_text(key, value))}")
        for attempt in attempts:
            title = f"attempt {attempt['attempt']} {attempt['kind']}: {attempt['class_path']}: {attempt['message']}"
            self.write("\n" + self.style.ERROR(one_line(title)))
            if attempt["traceback"]:
                self.write(several_lines(attempt["traceback"].rstrip()))


def describe(record: TaskRecord) -> dict[str, Any]:
    """A run as a document: the row's fields by their names, with the errors of its attempts."""
    found: dict[str, Any] = {
        "id": str(record.pk),
        "name": record.name,
        "status": str(record.shown_status),
        "queue_name": record.queue_name,
        "priority": record.priority,
        "attempt": record.attempt,
        "crashes": record.crashes,
    }
    found |= {key: _readable(read, record) for key, read in _READABLE.items()}
    for key in ("reason", "enqueued_at", "run_after", "expires_at", "started_at", "finished_at", "cancel_requested_at"):
        found[key] = getattr(record, key)
    found["worker"] = _worker(record)
    found["waits_for"] = limits_shown.why(record)
    columns = ("attempt", "kind", "class_path", "message", "traceback", "started_at", "finished_at")
    found["attempts"] = list(record.attempt_set.values(*columns))
    return found


# An unreadable value is shown as the text that is stored.
_READABLE: dict[str, Callable[[TaskRecord], Any]] = {
    "args": lambda record: record.args,
    "kwargs": lambda record: record.kwargs,
    "return_value": lambda record: record.return_value,
}


def _readable(read: Callable[[TaskRecord], Any], record: TaskRecord) -> Any:
    try:
        return read(record)
    except SerializationError as error:
        return f"({error})"


def _text(key: str, value: Any) -> str:
    if isinstance(value, datetime):
        return str(timezone.localtime(value) if timezone.is_aware(value) else value)
    return repr(value) if key in _READABLE and not isinstance(value, str) else str(value)


def _worker(record: TaskRecord) -> str | None:
    if record.worker_id is None:
        return None
    processes = WorkerProcess.objects.using(record._state.db).select_related("worker")
    return str(processes.filter(pk=record.worker_id).first() or f"worker process {record.worker_id}")
