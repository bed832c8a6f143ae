"""The options that hold a task's runs back, and the gates that its calls get, whoever builds their messages."""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta
from typing import Any

import pytest
from django.test import override_settings

from django_taskq import Breaker, flow, registry
from django_taskq.exceptions import EnqueueError, InvalidArguments, InvalidTask
from django_taskq.flow_options import MOST_AT_ONCE, parse_rate
from django_taskq.gates import Gate, Kind, gates_of
from django_taskq.message import Feed, Headers, Message, Tracking
from django_taskq.serializers import dumps
from tests.unit.making import make_message, make_task


def send(tenant_id: int, order: Any = None) -> None: ...


def gated(*args: Any, feed: Feed | None = None, **changes: Any) -> Message:
    headers = Headers(feed=feed).dumps() if feed is not None else None
    message = make_message(**({"name": "send", "payload": dumps([list(args), {}]), "headers": headers} | changes))
    (found,) = flow.gated([message])
    return found


def gates(*args: Any, **changes: Any) -> tuple[Gate, ...]:
    return gates_of(gated(*args, **changes).headers)


class TestRates:
    @pytest.mark.parametrize(
        ("value", "per_second", "burst", "text"),
        [
            ("100/m", 100 / 60, 1, "100/m"),
            ("100/s", 100, 10, "100/s"),
            (" 1 / h ", 1 / 3600, 1, "1/h"),
            ("1/d", 1 / 86400, 1, "1/d"),
            ("0.5/s", 0.5, 1, "30/m"),
            (250, 250, 25, "250/s"),
            (0.1, 0.1, 1, "6/m"),
            (1e6, 1e6, 100_000, "1000000/s"),
        ],
    )
    def test_good_ones(self, value: Any, per_second: float, burst: int, text: str) -> None:
        rate = parse_rate(value)
        assert rate.per_second == pytest.approx(per_second)
        assert (rate.burst, rate.text) == (burst, text)
        assert parse_rate(rate) is rate
        assert parse_rate(value, 7).burst == 7

    @pytest.mark.parametrize(
        "value",
        ["", "100", "100/", "/m", "100/w", "100/min", "-1/s", "1e3/s", "0/s", "1/ m s", "²/s", 0, -1, True, None, [],
         float("nan"), float("inf"), 1e7, "10000001/s"],
    )  # fmt: skip
    def test_what_does_not_parse(self, value: Any) -> None:
        with pytest.raises(ValueError, match='a rate (above 0 )?such as "100/m"'):
            parse_rate(value)


class TestBreakers:
    def test_good_ones(self) -> None:
        assert Breaker() == Breaker(5, 60.0, (Exception,))
        assert Breaker(rest=timedelta(minutes=2)).rest == 120.0  # type: ignore[arg-type]
        assert Breaker(on=OSError).on == (OSError,)  # type: ignore[arg-type]
        assert make_task(send, breaker=3).options.breaker == Breaker(failures=3)

    @pytest.mark.parametrize(
        ("given", "said"),
        [
            ({"failures": 0}, "whole number from 1"),
            ({"failures": 1.5}, "whole number from 1"),
            ({"rest": 0}, r"Breaker\(rest=0\) is not usable: it takes seconds above 0"),
            ({"rest": "60"}, r"rest='60'"),
            ({"rest": True}, "rest=True"),
            ({"rest": float("inf")}, "rest=inf"),
            ({"on": ()}, r"Breaker\(on=\(\)\) is not usable: it takes exception classes"),
            ({"on": "OSError"}, "on='OSError'"),
            ({"on": (OSError, 5)}, "takes exception classes"),
            ({"on": int}, "takes exception classes"),
        ],
    )
    def test_bad_ones(self, given: dict[str, Any], said: str) -> None:
        with pytest.raises(ValueError, match=said):
            Breaker(**given)


class TestOptions:
    @pytest.mark.parametrize(
        ("options", "said"),
        [
            ({"concurrency": 0}, rf"send: @task\(concurrency=0\) is not usable: it takes .* 1 to {MOST_AT_ONCE:,}"),
            ({"concurrency": True}, r"@task\(concurrency=True\)"),
            ({"concurrency": "3"}, r"@task\(concurrency='3'\)"),
            ({"rate_limit": "100/fortnight"}, r"@task\(rate_limit='100/fortnight'\) is not usable: it takes a rate"),
            ({"rate_limit": "100/m", "rate_burst": 0}, r"@task\(rate_burst=0\)"),
            ({"lock": ""}, r"@task\(lock=''\) is not usable: it takes a template such as"),
            ({"lock": 5}, r"@task\(lock=5\)"),
            ({"concurrency": 3, "concurrency_key": ["tenant_id"]}, "takes a template such as"),
            ({"breaker": "5"}, r"@task\(breaker='5'\) is not usable: it takes a Breaker"),
            ({"breaker": 0}, r"@task\(breaker=0\)"),
            ({"concurrency_key": "{tenant_id}"}, "send: concurrency_key goes with concurrency, which is not given"),
            ({"rate_key": "{tenant_id}"}, "send: rate_key goes with rate_limit, which is not given"),
            ({"rate_burst": 5}, "send: rate_burst goes with rate_limit, which is not given"),
            ({"rate_limit": 5, "concurrency_key": "{tenant_id}"}, "concurrency_key goes with concurrency"),
            ({"concurrency": 3, "concurrency_key": "{tenant}"}, "concurrency_key='{tenant}'.*names 'tenant'"),
            ({"rate_limit": 5, "rate_key": "{tenant_id"}, "rate_key='{tenant_id'.*does not parse"),
            ({"lock": "{0}"}, "lock='{0}'.*names '0'"),
        ],
    )
    def test_bad_ones_are_refused_at_import(self, options: dict[str, Any], said: str) -> None:
        with pytest.raises(InvalidTask, match=said):
            make_task(send, **options)

    @pytest.mark.parametrize("option", [{"concurrency": 3}, {"rate_limit": 5}, {"lock": "x"}, {"breaker": 5}])
    def test_runs_without_rows_cannot_be_limited(self, option: dict[str, Any]) -> None:
        with pytest.raises(InvalidTask, match="send: its limits hold for runs with a row, and track_pending=False"):
            make_task(send, track_pending=False, **option)

    def test_a_task_that_nothing_holds_back_has_no_flow(self) -> None:
        assert make_task(send).flow is None


