"""What every broker promises. A new broker joins by an entry in this directory's conftest.py."""

from __future__ import annotations

import random
from datetime import UTC, datetime, timedelta
from itertools import pairwise
from typing import Any

import pytest
from django.utils import timezone

from django_taskq.message import Action, ErrorText
from django_taskq.options import MAX_PRIORITY, MIN_PRIORITY
from django_taskq.worker.fetcher import Fetcher, QueueOrder
from tests.conformance.bed import QUEUE, Bed, ids
from tests.unit.making import ago, make_message, make_outcome

FINAL_ACTIONS = [Action.SUCCESS, Action.FAILED, Action.CANCELLED]
ODD_TEXTS = ["", "[]", "quotes ' \" \\ % %s {} :x ?", "žāļ 漢字 🎉", "x" * 300_000, '["\\u0000"]', "line\nline\ttab"]


def needs_places(bed: Bed) -> None:
    if not bed.keeps_places:
        pytest.skip("this broker hands out by arrival")


class TestEnqueueAndClaim:
    def test_a_delivery_is_what_was_enqueued(self, bed: Bed) -> None:
        expires_at = timezone.now() + timedelta(hours=1)
        (message,) = bed.put(name="app.send", priority=7, headers='{"language":"de"}', expires_at=expires_at)
        (delivery,) = bed.take()
        assert delivery[:6] == (message.id, 1, "app.send", QUEUE, message.payload, '{"language":"de"}')
        assert delivery.expires_at == pytest.approx(expires_at.timestamp(), abs=1e-5)
        assert delivery.enqueued_at == pytest.approx(message.enqueued_at.timestamp(), abs=1e-5)
        assert delivery.run_after is None
        assert (delivery.attempt, delivery.crashes, delivery.is_suspect) == (1, 0, False)
        assert type(delivery.id) is str

    @pytest.mark.parametrize(
        "moment", [datetime(1999, 12, 31, 23, 59, 59, 999_999, UTC), datetime(2026, 10, 25, tzinfo=UTC)]
    )
    def test_times_survive_to_the_microsecond(self, bed: Bed, moment: datetime) -> None:
        bed.put(enqueued_at=moment, run_after=moment, expires_at=moment)
        bed.promote()
        (delivery,) = bed.take()
        for found in (delivery.enqueued_at, delivery.run_after, delivery.expires_at):
            assert found == pytest.approx(moment.timestamp(), abs=1e-6)

    @pytest.mark.parametrize("count", [1, 3], ids=["one", "many"])
    @pytest.mark.parametrize("text", ODD_TEXTS, ids=range(len(ODD_TEXTS)))
    def test_any_text_survives(self, bed: Bed, text: str, count: int) -> None:
        bed.put(count, payload=text, headers=text)
        assert {(d.payload, d.headers) for d in bed.take()} == {(text, text)}

    def test_nothing_enqueued_is_nothing_to_do(self, bed: Bed) -> None:
        bed.broker.enqueue([])
        assert bed.take() == []

    def test_a_mixed_batch_arrives_whole(self, bed: Bed) -> None:
        rng = random.Random(5)
        messages = [
            make_message(
                name=rng.choice(["a", "b"]),
                queue_name=rng.choice(["default", "mail"]),
                priority=rng.choice([-1, 0, 1]),
                headers=rng.choice([None, '{"language":"de"}']),
                payload=f"[[{number}],{{}}]",
            )
            for number in range(200)
        ]
        bed.broker.enqueue(messages)
        found = bed.take(500) + bed.take(500, queue="mail")
        assert {(d.id, d.name, d.queue_name, d.headers, d.payload) for d in found} == {
            (m.id, m.name, m.queue_name, m.headers, m.payload) for m in messages
        }

    def test_limits_hold(self, bed: Bed) -> None:
        bed.put(5)
        assert [len(bed.take(limit)) for limit in (1, 3, 10, 10)] == [1, 3, 1, 0]

    def test_claims_are_numbered_in_the_order_of_starting(self, bed: Bed) -> None:
        expected = bed.put_priorities(0, 5, 0, 5, -5, 0)
        found = bed.take(first=41)
        assert [delivery.claim for delivery in found] == [41, 42, 43, 44, 45, 46]
        assert ids(found) == expected[5] + expected[0] + expected[-5]

    def test_another_queue_is_not_touched(self, bed: Bed) -> None:
        bed.put(queue_name="mail")
        assert bed.take() == []
        assert len(bed.take(queue="mail")) == 1


