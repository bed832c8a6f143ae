"""``TASKQ["EXCHANGES"]``: what it takes, and what it says about what it does not take."""

from __future__ import annotations

from typing import Any

import pytest

from django_taskq.conf_exchanges import Binding, ExchangeConfig, parse_exchanges


def test_everything_that_can_be_said() -> None:
    found = parse_exchanges(
        {
            "events": {
                "type": "topic",
                "broker": "bulk",
                "durable": False,
                "arguments": {"alternate-exchange": "rest"},
                "bindings": [
                    {"queue": "mail", "routing_key": "order.*"},
                    {"queue": "audit", "routing_key": "#", "arguments": {"x": 1}},
                ],
            },
            "plain": {},
        }
    )
    bindings = (Binding("mail", "order.*"), Binding("audit", "#", {"x": 1}))
    events = ExchangeConfig("events", "topic", False, {"alternate-exchange": "rest"}, bindings, "bulk")
    assert found == {"events": events, "plain": ExchangeConfig("plain", "direct", True, {}, (), "default")}


WRONG: list[tuple[Any, str]] = [
    ([], "a dict from exchange names"),
    ({"a b": {}}, "exchange names of 1 to 100"),
    ({"events": []}, "for exchange 'events' a dict of type, broker"),
    ({"events": {"kind": "topic"}}, "for exchange 'events' the keys type, .*not 'kind'"),
    ({"events": {"type": "headers"}}, "one of direct, topic, fanout, not 'headers'"),
    ({"events": {"broker": 1}}, "as 'broker' an alias"),
    ({"events": {"durable": "yes"}}, "as 'durable' True or False"),
    ({"events": {"arguments": 1}}, "as 'arguments' a dict"),
    ({"events": {"bindings": {"queue": "mail"}}}, "as 'bindings' a list"),
    ({"events": {"bindings": ["mail"]}}, "for exchange 'events', binding 1 a dict of queue"),
    ({"events": {"bindings": [{"routing_key": "x"}]}}, "binding 1 as 'queue' the name"),
    ({"events": {"bindings": [{"queue": "mail"}, {"queue": "a b"}]}}, "binding 2 as 'queue' one of the queue names"),
    ({"events": {"bindings": [{"queue": "mail", "key": "x"}]}}, "the keys queue, routing_key, arguments, not 'key'"),
    ({"events": {"bindings": [{"queue": "mail", "routing_key": 1}]}}, "as 'routing_key' a text"),
    ({"events": {"bindings": [{"queue": "mail", "routing_key": "x" * 256}]}}, "at most 255 bytes"),
    ({"events": {"type": "fanout", "bindings": [{"queue": "mail", "routing_key": "x"}]}}, "no 'routing_key'"),
]


@pytest.mark.parametrize(("value", "text"), WRONG, ids=range(len(WRONG)))
def test_what_is_wrong_is_named(value: Any, text: str) -> None:
    with pytest.raises(ValueError, match=text):
        parse_exchanges(value)
