"""The names of everything kept in Redis, and the form in which it is kept.

The keys of one queue share one hash tag, so that a script finds them all on one server whatever divides the keys.
A message is kept as its envelope behind a mark (one byte: ``.``, or ``!`` for a suspect) and its priority (four
bytes), so that a rescue finds its place again without understanding envelopes.
"""

from __future__ import annotations

import json

from django_taskq.brokers.redis.scripts import Argument
from django_taskq.envelope import dumps, loads, parcel
from django_taskq.exceptions import SerializationError
from django_taskq.message import Message, Parcel

SUSPECT = "!"
HEAD = 5
_ID = 36
_decode = json.JSONDecoder().raw_decode


class Keys:
    """The keys of one queue."""

    __slots__ = ("_start", "dead", "holders", "letters", "messages", "ready", "wake")

    def __init__(self, prefix: str, queue_name: str) -> None:
        self._start = f"{{{prefix}:{queue_name}}}:"
        # Sorted set, id by minus its priority: ids of one priority sort as text, and that is by age.
        self.ready = self._key("ready")
        # Hash, text by id: of what waits and of what is held.
        self.messages = self._key("messages")
        # Sorted set, process by the time of its last take.
        self.holders = self._key("holders")
        # List of one token, or none: whoever gets it from a blocking pop is told that there is work.
        self.wake = self._key("wake")
        # Dead letters: sorted set, id by time; and hash, reason and text by id.
        self.dead = self._key("dead")
        self.letters = self._key("letters")

    def held(self, process_id: int) -> bytes:
        """Sorted set, id by claim."""
        return self._key(f"held:{process_id}")

    def fence(self, process_id: int) -> bytes:
        """The last claim of takes that were given up on, for a day."""
        return self._key(f"fence:{process_id}")

    def _key(self, name: str) -> bytes:
        return f"{self._start}{name}".encode()


def stored(message: Message) -> list[Argument]:
    """A message as the scripts take it: id, score, text."""
    return [message.id, -message.priority, f".{message.priority:+04d}{dumps(message)}"]


def read_stored(id: str, text: bytes, queue_name: str, claim: int = 0) -> Parcel:
    """One kept text. Raises :exc:`SerializationError` saying why it cannot be this message of this queue."""
    if not text:
        raise SerializationError("the message has no text")
    found = loads(text[HEAD:], claim, is_suspect=text.startswith(SUSPECT.encode()))
    if found.delivery.id != id or found.delivery.queue_name != queue_name:
        raise SerializationError("the message is kept under another id or in another queue than it names")
    return found


def read_lines(lines: bytes, queue_name: str, first_claim: int) -> list[Parcel]:
    """What ``take.lua`` returns, read in one go. Raises whatever it stumbles over; then each has to be looked at."""
    text = lines.decode()
    parcels: list[Parcel] = []
    claim, start, end = first_claim, 0, len(text)
    while start < end:
        head = start + _ID
        values, stop = _decode(text, head + HEAD)
        # An envelope holds no line feed. Were the borders wrong, the next would not begin with its own id.
        if text[stop] != "\n" or values[1] != text[start:head] or values[3] != queue_name:
            raise SerializationError("the lines cannot be told apart")
        parcels.append(parcel(values, claim, is_suspect=text[head] == SUSPECT))
        claim += 1
        start = stop + 1
    return parcels
