"""What every depot promises. A new depot joins by an entry in this directory's conftest.py."""

from __future__ import annotations

import os
import random
import threading
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from django.utils import timezone

from django_taskq import envelope
from django_taskq.exceptions import DepotError
from django_taskq.message import Tracking
from tests.depots.bed import QUEUE, Bed, ids
from tests.depots.rabbitmq_bed import kombu_memory_bed
from tests.unit.making import ago, make_message
from tests.waiting import wait_for

ODD_TEXTS = [
    "",
    "[]",
    "quotes ' \" \\ % %s {} :x ?",
    "žāļ 漢字 🎉",
    "x" * 300_000,
    '["\\u0000"]',
    "line\nline\ttab\x00",
]
BROKEN_TEXTS = {
    "empty": b"",
    "no JSON": b"{",
    "no text": b"\xff\xfe\x00",
    "two lines": b"1\n2",
    "another's": b'{"id": "1", "task": "app.add"}',
    "of a later format": b'[99,"x"]',
    "wrong types": b'[1,"x",2,3,4,5,6,7,8,9,10,11,12]',
    "deeply nested": b"[" * 200_000,
}


def needs(bed: Bed, capability: str) -> None:
    if not getattr(bed.depot.capabilities, capability):
        pytest.skip(f"this depot is not capable of {capability}")


