"""Dead letters on Redis: messages that nobody can run, kept for people to look at, until they are too many."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime

from django_taskq.brokers.depot import DeadLetter
from django_taskq.brokers.redis.connection import Connections
from django_taskq.brokers.redis.keys import HEAD, Keys, read_stored, stored
from django_taskq.brokers.redis.scripts import Argument, Call, Script
from django_taskq.envelope import loads, to_message
from django_taskq.exceptions import SerializationError
from django_taskq.message import Parcel

MOST_LETTERS = 10_000
# What a list shows of each, its reason included.
MOST_SHOWN = 2000
# Texts may be as long as messages, and each of them is one reply.
MOST_AT_ONCE = 100

REFUSE, LETTERS, REPLAY, DISCARD = Script("refuse"), Script("letters"), Script("replay"), Script("discard")


def refusal(keys: Keys, process_id: int, id: str, claim: int, reason: str) -> Call:
    """The call that puts what a process holds with the dead letters."""
    line = " ".join(reason.split())[:500]
    names = (keys.messages, keys.held(process_id), keys.holders, keys.dead, keys.letters)
    return REFUSE.call(names, (process_id, id, claim, line, MOST_LETTERS))


def read_text(text: bytes, queue_name: str) -> Parcel:
    """A kept text whose id is not known from elsewhere."""
    found = loads(text[HEAD:])
    return read_stored(found.delivery.id, text, queue_name)


def listed(connections: Connections, queues: Mapping[str, Keys], limit: int) -> list[DeadLetter]:
    """The newest of all queues."""
    found: list[tuple[float, DeadLetter]] = []
    for name, keys in queues.items():
        for rank in range(0, limit, MOST_AT_ONCE):
            arguments = (rank, min(MOST_AT_ONCE, limit - rank), MOST_SHOWN)
            rows = connections.one(LETTERS.call((keys.dead, keys.letters), arguments), repeat=True)
            for id, at, letter in zip(rows[::3], rows[1::3], rows[2::3], strict=True):
                reason, _, text = letter.decode(errors="replace").partition("\n")
                refused_at = datetime.fromtimestamp(float(at), UTC)
                found.append(
                    (float(at), DeadLetter(id.decode(errors="replace"), name, reason, text[HEAD:], refused_at))
                )
            if len(rows) < 3 * MOST_AT_ONCE:
                break
    found.sort(key=lambda pair: pair[0], reverse=True)
    return [letter for _, letter in found[:limit]]


def replay(connections: Connections, queues: Mapping[str, Keys], ids: Sequence[str]) -> int:
    """Put back those that can be read by now: a newer version may know what an older one did not."""
    count = 0
    for name, keys in queues.items():
        for some in _divided(ids):
            arguments: list[Argument] = []
            texts = connections.one(["HMGET", keys.letters, *some], repeat=True)
            for id, letter in zip(some, texts, strict=True):
                try:
                    found = read_stored(id, (letter or b"").partition(b"\n")[2], name)
                    arguments += stored(to_message(found))
                except (SerializationError, ValueError, OverflowError, OSError):
                    continue
            if arguments:
                places = (keys.ready, keys.messages, keys.wake, keys.dead, keys.letters)
                count += connections.one(REPLAY.call(places, arguments))
    return count


def discard(connections: Connections, queues: Mapping[str, Keys], ids: Sequence[str]) -> int:
    """Throw these away, wherever they are."""
    calls = [DISCARD.call((keys.dead, keys.letters), some) for keys in queues.values() for some in _divided(ids)]
    return sum(connections.run(calls)) if calls else 0


def _divided(ids: Sequence[str]) -> list[Sequence[str]]:
    return [ids[start : start + MOST_AT_ONCE] for start in range(0, len(ids), MOST_AT_ONCE)]
