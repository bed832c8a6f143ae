"""``TASKQ["ROUTES"]``: where calls go that do not say so themselves."""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from typing import Any

import pytest
from django.core.exceptions import ImproperlyConfigured
from django.test import override_settings

from django_taskq import client, conf, routing
from django_taskq.exceptions import EnqueueError
from django_taskq.message import Headers, Message
from django_taskq.task import Task
from django_taskq.unique_keys import Holder
from tests.unit.making import make_task

AMQP = {
    "BROKERS": {"rabbit": {"URL": "amqp://nowhere"}},
    "EXCHANGES": {"events": {"type": "topic", "broker": "rabbit"}},
}


@pytest.fixture
def sent(monkeypatch: pytest.MonkeyPatch) -> list[Message]:
    found: list[Message] = []

    def enqueue(messages: Sequence[Message]) -> dict[str, Holder]:
        found.extend(messages)
        return {}

    monkeypatch.setattr(client, "enqueue", enqueue)
    # The package's own name "task" is the decorator.
    monkeypatch.setattr(sys.modules[Task.__module__], "open_transaction", lambda using: None)
    return found


def send(order: int = 1) -> None: ...


def by_order(name: str, args: Any, kwargs: Any) -> Any:
    return None if args[0] < 100 else {"queue_name": "large", "priority": 9}


def broken(name: str, args: Any, kwargs: Any) -> Any:
    return {"queue": "mail"}


def routes(*found: Any) -> Any:
    return override_settings(TASKQ={"ROUTES": list(found)})


def enqueue(task: Task[..., Any], *args: Any, **options: Any) -> None:
    task.using(**options).enqueue(*args)


@pytest.mark.parametrize(
    ("pattern", "expected"),
    [
        ("shop.mail.send", "mail"),
        ("shop.mail.*", "mail"),
        ("*", "mail"),
        ("shop.*.sen?", "mail"),
        ("shop.sms.*", "default"),
        ("Shop.mail.send", "default"),
    ],
)
def test_patterns_are_of_task_names(sent: list[Message], pattern: str, expected: str) -> None:
    with routes({pattern: "mail"}):
        enqueue(make_task(send, name="shop.mail.send"))
    assert [message.queue_name for message in sent] == [expected]


def test_the_first_that_says_something_holds(sent: list[Message]) -> None:
    with routes(by_order, {"shop.*": "shop"}, {"*": "rest"}):
        enqueue(make_task(send, name="shop.send"), 1)
        enqueue(make_task(send, name="shop.other"), 100)
        enqueue(make_task(send, name="app.send"), 1)
    assert [(message.queue_name, message.priority) for message in sent] == [("shop", 0), ("large", 9), ("rest", 0)]


def test_the_call_comes_before_and_the_task_after(sent: list[Message]) -> None:
    task = make_task(send, queue_name="own", priority=3)
    with routes({"*": {"queue_name": "routed", "priority": 5}}):
        enqueue(task)
        enqueue(task, queue_name="called")
        enqueue(task, priority=7)
    with routes({"*": {"priority": 5}}):
        enqueue(task)
    expected = [("routed", 5), ("called", 5), ("routed", 7), ("own", 5)]
    assert [(message.queue_name, message.priority) for message in sent] == expected


def test_many_calls_may_go_different_ways(sent: list[Message]) -> None:
    with routes(by_order):
        make_task(send).enqueue_many([((1,), {}), ((100,), {}), ((2,), {})])
    assert [message.queue_name for message in sent] == ["default", "large", "default"]


def test_a_router_may_be_named_by_its_path(sent: list[Message]) -> None:
    with routes(f"{__name__}.by_order"):
        enqueue(make_task(send), 100)
    assert sent[0].queue_name == "large"


@pytest.mark.parametrize("router", [broken, lambda name, args, kwargs: 1 / 0], ids=["nonsense", "error"])
def test_a_router_that_fails_says_for_which_task(sent: list[Message], router: Callable[..., Any]) -> None:
    with routes(router), pytest.raises(EnqueueError, match=r"TASKQ\['ROUTES'\] failed for shop.send"):
        enqueue(make_task(send, name="shop.send"))
    assert sent == []


def test_no_routes_cost_no_look(monkeypatch: pytest.MonkeyPatch, sent: list[Message]) -> None:
    monkeypatch.setattr(routing, "find", lambda *args: pytest.fail("asked"))
    enqueue(make_task(send))
    assert sent[0].queue_name == "default"


def test_workers_serve_the_queues_that_routes_name() -> None:
    with routes({"a.*": "routed"}):
        assert "routed" in client.known_queues()
        client.check_queue("routed")


class TestExchanges:
    def test_by_option(self, sent: list[Message]) -> None:
        with override_settings(TASKQ=AMQP):
            enqueue(make_task(send), exchange="events", routing_key="order.new")
        (message,) = sent
        assert (message.exchange, message.routing_key, message.queue_name) == (
            "events",
            "order.new",
            "exchange:events",
        )
        assert Headers.loads(message.headers).routing_key == "order.new"

    def test_by_route(self, sent: list[Message]) -> None:
        task = make_task(send)
        with override_settings(TASKQ=AMQP | {"ROUTES": {"*": {"exchange": "events", "routing_key": "a.b"}}}):
            enqueue(task)
            enqueue(task, routing_key="c.d")
            enqueue(task, queue_name="own")
        assert [(message.exchange, message.routing_key) for message in sent][:2] == [
            ("events", "a.b"),
            ("events", "c.d"),
        ]
        assert (sent[2].exchange, sent[2].queue_name) == (None, "own")

    def test_a_queue_and_an_exchange_exclude_each_other(self) -> None:
        with pytest.raises(ValueError, match="not both"):
            make_task(send).using(queue_name="a", exchange="b")

    def test_brokers_without_exchanges_refuse_them(self) -> None:
        with pytest.raises(EnqueueError, match="no exchange is named 'evnets'"):
            client.check_queue("exchange:evnets")
        with override_settings(TASKQ=AMQP):
            client.check_queue("exchange:events")
            with pytest.raises(EnqueueError, match='Did you mean "events"'):
                client.check_queue("exchange:evnets")
        with override_settings(TASKQ={"BROKER_URL": "amqp://nowhere"}):
            client.check_queue("exchange:declared-at-run-time")

    def test_the_settings_are_checked(self) -> None:
        settings = {"EXCHANGES": {"events": {"type": "fanout"}}}
        with override_settings(TASKQ=settings):
            assert [problem.check_id for problem in conf.problems()] == ["E013"]
            with pytest.raises(ImproperlyConfigured, match="has no exchanges"):
                conf.get_settings()
