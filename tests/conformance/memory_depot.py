"""A depot in this process's memory: the contract at its plainest, and faults on demand."""

from __future__ import annotations

import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass
from functools import wraps
from typing import Any

from django_taskq import envelope
from django_taskq.brokers.depot import Depot, DepotCapabilities, Finding
from django_taskq.conf_brokers import BrokerConfig
from django_taskq.exceptions import DepotError
from django_taskq.message import Message, Parcel


@dataclass(slots=True)
class _Kept:
    message: Message
    holder: tuple[int, int] | None = None
    is_suspect: bool = False


def _locked(verb: Any) -> Any:
    @wraps(verb)
    def locked(self: MemoryDepot, *args: Any) -> Any:
        with self._lock:
            return verb(self, *args)

    return locked


class MemoryDepot(Depot):
    """``fail`` names the verbs that fail from now on; ``fails_late``: they fail after they have done their work."""

    capabilities = DepotCapabilities(
        priority_levels=201,
        is_shared=False,
        knows_holders=True,
        has_exchanges=False,
        refuses_doubles=True,
        can_peek=True,
    )

    def __init__(self) -> None:
        super().__init__(BrokerConfig("default", "memory://"), 1.0)
        self.kept: dict[str, _Kept] = {}
        self.took_at: dict[int, float] = {}
        self.fail: set[str] = set()
        self.fails_late = False
        self._lock = threading.RLock()

    def _maybe_fail(self, verb: str, *, is_over: bool = False) -> None:
        if verb in self.fail and is_over == self.fails_late:
            raise DepotError("the depot was told to fail", is_certain=not is_over)

    @_locked
    def publish(self, messages: Sequence[Message]) -> None:
        self._maybe_fail("publish")
        for message in messages:
            self.kept.setdefault(message.id, _Kept(message))
        self._maybe_fail("publish", is_over=True)

    @_locked
    def queues_with_work(self, queue_names: Sequence[str]) -> list[str]:
        self._maybe_fail("queues_with_work")
        return [name for name in queue_names if self._waiting(name)]

    @_locked
    def take(self, queue_name: str, limit: int, process_id: int, first_claim: int) -> list[Parcel]:
        self._maybe_fail("take")
        taken = self._waiting(queue_name)[:limit]
        for claim, kept in enumerate(taken, first_claim):
            kept.holder = (process_id, claim)
            self.took_at[process_id] = time.monotonic()
        self._maybe_fail("take", is_over=True)
        return [_parcel(kept) for kept in taken]

    @_locked
    def drop(self, process_id: int, parcels: Sequence[Parcel]) -> None:
        self._maybe_fail("drop")
        for kept in self._held(process_id, parcels):
            del self.kept[kept.message.id]

    @_locked
    def give_back(self, process_id: int, parcels: Sequence[Parcel]) -> int:
        self._maybe_fail("give_back")
        held = self._held(process_id, parcels)
        for kept in held:
            kept.holder = None
        return len(held)

    def held(self, process_id: int) -> list[Parcel]:
        self._maybe_fail("held")
        return [_parcel(kept) for kept in self.kept.values() if kept.holder and kept.holder[0] == process_id]

    def holders(self) -> dict[int, float]:
        found = {kept.holder[0] for kept in self.kept.values() if kept.holder}
        return {process_id: time.monotonic() - self.took_at[process_id] for process_id in found}

    def rescue(self, process_id: int, *, after: int = 0, up_to: int | None = None, is_suspect: bool = True) -> int:
        self._maybe_fail("rescue")
        count = 0
        for kept in self.kept.values():
            if kept.holder and kept.holder[0] == process_id and after < kept.holder[1] <= (up_to or kept.holder[1]):
                kept.holder, kept.is_suspect = None, is_suspect
                count += 1
        return count

    def purge(self, queue_name: str) -> int:
        waiting = self._waiting(queue_name)
        for kept in waiting:
            del self.kept[kept.message.id]
        return len(waiting)

    @_locked
    def size(self, queue_name: str) -> int:
        self._maybe_fail("size")
        return len(self._waiting(queue_name))

    def oldest_age(self, queue_name: str) -> float | None:
        messages = [kept.message for kept in self._waiting(queue_name)]
        since = [(message.run_after or message.enqueued_at).timestamp() for message in messages]
        return max(0.0, time.time() - min(since)) if since else None

    def peek(self, queue_name: str, limit: int) -> list[Message]:
        return [kept.message for kept in self._waiting(queue_name)[:limit]]

    def check(self) -> list[Finding]:
        return []

    def close(self) -> None:
        return None

    def _waiting(self, queue_name: str) -> list[_Kept]:
        waiting = [k for k in self.kept.values() if k.holder is None and k.message.queue_name == queue_name]
        return sorted(waiting, key=lambda kept: (-kept.message.priority, kept.message.id))

    def _held(self, process_id: int, parcels: Sequence[Parcel]) -> list[_Kept]:
        keys = {(parcel.delivery.id, (process_id, parcel.delivery.claim)) for parcel in parcels}
        return [kept for kept in self.kept.values() if (kept.message.id, kept.holder) in keys]


def _parcel(kept: _Kept) -> Parcel:
    claim = kept.holder[1] if kept.holder else 0
    return envelope.loads(envelope.dumps(kept.message), claim, is_suspect=kept.is_suspect)
