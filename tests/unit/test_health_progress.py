"""Judging snapshots: what is progress, what is a stall, and what is nobody's fault."""

from __future__ import annotations

from typing import Any

import pytest

from django_taskq.worker.health.progress import BOOT_SECONDS, Progress, Stalls, gets_on

RUNNING = {"claim": 1, "seconds": 9.0, "overdue": None}
OVERDUE = RUNNING | {"overdue": 9.0}


def process(**changes: Any) -> dict[str, Any]:
    """One that waits for work."""
    fields = {
        "up": True,
        "sound": True,
        "idle": True,
        "leaving": False,
        "queues": "default",
        "names": ["default"],
        "slots": 1,
        "running": [],
        "tick_age": 0.5,
        "pulse_age": 0.5,
        "done": 0,
        "lost_slots": 0,
    }
    return fields | changes


def stuck(**changes: Any) -> dict[str, Any]:
    return process(**({"tick_age": 30.0} | changes))


def state(*processes: dict[str, Any]) -> dict[str, Any]:
    return {"processes": list(processes)}


def after(seconds: int, *processes: dict[str, Any], steady: bool = True, loop_age: float = 0.0) -> list[str]:
    """What is said after the processes have been so for this long; they were well before."""
    progress = Progress(20)
    progress.look(state(*(process(queues=each["queues"]) for each in processes)), 100.0, loop_age=0, is_steady=True)
    for second in range(1, seconds + 1):
        progress.look(state(*processes), 100.0 + second, loop_age=loop_age, is_steady=steady)
    return progress.complaints


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({}, True),
        ({"tick_age": 4.0}, False),
        ({"tick_age": None}, False),
        ({"sound": False}, False),
        ({"up": False}, False),
        ({"running": [RUNNING]}, True),
        ({"running": [RUNNING], "tick_age": 60.0, "pulse_age": 60.0}, True),
        ({"running": [RUNNING], "tick_age": 60.0, "pulse_age": None}, True),
        ({"running": [RUNNING], "tick_age": 60.0, "pulse_age": 0.5}, False),
        ({"tick_age": 60.0, "pulse_age": 60.0}, False),
        ({"running": [OVERDUE]}, False),
        ({"running": [OVERDUE], "slots": 2}, True),
        ({"running": [OVERDUE, OVERDUE], "slots": 2}, False),
        ({"lost_slots": 2, "slots": 2}, False),
        ({"running": [RUNNING | {"overdue": 0.5}]}, True),
    ],
    ids=[
        "waits", "bookkeeping stands still", "never went round", "bookkeeping fails", "not started", "busy",
        "a run keeps the interpreter", "from the beginning",
        "busy, and bookkeeping stands still", "stopped", "its only slot is overdue",
        "one of two is overdue", "both are overdue", "both are lost", "it will be killed in a moment",
    ],
)  # fmt: skip
def test_what_gets_on(changes: dict[str, Any], expected: bool) -> None:
    assert gets_on(process(**changes), 3.0) is expected


def test_idle_for_a_day_is_healthy() -> None:
    assert after(86_400, process()) == []


def test_a_group_that_stands_still_is_named_in_time() -> None:
    assert after(20, stuck()) == []
    assert after(21, stuck()) == ["no process that serves default has got on for 21 s"]


def test_one_that_gets_on_is_enough_for_its_queues() -> None:
    assert after(100, stuck(), process()) == []
    (complaint,) = after(100, stuck(queues="mail"), process())
    assert "mail" in complaint


def test_who_leaves_is_not_judged() -> None:
    assert after(100, stuck(leaving=True)) == []


def test_starting_takes_longer_than_standing_still() -> None:
    new = process(up=False, sound=False, tick_age=None, pulse_age=None)
    assert after(int(BOOT_SECONDS), new) == []
    assert after(int(BOOT_SECONDS) + 1, new)


def test_replacing_in_vain_does_not_look_like_life() -> None:
    """Each new process is up, and its first look never ends."""
    progress = Progress(20)
    for second in range(60):
        new = process(up=second % 15 > 1, sound=False, tick_age=float(second % 15))
        progress.look(state(new if second else process()), 100.0 + second, loop_age=0, is_steady=True)
    assert progress.complaints


def test_an_outage_is_nobody_s_fault() -> None:
    assert after(100, stuck(), steady=False, loop_age=90) == []


def test_the_main_loop_is_judged_too() -> None:
    assert after(1, process(), loop_age=21) == ["the supervisor's main loop has stood still for 21 s"]


def test_a_pause_of_the_whole_host_is_not_charged() -> None:
    progress = Progress(20)
    progress.look(state(process()), 100.0, loop_age=0, is_steady=True)
    progress.look(state(stuck()), 5000.0, loop_age=0, is_steady=True)
    assert progress.complaints == []


class TestStalls:
    """Work that idle processes do not take."""

    def test_only_idle_groups_are_asked_about(self) -> None:
        stalls = Stalls()
        busy = process(queues="mail", names=["mail"], running=[RUNNING], idle=False)
        half = [process(queues="a,b", names=["a", "b"]), process(queues="a,b", names=["a", "b"], idle=False)]
        assert stalls.idle(state(process(), busy, *half)) == {"default": ["default"]}

    def stalled(self, *looks: tuple[dict[str, Any], list[str]]) -> list[str]:
        stalls = Stalls()
        for number, (seen, names) in enumerate(looks):
            stalls.look(state(seen), 100.0 + 5 * number, {"default": names})
        return stalls.complaints(100.0 + 5 * (len(looks) - 1), 20)

    def test_work_that_waits_is_named_in_time(self) -> None:
        assert self.stalled(*[(process(), ["default"])] * 4) == []
        (complaint,) = self.stalled(*[(process(), ["default"])] * 5)
        assert "do not take it" in complaint

    def test_nothing_to_do_is_no_stall(self) -> None:
        assert self.stalled(*[(process(), [])] * 100) == []

    def test_whoever_takes_some_starts_anew(self) -> None:
        looks = [(process(done=number // 3), ["default"]) for number in range(100)]
        assert self.stalled(*looks) == []

    def test_a_pause_starts_anew(self) -> None:
        assert self.stalled(*[(process(), ["default"])] * 4, (process(), []), *[(process(), ["default"])] * 3) == []

    def test_an_old_look_says_nothing(self) -> None:
        stalls = Stalls()
        for number in range(5):
            stalls.look(state(process()), 100.0 + 5 * number, {"default": ["default"]})
        assert stalls.complaints(120.0, 20)
        assert stalls.complaints(141.0, 20) == []