class TestPublishAndTake:
    def test_a_parcel_is_what_was_published(self, bed: Bed) -> None:
        expires_at = timezone.now() + timedelta(hours=1)
        (message,) = bed.put(
            name="app.send", priority=7, headers='{"language":"de"}', expires_at=expires_at,
            tracking=Tracking.END, parent_id="0190b0c0-0000-7000-8000-000000000000",
        )  # fmt: skip
        (parcel,) = bed.collect(1)
        delivery = parcel.delivery
        assert delivery[:6] == (message.id, 1, "app.send", QUEUE, message.payload, '{"language":"de"}')
        assert delivery.expires_at == pytest.approx(expires_at.timestamp(), abs=1e-6)
        assert delivery.enqueued_at == pytest.approx(message.enqueued_at.timestamp(), abs=1e-6)
        assert delivery.run_after is None
        assert (delivery.attempt, delivery.crashes, delivery.is_suspect) == (1, 0, False)
        assert (parcel.priority, parcel.tracking, parcel.parent_id) == (7, Tracking.END, message.parent_id)

    @pytest.mark.parametrize(
        "moment", [datetime(1999, 12, 31, 23, 59, 59, 999_999, UTC), datetime(2026, 10, 25, tzinfo=UTC)]
    )
    def test_times_survive_to_the_microsecond(self, bed: Bed, moment: datetime) -> None:
        # No expires_at: a server may throw away what has expired.
        bed.put(enqueued_at=moment, run_after=moment)
        (parcel,) = bed.collect(1)
        assert parcel.delivery.enqueued_at == pytest.approx(moment.timestamp(), abs=1e-6)
        assert parcel.delivery.run_after == pytest.approx(moment.timestamp(), abs=1e-6)

    @pytest.mark.parametrize("text", ODD_TEXTS, ids=range(len(ODD_TEXTS)))
    def test_any_text_survives(self, bed: Bed, text: str) -> None:
        bed.put(3, payload=text, headers=text)
        found = {(parcel.delivery.payload, parcel.delivery.headers) for parcel in bed.collect(3)}
        assert found == {(text, text)}

    def test_nothing_published_is_nothing_to_do(self, bed: Bed) -> None:
        bed.depot.publish([])
        assert bed.depot.queues_with_work([]) == []
        assert bed.is_empty()
        assert bed.depot.size(QUEUE) == 0

    def test_a_mixed_batch_arrives_whole(self, bed: Bed) -> None:
        rng = random.Random(5)
        messages = [
            make_message(queue_name=rng.choice([QUEUE, "mail"]), priority=rng.choice([-1, 0, 1])) for _ in range(300)
        ]
        bed.depot.publish(messages)
        for queue in (QUEUE, "mail"):
            mine = {message.id for message in messages if message.queue_name == queue}
            assert set(ids(bed.collect(len(mine), queue=queue))) == mine

    def test_thousands_at_once(self, bed: Bed) -> None:
        messages = bed.put(3500)
        assert set(ids(bed.collect(3500))) == {message.id for message in messages}

    def test_older_first(self, bed: Bed) -> None:
        messages = bed.put(50)
        assert ids(bed.collect(50)) == [message.id for message in messages]

    def test_higher_priority_first(self, bed: Bed) -> None:
        if bed.depot.capabilities.priority_levels < 2:
            pytest.skip("this depot knows no priorities")
        low, high = bed.put(1, priority=-100)[0], bed.put(1, priority=100)[0]
        wait_for(lambda: bed.depot.size(QUEUE) == 2, message="both messages")
        assert ids(bed.collect(2)) == [high.id, low.id]

    def test_every_priority_counts(self, bed: Bed) -> None:
        if bed.depot.capabilities.priority_levels < 201:
            pytest.skip("this depot tells fewer priorities apart")
        messages = [make_message(priority=priority) for priority in range(-100, 101) for _ in range(2)]
        random.Random(5).shuffle(messages)
        bed.depot.publish(messages)
        messages.sort(key=lambda message: (-message.priority, message.id))
        assert ids(bed.collect(402)) == [message.id for message in messages]

    def test_claims_are_numbered_from_the_first(self, bed: Bed) -> None:
        bed.put(5)
        wait_for(lambda: bed.depot.queues_with_work([QUEUE]))
        assert [parcel.delivery.claim for parcel in bed.depot.take(QUEUE, 1, 1, 100)] == [100]
        bed.next_claim = 200
        assert {parcel.delivery.claim for parcel in bed.collect(4)} <= set(range(200, bed.next_claim))

    def test_a_limit_is_kept(self, bed: Bed) -> None:
        bed.put(10)
        first = wait_for(lambda: bed.take(3))
        assert len(first) <= 3
        assert len(bed.collect(10 - len(first))) == 10 - len(first)

    def test_no_message_goes_to_two(self, bed: Bed) -> None:
        needs(bed, "is_shared")
        messages = bed.put(400)
        lists: list[list[str]] = [[], [], []]
        depots = [bed.other() for _ in lists]

        def taker(index: int) -> None:
            depot, found, claim = depots[index], lists[index], 1
            while sum(map(len, lists)) < len(messages):
                parcels = depot.take(QUEUE, 7, index + 1, claim)
                claim += 7
                found += ids(parcels)
                depot.drop(index + 1, parcels)

        threads = [threading.Thread(target=taker, args=(index,), daemon=True) for index in range(len(lists))]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(20)
        assert sorted(id for found in lists for id in found) == [message.id for message in messages]

    def test_a_double_changes_nothing_while_it_waits(self, bed: Bed) -> None:
        needs(bed, "refuses_doubles")
        (message,) = bed.put()
        bed.depot.publish([message, message])
        assert bed.depot.size(QUEUE) == 1

    def test_nor_while_it_is_held(self, bed: Bed) -> None:
        needs(bed, "refuses_doubles")
        (message,) = bed.put()
        parcels = bed.collect(1)
        bed.depot.publish([message])
        assert bed.depot.size(QUEUE) == 0
        bed.depot.drop(1, parcels)
        bed.depot.publish([message])
        assert bed.depot.size(QUEUE) == 1

    def test_an_exchange_is_refused_where_there_are_none(self, bed: Bed) -> None:
        if bed.depot.capabilities.has_exchanges:
            pytest.skip("this depot has exchanges")
        with pytest.raises(DepotError, match="exchange") as caught:
            bed.put(exchange="news")
        assert caught.value.is_certain
        assert bed.is_empty()


