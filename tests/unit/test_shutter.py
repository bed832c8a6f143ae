"""The shutter: what is closed and why, and who is told when."""

from __future__ import annotations

import json
import threading

from django_taskq.worker.orders import QUEUES, QUIET, WORK, Order, Reader
from django_taskq.worker.shutter import Shutter


class Crew:
    """Remembers what it was told."""

    def __init__(self) -> None:
        self.told: list[Order] = []
        self.shutter = Shutter(self.told.append)

    def closed(self) -> list[str]:
        """As the last order says."""
        return json.loads(self.told[-1].more)  # type: ignore[no-any-return]


def test_a_queue_is_open_when_no_reason_is_left() -> None:
    crew = Crew()
    crew.shutter.set("paused", ["mail", "bulk"])
    crew.shutter.set("load", ["bulk"])
    assert crew.shutter.closed == {"mail", "bulk"}
    crew.shutter.set("paused", [])
    assert crew.shutter.closed == {"bulk"}
    assert crew.shutter.reasons == {"load": {"bulk"}}
    crew.shutter.set("load", [])
    assert crew.shutter.closed == frozenset()
    assert crew.shutter.reasons == {}


def test_everybody_is_told_when_it_changes_and_only_then() -> None:
    crew = Crew()
    crew.shutter.set("load", [])
    assert crew.told == []
    crew.shutter.set("paused", ["mail", "bulk"])
    assert crew.closed() == ["bulk", "mail"]
    crew.shutter.set("load", ["bulk"])  # closed already
    assert len(crew.told) == 1
    crew.shutter.set("paused", [])
    assert crew.closed() == ["bulk"]
    crew.shutter.set("load", [])
    assert crew.closed() == []


def test_quiet_is_told_once() -> None:
    crew = Crew()
    for is_quiet in (False, True, True, False, False):
        crew.shutter.set_quiet(is_quiet)
    assert crew.told == [Order(QUIET), Order(WORK)]


def test_who_is_new_is_told_what_holds() -> None:
    crew = Crew()
    told: list[Order] = []
    crew.shutter.brief(told.append)
    assert told == []
    crew.shutter.set("paused", ["mail"])
    crew.shutter.set_quiet(True)
    crew.shutter.brief(told.append)
    assert told == [Order(QUEUES, '["mail"]'), Order(QUIET)]


def test_who_is_new_hears_a_change_after_what_it_replaces() -> None:
    # Given a new one that is being told at the moment when the shutter opens again
    crew = Crew()
    crew.shutter.set("paused", ["mail"])
    crew.told.clear()
    begun, may_end = threading.Event(), threading.Event()

    def tell(order: Order) -> None:
        begun.set()
        may_end.wait(10)
        crew.told.append(order)

    briefing = threading.Thread(target=crew.shutter.brief, args=(tell,))
    opening = threading.Thread(target=crew.shutter.set, args=("paused", []))
    briefing.start()
    assert begun.wait(10)
    opening.start()
    may_end.set()
    briefing.join()
    opening.join()

    # Then the last it hears is what holds
    assert [order.more for order in crew.told] == ['["mail"]', "[]"]


def test_the_orders_survive_the_pipe() -> None:
    sent = [Order(QUIET), Order(QUEUES, '["a.b-c_1"]'), Order(WORK)]
    reader = Reader()
    data = b"".join(order.dumps() for order in sent)
    heard = [order for byte in data for order in reader.feed(bytes([byte]))]
    assert heard == sent
