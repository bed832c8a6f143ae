"""A worker under observation."""

from __future__ import annotations

import subprocess
import time
from collections.abc import Callable
from datetime import datetime
from pathlib import Path
from typing import Any

from django.conf import settings
from django.core.management import CommandError
from django.core.management.base import OutputWrapper
from django.db.models import QuerySet
from django.utils import timezone
from election.processes import manage, tail

from django_taskq.models import TaskRecord
from polling.progress import Progress

STALLED_AFTER = 120  # seconds without anything getting done


class Watch:
    """A worker that runs while the block runs, and an eye on it: whoever waits wants to know when it is in vain."""

    def __init__(self, out: OutputWrapper, arguments: list[str]) -> None:
        self._out = out
        self._log: Path = settings.OUTPUT_DIR / "worker.log"
        self._manage = manage(*arguments, log=self._log)
        self._since: datetime = timezone.now()

    def __enter__(self) -> Watch:
        self._worker = self._manage.__enter__()
        return self

    def __exit__(self, *error: Any) -> None:
        self._manage.__exit__(*error)

    @property
    def process(self) -> subprocess.Popen[bytes]:
        """The worker."""
        return self._worker

    def runs(self) -> QuerySet[TaskRecord]:
        """The records of what was enqueued since."""
        return TaskRecord.objects.filter(name__startswith="polling.", enqueued_at__gte=self._since)

    def wait(self, label: str, total: int, unit: str, count: Callable[[], int], is_done: Callable[[], bool]) -> None:
        """Show progress until it is done; raise ``CommandError`` when it will never be."""
        progress = Progress(self._out, label, total, unit)
        moved_at = time.monotonic()
        while not is_done():
            done = count()
            if done != progress.done:
                moved_at = time.monotonic()
            progress.show(done)
            self._check(stalled_for=time.monotonic() - moved_at)
            time.sleep(0.1)
        progress.finish(count())

    def _check(self, stalled_for: float) -> None:
        if failed := self.runs().filter(status="FAILED").first():
            errors = failed.attempt_set.all()
            raise CommandError("\n".join(["", f"{failed.name} failed.", *(error.traceback for error in errors)]))
        if (code := self._worker.poll()) is not None:
            raise CommandError(f"\nThe worker ended with exit code {code}:\n{tail(self._log)}")
        if stalled_for > STALLED_AFTER:
            raise CommandError(f"\nNothing got done for {STALLED_AFTER} s. The worker said:\n{tail(self._log)}")