class TestOrder:
    def test_every_declared_level_of_priority_counts(self, bed: Bed) -> None:
        levels = bed.broker.capabilities.priority_levels
        priorities = list(range(MIN_PRIORITY, MAX_PRIORITY + 1))
        random.Random(5).shuffle(priorities)
        expected = {priority: ids[0] for priority, ids in bed.put_priorities(*priorities).items()}
        found = bed.take_ids(300)
        if levels == len(priorities):
            assert found == [expected[priority] for priority in sorted(priorities, reverse=True)]
            return
        # Fewer: in each of them the order is that of arrival, and each is wholly above the next.
        arrived = {expected[priority]: (number, priority) for number, priority in enumerate(priorities)}
        bands: list[list[int]] = []
        before = len(priorities)
        for number, priority in (arrived.pop(id) for id in found):
            bands += [[]] if number < before else []
            bands[-1].append(priority)
            before = number
        assert (len(bands), arrived) == (levels, {})
        assert all(min(above) > max(below) for above, below in pairwise(bands))

    def test_inside_a_level_it_is_first_in_first_out(self, bed: Bed) -> None:
        messages = bed.put(300)
        assert bed.take_ids(100) + bed.take_ids(150) + bed.take_ids(100) == ids(messages)

    def test_ids_decide_not_the_order_of_arrival(self, bed: Bed) -> None:
        needs_places(bed)
        messages = [make_message() for _ in range(100)]
        bed.broker.enqueue(random.Random(5).sample(messages, 100))
        assert bed.take_ids() == ids(messages)

    def test_what_is_urgent_overtakes_what_waits(self, bed: Bed) -> None:
        bed.put(10)
        bed.take(5)
        (urgent,) = bed.put(priority=1)
        assert bed.take_ids(1) == [urgent.id]

    def test_what_was_given_back_keeps_its_place(self, bed: Bed) -> None:
        needs_places(bed)
        first, second, _third = bed.put(3)
        bed.take(2)
        bed.broker.release(1, [1])
        assert bed.take_ids(1, first=3) == [first.id]
        bed.broker.release(1, [2, 3])
        assert bed.take_ids(2, first=4) == [first.id, second.id]


class TestSeveralQueues:
    """Through the fetcher of a worker process, as queues are served in earnest."""

    def fetch_names(self, bed: Bed, order: QueueOrder, times: int, *, limit: int = 1, choose: Any = None) -> list[str]:
        fetcher = Fetcher(bed.broker, 1, order, choose=choose or random.Random(5).random)
        return [d.queue_name for _ in range(times) for d in fetcher.fetch(limit, look_first=True)]

    @pytest.fixture
    def filled(self, bed: Bed) -> Bed:
        for name in ("a", "b", "c"):
            bed.put(100, queue_name=name)
        return bed

    def test_which_have_work(self, bed: Bed) -> None:
        bed.put(queue_name="b")
        bed.put(queue_name="a")
        assert bed.broker.queues_with_work(["c", "b", "a"]) == ["b", "a"]
        bed.take(queue="b")
        assert bed.broker.queues_with_work(["c", "b", "a"]) == ["a"]
        assert bed.broker.queues_with_work([]) == []

    def test_delayed_work_is_no_work(self, bed: Bed) -> None:
        bed.put(run_after=timezone.now() + timedelta(hours=1))
        assert bed.broker.queues_with_work([QUEUE]) == []

    def test_strict_empties_the_first_before_the_second(self, filled: Bed) -> None:
        order = QueueOrder(("b", "a"))
        assert self.fetch_names(filled, order, 20, limit=10) == ["b"] * 100 + ["a"] * 100

    def test_strict_fills_up_from_the_next(self, filled: Bed) -> None:
        assert self.fetch_names(filled, QueueOrder(("b", "a")), 1, limit=150) == ["b"] * 100 + ["a"] * 50

    def test_strict_comes_back_to_the_first(self, filled: Bed) -> None:
        fetcher = Fetcher(filled.broker, 1, QueueOrder(("b", "a")))
        fetcher.fetch(110, look_first=False)
        filled.put(queue_name="b")
        assert [d.queue_name for d in fetcher.fetch(2, look_first=False)] == ["b", "a"]

    def test_rotation_gives_each_its_turn(self, filled: Bed) -> None:
        names = self.fetch_names(filled, QueueOrder(("a", "b", "c"), rotate=True), 30)
        assert {name: names.count(name) for name in "abc"} == {"a": 10, "b": 10, "c": 10}
        assert names[:3] == names[3:6]

    def test_weights_are_shares(self, filled: Bed) -> None:
        names = self.fetch_names(filled, QueueOrder(("a", "b"), (3, 1)), 80)
        assert 48 <= names.count("a") <= 72

    def test_weights_leave_no_slot_idle(self, filled: Bed) -> None:
        filled.take(100, queue="a", process=2)
        assert self.fetch_names(filled, QueueOrder(("a", "b"), (1000, 1)), 10) == ["b"] * 10

    @pytest.mark.parametrize("look_first", [True, False])
    def test_numbers_are_never_used_twice(self, filled: Bed, look_first: bool) -> None:
        fetcher = Fetcher(filled.broker, 1, QueueOrder(("a", "b", "c"), rotate=True))
        claims = []
        while deliveries := fetcher.fetch(7, look_first=look_first):
            highest = fetcher.next_claim - 1
            assert all(delivery.claim <= highest for delivery in deliveries)
            claims += [delivery.claim for delivery in deliveries]
        assert len(set(claims)) == len(claims) == 300
        assert claims == sorted(claims)

    def test_the_highest_number_is_known_beforehand(self, filled: Bed) -> None:
        fetcher = Fetcher(filled.broker, 1, QueueOrder(("a", "b", "c"), rotate=True))
        for limit in (150, 1, 149, 10):
            most = fetcher.most_claims(limit)
            assert all(delivery.claim <= most for delivery in fetcher.fetch(limit, look_first=False))
            assert fetcher.next_claim <= most + 1


