"""``taskq prune``: delete finished runs past their retention, now instead of little by little."""

from __future__ import annotations

import time
from typing import Any

from django.core.management.base import CommandParser

from django_taskq import conf, maintenance
from django_taskq.management.verbs.base import Verb

AT_ONCE = 5000
LINE_INTERVAL = 10.0  # seconds between lines of progress where it is not a terminal


class Prune(Verb):
    """Shows progress on stderr: one line that changes on a terminal, a line every ten seconds elsewhere."""

    help = "Delete finished runs past RESULT_EXPIRES and FAILURE_EXPIRES."

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("--dry-run", action="store_true", help="Only count what would be deleted.")

    def run(self, **options: Any) -> None:
        settings = conf.get_settings()
        total = maintenance.prune(dry_run=True)
        kept = f"results {settings.result_expires}, failures {settings.failure_expires}"
        if options["dry_run"]:
            self.write(f"{total} run(s) would be deleted (kept: {kept})")
            return
        count = self._prune(total)
        self.write(f"{count} run(s) deleted (kept: {kept})")

    def _prune(self, total: int) -> int:
        is_terminal = self.command.stderr.isatty()
        count, said_at = 0, time.monotonic()
        while True:
            deleted = maintenance.prune(at_most=AT_ONCE)
            count += deleted
            if deleted < AT_ONCE:
                break
            if self.verbosity and (is_terminal or time.monotonic() - said_at >= LINE_INTERVAL):
                said_at = time.monotonic()
                text = f"{count:,} of {max(total, count):,} ({100 * count // max(total, count)} %)"
                self.command.stderr.write(f"\r{text}" if is_terminal else text, ending="" if is_terminal else "\n")
                self.command.stderr.flush()
        if self.verbosity and is_terminal and count >= AT_ONCE:
            self.command.stderr.write("")
        return count