class TestDropAndGiveBack:
    def test_what_is_dropped_never_comes_back(self, bed: Bed) -> None:
        bed.put(5)
        bed.depot.drop(1, bed.collect(5))
        bed.depot.rescue(1)
        bed.depot.close()
        assert bed.is_empty()
        assert bed.depot.size(QUEUE) == 0

    def test_dropping_some_keeps_the_others(self, bed: Bed) -> None:
        bed.put(4)
        parcels = bed.collect(4)
        bed.depot.drop(1, parcels[1:3])
        assert bed.depot.give_back(1, parcels) == 2
        assert ids(bed.collect(2)) == [parcels[0].delivery.id, parcels[3].delivery.id]

    def test_nothing_is_dropped_or_given_back_twice(self, bed: Bed) -> None:
        bed.put(2)
        parcels = bed.collect(2)
        assert bed.depot.give_back(1, parcels) == 2
        assert bed.depot.give_back(1, parcels) == 0
        bed.depot.drop(1, parcels)
        bed.depot.drop(1, [])
        again = bed.collect(2)
        assert ids(again) == ids(parcels)
        bed.depot.drop(1, parcels)  # by the claims of before
        assert bed.depot.give_back(1, again) == 2

    def test_what_is_given_back_is_where_it_was(self, bed: Bed) -> None:
        if bed.depot.capabilities.priority_levels < 2:
            pytest.skip("this depot knows no priorities")
        bed.put(3, priority=10)
        parcels = bed.collect(2)
        bed.put(2)
        assert bed.depot.give_back(1, parcels[:1]) == 1
        bed.depot.give_back(1, parcels[1:])
        wait_for(lambda: bed.depot.size(QUEUE) == 5, message="all in their places")
        found = bed.collect(5)
        assert ids(found)[:3] == sorted(ids(found)[:3])
        assert [parcel.priority for parcel in found] == [10, 10, 10, 0, 0]
        assert not any(parcel.delivery.is_suspect for parcel in found)

    def test_others_may_take_what_is_given_back(self, bed: Bed) -> None:
        needs(bed, "is_shared")
        (message,) = bed.put()
        bed.depot.give_back(1, bed.collect(1))
        assert ids(bed.collect(1, depot=bed.other(), process=2)) == [message.id]

    def test_several_queues_at_once(self, bed: Bed) -> None:
        bed.put(2)
        bed.put(2, queue_name="mail")
        parcels = bed.collect(2) + bed.collect(2, queue="mail")
        bed.depot.drop(1, [parcels[0], parcels[2]])
        assert bed.depot.give_back(1, parcels) == 2
        assert ids(bed.collect(1) + bed.collect(1, queue="mail")) == [parcels[1].delivery.id, parcels[3].delivery.id]


class TestHolders:
    @pytest.fixture(autouse=True)
    def _who_knows_holders(self, bed: Bed) -> None:
        needs(bed, "knows_holders")

    def test_they_are_known_while_they_hold(self, bed: Bed) -> None:
        bed.put(2)
        bed.put(1, queue_name="mail")
        assert bed.depot.holders() == {}
        parcels = bed.collect(2, process=7) + bed.collect(1, process=8, queue="mail")
        other = bed.other()
        ages = other.holders()
        assert set(ages) == {7, 8}
        assert all(0 <= age < 10 for age in ages.values())
        assert other.held(7) == parcels[:2]
        assert other.held(9) == []
        bed.depot.drop(7, parcels[:1])
        assert ids(other.held(7)) == ids(parcels[1:2])
        bed.depot.drop(7, parcels[1:2])
        bed.depot.give_back(8, parcels[2:])
        assert other.holders() == {}

    def test_the_dead_are_rescued_and_their_messages_are_suspects(self, bed: Bed) -> None:
        bed.put(300)
        bed.put(2, queue_name="mail")
        bed.collect(300, process=7)
        bed.collect(2, process=7, queue="mail")
        other = bed.other()
        assert other.rescue(7) == 302
        assert other.rescue(7) == 0
        assert other.holders() == {}
        again = bed.collect(300, process=8)
        assert all(parcel.delivery.is_suspect for parcel in again)
        assert ids(again) == sorted(ids(again))
        # A suspect stays one, whoever gives it back.
        assert bed.depot.give_back(8, again) == 300
        assert bed.collect(1, process=9)[0].delivery.is_suspect

    def test_claims_in_doubt_are_rescued_without_suspicion(self, bed: Bed) -> None:
        messages = bed.put(6)
        parcels = bed.collect(6)
        claims = [parcel.delivery.claim for parcel in parcels]
        assert bed.depot.rescue(1, after=claims[1], up_to=claims[3], is_suspect=False) == 2
        assert ids(bed.depot.held(1)) == [messages[index].id for index in (0, 1, 4, 5)]
        again = bed.collect(2)
        assert ids(again) == [messages[2].id, messages[3].id]
        assert not any(parcel.delivery.is_suspect for parcel in again)

    def test_it_finds_its_place_again(self, bed: Bed) -> None:
        bed.put(1, priority=-100)
        bed.put(1, priority=100)
        bed.put(1, priority=5)
        bed.collect(3)
        bed.depot.rescue(1)
        assert [parcel.priority for parcel in bed.collect(3)] == [100, 5, -100]


