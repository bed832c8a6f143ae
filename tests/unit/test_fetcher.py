"""Queue order and adaptive prefetch. (The orders on real brokers: tests/conformance.)"""

from __future__ import annotations

import pytest

from django_taskq.worker.fetcher import MOST_HELD, Prefetch, QueueOrder

KNOWN = ["default", "mail", "bulk"]


class TestQueueOrder:
    @pytest.mark.parametrize(
        ("text", "names", "weights", "rotate"),
        [
            (None, KNOWN, None, True),
            ("mail,default", ["mail", "default"], None, False),
            (" mail , default,", ["mail", "default"], None, False),
            ("mail=3,default=1", ["mail", "default"], (3, 1), False),
            ("mail", ["mail"], None, False),
        ],
    )
    def test_forms(self, text: str | None, names: list[str], weights: object, rotate: bool) -> None:
        order = QueueOrder.parse(text, KNOWN)
        assert (list(order.names), order.weights, order.rotate) == (names, weights, rotate)

    @pytest.mark.parametrize(
        ("text", "error"),
        [
            ("", "names no queue"),
            (" , ", "names no queue"),
            ("mial", 'Did you mean "mail"'),
            ("mail=0", "weight of queue 'mail' is '0'"),
            ("mail=-1", "whole number of at least 1"),
            ("mail=", "whole number"),
            ("mail=1.5", "whole number"),
            ("mail=99999", "whole number"),
            ("mail,mail", "twice"),
            ("mail=1,default", "mixes"),
        ],
    )
    def test_errors_name_what_is_wrong(self, text: str, error: str) -> None:
        with pytest.raises(ValueError, match=error):
            QueueOrder.parse(text, KNOWN)

    @pytest.mark.parametrize("text", ["mail,default", "mail=3,default=1"])
    def test_its_text_parses_to_itself(self, text: str) -> None:
        assert str(QueueOrder.parse(text, KNOWN)) == text


class TestPrefetch:
    def test_begins_with_one_a_slot(self) -> None:
        assert (Prefetch(1).target(), Prefetch(4).target()) == (1, 4)

    def test_short_runs_grow_it_by_steps_to_its_ceiling(self) -> None:
        prefetch, targets = Prefetch(1), []
        for _ in range(8):
            prefetch.observe(0.0001, 10)
            targets.append(prefetch.target())
            prefetch.held(targets[-1])
        assert targets[:4] == [4, 16, 64, 256]
        assert targets[-1] == MOST_HELD

    def test_holds_what_takes_a_quarter_of_a_second(self) -> None:
        prefetch = Prefetch(1)
        prefetch.held(1000)
        prefetch.observe(0.01 * 50, 50)
        assert prefetch.target() == 25

    def test_long_runs_bring_it_back_to_one(self) -> None:
        prefetch = Prefetch(1)
        prefetch.held(1000)
        prefetch.observe(0.001, 1)
        prefetch.observe(5, 1)
        assert prefetch.target() == 1

    def test_one_short_run_now_and_then_does_not_fill_it_with_long_ones(self) -> None:
        prefetch = Prefetch(1)
        prefetch.held(1000)
        for _ in range(5):
            prefetch.observe(0.02 * 12, 12)
            prefetch.observe(0.0, 1)
        assert 12 <= prefetch.target() <= 15

    def test_a_few_long_runs_are_noticed_after_any_number_of_short_ones(self) -> None:
        prefetch = Prefetch(1)
        prefetch.held(1000)
        prefetch.observe(0.05, 1000)
        assert prefetch.target() == MOST_HELD
        prefetch.observe(0.02 * 3, 3)
        assert prefetch.target() < 100

    def test_no_runs_teach_nothing(self) -> None:
        prefetch = Prefetch(2)
        prefetch.observe(0, 0)
        assert prefetch.target() == 2

    def test_a_clock_that_steps_back_does_no_harm(self) -> None:
        prefetch = Prefetch(1)
        prefetch.observe(-5, 1)
        assert prefetch.target() == 4