class TestDelayed:
    def test_is_not_handed_out_early(self, bed: Bed) -> None:
        bed.put(2, run_after=timezone.now() + timedelta(hours=1))
        bed.promote()
        assert bed.take() == []
        assert bed.broker.size(QUEUE) == 0
        assert bed.broker.peek(QUEUE, 5) == []

    def test_is_handed_out_once_due(self, bed: Bed) -> None:
        (message,) = bed.put(run_after=ago(1))
        bed.promote()
        (delivery,) = bed.take()
        assert delivery.id == message.id
        assert delivery.run_after == pytest.approx(message.run_after.timestamp(), abs=1e-5)

    def test_takes_its_place_by_id_then(self, bed: Bed) -> None:
        needs_places(bed)
        delayed, plain = make_message(run_after=ago(1)), make_message()
        bed.broker.enqueue([plain, delayed])
        bed.promote()
        assert bed.take_ids() == [delayed.id, plain.id]

    def test_a_mixed_batch_is_told_apart(self, bed: Bed) -> None:
        later = timezone.now() + timedelta(hours=1)
        messages = [make_message(run_after=later if number % 2 else None) for number in range(10)]
        bed.broker.enqueue(messages)
        bed.promote()
        assert bed.take_ids() == ids(messages[::2])


class TestSettle:
    @pytest.mark.parametrize("action", FINAL_ACTIONS)
    def test_what_has_ended_never_comes_back(self, bed: Bed, action: Action) -> None:
        bed.put(3)
        deliveries = bed.take()
        assert bed.settle(action, *deliveries) == []
        assert bed.broker.release(1, [1, 2, 3]) == 0
        assert bed.broker.rescue(1) == 0
        assert bed.take(first=4) == []

    def test_retry_at_once(self, bed: Bed) -> None:
        bed.put()
        (delivery,) = bed.take()
        assert bed.settle(Action.RETRY, delivery, delay=0) == []
        (again,) = bed.take(first=2)
        assert (again.id, again.attempt, again.is_suspect) == (delivery.id, 2, False)

    @pytest.mark.parametrize("due", [{"delay": 3600.0}, {"run_after": datetime(2990, 1, 1, tzinfo=UTC)}], ids=str)
    def test_retry_later(self, bed: Bed, due: dict[str, Any]) -> None:
        bed.put()
        bed.settle(Action.RETRY, *bed.take(), **due)
        bed.promote()
        assert bed.take(first=2) == []

    def test_retry_at_a_time_that_has_passed(self, bed: Bed) -> None:
        bed.put()
        bed.settle(Action.RETRY, *bed.take(), run_after=ago(1))
        bed.promote()
        assert [d.attempt for d in bed.take(first=2)] == [2]

    def test_a_retry_that_is_not_counted(self, bed: Bed) -> None:
        bed.put()
        bed.settle(Action.RETRY, *bed.take(), delay=0, is_counted=False)
        assert [d.attempt for d in bed.take(first=2)] == [1]

    def test_released_is_untouched(self, bed: Bed) -> None:
        bed.put()
        (delivery,) = bed.take()
        assert bed.settle(Action.RELEASED, delivery) == []
        assert [again._replace(claim=delivery.claim) for again in bed.take()] == [delivery]

    def test_a_batch_of_everything(self, bed: Bed) -> None:
        bed.put(50)
        deliveries = bed.take()
        actions = [list(Action)[number % len(Action)] for number in range(50)]
        random.Random(5).shuffle(actions)
        error = ErrorText("builtins.OSError", "disk")
        outcomes = [
            make_outcome(action, delivery, error=error, delay=0.0)
            for action, delivery in zip(actions, deliveries, strict=True)
        ]
        assert bed.broker.settle(1, outcomes) == []
        back = {
            d.id for d, action in zip(deliveries, actions, strict=True) if action in (Action.RETRY, Action.RELEASED)
        }
        assert set(bed.take_ids(first=100)) == back

    def test_nothing_to_settle(self, bed: Bed) -> None:
        assert bed.broker.settle(1, []) == []


