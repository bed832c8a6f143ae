"""What workflows cost beside plain runs: ``python -m tests.measure.workflows [WHAT...]``.

WHAT is chord, chain, chains (the three that are measured without it), large, growth or million.
``TASKQ_TEST_DB`` and its kin choose the database, which must be empty and may be thrown away. A worker of two
processes serves it; times are from the call to the result, the enqueueing included.
"""

from __future__ import annotations

import os
import resource
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

TIMEOUT = 300.0  # seconds


@contextmanager
def worker(processes: int = 2) -> Iterator[Any]:
    """A worker that is ready, on an empty database."""
    from django_taskq.bench.workers import BenchWorker
    from django_taskq.models import TaskRecord, Workflow, WorkflowLink
    from tests.testapp.canvas_tasks import nothing

    for model in (TaskRecord, WorkflowLink, Workflow):
        model.objects.all()._raw_delete("default")
    # A line for each run would be what is measured.
    quiet = {"TASKQ_TEST_LOG_LEVEL": "WARNING"}
    with BenchWorker(processes, 1, "--verbosity", "0", environment=quiet) as found:
        nothing.enqueue().get(TIMEOUT)
        time.sleep(1)  # both processes are up, and idle
        yield found


def timed(work: Callable[[], Any]) -> tuple[float, Any]:
    began = time.perf_counter()
    found = work()
    return time.perf_counter() - began, found


def chord_of(size: int) -> float:
    """Seconds from the call of a chord of ``size`` no-ops with results to its callback's end."""
    from django_taskq import chord
    from tests.testapp.canvas_tasks import count, echo

    with worker() as running:
        enqueued, result = timed(lambda: chord([echo.s(number) for number in range(size)], count.s()).enqueue())
        waited, value = timed(lambda: result.get(TIMEOUT))
        assert value == size, value
        peak = max(_peak(pid) for pid in running.tree())
        own = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    print(f"  chord of {size:,}: {enqueued:.2f} s to enqueue, {enqueued + waited:.2f} s in all, "
          f"peak of a worker's process {peak:.0f} MB, of the caller {own:.0f} MB")  # fmt: skip
    return enqueued + waited


def chain_of(size: int) -> float:
    """Milliseconds a link of a chain, with an idle worker."""
    from django_taskq import chain
    from tests.testapp.canvas_tasks import echo

    with worker() as _:
        seconds, _value = timed(lambda: chain(echo.s(1), *(echo.s() for _ in range(size - 1))).enqueue().get(TIMEOUT))
    print(f"  chain of {size:,}: {seconds:.2f} s, {1000 * seconds / size:.2f} ms a link")
    return 1000 * seconds / size


def chains_of(count: int, length: int) -> float:
    """The time of a group of chains, as a multiple of that of as many plain runs."""
    from django_taskq import chain, group
    from django_taskq.models import TaskRecord
    from tests.testapp.canvas_tasks import echo

    def plain() -> None:
        echo.enqueue_many([((number,), {}) for number in range(count * length)])
        while TaskRecord.objects.filter(status__in=("READY", "RUNNING")).exists():
            time.sleep(0.01)

    def chains() -> None:
        members = [chain(echo.s(number), *(echo.s() for _ in range(length - 1))) for number in range(count)]
        group(members).enqueue().wait(TIMEOUT)

    with worker() as _:
        plain_seconds, _none = timed(plain)
    with worker() as _:
        chain_seconds, _none = timed(chains)
    print(f"  {count:,} chains of {length}: {chain_seconds:.2f} s, plain runs {plain_seconds:.2f} s: "
          f"{chain_seconds / plain_seconds:.2f} times")  # fmt: skip
    return chain_seconds / plain_seconds


def grown_to(count: int, each: int) -> None:
    """Seconds for a workflow of ``count`` steps that each add ``each`` more while it runs."""
    from django_taskq import Workflow
    from tests.testapp.canvas_tasks import add_steps

    with worker() as running:
        workflow = Workflow("grown")
        workflow.add(add_steps.s(count, each))
        seconds, result = timed(lambda: workflow.start())
        waited, _none = timed(lambda: result.wait(3600))
        peak = max(_peak(pid) for pid in running.tree())
    assert result.size == 1 + count + count * each, result.size
    total = seconds + waited
    print(f"  grown to {result.size:,} steps in {total:.0f} s, {1e6 * total / result.size:.0f} microseconds a step, "
          f"peak of a process {peak:.0f} MB")  # fmt: skip


def growth() -> None:
    """Time by size, from 100 to 100,000 steps."""
    for size in (100, 1_000, 10_000, 100_000):
        seconds = chord_of(size)
        print(f"  {size:>7,} steps: {1e6 * seconds / size:,.0f} microseconds a step")


def _peak(pid: int) -> float:
    """The most memory that a process has had, in MB."""
    with open(f"/proc/{pid}/status") as status:
        return next(int(line.split()[1]) / 1024 for line in status if line.startswith("VmHWM"))


def main(wanted: list[str]) -> None:
    os.environ.setdefault("DJANGO_SETTINGS_MODULE", "tests.settings")
    import django
    from django.core.management import call_command

    django.setup()
    call_command("migrate", verbosity=0)
    for name, measure in {
        "chord": lambda: [chord_of(10_000) for _ in range(3)],
        "chain": lambda: [chain_of(1_000) for _ in range(3)],
        "chains": lambda: [chains_of(1_000, 10) for _ in range(3)],
        "large": lambda: chord_of(100_000),
        "growth": growth,
        "million": lambda: grown_to(1_000, 1_000),
    }.items():
        if name in (wanted or ("chord", "chain", "chains")):
            print(name)
            measure()


if __name__ == "__main__":
    main(sys.argv[1:])
