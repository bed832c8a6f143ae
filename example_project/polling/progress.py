"""A progress bar that also reads well in a log."""

from __future__ import annotations

import time

from django.core.management.base import OutputWrapper

WIDTH = 30
BETWEEN_LINES = 3.0  # seconds, where there is no terminal to draw on


class Progress:
    """``Printing  [#######.......]  12/26 lists``: drawn over itself on a terminal, a line now and then elsewhere."""

    def __init__(self, out: OutputWrapper, label: str, total: int, unit: str) -> None:
        self._out, self._label, self._total, self._unit = out, label, total, unit
        self._is_terminal = out.isatty()
        self._began_at = self._drawn_at = time.monotonic()
        self.done = -1

    def show(self, done: int) -> None:
        """Show that so many are done."""
        now = time.monotonic()
        if done != self.done and (self._is_terminal or now - self._drawn_at > BETWEEN_LINES):
            self._draw(done, "")
            self._drawn_at = now
        self.done = done

    def finish(self, done: int) -> None:
        """Show the end, and how long it took."""
        self._draw(done, f"  {time.monotonic() - self._began_at:.1f} s\n")

    def _draw(self, done: int, end: str) -> None:
        filled = WIDTH * done // max(self._total, 1)
        bar = "#" * filled + "." * (WIDTH - filled)
        line = f"{self._label:<10}[{bar}]  {done:,}/{self._total:,} {self._unit}{end}"
        self._out.write(f"\r{line}" if self._is_terminal else line, ending="" if self._is_terminal or end else "\n")
        self._out.flush()