class TestGates:
    def test_each_option_makes_one(self) -> None:
        breaker = Breaker(failures=4, rest=30)
        make_task(send, concurrency=3, rate_limit="60/m", rate_burst=5, lock="order:{order}", breaker=breaker)
        assert gates(7, 5) == (
            Gate(Kind.BREAKER, "send", most=4, rest=30.0),
            Gate(Kind.LOCK, "order:5", most=1),
            Gate(Kind.TASK, "send", most=3),
            Gate(Kind.RATE, "send", rate=1.0, burst=5),
        )

    def test_keys_make_one_of_many(self) -> None:
        make_task(send, concurrency=3, concurrency_key="t:{tenant_id}", rate_limit=5, rate_key=lambda *args: "all")
        task, rate = gates(7)
        assert (task.key, rate.key) == ("task:send:t:7", "rate:send:all")
        assert gates(8)[0].key == "task:send:t:8"

    def test_those_of_the_queue_are_passed_last(self) -> None:
        make_task(send, concurrency=3)
        with override_settings(TASKQ={"QUEUES": {"mail": {"concurrency": 10, "rate_limit": 5}}}):
            assert [gate.kind for gate in gates(7, queue_name="mail")] == [Kind.TASK, Kind.QUEUE, Kind.QUEUE_RATE]
            assert [gate.kind for gate in gates(7)] == [Kind.TASK]
            # Of tasks without limits, and of those that nobody here knows.
            for name in ("tests.testapp.tasks.add", "of.another.release"):
                assert gates(1, 2, name=name, queue_name="mail") == (
                    Gate(Kind.QUEUE, "mail", most=10),
                    Gate(Kind.QUEUE_RATE, "mail", rate=5.0, burst=1),
                )

    def test_those_of_a_group_stay_and_older_ones_are_made_anew(self) -> None:
        make_task(send, concurrency=3)
        group = Gate(Kind.GROUP, "g", most=2)
        before = Headers(language="de", gates=[list(Gate(Kind.TASK, "send", most=99)), list(group)]).dumps()
        found = gated(7, headers=before)
        assert gates_of(found.headers) == (Gate(Kind.TASK, "send", most=3), group)
        assert Headers.loads(found.headers).language == "de"

    def test_a_gated_run_has_a_row(self) -> None:
        make_task(send, concurrency=3)
        found = gated(7, tracking=Tracking.END, follows_one=True)
        assert (found.tracking, found.follows_one) == (Tracking.ROW, False)

    def test_without_limits_messages_go_through_as_they_are(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(registry, "_is_limited", False)
        make_task(send)
        messages = [make_message(name="send")]
        assert flow.gated(messages) is messages

    def test_copies_of_an_exchange_cannot_be_counted(self) -> None:
        make_task(send, concurrency=3)
        with pytest.raises(EnqueueError, match="send has limits, which are those of single runs: an exchange makes"):
            gated(7, exchange="news")

    def test_other_tasks_may_go_to_an_exchange(self) -> None:
        make_task(send, concurrency=3)
        message = make_message(exchange="news")
        assert flow.gated([message]) == [message]


class TestEarlierSteps:
    """Values of earlier steps come in front of a step's own arguments, and are not known when it is enqueued."""

    @pytest.mark.parametrize(("feed", "args"), [(Feed.FRONT, (7,)), (Feed.FAILURE, ())])
    def test_a_key_of_such_a_value_is_refused(self, feed: Feed, args: tuple[int, ...]) -> None:
        make_task(send, concurrency=3, concurrency_key="{tenant_id}")
        with pytest.raises(InvalidArguments, match="send: concurrency_key=.* is made of 'tenant_id', which comes from"):
            gated(*args, feed=feed)

    def test_a_key_of_its_own_arguments_is_good(self) -> None:
        make_task(send, lock="{order}")
        assert gates(5, feed=Feed.FRONT) == (Gate(Kind.LOCK, "5", most=1),)

    def test_without_a_key_nothing_of_it_matters(self) -> None:
        make_task(send, concurrency=3)
        assert gates(5, feed=Feed.FRONT) == (Gate(Kind.TASK, "send", most=3),)


@pytest.mark.parametrize(
    "enqueue",
    [
        lambda task: task.enqueue_many([((7,), {}), ((8,), {})]),
        lambda task: task.using(priority=5).enqueue_many([((8,), {})]),
    ],
)
def test_nothing_is_stored_when_a_key_cannot_be_made(enqueue: Callable[[Any], Any]) -> None:
    """The error comes before anything touches the database, which these tests have none of."""
    task = make_task(send, lock=lambda tenant_id: "ok" if tenant_id == 7 else 5)
    with pytest.raises(InvalidArguments, match="returned 5"):
        enqueue(task)
