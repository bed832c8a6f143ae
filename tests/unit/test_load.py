"""How busy the host is, read from trees of files like the kernel's, and which queues are left to others for it."""

from __future__ import annotations

from pathlib import Path

import pytest

from django_taskq.conf_brokers import LoadLimit
from django_taskq.worker.load import LOAD, LoadWatch, Meter, Reading, closed_by
from django_taskq.worker.shutter import Shutter

LIMITS = {"bulk": LoadLimit(cpu=80.0, memory=90.0), "mail": LoadLimit(memory=95.0)}


class Host:
    """A /proc and a /sys, and a clock."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.now = 100.0
        self.write("proc/self/cgroup", "0::/\n")
        self.spend(0, 0)
        self.write("proc/meminfo", "MemTotal: 1000 kB\nMemFree: 1 kB\nMemAvailable: 250 kB\n")

    def write(self, name: str, text: str) -> None:
        (self.root / name).parent.mkdir(parents=True, exist_ok=True)
        (self.root / name).write_text(text)

    def spend(self, busy: int, idle: int) -> None:
        self.write("proc/stat", f"cpu  {busy} 0 0 {idle} 0 0 0 0 0 0\ncpu0 1 1 1 1\n")

    def group(self, name: str, *, quota: str = "max 100000", spent: float = 0.0, memory: str = "max") -> None:
        where = f"sys/fs/cgroup{name}"
        self.write(f"{where}/cpu.max", f"{quota}\n")
        self.write(f"{where}/cpu.stat", f"usage_usec {int(spent * 1e6)}\nuser_usec 1\n")
        self.write(f"{where}/memory.max", f"{memory}\n")
        self.write(f"{where}/memory.current", "600\n")
        self.write(f"{where}/memory.stat", "anon 1\ninactive_file 100\n")

    def meter(self) -> Meter:
        return Meter(self.root, lambda: self.now)


@pytest.fixture
def host(tmp_path: Path) -> Host:
    return Host(tmp_path)


class TestMeter:
    def test_the_whole_machine_where_there_are_no_limits(self, host: Host) -> None:
        meter = host.meter()
        assert meter.read() == Reading(None, 75.0)
        host.spend(30, 70)
        assert meter.read().cpu == 30.0
        host.spend(130, 70)
        assert meter.read().cpu == 100.0

    def test_the_limits_of_a_container(self, host: Host) -> None:
        host.group("", quota="200000 100000", spent=5.0, memory="1000")
        meter = host.meter()
        host.spend(100, 0)
        host.now += 2
        host.group("", quota="200000 100000", spent=6.0, memory="1000")
        # One second of processor in two, of four that two processors have; the page cache is no load.
        assert meter.read() == Reading(25.0, 50.0)

    def test_the_tightest_of_nested_limits(self, host: Host) -> None:
        host.write("proc/self/cgroup", "1:name=systemd:/x\n0::/pod/worker\n")
        host.group("")
        host.group("/pod", quota="100000 100000", memory="700")
        host.group("/pod/worker", memory="5000")
        meter = host.meter()
        host.now += 1
        host.group("/pod", quota="100000 100000", spent=0.9, memory="700")
        reading = meter.read()
        assert reading.cpu == pytest.approx(90)
        assert reading.memory == pytest.approx(500 / 7)

    def test_groups_without_limits_say_nothing(self, host: Host) -> None:
        host.group("")
        meter = host.meter()
        host.spend(50, 50)
        assert meter.read() == Reading(50.0, 75.0)

    def test_a_system_that_tells_nothing(self, tmp_path: Path) -> None:
        assert Meter(tmp_path / "nowhere").read() == Reading(None, None)

    def test_this_machine(self) -> None:
        reading = Meter().read()
        assert reading.memory is not None
        assert 0 < reading.memory < 100


class TestThresholds:
    @pytest.mark.parametrize(
        ("cpu", "memory", "closed", "expected"),
        [
            pytest.param(79.9, 10, set(), set(), id="below"),
            pytest.param(80.0, 10, set(), {"bulk"}, id="cpu-at-it"),
            pytest.param(10, 90.0, set(), {"bulk"}, id="memory-at-it"),
            pytest.param(10, 96.0, set(), {"bulk", "mail"}, id="memory-above-both"),
            pytest.param(75.0, 10, {"bulk"}, {"bulk"}, id="stays-closed-a-bit-below"),
            pytest.param(71.0, 10, {"bulk"}, set(), id="opens-well-below"),
            pytest.param(71.0, 85.0, {"bulk"}, {"bulk"}, id="both-have-to-be-below"),
            pytest.param(None, None, set(), set(), id="unknown"),
        ],
    )
    def test_close_and_reopen(
        self, cpu: float | None, memory: float | None, closed: set[str], expected: set[str]
    ) -> None:
        assert closed_by(LIMITS, Reading(cpu, memory), frozenset(closed)) == expected


def test_the_watch_closes_the_shutter_and_opens_it_again() -> None:
    readings = iter([Reading(cpu, 10.0) for cpu in (50.0, 100.0, 100.0, 20.0, 20.0)])
    shutter = Shutter(lambda order: None)
    watch = LoadWatch(shutter, lambda: LIMITS, lambda: next(readings))
    seen = []
    for _ in range(5):
        watch.work()
        seen.append(sorted(shutter.reasons.get(LOAD, ())))
    # Smoothed: 50, 75, 87.5, 53.75, 36.9
    assert seen == [[], [], ["bulk"], [], []]


def test_limits_that_are_taken_away_open_the_shutter() -> None:
    limits = dict(LIMITS)
    shutter = Shutter(lambda order: None)
    watch = LoadWatch(shutter, lambda: limits, lambda: Reading(100.0, 10.0))
    watch.work()
    assert shutter.closed == {"bulk"}
    limits.clear()
    watch.work()
    assert shutter.closed == frozenset()
