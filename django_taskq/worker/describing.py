"""Errors of tasks as bounded text."""

from __future__ import annotations

import os
import traceback
from pathlib import Path
from types import TracebackType

from django_taskq import sizes
from django_taskq.message import ErrorText
from django_taskq.worker import memory

# Texts of errors are bounded: a traceback of recursion or a message of megabytes would hurt every page that shows it.
MAX_TEXT = 1 << 16
MAX_FRAMES = 50

_PACKAGE = str(Path(__file__).parents[1]) + os.sep


def describe(error: BaseException) -> ErrorText:
    """An error as bounded text; an error whose own ``__str__`` fails is described all the same."""
    try:
        message = str(error)
    except BaseException as failure:
        message = f"<{type(failure).__name__} in __str__>"
    if isinstance(error, MemoryError) and (peak := memory.own_peak()):
        message = f"{message} (peak memory of the worker process: {sizes.text(peak)})".lstrip()
    try:
        summary = traceback.TracebackException(type(error), error, of_the_task(error), limit=-MAX_FRAMES)
        text = "".join(summary.format())
    except BaseException as failure:
        text = f"<no traceback: {type(failure).__name__}>"
    return ErrorText(path_of(type(error)), _bounded(message), _bounded(text))


def of_the_task(error: BaseException) -> TracebackType | None:
    """The traceback from the task's own first line on; what leads there is the same for every run."""
    trace = error.__traceback__
    while trace is not None and trace.tb_frame.f_code.co_filename.startswith(_PACKAGE):
        trace = trace.tb_next
    return trace or error.__traceback__


def _bounded(text: str) -> str:
    # NUL cannot be stored in PostgreSQL's text, nor a lone surrogate anywhere.
    text = text.replace("\x00", "\\x00").encode("utf-8", "backslashreplace").decode()
    if len(text) <= MAX_TEXT:
        return text
    half = MAX_TEXT // 2
    return f"{text[:half]}\n... {len(text) - MAX_TEXT:,} characters left out ...\n{text[-half:]}"


def path_of(cls: type) -> str:
    """The dotted name of a class."""
    return f"{cls.__module__}.{cls.__qualname__}"
