"""What ``BROKER_URL``, ``BROKERS`` and ``QUEUES`` may say, and what is made of it."""

from __future__ import annotations

from typing import Any

import pytest

from django_taskq.conf_brokers import (
    BrokerConfig,
    QueueConfig,
    WhenFull,
    known_schemes,
    parse_brokers,
    parse_queue_name,
    parse_queues,
    parse_url,
)


class TestUrls:
    @pytest.mark.parametrize(
        "url",
        [
            "database://", "redis://a:6379/0", "rediss://:p@a/1", "unix:///run/redis.sock", "amqp://", "amqps://a//",
            "memory://", "sqs://", "kombu+redis://a", "pyamqp://a", "redis://a;redis://b",
        ],
    )  # fmt: skip
    def test_good(self, url: str) -> None:
        assert parse_url(url) == url

    def test_several_become_one_text(self) -> None:
        assert parse_url(["redis://a", "redis://b"]) == parse_url(("redis://a", "redis://b")) == "redis://a;redis://b"

    @pytest.mark.parametrize(
        "value",
        ["", None, 5, [], [""], ["redis://a", 5], "redis", "redi://a", "://a", "redis://a;", {"a": "redis://a"}],
    )
    def test_bad(self, value: Any) -> None:
        with pytest.raises(ValueError, match="a URL"):
            parse_url(value)

    @pytest.mark.parametrize("value", ["redi://u:hunter2@a", "redis://a;hunter2", ["redis://a", "x:hunter2@b"]])
    def test_what_is_bad_is_not_repeated(self, value: Any) -> None:
        with pytest.raises(ValueError) as caught:
            parse_url(value)
        assert "hunter2" not in str(caught.value)

    def test_schemes(self) -> None:
        known = known_schemes()
        assert len(known) == len(set(known))
        assert {"database", "redis", "rediss", "unix", "amqp", "amqps", "memory", "sqs"} <= set(known)


class TestConfig:
    @pytest.mark.parametrize(
        ("url", "scheme", "is_database"),
        [("database://", "database", True), ("rediss://a;rediss://b", "rediss", False), ("", "", False)],
    )
    def test_scheme(self, url: str, scheme: str, is_database: bool) -> None:
        config = BrokerConfig("a", url)
        assert (config.scheme, config.is_database) == (scheme, is_database)

    def test_it_shows_no_password(self) -> None:
        config = BrokerConfig("a", "redis://:hunter2@a", options={"password": "hunter2"})
        assert "hunter2" not in f"{config!r} {config}"


class TestQueueNames:
    @pytest.mark.parametrize("name", ["a", "A-1._", "x" * 100])
    def test_good(self, name: str) -> None:
        assert parse_queue_name(name) == name

    @pytest.mark.parametrize("name", ["", "a b", "a/b", "ä", "a\n", "x" * 101, None, 5, "exchange:a", "{a}"])
    def test_bad(self, name: Any) -> None:
        with pytest.raises(ValueError, match="1 to 100 letters"):
            parse_queue_name(name)


class TestQueues:
    def test_good(self) -> None:
        assert parse_queues(["a", "b"]) == {"a": QueueConfig(), "b": QueueConfig()}
        assert parse_queues({"a": None, "b": {}}) == parse_queues(("a", "b"))
        given = {"a": {"broker": "mq", "arguments": {"x-max-length": 5}}, "b": {"broker": "mq"}}
        assert parse_queues(given) == {"a": QueueConfig("mq", {"x-max-length": 5}), "b": QueueConfig("mq")}

    def test_a_bound(self) -> None:
        found = parse_queues({"a": {"max_length": 5}, "b": {"max_length": 1, "when_full": "drop_lowest"}, "c": {}})
        assert (found["a"].max_length, found["a"].when_full) == (5, WhenFull.REFUSE)
        assert (found["b"].max_length, found["b"].when_full) == (1, WhenFull.DROP_LOWEST)
        assert found["c"].max_length is None

    @pytest.mark.parametrize(
        ("value", "said"),
        [
            ("mail", "a list of queue names"), (None, "a list of queue names"), (["a b"], "1 to 100 letters"),
            ({"a": 5}, "for queue 'a' a dict of broker, arguments"),
            ({"a": {"brokr": "b"}}, "'brokr' is not known"), ({"a": {"broker": 5}}, "an alias in BROKERS"),
            ({"a": {"broker": None}}, "an alias in BROKERS"), ({"a": {"arguments": []}}, "as 'arguments' a dict"),
            *(({"a": {"max_length": bad}}, "as 'max_length' a whole number of at least 1") for bad in (0, "9", True)),
            ({"a": {"when_full": "refuse"}}, "for queue 'a' a 'when_full' only with a 'max_length'"),
            ({"a": {"max_length": 5, "when_full": "drop"}}, "one of refuse, keep_newest, drop_lowest, not 'drop'"),
            ({"a": {"max_length": 5, "when_full": "keep-newest"}}, 'not \'keep-newest\'. Did you mean "keep_newest"'),
            ({"a": {"max_length": 5, "when_full": ["refuse"]}}, "one of refuse, keep_newest, drop_lowest"),
        ],
    )  # fmt: skip
    def test_bad(self, value: Any, said: str) -> None:
        with pytest.raises(ValueError, match=said):
            parse_queues(value)


class TestBrokers:
    def test_good(self) -> None:
        given = {
            "default": {"PREFIX": "shop"},
            "mq": {"URL": ["amqp://a", "amqp://b"], "OPTIONS": {"socket_timeout": 5}},
        }
        assert parse_brokers(given) == {
            "default": BrokerConfig("default", "", "shop"),
            "mq": BrokerConfig("mq", "amqp://a;amqp://b", options={"socket_timeout": 5}),
        }

    @pytest.mark.parametrize(
        ("value", "said"),
        [
            (None, "a dict from aliases"), ([], "a dict from aliases"), ({"a": "redis://a"}, "a dict with 'URL'"),
            ({"a": {}}, "a dict with 'URL'"), ({"a": {"url": "redis://a"}}, "a dict with 'URL'"),
            ({"a": {"URL": "redis://a", "PREFX": "b"}}, "not 'PREFX'"), ({"a": {"URL": ""}}, "a URL"),
            ({"a": {"URL": "redis://a", "PREFIX": "b c"}}, "1 to 100 letters"),
            ({"a": {"URL": "redis://a", "OPTIONS": [1]}}, "as 'OPTIONS' a dict"), ({5: {}}, "1 to 100 letters"),
        ],
    )  # fmt: skip
    def test_bad(self, value: Any, said: str) -> None:
        with pytest.raises(ValueError, match=said):
            parse_brokers(value)