class TestHearing:
    def test_work_is_heard_of(self, bed: Bed) -> None:
        assert not bed.hears(0.05)
        bed.put()
        assert bed.hears(10)

    def test_whoever_waits_already_is_told(self, bed: Bed) -> None:
        other = bed.other()
        bed.is_empty()
        publisher = threading.Timer(0.1, lambda: other.publish([make_message()]))
        publisher.start()
        assert bed.hears(10)
        # What was heard may be the server's answer to something else; and a depot that is closed before the other
        # thread has used it would open a connection that nobody closes again.
        publisher.join()
        assert bed.collect(1)

    def test_the_queues_with_work_in_their_order(self, bed: Bed) -> None:
        for name in ("c", "a"):
            bed.put(queue_name=name)
        wait_for(lambda: bed.depot.queues_with_work(["a", "b", "c"]) == ["a", "c"], message="both queues")
        assert bed.depot.queues_with_work(["c", "a"]) == ["c", "a"]


class TestForPeople:
    def test_size_and_purge_leave_what_is_held(self, bed: Bed) -> None:
        bed.put(5)
        bed.put(1, queue_name="mail")
        parcels = bed.collect(2)
        bed.depot.pause()
        wait_for(lambda: bed.depot.size(QUEUE) == 3, message="three that wait")
        assert bed.depot.purge(QUEUE) == 3
        assert bed.depot.size(QUEUE) == 0
        assert bed.depot.purge(QUEUE) == 0
        assert bed.depot.size("mail") == 1
        assert bed.depot.give_back(1, parcels) == 2

    def test_peek_shows_the_next_in_order_and_takes_none(self, bed: Bed) -> None:
        needs(bed, "can_peek")
        first = make_message(priority=3, headers='{"a":1}', run_after=ago(5), tracking=Tracking.END)
        messages = [first, *bed.put(3)]
        bed.depot.publish([first])
        assert bed.depot.peek(QUEUE, 100) == messages
        assert bed.depot.peek(QUEUE, 2) == messages[:2]
        assert ids(bed.collect(4)) == [message.id for message in messages]
        assert bed.depot.peek(QUEUE, 5) == []

    def test_the_oldest_age_where_it_is_known(self, bed: Bed) -> None:
        assert bed.depot.oldest_age(QUEUE) is None
        bed.put(enqueued_at=ago(100))
        bed.put(enqueued_at=ago(5), priority=5)
        age = bed.depot.oldest_age(QUEUE)
        assert age is None or age == pytest.approx(100, abs=5)
        bed.put(enqueued_at=ago(1000), run_after=ago(500), priority=-5)
        age = bed.depot.oldest_age(QUEUE)
        assert age is None or age == pytest.approx(500, abs=5)

    def test_a_check_says_something(self, bed: Bed) -> None:
        findings = bed.depot.check()
        assert all(finding.level in ("error", "warning", "info") and finding.text for finding in findings)


