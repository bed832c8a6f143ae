"""Log formats: text for a terminal, and JSON for whoever collects logs. Both are for a project's ``LOGGING``, too.

Neither lets what a task logs begin a line of its own, drive a terminal, or break the reader of the log.
"""

from __future__ import annotations

import json
import logging
from datetime import UTC, datetime
from typing import Any

FORMATS = ("text", "json")

# Fields of a record in the order of the JSON objects: those of any task's record, then those of the line that ends it.
TASK_FIELDS = ("task_id", "task_name", "queue_name", "attempt")
RUN_FIELDS = ("outcome", "duration", "wait")


def one_line(text: str) -> str:
    """Printable characters only: whoever wrote it must not be able to forge a line or drive the terminal."""
    if text.isprintable():
        return text
    return "".join(char if char.isprintable() else _escaped(char) for char in text)


def _escaped(char: str) -> str:
    return f"\\x{ord(char):02x}" if ord(char) < 256 else f"\\u{ord(char):04x}"


class TextFormatter(logging.Formatter):
    """Time, level and message, with the name of a logger that is not ours. Further lines are indented."""

    def __init__(self) -> None:
        super().__init__(datefmt="%H:%M:%S")

    def format(self, record: logging.LogRecord) -> str:
        """One line, and an indented one for each further line of the message or of an exception."""
        text = record.getMessage()
        more = _exception(self, record)
        lines = "\n".join([text, more] if more else [text]).expandtabs().split("\n")
        origin = "" if record.name == "django_taskq" else f" {one_line(record.name)}:"
        head = f"{self.formatTime(record, self.datefmt)} {record.levelname}{origin}"
        return f"{head} " + "\n  ".join(one_line(line) for line in lines)


class JsonFormatter(logging.Formatter):
    """One JSON object on one line, in ASCII: time (UTC), level, logger, message, and what else there is of these:

    ``task_id``, ``task_name``, ``queue_name`` and ``attempt`` inside of a task; ``outcome``, ``duration`` and ``wait``
    (seconds) of a run that has ended; ``worker`` and ``process`` (its pid); ``exception`` (a traceback).
    """

    def format(self, record: logging.LogRecord) -> str:
        """The object, without a line break."""
        time = datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds")
        found: dict[str, Any] = {
            "time": time.replace("+00:00", "Z"),
            "level": record.levelname,
            "logger": record.name,
            "message": record.getMessage(),
        }
        for name in (*TASK_FIELDS, *RUN_FIELDS, "worker"):
            value = getattr(record, name, None)
            if isinstance(value, float):
                found[name] = round(value, 6)
            elif value:  # there is no task without a name, and no attempt 0
                found[name] = value
        found["process"] = record.process
        exception = _exception(self, record)
        if exception:
            found["exception"] = exception
        return json.dumps({name: _readable(value) for name, value in found.items()}, default=str)


def _exception(formatter: logging.Formatter, record: logging.LogRecord) -> str:
    """The traceback of a record and its stack, as text."""
    if record.exc_info and not record.exc_text:
        record.exc_text = formatter.formatException(record.exc_info)
    parts = [record.exc_text or "", formatter.formatStack(record.stack_info) if record.stack_info else ""]
    return "\n".join(part for part in parts if part)


def _readable(value: Any) -> Any:
    """Without NUL and lone surrogates, which JSON can write and many a reader, such as PostgreSQL, refuses."""
    if isinstance(value, str):
        return value.replace("\x00", "\\x00").encode("utf-8", "backslashreplace").decode()
    return value
