"""``taskq dead-letters``: what brokers refused for good."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any
from uuid import uuid4

import pytest
from django.core.management.base import CommandError

from django_taskq import brokers
from django_taskq.management.verbs import dead_letters
from django_taskq.message import new_ids
from tests.commands.conftest import Output
from tests.lettered_depot import LetteredDepot
from tests.servers import RedisServer

Call = Callable[..., Output]
Depots = dict[str, LetteredDepot]


class TestList:
    def test_json(self, call: Call, depots: Depots) -> None:
        depots["default"].refuse("a", "some text", "no JSON", age=60)
        depots["bulk"].refuse("b", age=30)
        found = json.loads(call("dead-letters", "--json").out)
        assert [row["id"] for row in found["dead_letters"]] == ["b", "a"]
        row = found["dead_letters"][1]
        assert 59 < row.pop("age_seconds") < 90
        assert row.pop("refused_at").endswith("Z")
        assert row == {"broker": "default", "queue_name": "mail", "id": "a", "reason": "no JSON", "text": "some text"}
        assert found["errors"] == {}

    def test_text_cannot_be_forged_and_is_bounded(self, call: Call, depots: Depots) -> None:
        depots["default"].refuse("a\nb\x1b[2J", "x" * 2000, "no\nJSON")
        heading, reason, text = call("dead-letters", "list").out.splitlines()
        assert heading.startswith("default  mail  a\\x0ab\\x1b[2J  6")
        assert heading.endswith(" s ago")
        assert reason == "  no\\x0aJSON"
        assert len(text) == dead_letters.TEXT_WIDTH + 2

    def test_limit_and_broker(self, call: Call, depots: Depots) -> None:
        for number in range(9):
            depots["default"].refuse(f"a{number}", age=number)
            depots["bulk"].refuse(f"b{number}", age=number + 0.5)
        found = json.loads(call("dead-letters", "--limit", "3", "--json").out)["dead_letters"]
        assert [row["id"] for row in found] == ["a0", "b0", "a1"]
        found = json.loads(call("dead-letters", "--broker", "bulk", "--json").out)["dead_letters"]
        assert {row["broker"] for row in found} == {"bulk"}
        with pytest.raises(CommandError, match=r"no broker has the alias 'blk'\. Did you mean \"bulk\"") as caught:
            call("dead-letters", "--broker", "blk")
        assert caught.value.returncode == 2
        with pytest.raises(CommandError, match="'rows' is the database"):
            call("dead-letters", "--broker", "rows")

    def test_nothing_there(self, call: Call, depots: Depots) -> None:
        assert call("dead-letters") == Output("", "There are no dead letters.\n")

    def test_no_brokers(self, call: Call) -> None:
        assert call("dead-letters").err == "Every queue is in the database, which has no dead letters.\n"

    def test_a_broker_that_is_down(self, call: Call, depots: Depots) -> None:
        depots["default"].go_down()
        depots["bulk"].refuse("b")
        with pytest.raises(CommandError, match="broker 'default' is unreachable") as caught:
            call("dead-letters", "--json")
        assert caught.value.returncode == 1


class TestActing:
    @pytest.mark.parametrize(("action", "more"), [("replay", []), ("discard", ["--yes"])])
    def test_by_id(self, call: Call, depots: Depots, action: str, more: list[str]) -> None:
        for id in "abc":
            depots["default"].refuse(id)
            depots["bulk"].refuse(id + id)
        done = {"replay": "put back into their queues", "discard": "thrown away"}[action]
        assert call("dead-letters", action, "a", "bb", "a", *more).out == f"2 dead letter(s) {done}\n"
        assert [*depots["default"].letters, *depots["bulk"].letters] == ["b", "c", "aa", "cc"]
        with pytest.raises(CommandError, match=r"1 dead letter\(s\) not changed: no broker has such an id") as caught:
            call("dead-letters", action, "a", *more)
        assert caught.value.returncode == 1
        call("dead-letters", action, "aa", "--broker", "bulk", *more)
        assert depots["default"].asked[action] == 2

    def test_everything(self, call: Call, depots: Depots, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(dead_letters, "LARGEST", 5)
        monkeypatch.setattr(dead_letters, "AT_ONCE", 2)
        for number in range(12):
            depots["default"].refuse(f"a{number}", "odd" if number in (10, 11) else "well", age=number)
        with pytest.raises(CommandError, match=r"2 dead letter\(s\) not changed: they still cannot be read"):
            call("dead-letters", "replay", "--all")
        assert list(depots["default"].letters) == ["a10", "a11"]
        out = call("dead-letters", "discard", "--all", "--yes").out
        assert out.splitlines() == [
            "2 dead letter(s) of broker default thrown away", "0 dead letter(s) of broker bulk thrown away"
        ]  # fmt: skip
        assert not depots["default"].letters

    @pytest.mark.parametrize(
        "arguments",
        [
            ["replay"], ["discard", "--yes"], ["discard", "a"], ["discard", "--all"], ["replay", "a", "--all"],
            ["replay", "a", "--yes"], ["list", "a"], ["--all"], ["--yes"], ["replay", "a", "--json"],
            ["replay", "--all", "--limit", "5"],
        ],
    )  # fmt: skip
    def test_wrong_use(self, call: Call, depots: Depots, arguments: list[str]) -> None:
        depots["default"].refuse("a")
        with pytest.raises(CommandError) as caught:
            call("dead-letters", *arguments)
        assert caught.value.returncode == 2
        assert depots["default"].letters

    def test_a_broker_that_is_down(self, call: Call, depots: Depots) -> None:
        depots["default"].go_down()
        depots["bulk"].refuse("b")
        for arguments in (["b"], ["--all"]):
            with pytest.raises(CommandError, match="broker 'default' is unreachable") as caught:
                call("dead-letters", "discard", *arguments, "--yes")
            assert caught.value.returncode == 1
        assert not depots["bulk"].letters


@pytest.mark.parametrize("limit", ["0", "-1", "x", "10001"])
def test_limits(call: Call, limit: str) -> None:
    with pytest.raises(CommandError, match="a whole number from 1 to 10,000"):
        call("dead-letters", f"--limit={limit}")


def test_on_redis(call: Call, settings: Any, redis_server: RedisServer) -> None:
    prefix = f"t{uuid4().hex[:12]}"
    settings.TASKQ = {"BROKER_URL": redis_server.url, "BROKERS": {"default": {"PREFIX": prefix}}}
    ids = new_ids(2)
    with redis_server.client() as client:
        for id in ids:
            client.hset(f"{{{prefix}:default}}:messages", id, b".+000not of this package")
            client.zadd(f"{{{prefix}:default}}:ready", {id: 0})
        client.sadd(f"{prefix}:queues", "default")
    depot = brokers.get_depots()["default"]
    assert depot.take("default", 5, 1, 1) == []
    found = json.loads(call("dead-letters", "--json").out)["dead_letters"]
    assert sorted(row["id"] for row in found) == sorted(ids)
    assert "not of this package" in found[0]["text"]
    with pytest.raises(CommandError, match="or it still cannot be read"):
        call("dead-letters", "replay", ids[0])
    assert call("dead-letters", "discard", ids[0], "--yes").out == "1 dead letter(s) thrown away\n"
    call("dead-letters", "discard", "--all", "--yes")
    assert call("dead-letters").err == "There are no dead letters.\n"
    depot.close()