class TestLostClaims:
    """A claim that went to somebody else is reported, and what the other one does is never overwritten."""

    @pytest.mark.parametrize("action", [*FINAL_ACTIONS, Action.RETRY])
    def test_after_a_rescue_the_old_holder_has_no_say(self, bed: Bed, action: Action) -> None:
        bed.put(2)
        old = bed.take(process=1)
        bed.broker.rescue(1)
        new = bed.take(process=2)
        lost = bed.settle(action, *old, process=1, delay=0.0)
        assert [outcome.delivery.id for outcome in lost] == ids(old)
        assert bed.take(process=3) == []
        assert bed.settle(Action.SUCCESS, *new, process=2) == []

    def test_the_same_process_with_another_claim_is_another_holder(self, bed: Bed) -> None:
        bed.put()
        (old,) = bed.take(first=1)
        bed.broker.release(1, [1])
        (new,) = bed.take(first=2)
        assert len(bed.settle(Action.SUCCESS, old)) == 1
        assert bed.settle(Action.SUCCESS, new) == []

    def test_only_what_was_lost_is_reported(self, bed: Bed) -> None:
        bed.put(4)
        deliveries = bed.take()
        bed.broker.release(1, [2, 3])
        assert [o.delivery.claim for o in bed.settle(Action.SUCCESS, *deliveries)] == [2, 3]

    @pytest.mark.parametrize("action", [*FINAL_ACTIONS, Action.RETRY])
    def test_what_was_purged_or_never_was_is_lost(self, bed: Bed, action: Action) -> None:
        bed.put()
        (delivery,) = bed.take()
        bed.broker.release(1, [1])
        bed.broker.purge(QUEUE)
        assert len(bed.settle(action, delivery, delay=0.0)) == 1

    def test_a_release_of_a_lost_claim_gives_nothing_back(self, bed: Bed) -> None:
        bed.put()
        (old,) = bed.take(process=1)
        bed.broker.rescue(1)
        bed.take(process=2)
        bed.settle(Action.RELEASED, old, process=1)
        assert bed.broker.release(1, [1]) == 0
        assert bed.take(process=3) == []

    def test_a_success_settled_twice_is_no_loss_where_rows_remember(self, bed: Bed) -> None:
        bed.put()
        (delivery,) = bed.take()
        bed.settle(Action.SUCCESS, delivery)
        again = bed.settle(Action.SUCCESS, delivery)
        assert again == [] if bed.broker.capabilities.transactional_finish else len(again) == 1

    def test_marking_a_start(self, bed: Bed) -> None:
        bed.put()
        (delivery,) = bed.take()
        assert bed.broker.mark_started(1, delivery, 1000.0) is True
        assert bed.broker.mark_started(2, delivery, 1000.0) is False
        bed.broker.release(1, [1])
        assert bed.broker.mark_started(1, delivery, 1000.0) is False

    def test_marking_several(self, bed: Bed) -> None:
        bed.put(3)
        one, two, three = bed.take()
        bed.broker.release(1, [two.claim])
        assert bed.broker.mark_all_started(1, [one, two, three], 1000.0) == [one, three]
        assert bed.broker.mark_all_started(2, [one], 1000.0) == []
        assert bed.broker.mark_all_started(1, [three], 1000.0) == [three]


