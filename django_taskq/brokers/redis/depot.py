"""The depot on Redis. Durable as far as the server's persistence reaches; :meth:`RedisDepot.check` says how far."""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager

from django_taskq.brokers.depot import DeadLetter, Depot, DepotCapabilities, Finding
from django_taskq.brokers.redis import checking, letters
from django_taskq.brokers.redis.addresses import parse_addresses, parse_options
from django_taskq.brokers.redis.connection import Connections
from django_taskq.brokers.redis.keys import SUSPECT, Keys, read_lines, read_stored, stored
from django_taskq.brokers.redis.scripts import Argument, Call, Script
from django_taskq.conf_brokers import BrokerConfig
from django_taskq.envelope import to_message
from django_taskq.exceptions import DepotError, MessageRefused, SerializationError
from django_taskq.message import Message, Parcel

# What one script does before others get their turn: a millisecond or two of the server's only thread.
MOST_MESSAGES = 1000
MOST_BYTES = 8 << 20
# Texts are read and written again one by one there.
MOST_RESCUED = 200
# How long the list of queues may be wrong after somebody emptied the server.
ANNOUNCED_FOR = 60.0

PUBLISH, TAKE, DROP, GIVE_BACK = Script("publish"), Script("take"), Script("drop"), Script("give_back")
RESCUE, HELD, PEEK, OLDEST, PURGE = Script("rescue"), Script("held"), Script("peek"), Script("oldest"), Script("purge")


