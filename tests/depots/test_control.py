"""Control where queues are kept on Redis and on RabbitMQ: pausing, cancelling, and queues served from now on."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from django_taskq import control
from django_taskq.exceptions import TaskCancelled
from django_taskq.status import Status
from tests.depots.tasks import note_late
from tests.depots.workers_bed import SERVERS, Place, Start, at, on_url, shared_server
from tests.faults.history import History
from tests.testapp.tasks import add, note
from tests.waiting import wait_for

pytestmark = pytest.mark.django_db(transaction=True)

PATIENT = 20.0  # seconds, for workers on a loaded machine


@pytest.fixture
def history(tmp_path: Path) -> History:
    return History(tmp_path / "history")


@pytest.fixture(params=SERVERS)
def place(request: pytest.FixtureRequest, worker: Start) -> Iterator[Place]:
    taskq = on_url(shared_server(request, request.param).url, QUEUES={"mail": {}})
    with at(worker, taskq) as found:
        yield found


def test_a_paused_queue(place: Place) -> None:
    place.start()
    (reply,) = control.pause_queue("mail", timeout=PATIENT).values()
    assert reply.is_ok, reply.error
    held: list[Any] = []

    def is_paused() -> bool:
        # The supervisor has answered, and its processes learn of it at their next turn.
        held[:] = [add.using(queue_name="mail").enqueue(1, 2)]
        assert add.enqueue(3, 4).get(PATIENT) == 7
        held[0].refresh()
        return bool(held[0].status == Status.READY)

    wait_for(is_paused, 5)
    control.resume_queue("mail")
    assert held[0].get(PATIENT) == 3


def test_a_pause_holds_for_a_worker_that_starts_later(place: Place) -> None:
    control.pause_queue("mail")
    held, free = add.using(queue_name="mail").enqueue(1, 2), add.enqueue(3, 4)
    place.start()
    assert free.get(PATIENT) == 7
    held.refresh()
    assert held.status == Status.READY


def test_a_queue_served_from_now_on(place: Place) -> None:
    place.start("--processes", "1", "--queues", "default")
    result = add.using(queue_name="mail").enqueue(1, 2)
    control.add_consumer("mail", timeout=PATIENT)
    assert result.get(PATIENT) == 3


@pytest.mark.parametrize("task", [note, note_late], ids=["with a row", "with a row once it lasts"])
def test_a_run_that_goes_on_is_cancelled(place: Place, history: History, task: Any) -> None:
    place.start()
    result = task.enqueue(history.path, "long", 30)
    history.wait_for("start", "long")
    before = time.monotonic()

    def is_told() -> bool:
        # Without a row there is nothing to mark yet, and cancelling says so by reaching nobody.
        result.cancel()
        return bool(result._record is not None and result._record.cancel_requested_at is not None)

    wait_for(is_told, PATIENT)
    with pytest.raises(TaskCancelled):
        result.get(PATIENT)
    print(f"\ncancelled after {time.monotonic() - before:.2f} s")
    assert not history.count("end", "long")
    assert add.enqueue(1, 2).get(PATIENT) == 3