class TestRelease:
    def test_gives_back_what_is_held_and_counts_it(self, bed: Bed) -> None:
        bed.put(5)
        bed.take()
        assert bed.broker.release(1, [1, 2, 99]) == 2
        assert bed.broker.release(1, [1, 2]) == 0
        assert bed.broker.release(2, [3]) == 0
        assert bed.broker.release(1, []) == 0
        assert len(bed.take(first=6)) == 2

    def test_hundreds_at_once(self, bed: Bed) -> None:
        bed.put(1500)
        # Some give no more than a thousand at once.
        assert len(bed.take(750)) == len(bed.take(750)) == 750
        assert bed.broker.release(1, list(range(1, 1501))) == 1500
        assert bed.broker.size(QUEUE) == 1500


class TestReject:
    def test_refuses_for_good(self, bed: Bed) -> None:
        bed.put()
        (delivery,) = bed.take()
        assert bed.broker.reject(1, delivery.claim, "cannot be read") is True
        assert bed.take(first=2) == []
        assert bed.broker.rescue(1) == 0

    def test_only_what_is_held(self, bed: Bed) -> None:
        bed.put()
        bed.take()
        assert bed.broker.reject(2, 1, "x") is False
        assert bed.broker.reject(1, 2, "x") is False
        bed.broker.release(1, [1])
        assert bed.broker.reject(1, 1, "x") is False
        assert len(bed.take(first=2)) == 1


class TestRescue:
    def test_gives_back_all_that_one_process_held_as_suspect(self, bed: Bed) -> None:
        bed.put(5)
        bed.take(2, process=1)
        bed.take(3, process=2)
        assert bed.broker.rescue(1) == 2
        assert bed.broker.rescue(1) == 0
        rescued = bed.take(process=3)
        assert [(d.attempt, d.is_suspect) for d in rescued] == [(1, True), (1, True)]

    def test_a_run_that_ended_meanwhile_stays_ended(self, bed: Bed) -> None:
        bed.put(2)
        first, _ = bed.take()
        bed.settle(Action.SUCCESS, first)
        assert bed.broker.rescue(1) == 1


class TestLooking:
    def test_size_counts_what_could_be_handed_out(self, bed: Bed) -> None:
        bed.put(3)
        bed.put(queue_name="mail")
        bed.put(run_after=timezone.now() + timedelta(hours=1))
        bed.take(1)
        assert (bed.broker.size(QUEUE), bed.broker.size("mail"), bed.broker.size("none")) == (2, 1, 0)

    def test_oldest_age(self, bed: Bed) -> None:
        assert bed.broker.oldest_age(QUEUE) is None
        bed.put(enqueued_at=ago(100))
        bed.put(enqueued_at=ago(50))
        assert bed.broker.oldest_age(QUEUE) == pytest.approx(100, abs=2)
        bed.take()
        assert bed.broker.oldest_age(QUEUE) is None

    def test_oldest_age_counts_from_the_due_time(self, bed: Bed) -> None:
        bed.put(enqueued_at=ago(86_400), run_after=ago(10))
        bed.promote()
        assert bed.broker.oldest_age(QUEUE) == pytest.approx(10, abs=2)

    def test_peek_shows_the_next_without_taking_them(self, bed: Bed) -> None:
        expected = bed.put_priorities(0, 3, 0)
        for _ in range(2):
            assert ids(bed.broker.peek(QUEUE, 2)) == expected[3] + expected[0][:1]
        assert bed.take_ids() == expected[3] + expected[0]

    def test_peek_shows_the_messages_as_they_were(self, bed: Bed) -> None:
        (message,) = bed.put(priority=3, headers='{"language":"de"}', expires_at=timezone.now() + timedelta(hours=1))
        assert bed.broker.peek(QUEUE, 5) == [message]


class TestPurge:
    def test_throws_away_what_waits_and_counts_it(self, bed: Bed) -> None:
        bed.put(4)
        bed.put(run_after=timezone.now() + timedelta(hours=1))
        bed.put(queue_name="mail")
        (held,) = bed.take(1)
        assert bed.broker.purge(QUEUE) == 4
        assert bed.broker.purge(QUEUE) == 0
        assert bed.broker.size("mail") == 1
        assert bed.settle(Action.SUCCESS, held) == []

    def test_counts_runs_not_their_failed_attempts(self, bed: Bed) -> None:
        bed.put(2)
        bed.settle(Action.RETRY, *bed.take(), delay=0.0)
        assert bed.broker.purge(QUEUE) == 2
