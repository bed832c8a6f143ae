"""The pure parts of ``make bench-peers``: rates from records, ratios, marks and tables."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.peers import records
from tests.peers.cases import CASES, GROUPS, NO_RESULTS, RESULTS, Case
from tests.peers.records import Figures
from tests.peers.report import Measured, as_text, is_loss, losses, number, ratios, share, table

SECOND = 1_000_000_000


def make(name: str, rival: str = "", group: str = NO_RESULTS, **figures: object) -> Measured:
    case = Case(name, group, "somewhere", "some_peer", ("work",), "two of them", rival=rival)
    return Measured(case, Figures(**{"tasks": 20_000} | figures))


OURS = make("ours", drains=[900.0, 1000.0, 1300.0], enqueues=[500.0], latencies=[2.0, 4.0])
SLOWER = make("slower", "ours", drains=[250.0], enqueues=[100.0], latencies=[8.0])
FASTER = make("faster", "ours", drains=[4000.0], enqueues=[501.0], latencies=[1.0])
BROKEN = make("broken", "ours", problem="skipped: no such server")
EVERYTHING = {one.case.name: one for one in (OURS, SLOWER, FASTER, BROKEN)}


def write(path: Path, *entries: tuple[int, int], tail: bytes = b"") -> None:
    path.write_bytes(b"".join(records.RECORD.pack(*entry) for entry in entries) + tail)


def test_records_of_all_processes_are_read(tmp_path: Path) -> None:
    write(tmp_path / "1.records", (0, 10), (2, 30))
    write(tmp_path / "2.records", (1, 20), tail=b"cut off")
    assert sorted(records.read(tmp_path)) == [(0, 10), (1, 20), (2, 30)]
    assert records.count(tmp_path) == 3


def test_the_drain_runs_from_the_first_start_to_the_last() -> None:
    assert records.drain_rate([(2, 9 * SECOND), (0, 5 * SECOND), (1, 6 * SECOND)]) == 0.5


def test_a_task_that_ran_twice_counts_once() -> None:
    assert records.drain_rate([(0, 0), (1, SECOND), (0, 50 * SECOND)]) == 1


@pytest.mark.parametrize("found", [[], [(0, 5)], [(0, 5), (1, 5)]])
def test_no_rate_comes_from_too_little(found: list[records.Record]) -> None:
    with pytest.raises(ValueError, match="two tasks"):
        records.drain_rate(found)


def test_latencies_are_those_of_what_was_sent() -> None:
    assert records.latencies({7: 1_000_000, 8: 2_000_000}, [(8, 2_500_000), (7, 4_000_000), (0, 9)]) == [3.0, 0.5]


def test_percentiles_are_measured_values() -> None:
    values = [float(value) for value in range(100, 0, -1)]
    assert [records.percentile(values, percent) for percent in (1, 50, 99, 100)] == [1, 50, 99, 100]
    assert records.percentile([3.0], 99) == records.percentile([3.0], 50) == 3
    assert records.percentile([1.0, 2.0, 3.0], 50) == 2


@pytest.mark.parametrize(("rate", "tasks"), [(30_000, 20_000), (1_000, 20_000), (777, 7_500), (170, 1_500), (4, 1_000)])
def test_slow_queues_get_fewer_tasks(rate: float, tasks: int) -> None:
    assert records.sensible_count(rate, 20_000) == tasks
    assert records.sensible_count(rate, 50) == 50


def test_ratios_are_to_our_case_of_the_same_store() -> None:
    assert ratios(FASTER, EVERYTHING) == {"drain": 4.0, "enqueue": 1.002, "p50": 0.5, "p99": 0.25}
    assert ratios(OURS, EVERYTHING) == {}
    assert ratios(make("lonely", "nobody", drains=[1.0]), EVERYTHING) == {}
    assert set(ratios(BROKEN, EVERYTHING).values()) == {None}


@pytest.mark.parametrize(("metric", "value"), [("drain", 1.004), ("enqueue", 9.0), ("p50", 0.999), ("p99", 0.1)])
def test_a_better_peer_is_a_loss(metric: str, value: float) -> None:
    assert is_loss(metric, value)
    assert not is_loss(metric, 1 / value)
    assert not is_loss(metric, 1.0)
    assert not is_loss(metric, None)


def test_the_quickest_comes_first_and_the_broken_last() -> None:
    lines = table([BROKEN, SLOWER, OURS, FASTER], EVERYTHING).splitlines()
    assert [line.split()[0] for line in lines[1:]] == ["faster", "ours", "slower", "broken"]
    assert lines[-1] == "broken  skipped: no such server"


def test_losses_are_marked_where_they_are() -> None:
    _, faster, ours, slower = table([FASTER, OURS, SLOWER], EVERYTHING).splitlines()
    cells = "faster 20,000 4,000 (4,000-4,000) 4.00 ! 501 1.00 ! 1.00 0.50 ! 1.00 0.25 ! ours"
    assert " ".join(faster.split()) == cells
    assert " ".join(ours.split()) == "ours 20,000 1,000 (900-1,300) 500 2.00 4.00"
    assert "!" not in slower


def test_a_drain_of_less_than_a_second_says_so() -> None:
    assert "~4,000" in table([make("short", tasks=3_999, drains=[4000.0])], {})
    assert "~" not in table([make("long", tasks=4_000, drains=[4000.0])], {})


def test_every_loss_is_named() -> None:
    text = losses([OURS, SLOWER, FASTER, BROKEN], EVERYTHING)
    assert text.splitlines()[:2] == [
        "A PEER IS BETTER in 4 of 8 comparisons:",
        "  faster: drain/s 4,000; ours: 1,000 (x 4.00)",
    ]
    assert losses([OURS, SLOWER], EVERYTHING) == "A PEER IS BETTER in 0 of 4 comparisons."


def test_the_report_has_settings_groups_and_cases() -> None:
    stored = make("elsewhere", group=RESULTS, drains=[5.0])
    text = as_text({"machine": "this one", "redis": "7"}, [OURS, FASTER, stored])
    assert text.startswith("machine  this one\nredis    7\n")
    assert text.index(RESULTS.upper()) < text.index("elsewhere  20,000") < text.index(NO_RESULTS.upper())
    assert "  faster     two of them" in text


def test_nothing_measured_is_a_report_too() -> None:
    assert "broken  skipped: no such server" in as_text({}, [BROKEN])


@pytest.mark.parametrize(
    ("value", "text"), [(None, "-"), (12_345.6, "12,346"), (99.94, "99.9"), (12.34, "12.3"), (0.842, "0.84")]
)
def test_numbers(value: float | None, text: str) -> None:
    assert number(value) == text


def test_small_ratios_keep_their_digits() -> None:
    assert [share(value) for value in (None, 0.0142, 0.14, 3.0, 163.2)] == ["-", "0.014", "0.14", "3.00", "163"]


def test_every_peer_has_a_rival_of_ours() -> None:
    ours = {case.name for case in CASES if case.is_ours}
    assert len({case.name for case in CASES}) == len(CASES)
    assert {case.rival for case in CASES} - {""} <= ours
    assert {case.group for case in CASES} == set(GROUPS)