class RedisDepot(Depot):
    """Every verb is one round trip (very large ones are divided), and what it changes it changes as a whole.

    A verb is repeated by itself, after its answer was lost, where doing it twice is doing it once: publish (a message
    kept already is refused), drop and rescue (they touch what is still held under these claims), and looking.
    :meth:`take` is not: a second one would take more; whoever asked rescues the claims in doubt. :meth:`give_back` and
    :meth:`purge` are not either: harmless, but their counts would be wrong. :meth:`wait` is not: its time would be up.

    Of the dead letters of a queue, the newest 10,000 are kept.
    """

    is_waited_at = True
    capabilities = DepotCapabilities(
        priority_levels=201,
        is_shared=True,
        knows_holders=True,
        has_exchanges=False,
        refuses_doubles=True,
        can_peek=True,
    )

    def __init__(self, config: BrokerConfig, timeout: float) -> None:
        super().__init__(config, timeout)
        options = parse_options(config)
        self._socket_timeout: float = options["socket_timeout"]
        self._connections = Connections(parse_addresses(config, options), self._socket_timeout)
        self._names_key = f"{config.prefix}:queues"
        self._keys: dict[str, Keys] = {}
        self._announced: dict[str, float] = {}

    # Asking for work.

    def publish(self, messages: Sequence[Message]) -> None:
        deadline = time.monotonic() + self.timeout
        queues: dict[str, list[Message]] = {}
        for message in messages:
            if message.exchange is not None:
                raise MessageRefused(f"Redis has no exchanges, so it cannot take a message for {message.exchange!r}")
            queues.setdefault(message.queue_name, []).append(message)
        calls = [call for name, queued in queues.items() for call in self._publishing(name, queued)]
        if calls:
            also = self._announcing(queues)
            self._connections.run(calls, also=also, seconds=deadline - time.monotonic(), repeat=True)
            if also:
                self._announced.update(dict.fromkeys(queues, time.monotonic()))

    def _publishing(self, queue_name: str, messages: Sequence[Message]) -> Iterator[Call]:
        keys = self._of(queue_name)
        names = (keys.ready, keys.messages, keys.wake)
        arguments: list[Argument] = []
        size = 0
        for message in messages:
            each = stored(message)
            arguments += each
            size += len(str(each[-1]))
            if len(arguments) >= 3 * MOST_MESSAGES or size >= MOST_BYTES:
                yield PUBLISH.call(names, arguments)
                arguments, size = [], 0
        if arguments:
            yield PUBLISH.call(names, arguments)

    def _announcing(self, queue_names: Iterable[str]) -> list[Call]:
        """Have the server know the queues by name: whoever rescues must find those it never heard of.

        Again after a while, since the server may have been emptied, or failed over to one that did not know yet.
        """
        old = time.monotonic() - ANNOUNCED_FOR
        names = [name for name in queue_names if self._announced.get(name, old) <= old]
        return [["SADD", self._names_key, *names]] if names else []

    # Doing work.

    def queues_with_work(self, queue_names: Sequence[str]) -> list[str]:
        calls: list[Call] = [["EXISTS", self._of(name).ready] for name in queue_names]
        found = self._connections.run(calls, repeat=True) if calls else []
        return [name for name, has_work in zip(queue_names, found, strict=True) if has_work]

    def take(self, queue_name: str, limit: int, process_id: int, first_claim: int) -> list[Parcel]:
        """At most 1,000 messages, or about 8 MiB of them, at once: fewer than asked for does not mean that was all."""
        keys = self._of(queue_name)
        names = (keys.ready, keys.messages, keys.held(process_id), keys.holders, keys.wake, keys.fence(process_id))
        call = TAKE.call(names, (min(limit, MOST_MESSAGES), process_id, first_claim, MOST_BYTES))
        lines: bytes = self._connections.one(call)
        try:
            return read_lines(lines, queue_name, first_claim)
        except (ValueError, TypeError, LookupError, RecursionError):
            with _begun():
                return list(self._sorted_out(queue_name, process_id, first_claim, limit))

    def _sorted_out(self, queue_name: str, process_id: int, first_claim: int, limit: int) -> Iterator[Parcel]:
        """What was just taken, except for what cannot be read: that becomes dead letters."""
        reasons: list[str] = []
        try:
            for id, claim, text in self._holding(queue_name, process_id, first_claim, first_claim + limit - 1):
                try:
                    yield read_stored(id, text, queue_name, claim)
                except SerializationError as error:
                    call = letters.refusal(self._of(queue_name), process_id, id, claim, str(error))
                    self._connections.one(call, repeat=True)
                    reasons.append(str(error))
        finally:
            self.report_dead(queue_name, reasons)

    def drop(self, process_id: int, parcels: Sequence[Parcel]) -> None:
        calls: list[Call] = []
        for name, some in _by_queue(parcels):
            keys = self._of(name)
            arguments: list[Argument] = [process_id]
            for parcel in some:
                arguments += parcel.delivery[:2]  # id and claim
            calls.append(DROP.call((keys.messages, keys.held(process_id), keys.holders), arguments))
        if calls:
            self._connections.run(calls, repeat=True)

    def give_back(self, process_id: int, parcels: Sequence[Parcel]) -> int:
        calls: list[Call] = []
        for name, some in _by_queue(parcels):
            keys = self._of(name)
            arguments: list[Argument] = [process_id]
            for parcel in some:
                arguments += (parcel.delivery.id, parcel.delivery.claim, -parcel.priority)
            calls.append(GIVE_BACK.call((keys.ready, keys.held(process_id), keys.holders, keys.wake), arguments))
        return sum(self._connections.run(calls)) if calls else 0

    # For supervisors.

    def wait(self, queue_names: Sequence[str], seconds: float) -> bool:
        """Wait on a connection of its own, so that nobody else waits for it."""
        if not queue_names or seconds <= 0:
            return bool(queue_names) and self.queues_with_work(queue_names) != []
        # To Redis 0 means for ever.
        call: Call = ["BLPOP", *(self._of(name).wake for name in queue_names), f"{max(seconds, 0.001):.3f}"]
        return self._connections.one(call, seconds=seconds + self._socket_timeout) is not None

    def held(self, process_id: int) -> list[Parcel]:
        found: list[Parcel] = []
        for name in self._all_queues():
            for id, claim, text in self._holding(name, process_id):
                try:
                    found.append(read_stored(id, text, name, claim))
                except SerializationError:
                    continue  # whoever takes it next finds out
        return sorted(found, key=lambda parcel: parcel.delivery.claim)

    def holders(self) -> dict[int, float]:
        names = self._all_queues()
        calls: list[Call] = [["ZRANGE", self._of(name).holders, 0, -1, "WITHSCORES"] for name in names]
        (seconds, micros), *answers = self._connections.run([["TIME"], *calls], repeat=True)
        now = int(seconds) + int(micros) / 1e6
        ages: dict[int, float] = {}
        for answer in answers:
            for process, at in zip(answer[::2], answer[1::2], strict=True):
                age = max(0.0, now - float(at))
                ages[int(process)] = min(age, ages.get(int(process), age))
        return ages

    def rescue(self, process_id: int, *, after: int = 0, up_to: int | None = None, is_suspect: bool = True) -> int:
        """With ``up_to``, a take of these claims that is still under way to the server will find nothing."""
        last, mark, rescued = "+inf" if up_to is None else str(up_to), SUSPECT if is_suspect else "", 0
        names = self._all_queues()
        while names:
            calls = []
            for name in names:
                keys = self._of(name)
                of_process = (keys.held(process_id), keys.holders, keys.wake, keys.fence(process_id))
                arguments = (process_id, after, last, mark, MOST_RESCUED)
                calls.append(RESCUE.call((keys.ready, keys.messages, *of_process), arguments))
            with _begun():
                counts = self._connections.run(calls, repeat=True)
            rescued += sum(counts)
            names = [name for name, count in zip(names, counts, strict=True) if count == MOST_RESCUED]
        return rescued

    # For people.

    def purge(self, queue_name: str) -> int:
        keys, purged = self._of(queue_name), 0
        for _ in range(0, self.size(queue_name), MOST_MESSAGES):  # not for ever, should others add faster
            with _begun():
                purged += self._connections.one(PURGE.call((keys.ready, keys.messages, keys.wake), (MOST_MESSAGES,)))
        return purged

    def size(self, queue_name: str) -> int:
        return int(self._connections.one(["ZCARD", self._of(queue_name).ready], repeat=True))

    def oldest_age(self, queue_name: str) -> float | None:
        keys = self._of(queue_name)
        age = self._connections.one(OLDEST.call((keys.ready, keys.messages), (MOST_BYTES,)), repeat=True)
        return None if age is None else max(0.0, float(age))

    def peek(self, queue_name: str, limit: int) -> list[Message]:
        keys, found, rank = self._of(queue_name), list[Message](), 0
        while rank < limit:
            call = PEEK.call((keys.ready, keys.messages), (rank, min(limit - rank, MOST_RESCUED), MOST_BYTES))
            texts = self._connections.one(call, repeat=True)
            if not texts:
                break
            rank += len(texts)
            for text in texts:
                try:
                    found.append(to_message(letters.read_text(text, queue_name)))
                except (SerializationError, ValueError, OverflowError, OSError):
                    continue  # whoever takes it puts it with the dead letters
        return found

    def dead_letters(self, limit: int = 100) -> list[DeadLetter]:
        return letters.listed(self._connections, self._all_keys(), limit)

    def replay(self, ids: Sequence[str]) -> int:
        queues = self._all_keys()
        with _begun():
            return letters.replay(self._connections, queues, ids)

    def discard(self, ids: Sequence[str]) -> int:
        return letters.discard(self._connections, self._all_keys(), ids)

    def check(self) -> list[Finding]:
        return checking.findings(self._connections)

    def close(self) -> None:
        self._connections.close()

    # What they share.

    def _of(self, queue_name: str) -> Keys:
        keys = self._keys.get(queue_name)
        if keys is None:
            keys = self._keys[queue_name] = Keys(self.config.prefix, queue_name)
        return keys

    def _all_queues(self) -> list[str]:
        """Those this process has to do with, and those that others ever published to."""
        names = self._connections.one(["SMEMBERS", self._names_key], repeat=True)
        return sorted({*self._keys, *(name.decode() for name in names)})

    def _all_keys(self) -> dict[str, Keys]:
        return {name: self._of(name) for name in self._all_queues()}

    def _holding(
        self, queue_name: str, process_id: int, first: int = 0, last: int | None = None
    ) -> Iterator[tuple[str, int, bytes]]:
        keys = self._of(queue_name)
        start: Argument = first
        while True:
            arguments = (start, "+inf" if last is None else last, MOST_RESCUED, MOST_BYTES)
            rows = self._connections.one(HELD.call((keys.held(process_id), keys.messages), arguments), repeat=True)
            for id, claim, text in zip(rows[::3], rows[1::3], rows[2::3], strict=True):
                yield id.decode(errors="replace"), int(claim), text
            if not rows:
                return
            start = f"({int(rows[-2])}"


@contextmanager
def _begun() -> Iterator[None]:
    """One round trip of several: some of what was asked may have happened before the one that fails."""
    try:
        yield
    except DepotError as error:
        error.is_certain = False
        raise


def _by_queue(parcels: Sequence[Parcel]) -> Iterator[tuple[str, Sequence[Parcel]]]:
    """Those of one queue together, so many at once as a script may deal with."""
    queues: dict[str, list[Parcel]] = {}
    for parcel in parcels:
        queues.setdefault(parcel.delivery.queue_name, []).append(parcel)
    for name, some in queues.items():
        for start in range(0, len(some), MOST_MESSAGES):
            yield name, some[start : start + MOST_MESSAGES]
