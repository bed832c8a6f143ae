"""The depot in memory with what people ask of one: dead letters, and findings about its server."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta

from django_taskq.brokers.depot import DeadLetter, Finding
from django_taskq.conf_brokers import BrokerConfig
from django_taskq.exceptions import DepotError
from tests.conformance.memory_depot import MemoryDepot


class LetteredDepot(MemoryDepot):
    """``fail`` takes these verbs, too; ``asked`` counts them. Letters with "odd" in their text stay unreadable."""

    def __init__(self, alias: str = "default", url: str = "memory://") -> None:
        super().__init__()
        self.config = BrokerConfig(alias, url)
        self.letters: dict[str, DeadLetter] = {}
        self.findings: list[Finding] = []
        self.asked: Counter[str] = Counter()
        self.is_closed = False
        self.why = "the depot was told to fail"

    def _maybe_fail(self, verb: str, *, is_over: bool = False) -> None:
        self.asked[verb] += 1
        if verb in self.fail and not self.fails_late:
            raise DepotError(self.why, is_certain=True)

    def go_down(self) -> None:
        """Nothing works from now on."""
        self.fail |= {
            "publish", "queues_with_work", "take", "size", "oldest_age", "dead_letters", "replay", "discard", "check",
            "purge",
        }  # fmt: skip

    def refuse(self, id: str, text: str = "hello", reason: str = "not readable", age: float = 60) -> DeadLetter:
        """Have a dead letter."""
        refused_at = datetime.now(UTC) - timedelta(seconds=age)
        self.letters[id] = DeadLetter(id, "mail", reason, text, refused_at)
        return self.letters[id]

    def purge(self, queue_name: str) -> int:
        self._maybe_fail("purge")
        return super().purge(queue_name)

    def oldest_age(self, queue_name: str) -> float | None:
        self._maybe_fail("oldest_age")
        return super().oldest_age(queue_name)

    def dead_letters(self, limit: int = 100) -> list[DeadLetter]:
        self._maybe_fail("dead_letters")
        found = sorted(self.letters.values(), key=lambda letter: letter.refused_at or datetime.now(UTC), reverse=True)
        return found[:limit]

    def replay(self, ids: Sequence[str]) -> int:
        self._maybe_fail("replay")
        return self._forget([id for id in ids if id in self.letters and "odd" not in self.letters[id].text])

    def discard(self, ids: Sequence[str]) -> int:
        self._maybe_fail("discard")
        return self._forget([id for id in ids if id in self.letters])

    def _forget(self, ids: list[str]) -> int:
        for id in ids:
            del self.letters[id]
        return len(ids)

    def check(self) -> list[Finding]:
        self._maybe_fail("check")
        return self.findings

    def close(self) -> None:
        self.is_closed = True
