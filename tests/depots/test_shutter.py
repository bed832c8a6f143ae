"""A queue that a worker has closed, on servers: what they send ahead, and whom they tell of work, is for others."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest

from django_taskq.conf_brokers import BrokerConfig
from django_taskq.worker.doorbell import BUSY_PAUSE, DepotDoorbell
from tests.depots.workers_bed import SERVERS, Place, Start, at, on_url, shared_server
from tests.faults.history import History, wait_until_finished
from tests.testapp.tasks import note
from tests.waiting import wait_for


@pytest.fixture(params=SERVERS)
def place(request: pytest.FixtureRequest, worker: Start) -> Iterator[Place]:
    with at(worker, on_url(shared_server(request, str(request.param)).url, QUEUES=["mail"])) as found:
        yield found


@pytest.mark.database
@pytest.mark.django_db(transaction=True)
def test_a_closed_queue_is_left_to_others(place: Place, tmp_path: Path) -> None:
    # Given a worker that leaves mail to others: every host has used one percent of its memory
    history = History(tmp_path / "history")
    closed = place.start("--processes", "1", "--max-load", "mail=memory:1")
    wait_for(lambda: "mail: left to others" in closed.log(), 10, closed.log)
    mail = note.using(queue_name="mail")
    mail.enqueue_many([((history.path, f"m{number}"), {}) for number in range(50)])

    # Then it goes on with its other queues
    note.enqueue(history.path, "free")
    assert history.wait_for("end", "free").pid in closed.children()

    # And holds back nothing from a second one
    other = place.start("--processes", "1")
    wait_until_finished()
    mail.enqueue(history.path, "m50")
    wait_until_finished()
    starts = [line for line in history.lines("start") if line.key[0] == "m"]
    assert len(starts) == 51
    assert {line.pid for line in starts} == set(other.children())


class WaitedAt:
    """A depot of which only its waiting matters."""

    config = BrokerConfig("default", "memory://")

    def __init__(self) -> None:
        self.waited: list[list[str]] = []

    def wait(self, queue_names: Sequence[str], seconds: float) -> bool:
        self.waited.append(list(queue_names))
        return False


@pytest.mark.parametrize(
    ("wanted", "waited"),
    [({"mail", "bulk"}, [["mail", "bulk"]]), ({"bulk", "other"}, [["bulk"]]), ({"other"}, []), (set(), [])],
    ids=["all", "one", "none-of-these", "none"],
)
def test_a_worker_waits_only_for_what_somebody_idle_would_fetch(wanted: set[str], waited: list[list[str]]) -> None:
    depot: Any = WaitedAt()
    bell = DepotDoorbell(lambda: None, depot, ["mail", "bulk"], lambda: wanted)
    assert bell.work() == (0.0 if waited else BUSY_PAUSE)
    assert depot.waited == waited
