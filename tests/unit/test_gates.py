"""Gates: their keys and order, how they travel with a run, and which ones a queue has."""

from __future__ import annotations

import re
from typing import Any

import pytest
from django.test import override_settings

from django_taskq.conf_brokers import parse_queues
from django_taskq.flow import queue_gates
from django_taskq.gates import MOST_IN_KEY, Gate, Kind, bounded, dumps, gates_of, is_gated, loads, written
from django_taskq.message import Headers, with_gate
from django_taskq.models import Limit

LOCK = Gate(Kind.LOCK, "report:7", most=1)
TENANT = Gate(Kind.TASK, "app.send", "tenant:1", most=3)
RATE = Gate(Kind.RATE, "app.send", rate=1.5, burst=2)
QUEUE = Gate(Kind.QUEUE, "mail", most=10)


def test_a_run_passes_the_narrowest_first() -> None:
    kinds = ["breaker", "lock", "task", "rate", "group", "queue", "queue-rate"]
    assert sorted(Kind, key=lambda kind: kind.rank) == kinds
    assert sorted([QUEUE, RATE, TENANT, LOCK], key=lambda gate: gate.rank) == [LOCK, TENANT, RATE, QUEUE]


def test_its_key_names_it_among_all() -> None:
    assert (TENANT.base, TENANT.key) == ("task:app.send", "task:app.send:tenant:1")
    assert QUEUE.base == QUEUE.key == "queue:mail"
    assert len({gate.key for gate in (LOCK, TENANT, RATE, QUEUE, TENANT._replace(sub="tenant:2"))}) == 5


@pytest.mark.parametrize("gate", [LOCK, TENANT, RATE, QUEUE, Gate(Kind.BREAKER, "app.send", most=5, rest=60.0)])
def test_it_comes_back_from_text_and_from_its_row(gate: Gate) -> None:
    assert loads(dumps([gate, QUEUE])) == (gate, QUEUE)
    values = gate._asdict() | {"key": gate.key, "base": gate.base}
    assert Limit(**{name: value for name, value in values.items() if name not in ("name", "sub")}).as_gate() == gate


def test_it_travels_in_the_headers() -> None:
    headers = Headers(language="de", gates=written([TENANT, QUEUE])).dumps()
    assert is_gated(headers)
    assert gates_of(headers) == (TENANT, QUEUE)


@pytest.mark.parametrize("headers", [None, Headers(language="de").dumps(), '{"rerun_of":"gates"}'])
def test_a_run_without_any_has_none(headers: str | None) -> None:
    assert not is_gated(headers)
    assert gates_of(headers) == ()
    assert written([]) is None


def test_one_more_goes_to_its_place_once() -> None:
    headers = Headers(timezone="UTC", gates=written([TENANT, QUEUE])).dumps()
    more = with_gate(with_gate(headers, LOCK), LOCK)
    assert gates_of(more) == (LOCK, TENANT, QUEUE)
    assert Headers.loads(more).timezone == "UTC"
    assert gates_of(with_gate(None, LOCK)) == (LOCK,)


def test_long_keys_are_cut_and_stay_apart() -> None:
    long = {bounded("x" * 5000 + end) for end in "abc"}
    assert len(long) == 3
    assert {len(sub) for sub in long} == {MOST_IN_KEY}
    assert bounded("x" * MOST_IN_KEY) == "x" * MOST_IN_KEY
    assert len({bounded(text) for text in ("a\0b", "a?b", "a\ud800b", "a\ud801b")}) == 4
    # The longest names there are, and still within the column.
    longest = Limit._meta.get_field("key").max_length
    assert longest is not None
    assert len(Gate(Kind.QUEUE_RATE, "n" * 255, bounded("x" * 5000)).key) <= longest


class TestQueues:
    def test_those_of_its_settings(self) -> None:
        queues = {"mail": {"concurrency": 10, "rate_limit": "60/m", "rate_burst": 5}, "slow": {"rate_limit": 2}}
        with override_settings(TASKQ={"QUEUES": queues}):
            assert queue_gates("mail") == [QUEUE, Gate(Kind.QUEUE_RATE, "mail", rate=1.0, burst=5)]
            assert queue_gates("slow") == [Gate(Kind.QUEUE_RATE, "slow", rate=2.0, burst=1)]
            assert queue_gates("default") == []

    @pytest.mark.parametrize(
        ("queue", "said"),
        [
            ({"concurrency": 0}, "for queue 'mail' as 'concurrency' a whole number from 1"),
            ({"concurrency": True}, "for queue 'mail' as 'concurrency' a whole number from 1"),
            ({"concurrency": "3"}, "for queue 'mail' as 'concurrency' a whole number from 1"),
            ({"rate_limit": "100/week"}, "for queue 'mail' as 'rate_limit' a rate such as \"100/m\""),
            ({"rate_limit": 0}, "for queue 'mail' as 'rate_limit' a rate above 0"),
            ({"rate_limit": 10, "rate_burst": 0}, "for queue 'mail' as 'rate_burst' a whole number from 1"),
            ({"rate_burst": 5}, "for queue 'mail' a 'rate_burst' only with a 'rate_limit'"),
            ({"concurency": 5}, "'concurency'"),
        ],
    )
    def test_what_is_refused_names_queue_and_option(self, queue: dict[str, Any], said: str) -> None:
        with pytest.raises(ValueError, match=re.escape(said)):
            parse_queues({"mail": queue})


@pytest.mark.parametrize(
    "headers",
    ['{"gates":', '{"gates":5}', '{"gates":[5]}', '{"gates":[["no such kind","x"]]}', '["gates":]', '"gates":'],
)
def test_spoilt_headers_have_no_gates(headers: str) -> None:
    assert gates_of(headers) == ()
