"""What tasks print: seen at once, and in whole lines, however many threads print at the same time."""

from __future__ import annotations

import io
import sys
import threading
from typing import Any, TextIO


def show_prints(*, is_shared: bool) -> None:
    """Have this process write each line as it is printed, also where that goes into a file or pipe.

    ``is_shared``: several threads print. :func:`print` writes its parts one by one, so lines would mix.
    """
    for name in ("stdout", "stderr"):
        stream = getattr(sys, name)
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(line_buffering=True, write_through=False)
            if is_shared and name == "stdout":
                setattr(sys, name, Lines(stream))


class Lines:
    """Stands before a text stream: keeps what a thread has written until the line is whole."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream
        self._begun: dict[int, str] = {}  # by thread

    def write(self, text: str) -> int:
        """As that of the stream."""
        thread = threading.get_ident()
        whole, newline, begun = (self._begun.pop(thread, "") + text).rpartition("\n")
        if begun:
            self._begun[thread] = begun
        if newline:
            self._stream.write(whole + newline)
        return len(text)

    def writelines(self, lines: Any) -> None:
        """As that of the stream."""
        self.write("".join(lines))

    def flush(self) -> None:
        """As that of the stream; what this thread has begun goes out as it is, and at the very end all that is left."""
        threads = list(self._begun) if sys.is_finalizing() else [threading.get_ident()]
        for thread in threads:
            if begun := self._begun.pop(thread, ""):
                self._stream.write(begun)
        self._stream.flush()

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)
