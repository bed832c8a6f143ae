"""The few things that are done to the raw table, and the loops around them."""

from __future__ import annotations

import json
import time
from abc import ABC, abstractmethod
from collections.abc import Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, ClassVar, NamedTuple

TABLE = "taskq_raw"
CHANNEL = "taskq_raw"
CLAIM_SIZE = 100
INSERT_SIZE = 1_000
NAME = "django_taskq.bench.raw"
QUEUE = "default"


@dataclass(frozen=True, slots=True)
class Access:
    """How to connect; it travels to other processes. ``pragmas`` are statements that give SQLite Django's settings."""

    vendor: str
    parameters: dict[str, Any]
    pragmas: tuple[str, ...] = ()


class Row(NamedTuple):
    """A run to insert."""

    id: str
    payload: str


class Finished(NamedTuple):
    """A success to record; times in POSIX seconds."""

    id: str
    claim: int
    result: str
    started_at: float
    finished_at: float


class RawStore(ABC):
    """One connection to the raw table."""

    claim_sql: ClassVar[str]
    """One row: process id, claim, queue, limit -> id, claim, payload."""
    finish_sql: ClassVar[str]
    """One row: result, started_at, finished_at, id, process id, claim."""

    @abstractmethod
    def create_table(self) -> None:
        """Make the raw table anew: the real one without its rows, every index and storage option included."""

    @abstractmethod
    def empty(self) -> None:
        """Leave no row."""

    @abstractmethod
    def copy_rows(self) -> None:
        """Take over all rows of the real table."""

    @abstractmethod
    def insert_one(self, row: Row) -> None:
        """One row, one commit."""

    @abstractmethod
    def insert_and_wake(self, row: Row) -> None:
        """One row, one commit, and a notification where the database has such."""

    @abstractmethod
    def insert_many(self, rows: Sequence[Row]) -> None:
        """Rows in one statement and one commit."""

    @abstractmethod
    def transaction(self) -> AbstractContextManager[object]:
        """Whose first statement may be a write."""

    @abstractmethod
    def claim(self, process: int, first_claim: int, limit: int) -> list[tuple[str, int, str]]:
        """READY -> RUNNING; returns id, claim and payload in order."""

    @abstractmethod
    def finish(self, process: int, finished: Sequence[Finished]) -> None:
        """RUNNING -> SUCCESSFUL where the claim holds."""

    @abstractmethod
    def results(self) -> dict[str, str]:
        """The results of this benchmark's finished rows, by the hexadecimal digits of their ids."""

    @abstractmethod
    def close(self) -> None:
        """Disconnect."""

    def drain(self, process: int) -> tuple[int, float, float]:
        """Claim, decode and finish until nothing is left; returns how many, and the times of begin and end."""
        began = time.time()
        done: list[Finished] = []
        count = 0
        while True:
            with self.transaction():
                if done:
                    self.finish(process, done)
                claimed = self.claim(process, count + 1, CLAIM_SIZE)
            if not claimed:
                return count, began, time.time()
            count += len(claimed)
            done = [_run(*row) for row in claimed]


def _run(id: str, claim: int, payload: str) -> Finished:
    started = time.time()
    args, _ = json.loads(payload)
    return Finished(id, claim, json.dumps(args[0]), started, time.time())


def utc_now() -> datetime:
    """The time for new rows."""
    return datetime.now(UTC)