class TestDeadLetters:
    @pytest.fixture(autouse=True)
    def _where_a_test_can_put_them(self, bed: Bed) -> None:
        if bed.put_raw is None:
            pytest.skip("nobody can put broken messages into this depot")

    @pytest.mark.parametrize("text", BROKEN_TEXTS.values(), ids=BROKEN_TEXTS)
    def test_what_cannot_be_read_is_set_aside_with_its_reason(self, bed: Bed, text: bytes) -> None:
        before = bed.put(2)
        bed.put_raw(QUEUE, text)
        after = bed.put(2)
        assert ids(bed.collect(4)) == [message.id for message in before + after]
        (letter,) = wait_for(lambda: bed.is_empty() and bed.depot.dead_letters())
        assert letter.queue_name == QUEUE
        assert letter.reason
        assert len(letter.text) <= 2000
        assert letter.refused_at is None or abs(letter.refused_at - timezone.now()) < timedelta(seconds=30)
        assert bed.depot.replay([letter.id]) == 0
        assert bed.depot.discard([letter.id, "unknown"]) == 1
        assert bed.depot.dead_letters() == []

    def test_one_alone(self, bed: Bed) -> None:
        bed.put_raw(QUEUE, b"?")
        assert wait_for(lambda: bed.is_empty() and bed.depot.dead_letters())

    def test_what_can_be_read_by_now_is_replayed(self, bed: Bed, monkeypatch: pytest.MonkeyPatch) -> None:
        """Old workers refuse what a newer version wrote; once they are new, it is readable."""
        message = make_message(priority=9, payload="x" * 5000)
        with monkeypatch.context() as newer:
            newer.setattr(envelope, "VERSION", 2)
            bed.depot.publish([message])
        (letter,) = wait_for(lambda: bed.is_empty() and bed.depot.dead_letters())
        assert bed.depot.replay([letter.id]) == 0
        monkeypatch.setattr(envelope, "VERSION", 2)
        assert bed.depot.replay([letter.id]) == 1
        assert bed.depot.dead_letters() == []
        (parcel,) = bed.collect(1)
        assert (parcel.delivery.id, parcel.delivery.payload, parcel.priority) == (message.id, message.payload, 9)

    def test_those_that_came_together_are_logged_as_one(self, bed: Bed, caplog: pytest.LogCaptureFixture) -> None:
        for _ in range(3):
            bed.put_raw(QUEUE, b'["\\n2026-01-01 CRITICAL \\u001b[2J all is lost"]')
        wait_for(lambda: bed.depot.size(QUEUE) == 3, message="all to be there")
        takes = 0

        def said() -> list[Any]:
            return [record for record in caplog.records if "dead letters" in record.msg]

        def is_said_of_all() -> bool:
            nonlocal takes
            takes += 1
            bed.take()
            return sum(record.args[1] for record in said()) == 3

        wait_for(is_said_of_all, message="all to be set aside")
        assert len(said()) <= takes
        for record in said():
            assert (record.name, record.levelname) == ("django_taskq", "WARNING")
            text = record.getMessage()
            assert text.startswith("broker 'default': ")
            assert f"queue {QUEUE!r}" in text
            assert "manage.py taskq dead-letters" in text
            assert "not of format 1" in text
            assert text.isprintable()

    def test_the_newest_first_and_not_more_than_asked_for(self, bed: Bed) -> None:
        for number in range(5):
            bed.put_raw(QUEUE if number % 2 else "mail", b"broken %d" % number)
            bed.take()
            bed.take(queue="mail")
        wait_for(lambda: bed.is_empty() and bed.is_empty(queue="mail") and len(bed.depot.dead_letters()) == 5)
        assert [letter.text for letter in bed.depot.dead_letters(2)] == ["broken 4", "broken 3"]


def test_a_reason_cannot_forge_a_line_of_the_log(caplog: pytest.LogCaptureFixture) -> None:
    depot = kombu_memory_bed().depot
    depot.report_dead("mail\r", ["1\n2026-01-01 CRITICAL \x1b[2J\u202e\ud800 all is lost" + "x" * 10_000, "another"])
    depot.report_dead("mail", [])
    (record,) = caplog.records
    text = record.getMessage()
    assert text.startswith(r"broker 'default': 2 message(s) of queue 'mail\r' are dead letters now")
    assert r"the first because: '1\n2026" in text
    assert text.isprintable()
    assert len(text) < 600


class TestConnections:
    def test_a_closed_depot_works_again(self, bed: Bed) -> None:
        needs(bed, "is_shared")
        bed.put()
        bed.depot.close()
        bed.depot.close()
        assert len(bed.collect(1)) == 1

    def test_any_thread_may_publish(self, bed: Bed) -> None:
        barrier = threading.Barrier(8)
        failures: list[Exception] = []

        def publish() -> None:
            barrier.wait()
            try:
                for _ in range(20):
                    bed.put()
            except Exception as error:
                failures.append(error)

        threads = [threading.Thread(target=publish) for _ in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert failures == []
        assert len(set(ids(bed.collect(160)))) == 160

    @pytest.mark.filterwarnings("ignore:This process:DeprecationWarning")
    def test_a_forked_child_has_connections_of_its_own(self, bed: Bed) -> None:
        needs(bed, "is_shared")
        bed.put()
        pid = os.fork()
        if pid == 0:
            _exit_after(lambda: [bed.put() for _ in range(20)])
        for _ in range(20):
            bed.put()
        assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0
        assert len(set(ids(bed.collect(41)))) == 41


def _exit_after(action: Callable[[], Any]) -> None:
    """The end of a forked child: nothing of the test runner may run in it."""
    code = 1
    try:
        action()
        code = 0
    finally:
        os._exit(code)
