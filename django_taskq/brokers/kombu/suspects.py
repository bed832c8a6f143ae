"""Which of the messages that come a second time were held by somebody who died.

The server marks what it hands out again, and a quorum queue counts how often, but neither says why. So a process
remembers what it gave back itself: when that comes again with nobody in between, it is above suspicion. What another
process gave back looks like what a dead one held.
"""

from __future__ import annotations

from typing import NamedTuple

from django_taskq.brokers.kombu.wire import Incoming

_MOST = 20_000


class Handed(NamedTuple):
    """A message as it was handed out: how often before, by the queue's own count (0 where it does not count).

    ``delivery`` is there when that count is near its limit.
    """

    tag: int
    id: str
    times: int
    is_suspect: bool
    delivery: Incoming | None


class Suspects:
    """The memory of one process. A count of ``most`` is near the limit."""

    def __init__(self, most: int) -> None:
        self._most = max(1, most)
        self._own: dict[str, int] = {}

    def judge(self, delivery: Incoming) -> Handed:
        """What to remember of a delivery."""
        try:
            properties = delivery.properties()
            headers = properties.get("application_headers") or {}
            id, times = str(properties.get("message_id", "")), int(headers.get("x-delivery-count", 0))
            was_suspect = "taskq-suspect" in headers
        except Exception:
            return Handed(delivery.tag, "", 0, True, None)  # whoever takes it refuses it
        is_suspect = was_suspect
        if delivery.is_redelivered or times:
            # A classic queue does not count; a quorum queue has counted once, for our giving it back.
            own = self._own.pop(id, None)
            is_suspect = was_suspect or own is None or times not in (own, own + 1)
        is_near = times >= self._most and delivery.is_whole
        return Handed(delivery.tag, id, times, is_suspect, delivery if is_near else None)

    def clear(self, handed: Handed) -> None:
        """This was given back untouched."""
        if handed.is_suspect:
            return
        if len(self._own) >= _MOST:
            del self._own[next(iter(self._own))]
        self._own[handed.id] = handed.times


def id_of(delivery: Incoming) -> str:
    """The run's id, which rises with time; nothing where it cannot be read."""
    try:
        return str(delivery.properties().get("message_id", ""))
    except Exception:
        return ""
