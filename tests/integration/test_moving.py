"""What docs/moving.md says: nothing is lost while queues move from one broker to another, and what has to be drained.

The brokers of one place after the other stand for processes with old and with new settings; the rows are the same.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from datetime import timedelta
from typing import Any

import pytest
from django.test import override_settings
from django.utils import timezone

from django_taskq import brokers, conf, maintenance, testing
from django_taskq.brokers import outbox
from django_taskq.message import Action, Tracking
from django_taskq.models import TaskRecord
from django_taskq.status import Status
from tests.conformance.bed import Bed, ids
from tests.conformance.memory_depot import MemoryDepot

pytestmark = pytest.mark.django_db(transaction=True)

DATABASE, REDIS, RABBITMQ = "database://", "redis://localhost", "amqp://localhost"
Place = Callable[..., AbstractContextManager[Bed]]


@pytest.fixture
def servers(monkeypatch: pytest.MonkeyPatch) -> dict[str, MemoryDepot]:
    """The depots by URL. They stay when settings change, as servers do."""
    found: dict[str, MemoryDepot] = defaultdict(MemoryDepot)
    monkeypatch.setattr(brokers, "make_depot", lambda config: found[config.url])
    return found


@pytest.fixture
def at(servers: dict[str, MemoryDepot]) -> Place:
    """``with at(url)``: a process whose settings name this broker. No number of a claim is ever used twice."""
    numbers: dict[int, int] = {}

    @contextmanager
    def at(url: str, **settings: Any) -> Iterator[Bed]:
        with override_settings(TASKQ={"BROKER_URL": url} | settings):
            assert conf.problems() == []
            broker = brokers.get_broker()
            yield Bed(broker, lambda: (maintenance.promote_due(), broker.relay()), next_number=numbers)

    return at


def look_for_lost(bed: Bed) -> int:
    """What a supervisor does in forty seconds."""
    count = sum(bed.broker.find_lost(["default"]) for _ in range(2))
    bed.promote()
    return count


def note_as_published() -> None:
    """What an enqueueing process does in batches."""
    TaskRecord.objects.update(publish_after=None)


class TestFromTheDatabase:
    @pytest.mark.parametrize("url", [REDIS, RABBITMQ])
    def test_what_waits_is_published(self, at: Place, url: str) -> None:
        with at(DATABASE) as before:
            waiting = ids(before.put(3))
        with at(url) as after:
            assert after.take_ids() == []
            assert look_for_lost(after) == 3
            assert after.take_ids() == waiting

    def test_a_long_backlog_is_published_piece_by_piece(self, at: Place, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(outbox, "LOST_AT_ONCE", 2)
        with at(DATABASE) as before:
            waiting = ids(before.put(3))
        with at(REDIS) as after:
            assert look_for_lost(after) == 2
            assert look_for_lost(after) == 0  # the first piece waits there
            assert after.take_ids() == waiting[:2]
            assert look_for_lost(after) == 1
            assert after.take_ids() == waiting[2:]

    def test_new_work_that_waits_there_comes_first(self, at: Place) -> None:
        """So whoever moves a queue that is never empty keeps a worker on the old settings for what is left."""
        with at(DATABASE) as before:
            (old,) = before.put()
        with at(REDIS) as after:
            (new,) = after.put()
            assert look_for_lost(after) == 0
        with at(DATABASE) as before:
            assert old.id in before.take_ids()
        with at(REDIS) as after:
            assert new.id not in after.take_ids()

    def test_what_is_due_later_becomes_ready_there(self, at: Place) -> None:
        with at(DATABASE) as before:
            (later,) = before.put(run_after=timezone.now() + timedelta(hours=1))
        with at(REDIS) as after, testing.clock() as clock:
            clock._set(clock.now + timedelta(hours=2))
            after.promote()
            assert after.take_ids() == [later.id]

    def test_what_an_old_worker_gives_back_is_found(self, at: Place) -> None:
        with at(DATABASE) as before:
            (message,) = before.put()
            (delivery,) = before.take()
            before.broker.release(1, [delivery.claim])
        with at(REDIS) as after:
            assert look_for_lost(after) == 1
            assert after.take_ids() == [message.id]

    def test_a_single_queue_moves_alone(self, at: Place) -> None:
        with at(DATABASE, QUEUES=["mail"]) as before:
            mail = ids(before.put(queue_name="mail"))
            other = ids(before.put())
        with at(DATABASE, QUEUES={"mail": {"broker": "fast"}}, BROKERS={"fast": {"URL": REDIS}}) as after:
            assert after.take_ids() == other
            assert [after.broker.find_lost(["mail"]) for _ in range(2)] == [0, 1]
            after.promote()
            assert after.take_ids(queue="mail") == mail


class TestSideBySide:
    """A rolling deployment: some processes have the old settings and some the new ones."""

    def test_an_old_worker_runs_what_a_new_caller_enqueues(self, at: Place, servers: dict[str, MemoryDepot]) -> None:
        with at(REDIS) as new:
            (message,) = new.put()
        with at(DATABASE) as old:
            taken = old.take()
            assert ids(taken) == [message.id]
        with at(REDIS) as new:
            assert new.take() == []  # its ticket is of no use any more
            assert servers[REDIS].kept == {}
        with at(DATABASE) as old:
            assert old.settle(Action.SUCCESS, *taken) == []

    def test_what_a_new_worker_has_no_old_one_takes(self, at: Place) -> None:
        with at(REDIS) as new:
            new.put()
            assert len(new.take()) == 1
        with at(DATABASE) as old:
            assert old.take(process=2) == []

    def test_a_run_with_two_tickets_runs_once(self, at: Place, servers: dict[str, MemoryDepot]) -> None:
        with at(REDIS) as old:
            (message,) = old.put()
        note_as_published()
        with at(RABBITMQ) as new:
            assert look_for_lost(new) == 1
            assert new.take_ids(process=2) == [message.id]
        with at(REDIS) as old:
            assert old.take(process=1) == []
            assert servers[REDIS].kept == {}


class TestBetweenDepots:
    def test_what_waits_is_published_again(self, at: Place) -> None:
        with at(REDIS) as before:
            waiting = ids(before.put(3))
        note_as_published()
        with at(RABBITMQ) as after:
            assert look_for_lost(after) == 3
            assert after.take_ids() == waiting

    def test_what_was_enqueued_just_before_is_relayed_when_its_time_has_passed(self, at: Place) -> None:
        with at(REDIS) as before:
            (message,) = before.put()
        with at(RABBITMQ) as after, testing.clock() as clock:
            clock._set(clock.now + timedelta(seconds=outbox.GRACE + 1))
            after.promote()
            assert after.take_ids() == [message.id]

    def test_a_retry_of_an_old_worker_is_found(self, at: Place) -> None:
        with at(REDIS) as before:
            (message,) = before.put()
            before.settle(Action.RETRY, *before.take(), delay=0.0)
            note_as_published()
        with at(RABBITMQ) as after:
            assert look_for_lost(after) == 1
            assert after.take_ids() == [message.id]

    def test_the_tickets_that_are_left_are_purged_without_loss(
        self, at: Place, servers: dict[str, MemoryDepot]
    ) -> None:
        with at(REDIS) as before:
            waiting = ids(before.put(3))
        note_as_published()
        with at(RABBITMQ, BROKERS={"old": {"URL": REDIS}}) as after:
            assert brokers.get_depots()["old"].size("default") == 3
            assert brokers.get_depots()["old"].purge("default") == 3
            assert look_for_lost(after) == 3
            assert after.take_ids() == waiting

    def test_to_purge_a_queue_throws_its_rows_away(self, at: Place) -> None:
        """Which is why left-over tickets are not purged by ``taskq queues purge``."""
        with at(REDIS) as bed:
            bed.put(3)
            assert bed.broker.purge("default") == 3
        assert TaskRecord.objects.count() == 0


class TestBackToTheDatabase:
    def test_what_waits_is_claimed_at_once(self, at: Place) -> None:
        with at(REDIS) as before:
            noted = ids(before.put(2))
            note_as_published()
            not_noted = ids(before.put(2))
        with at(DATABASE) as after:
            assert after.take_ids() == [*noted, *not_noted]

    def test_what_could_not_be_published_is_claimed(self, at: Place, servers: dict[str, MemoryDepot]) -> None:
        servers[REDIS].fail = {"publish"}
        with at(REDIS, ENQUEUE_FALLBACK="outbox") as before:
            (message,) = before.put()
        with at(DATABASE) as after:
            assert after.take_ids() == [message.id]

    def test_the_tickets_that_are_left_harm_nobody(self, at: Place, servers: dict[str, MemoryDepot]) -> None:
        with at(REDIS) as before:
            before.put(3)
        with at(DATABASE) as after:
            after.settle(Action.SUCCESS, *after.take())
        assert TaskRecord.objects.filter(status=Status.SUCCESSFUL).count() == 3
        assert len(servers[REDIS].kept) == 3
        with at(REDIS) as again:
            assert again.take() == []
            assert servers[REDIS].kept == {}


class TestWithoutRows:
    """``track_pending=False``: the message is all there is, so its depot has to be drained."""

    @pytest.mark.parametrize("url", [RABBITMQ, DATABASE])
    @pytest.mark.parametrize("tracking", [Tracking.END, Tracking.FAILURE])
    def test_nobody_else_finds_it(self, at: Place, url: str, tracking: Tracking) -> None:
        with at(REDIS) as before:
            (message,) = before.put(tracking=tracking)
        with at(url) as after:
            look_for_lost(after)
            assert after.take() == []
        with at(REDIS) as before:
            assert before.take_ids() == [message.id]
