"""What a supervisor tells a worker process, as bytes on a pipe: a word, and for some words what it is about.

A word is one byte. Words in :data:`WITH_MORE` are followed by a text that ends with a newline. Whoever is told reads
what has come, which may end in the middle of an order.
"""

from __future__ import annotations

from typing import NamedTuple

RING, STOP = b"r", b"s"
# Fetch nothing more, or again; and the closed queues, as a JSON array of their names.
QUIET, WORK = b"n", b"w"
QUEUES = b"q"
# Stop the run of this claim; the limits of one task, see limits.py; and log all stacks.
CANCEL, LIMITS, DUMP = b"c", b"l", b"d"
WITH_MORE = frozenset({QUEUES, CANCEL, LIMITS})


class Order(NamedTuple):
    """One order; ``more`` is '' for words that stand alone."""

    word: bytes
    more: str = ""

    def dumps(self) -> bytes:
        """As it goes over the pipe."""
        return self.word + self.more.encode() + b"\n" if self.word in WITH_MORE else self.word


class Reader:
    """Cuts what comes over the pipe into orders."""

    def __init__(self) -> None:
        self._rest = b""

    def feed(self, data: bytes) -> list[Order]:
        """The orders that are complete with this."""
        self._rest += data
        found: list[Order] = []
        while self._rest:
            word = self._rest[:1]
            if word not in WITH_MORE:
                found.append(Order(word))
                self._rest = self._rest[1:]
                continue
            more, newline, rest = self._rest[1:].partition(b"\n")
            if not newline:
                break
            found.append(Order(word, more.decode()))
            self._rest = rest
        return found
