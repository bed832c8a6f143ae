"""Feeds, spread over their window."""

from __future__ import annotations

from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from feeds import tasks
from feeds.management.commands.refresh_feeds import write_samples

from django_taskq import testing
from django_taskq.models import TaskRecord
from django_taskq.workflow_result import GroupResult

pytestmark = pytest.mark.django_db


@pytest.fixture(autouse=True)
def servers(output: Path, settings: Any) -> None:
    settings.FEEDS_URL = (output / "feeds" / "servers").as_uri()
    write_samples(10)


def starts(workflow_id: str) -> list[datetime]:
    return [run.run_after or run.enqueued_at for run in GroupResult(workflow_id).steps()]


def test_reading_again_finds_nothing_new(output: Path) -> None:
    assert [tasks.refresh_feed(3), tasks.refresh_feed(3)] == [10, 0]
    with (output / "feeds" / "servers" / "3.xml").open("a") as feed:
        feed.write("<entry><id>urn:3:new</id></entry>")
    assert tasks.refresh_feed(3) == 1


def test_a_round_is_spread_over_most_of_its_window() -> None:
    with testing.clock() as clock:
        result = tasks.refresh_feeds.enqueue(2, 6, window=100.0)
        testing.drain()
        result.refresh()
        first, *others = starts(result.return_value)
        assert [round((at - first) / timedelta(seconds=1)) for at in others] == [20, 40, 60]
        clock.advance(seconds=61)
    group = GroupResult(result.return_value)
    group.refresh()
    assert (group.name, group.get(timeout=0)) == ("feeds 2-5", [10, 10, 10, 10])
    assert sorted(path.stem for path in tasks.entries_file(0).parent.glob("*.json")) == ["2", "3", "4", "5"]


def test_a_feed_that_is_away_is_tried_again(output: Path) -> None:
    (output / "feeds" / "servers" / "1.xml").unlink()
    tasks.refresh_feed.enqueue(1)
    testing.drain()
    run = TaskRecord.objects.get()
    assert (run.status, run.attempt) == ("SCHEDULED", 2)
