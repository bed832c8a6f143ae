"""F51: arguments and results from nothing to hundreds of megabytes, on every kind of broker."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from django_taskq.exceptions import EnqueueError, PayloadTooLarge
from django_taskq.models import TaskRecord
from django_taskq.status import Status
from tests.depots.workers_bed import SERVERS, Place, Start, at, on_url, shared_server
from tests.faults.conftest import ROUNDS
from tests.faults.history import assert_no_orphans, assert_registry_is_clean, crashes
from tests.testapp.tasks import add, length_of, text_of

pytestmark = [pytest.mark.django_db(transaction=True), pytest.mark.one_database]

LIMIT = 256 << 10
GOOD, BAD = (0, 255 << 10), (257 << 10, 16 << 20)
ENORMOUS = (600 if ROUNDS > 2 else 64) << 20
MOST_FACTOR = 4.0  # of what was passed or returned, for everything together
BESIDES = 20_000_000  # bytes: what a process takes for other reasons meanwhile
PATIENT = 60.0  # seconds, for workers on a loaded machine


@pytest.fixture(params=["database", *SERVERS])
def place(request: pytest.FixtureRequest, worker: Start) -> Iterator[Place]:
    url = "" if request.param == "database" else shared_server(request, request.param).url
    with at(worker, (on_url(url) if url else {}) | {"MAX_PAYLOAD": LIMIT}) as found:
        yield found


class Peak:
    """The most memory a process takes from now on, over what it has now."""

    def __init__(self, pid: int) -> None:
        self._directory = Path(f"/proc/{pid}")
        (self._directory / "clear_refs").write_text("5")
        self._before = self._read("VmRSS")

    def bytes(self) -> int:
        return self._read("VmHWM") - self._before

    def _read(self, name: str) -> int:
        lines = (self._directory / "status").read_text().splitlines()
        return next(int(line.split()[1]) << 10 for line in lines if line.startswith(f"{name}:"))


def test_what_fits_and_what_does_not(place: Place) -> None:
    process = place.start("--processes", "1")
    (child,) = process.children()
    assert add.enqueue(1, 2).get(PATIENT) == 3
    for size in GOOD:
        assert length_of.enqueue("x" * size).get(PATIENT) == size
        # A letter of two bytes counts as two.
        assert length_of.enqueue("ä" * (size // 2)).get(PATIENT) == size // 2
        assert text_of.enqueue(size).get(PATIENT) == "x" * size
    before = TaskRecord.objects.count()
    for size in BAD:
        for text in ("x" * size, "ä" * (size // 2)):
            with pytest.raises(EnqueueError, match=r"the arguments of .*MAX_PAYLOAD'\] allows 262,144") as caught:
                length_of.enqueue(text)
            assert type(caught.value) is PayloadTooLarge
    assert TaskRecord.objects.count() == before
    peak = Peak(child)
    for size in BAD:
        result = text_of.enqueue(size)
        with pytest.raises(PayloadTooLarge, match=rf"the result takes {size + 2:,} bytes and .* allows 262,144"):
            result.get(PATIENT)
        row = TaskRecord.objects.get(pk=result.id)
        assert (row.status, row.attempt, row.result) == (Status.FAILED, 1, None)
    assert add.enqueue(1, 2).get(PATIENT) == 3
    assert process.children() == [child]
    print(f"\nresults up to 16 MiB: the process took {peak.bytes() / 1e6:.0f} MB more at most")
    assert peak.bytes() < MOST_FACTOR * BAD[-1] + MOST_FACTOR * LIMIT + BESIDES
    assert not crashes()
    process.terminate()
    assert process.wait() == 0
    assert_no_orphans(process)
    assert_registry_is_clean()


def test_hundreds_of_megabytes(worker: Start) -> None:
    with at(worker, {"MAX_PAYLOAD": LIMIT}) as place:
        process = place.start("--processes", "1")
        (child,) = process.children()
        assert add.enqueue(1, 2).get(PATIENT) == 3
        own = Peak(os.getpid())
        text = "x" * ENORMOUS
        with pytest.raises(PayloadTooLarge):
            length_of.enqueue(text)
        asked = own.bytes() / ENORMOUS
        del text
        peak = Peak(child)
        with pytest.raises(PayloadTooLarge):
            text_of.enqueue(ENORMOUS).get(PATIENT)
        ran = peak.bytes() / ENORMOUS
        assert add.enqueue(1, 2).get(PATIENT) == 3
        print(f"\n{ENORMOUS >> 20} MiB: the caller took {asked:.1f} times as much at most, the worker {ran:.1f} times")
        assert max(asked, ran) < MOST_FACTOR + BESIDES / ENORMOUS
        assert process.children() == [child]
        assert Peak(child)._before < ENORMOUS / 2 + (100 << 20), "it keeps what it had refused"
        assert not crashes()
        process.terminate()
        assert process.wait() == 0
