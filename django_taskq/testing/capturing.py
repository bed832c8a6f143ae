"""What was enqueued: everything inside a block, or every row there is, compared with what a test expects."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, Protocol, overload

from django_taskq import maintenance, serializers, signals
from django_taskq.message import Message
from django_taskq.models import TaskRecord
from django_taskq.task import Task

# How far a due time may be from the expected one: a test computes it a moment before or after the call does.
CLOSE = timedelta(seconds=5)
MOST_SHOWN = 10


class FrameworkTask(Protocol):
    """A task of the ``django.tasks`` framework, as far as the helpers ask."""

    @property
    def module_path(self) -> str:
        """The dotted path of its function, which is the name of its runs."""


AnyTask = Task[Any, Any] | FrameworkTask | str


@dataclass(frozen=True, slots=True)
class CapturedRun:
    """One enqueued run, its arguments as a worker will get them."""

    id: str
    task_name: str
    args: list[Any]
    kwargs: dict[str, Any]
    queue_name: str
    priority: int
    run_after: datetime | None

    def __str__(self) -> str:
        shown = [repr(value) for value in self.args] + [f"{name}={value!r}" for name, value in self.kwargs.items()]
        due = f" at {self.run_after:%Y-%m-%d %H:%M:%S}" if self.run_after else ""
        return f"{self.task_name}({', '.join(shown)}) on {self.queue_name}, priority {self.priority}{due}"


class Captured(Sequence[CapturedRun]):
    """The runs enqueued inside a :func:`captured_tasks` block, in order, without those that were rolled back."""

    def __init__(self) -> None:
        self._messages: list[Message] = []

    def _add(self, sender: str, message: Message, **kwargs: Any) -> None:
        self._messages.append(message)

    @property
    def runs(self) -> list[CapturedRun]:
        """All of them. Read anew each time: a transaction may have ended since."""
        kept = maintenance.records().filter(pk__in=[message.id for message in self._messages])
        ids = {str(pk) for pk in kept.values_list("pk", flat=True)}
        return [_from_message(message) for message in self._messages if message.id in ids]

    def of(self, task: AnyTask) -> list[CapturedRun]:
        """Those of one task."""
        return [run for run in self.runs if run.task_name == name_of(task)]

    @overload
    def __getitem__(self, index: int) -> CapturedRun: ...
    @overload
    def __getitem__(self, index: slice) -> list[CapturedRun]: ...
    def __getitem__(self, index: int | slice) -> CapturedRun | list[CapturedRun]:
        return self.runs[index]

    def __len__(self) -> int:
        return len(self.runs)

    def __repr__(self) -> str:
        return f"<Captured {[str(run) for run in self.runs]}>"


@contextmanager
def captured_tasks() -> Iterator[Captured]:
    """Collect what is enqueued inside the block::

        with captured_tasks() as tasks:
            client.post("/orders/", data)
        assert [run.args for run in tasks] == [[7]]

    Nothing is run, and nothing is kept from being enqueued. What an inner transaction rolled back does not count.
    """
    captured = Captured()
    signals.task_enqueued.connect(captured._add, weak=False)
    try:
        yield captured
    finally:
        signals.task_enqueued.disconnect(captured._add)


def assert_enqueued(
    task: AnyTask,
    *,
    args: Sequence[Any] | None = None,
    kwargs: Mapping[str, Any] | None = None,
    count: int | None = None,
    queue_name: str | None = None,
    priority: int | None = None,
    run_after: datetime | None = None,
) -> list[CapturedRun]:
    """Fail unless runs of ``task`` with these properties are recorded, ``count`` of them, or at least one.

    Whether they have run since does not matter. ``args`` and ``kwargs`` are compared as a worker gets them;
    ``run_after`` may differ by five seconds. ``count=0`` asserts that there is none. Returns the runs that match.
    """
    __tracebackhide__ = True
    rows = list(maintenance.records().order_by("pk"))
    runs = [_from_row(row) for row in rows if row.name == name_of(task)]
    found = [
        run
        for run in runs
        if (args is None or run.args == _travelled(list(args)))
        and (kwargs is None or run.kwargs == _travelled(dict(kwargs)))
        and queue_name in (None, run.queue_name)
        and priority in (None, run.priority)
        and (run_after is None or (run.run_after is not None and abs(run.run_after - run_after) <= CLOSE))
    ]
    if found if count is None else len(found) == count:
        return found
    wanted = {"args": args, "kwargs": kwargs, "queue_name": queue_name, "priority": priority, "run_after": run_after}
    given = ", ".join(f"{name}={value!r}" for name, value in wanted.items() if value is not None)
    expected = "at least one run" if count is None else f"{count} run{'' if count == 1 else 's'}"
    raise AssertionError(
        f"expected {expected} of {name_of(task)}{f' with {given}' if given else ''}, and found {len(found)}.\n"
        f"{_listing(f'Runs of {name_of(task)}', runs)}{_others(rows, runs)}"
    )


def _others(rows: list[TaskRecord], runs: list[CapturedRun]) -> str:
    others = [_from_row(row) for row in rows if str(row.pk) not in {run.id for run in runs}]
    return f"\n{_listing('Runs of other tasks', others)}" if others else ""


def _listing(title: str, runs: list[CapturedRun]) -> str:
    lines = [f"  {run}" for run in runs[:MOST_SHOWN]] or ["  none"]
    more = [f"  and {len(runs) - MOST_SHOWN} more"] if len(runs) > MOST_SHOWN else []
    return "\n".join([f"{title}:", *lines, *more])


def name_of(task: AnyTask) -> str:
    """The name of a task's runs."""
    if isinstance(task, str):
        return task
    return task.name if isinstance(task, Task) else task.module_path


def _travelled(value: Any) -> Any:
    """As it is on the other side: a tuple has become what the serialiser makes of it."""
    return serializers.loads(serializers.dumps(value))


def _from_message(message: Message) -> CapturedRun:
    args, kwargs = serializers.loads(message.payload)
    return CapturedRun(message.id, message.name, args, kwargs, message.queue_name, message.priority, message.run_after)


def _from_row(row: TaskRecord) -> CapturedRun:
    return CapturedRun(str(row.pk), row.name, row.args, row.kwargs, row.queue_name, row.priority, row.run_after)
