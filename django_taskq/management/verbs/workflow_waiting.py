"""``taskq workflow wait``: a bar on a terminal, a line now and then elsewhere."""

from __future__ import annotations

import shutil
import time
from collections.abc import Callable

from django.core.management.base import CommandError

from django_taskq.management.storage import RUNTIME_EXIT
from django_taskq.management.verbs.base import Verb
from django_taskq.management.verbs.workflow_shown import counted, ended, progress
from django_taskq.models import Workflow
from django_taskq.models.workflow_steps import Counts

TIMEOUT_EXIT = 124
# Seconds between looks at the workflow's row, which cost nothing; between counts; and between lines in a log.
FIRST_LOOK, LAST_LOOK = 0.05, 0.5
COUNT_EVERY, LINE_EVERY = 0.5, 10.0
# Counting the steps of a large workflow may take no more than this part of the time.
SHARE = 0.1
LEAST_BAR, MOST_BAR = 10, 40


def wait(
    verb: Verb,
    workflow: Workflow,
    timeout: float | None,
    *,
    now: Callable[[], float] = time.monotonic,
    sleep: Callable[[float], None] = time.sleep,
) -> str:
    """Until every step has ended; the status. Raises ``CommandError`` with code 124 after ``timeout`` seconds."""
    shown = _Shown(verb, workflow, now)
    deadline, pause = None if timeout is None else now() + timeout, FIRST_LOOK
    try:
        while workflow.finished_at is None:
            shown.look()
            left = None if deadline is None else deadline - now()
            if left is not None and left <= 0:
                raise CommandError(f"{workflow.pk} is still {workflow.status}", returncode=TIMEOUT_EXIT)
            sleep(pause if left is None else min(pause, left))
            pause = min(pause * 1.5, LAST_LOOK)
            _refresh(workflow)
        shown.look(is_last=True)
    finally:
        shown.end()
    return str(workflow.status)


def _refresh(workflow: Workflow) -> None:
    try:
        workflow.refresh_from_db()
    except Workflow.DoesNotExist as error:
        raise CommandError(f"{workflow.pk} is gone: it was removed meanwhile", returncode=RUNTIME_EXIT) from error


class _Shown:
    """How far it is, on stderr."""

    def __init__(self, verb: Verb, workflow: Workflow, now: Callable[[], float]) -> None:
        self._verb = verb
        self._workflow = workflow
        self._now = now
        self._stream = verb.command.stderr
        self._is_terminal = bool(self._stream.isatty())
        self._count_at = self._line_at = now()
        self._said = ""

    def look(self, *, is_last: bool = False) -> None:
        """Count and show, where it is time for that."""
        began = self._now()
        if not self._verb.verbosity or (
            not is_last and began < (self._count_at if self._is_terminal else self._line_at)
        ):
            return
        counts = counted(self._workflow)
        cost = self._now() - began
        self._count_at = began + max(COUNT_EVERY, cost / SHARE)
        self._line_at = began + LINE_EVERY
        text = progress(self._workflow.size, counts)
        if self._is_terminal:
            self._draw(bar(self._workflow.size, counts, _width(text)) + text)
        elif text != self._said:
            self._verb.say(text)
        self._said = text

    def end(self) -> None:
        """What comes next begins on a line of its own."""
        if self._is_terminal and self._said:
            self._stream.write("", lambda plain: plain)

    def _draw(self, text: str) -> None:
        # Back to the beginning of the line, and away with what was longer.
        self._stream.write(f"\r{text}\x1b[K", lambda plain: plain, ending="")
        self._stream.flush()


def bar(size: int, counts: Counts, width: int) -> str:
    """``[####------] ``, or nothing where there is no room."""
    full = min(width, width * ended(counts) // size) if size else width
    return f"[{'#' * full}{'-' * (width - full)}] " if width >= LEAST_BAR else ""


def _width(text: str) -> int:
    return min(MOST_BAR, shutil.get_terminal_size().columns - len(text) - 4)
