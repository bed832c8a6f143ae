"""The slot table and its protocol of revoking."""

from __future__ import annotations

import stat
from collections.abc import Iterator
from pathlib import Path

import pytest

from django_taskq.worker import table
from django_taskq.worker.table import SlotTable


@pytest.fixture
def slots(tmp_path: Path) -> Iterator[SlotTable]:
    made = SlotTable.create(tmp_path / "1.slots", 2)
    yield made
    made.close(remove=True)


def claims(slots: SlotTable) -> list[int]:
    return [running.claim for running in slots.running()]


def test_what_runs_is_seen_by_another_reader(slots: SlotTable) -> None:
    assert slots.start(0, 7, None)
    assert slots.start(1, 8, 60.0)
    found = SlotTable.read(slots.path)
    assert found is not None
    first, second = found.running()
    assert (first.claim, first.deadline) == (7, None)
    assert second.deadline is not None
    assert second.deadline - second.started == pytest.approx(60)
    slots.finish(0)
    assert claims(found) == [8]
    found.close()


def test_finishing_twice_is_fine(slots: SlotTable) -> None:
    slots.start(0, 7, None)
    slots.finish(0)
    slots.finish(0)
    assert claims(slots) == []
    assert slots.last_started() == 7


def test_what_had_not_started_may_not_after_a_revoke(slots: SlotTable) -> None:
    slots.words[table.LAST_CLAIM] = 9
    assert slots.start(0, 7, None)
    assert slots.revoke_unstarted() == (7, 9)
    assert not slots.start(1, 8, None)
    assert not slots.start(1, 9, None)
    assert claims(slots) == [7]


def test_a_batch_is_revoked_with_any_of_its_calls(slots: SlotTable) -> None:
    slots.words[table.LAST_CLAIM] = 9
    assert slots.start(0, 8, None, lowest=5)
    slots.revoke_unstarted()
    assert not slots.start(1, 12, None, lowest=9)
    assert slots.start(1, 12, None, lowest=10)


def test_what_gathered_for_a_batch_does_not_hide_what_started_before_it(slots: SlotTable) -> None:
    """Or that would be given back although it has run: see :meth:`SlotTable.revoke_unstarted`."""
    assert slots.start(0, 400, None)
    slots.finish(0)
    assert slots.start(0, 300, None, lowest=200)
    assert slots.last_started() == 400
    assert claims(slots) == [300]


def test_what_is_claimed_later_may_start(slots: SlotTable) -> None:
    slots.words[table.LAST_CLAIM] = 9
    slots.revoke_unstarted()
    assert slots.start(0, 10, None)


def test_a_start_that_was_refused_does_not_count_as_running(slots: SlotTable) -> None:
    slots.words[table.LAST_CLAIM] = 9
    slots.revoke_unstarted()
    slots.start(0, 3, None)
    slots.finish(0)
    assert claims(slots) == []


def test_the_file_is_private_and_never_somebody_else_s(slots: SlotTable) -> None:
    assert stat.S_IMODE(slots.path.stat().st_mode) == 0o600
    with pytest.raises(FileExistsError):
        SlotTable.create(slots.path, 2)


def test_a_link_is_not_followed(tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to(tmp_path / "target")
    with pytest.raises(OSError, match=r"exists|symbolic"):
        SlotTable.create(tmp_path / "link", 1)


@pytest.mark.parametrize("content", [None, b"", b"x" * 10, b"x" * 137])
def test_what_is_no_table_is_not_trusted(tmp_path: Path, content: bytes | None) -> None:
    path = tmp_path / "odd"
    if content is not None:
        path.write_bytes(content)
    assert SlotTable.read(path) is None
