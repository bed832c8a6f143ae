"""Sizes and load limits, as settings and as words on the command line; and the posts they make."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from typing import Any

import pytest

from django_taskq import conf_workers
from django_taskq.conf_brokers import LoadLimit
from django_taskq.conf_workers import Autoscale, slot_groups
from django_taskq.worker.fetcher import QueueOrder
from django_taskq.worker.options import Post, WorkerOptions


@pytest.mark.parametrize(
    ("parse", "text", "value"),
    [
        (conf_workers.parse_slots_text, "mail=2,default=6", {"mail": 2, "default": 6}),
        (conf_workers.parse_slots_text, " mail+sms=2 , ", {"mail+sms": 2}),
        (conf_workers.parse_autoscale_text, "2,8", Autoscale(2, 8)),
        (conf_workers.parse_autoscale_text, "3, 3", Autoscale(3, 3)),
        (conf_workers.parse_load_text, "bulk=cpu:80,memory:90.5", ("bulk", LoadLimit(80.0, 90.5))),
        (conf_workers.parse_load_text, "bulk=memory:90", ("bulk", LoadLimit(None, 90.0))),
    ],
)
def test_what_is_understood(parse: Callable[[str], Any], text: str, value: Any) -> None:
    assert parse(text) == value


@pytest.mark.parametrize(
    ("parse", "text", "error"),
    [
        (conf_workers.parse_slots_text, "", "at least one queue"),
        (conf_workers.parse_slots_text, "mail", "parts such as"),
        (conf_workers.parse_slots_text, "mail=x", "parts such as"),
        (conf_workers.parse_slots_text, "mail=0", "from 1 to"),
        (conf_workers.parse_slots_text, "mail=99999", "from 1 to"),
        (conf_workers.parse_slots_text, "mail=1,mail=2", "'mail' is there twice"),
        (conf_workers.parse_slots_text, "mail=1,sms+mail=2", "'mail' is there twice"),
        (conf_workers.parse_slots_text, "ma il=1", "letters, digits"),
        (conf_workers.parse_slots_text, "mail+=1", "letters, digits"),
        (conf_workers.parse_autoscale_text, "2", "the fewest and the most"),
        (conf_workers.parse_autoscale_text, "2,x", "the fewest and the most"),
        (conf_workers.parse_autoscale_text, "0,2", "at least 1"),
        (conf_workers.parse_autoscale_text, "3,2", "the smaller one first"),
        (conf_workers.parse_load_text, "bulk", "a queue and its limits"),
        (conf_workers.parse_load_text, "bulk=", "a queue and its limits"),
        (conf_workers.parse_load_text, "bulk=80", "limits such as"),
        (conf_workers.parse_load_text, "bulk=cpu:x", "limits such as"),
        (conf_workers.parse_load_text, "bulk=cpu:1.2.3", "limits such as"),
        (conf_workers.parse_load_text, "bulk=cpu:80,cpu:90", "each once"),
        (conf_workers.parse_load_text, "bulk=disk:80", "limits such as"),
        (conf_workers.parse_load_text, "bulk=cpu:0", "from 1 to 100 percent"),
        (conf_workers.parse_load_text, "bulk=cpu:101", "from 1 to 100 percent"),
    ],
)
def test_what_is_wrong_is_said(parse: Callable[[str], Any], text: str, error: str) -> None:
    with pytest.raises(ValueError, match=error):
        parse(text)


def options(**changes: Any) -> WorkerOptions:
    return WorkerOptions(**{"order": QueueOrder(("default",)), "processes": 2, "threads": 1, "grace": 1.0} | changes)


class TestPosts:
    def test_all_alike_without_slots_of_their_own(self) -> None:
        assert options(threads=3).posts() == [Post(QueueOrder(("default",)), 3)] * 2

    @pytest.mark.parametrize(
        ("slots", "threads", "expected"),
        [
            ({"mail": 2, "default": 3}, 1, {("mail", 1): 2, ("default", 1): 3}),
            ({"mail": 2, "default": 6}, 4, {("mail", 2): 1, ("default", 4): 1, ("default", 2): 1}),
            ({"mail+sms": 4}, 4, {("mail,sms", 4): 1}),
        ],
    )
    def test_slots_are_spread_over_processes(
        self, slots: dict[str, int], threads: int, expected: dict[tuple[str, int], int]
    ) -> None:
        posts = options(groups=slot_groups(slots), threads=threads).posts()
        assert Counter((str(post.order), post.threads) for post in posts) == expected
        assert sum(post.threads for post in posts) == sum(slots.values())

    def test_queues_of_one_group_take_turns(self) -> None:
        (post,) = options(groups=slot_groups({"mail+sms": 1})).posts()
        assert post.order == QueueOrder(("mail", "sms"), rotate=True)

    @pytest.mark.parametrize(("most", "shares"), [(1, [1]), (5, [3, 2]), (4, [2, 2])])
    def test_a_number_of_runs_is_shared(self, most: int, shares: list[int]) -> None:
        assert [post.quota for post in options(max_tasks=most).posts()] == shares

    def test_what_it_serves_is_written_as_it_was_typed(self) -> None:
        assert options(order=QueueOrder(("a", "b"), (2, 1))).served == "a=2,b=1"
        assert options(groups=slot_groups({"mail+sms": 2, "default": 6})).served == "mail+sms=2,default=6"
