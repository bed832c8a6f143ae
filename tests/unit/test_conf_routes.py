"""What ``ROUTES`` may say, and which of its rules holds for a call."""

from __future__ import annotations

from typing import Any

import pytest
from django.test import override_settings

from django_taskq import client, conf, routing
from django_taskq.conf_routes import Route, Rule, parse_route, parse_routes
from django_taskq.exceptions import EnqueueError
from tests.testapp.tasks import add

NAME = "shop.tasks.mail_customer"


def by_customer(name: str, args: Any, kwargs: Any) -> Any:
    return {5: "vip", 6: {"priority": 9}, 7: None, 8: 5}[args[0]]


BY_CUSTOMER = f"{__name__}.by_customer"


class TestParsing:
    @pytest.mark.parametrize(
        ("value", "route"),
        [
            ("mail", Route("mail")), ({"queue_name": "mail"}, Route("mail")), ({"priority": -3}, Route(priority=-3)),
            ({"queue_name": "mail", "priority": 0}, Route("mail", 0)),
            ({"exchange": "orders", "routing_key": "a.b"}, Route(exchange="orders", routing_key="a.b")),
            ({"exchange": None, "queue_name": "mail"}, Route("mail")),
        ],
    )  # fmt: skip
    def test_routes(self, value: Any, route: Route) -> None:
        assert parse_route(value) == route

    @pytest.mark.parametrize(
        ("value", "said"),
        [
            ("a b", "queue names"), (5, "a queue's name, or a dict"), ({}, "a queue's name, or a dict"),
            ({"queue": "mail"}, "a queue's name, or a dict"), ({"queue_name": 5}, "queue names"),
            ({"priority": "high"}, "'priority' a whole number"), ({"priority": True}, "'priority' a whole number"),
            ({"exchange": 5}, "'exchange' a text"), ({"routing_key": 5}, "'routing_key' a text"),
            ({"queue_name": "a", "exchange": "b"}, "not both"), (None, "a queue's name, or a dict"),
        ],
    )  # fmt: skip
    def test_bad_routes(self, value: Any, said: str) -> None:
        with pytest.raises(ValueError, match=said):
            parse_route(value)

    def test_forms(self) -> None:
        one = {"shop.*": "mail", "x": {"priority": 1}}
        rules = (Rule("shop.*", Route("mail")), Rule("x", Route(priority=1)))
        assert parse_routes(one) == parse_routes([one]) == parse_routes((one,)) == rules
        assert parse_routes([BY_CUSTOMER, one, by_customer]) == (
            Rule(router=BY_CUSTOMER), *rules, Rule(router=by_customer)
        )  # fmt: skip
        assert parse_routes([]) == parse_routes({}) == ()

    @pytest.mark.parametrize("value", [None, 5, "nodot", [5], [None], {"": "a"}, {5: "a"}, {"a": None}, [[{"a": "b"}]]])
    def test_bad(self, value: Any) -> None:
        with pytest.raises(ValueError):
            parse_routes(value)

    @pytest.mark.parametrize(
        ("pattern", "is_meant"),
        [("shop.*", True), (NAME, True), ("*.mail_*", True), ("shop.tasks.mail_?ustomer", True), ("SHOP.*", False),
         ("shop", False), ("*.tasks.[a-l]*", False), ("*", True)],
    )  # fmt: skip
    def test_patterns(self, pattern: str, is_meant: bool) -> None:
        assert Rule(pattern).matches(NAME) is is_meant


class TestFinding:
    def find(self, routes: Any, *args: Any) -> Route | None:
        with override_settings(TASKQ={"ROUTES": routes}):
            return routing.find(NAME, args, {})

    def test_the_first_that_says_something(self) -> None:
        routes = [{"other.*": "no"}, BY_CUSTOMER, {"shop.*": "mail", "shop.tasks.*": "later"}]
        assert self.find(routes, 5) == Route("vip")
        assert self.find(routes, 6) == Route(priority=9)
        assert self.find(routes, 7) == Route("mail")
        assert self.find([{"other.*": "no"}]) is None
        assert self.find([by_customer], 5) == Route("vip")

    @pytest.mark.parametrize("routes", [BY_CUSTOMER, [by_customer]])
    @pytest.mark.parametrize("customer", [8, 9])
    def test_a_router_that_fails_or_says_nonsense(self, routes: Any, customer: int) -> None:
        with pytest.raises(EnqueueError, match=f"the router .*by_customer.* failed for {NAME}: "):
            self.find(routes, customer)

    def test_what_patterns_name_is_known(self) -> None:
        with override_settings(TASKQ={"ROUTES": {"a.*": "routed"}}):
            assert "routed" in client.known_queues()
            assert conf.problems() == []


class TestCalls:
    """The call's own options come first, then the route, then the task's options."""

    def message(self, routes: Any, **options: Any) -> Any:
        with override_settings(TASKQ={"ROUTES": routes, "QUEUES": ["own"]}):
            return add.using(**options)._message((1, 2), {})

    def test_order(self) -> None:
        routes = {add.name: {"queue_name": "routed", "priority": 7}}
        plain = self.message({})
        assert (plain.queue_name, plain.priority) == (add.options.queue_name, add.options.priority)
        routed = self.message(routes)
        assert (routed.queue_name, routed.priority) == ("routed", 7)
        called = self.message(routes, queue_name="own")
        assert (called.queue_name, called.priority) == ("own", 7)
        called = self.message(routes, priority=-1)
        assert (called.queue_name, called.priority) == ("routed", -1)

    def test_exchanges(self) -> None:
        routes = {add.name: {"exchange": "orders", "routing_key": "a"}}
        routed = self.message(routes)
        assert (routed.exchange, routed.routing_key) == ("orders", "a")
        assert self.message(routes, routing_key="b").routing_key == "b"
        assert self.message(routes, queue_name="own").exchange is None
