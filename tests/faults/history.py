"""What really happened, told by the tasks themselves in a file, and how it fits with what the rows say."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from django_taskq.models import TaskAttempt, TaskRecord, WorkerProcess
from django_taskq.models.task import AttemptKind
from django_taskq.status import FINAL, Status
from tests.waiting import wait_for
from tests.workers import WorkerProcess as Worker


@dataclass(frozen=True, slots=True)
class Line:
    """One thing a task did; ``at`` is on the monotonic clock, which all processes of a host share."""

    what: str
    key: str
    pid: int
    at: float


class History:
    """The file that ``tests.testapp.tasks.write_line`` appends to."""

    def __init__(self, path: Path) -> None:
        self.path = str(path)
        self._file = path
        self._read: list[Line] = []
        self._offset = 0

    def lines(self, what: str | None = None) -> list[Line]:
        self._read_on()
        return [line for line in self._read if what in (None, line.what)]

    def _read_on(self) -> None:
        """Only what is new: tests ask a thousand times a second, and are not to slow down what they watch."""
        if not self._file.exists():
            return
        with self._file.open("rb") as file:
            file.seek(self._offset)
            new = file.read()
        # Of a line that crosses a page a part may show before the rest.
        whole = new[: new.rfind(b"\n") + 1]
        self._offset += len(whole)
        for line in whole.decode().splitlines():
            word, _, rest = line.partition(" ")
            key, pid, at = rest.rsplit(" ", 2)
            self._read.append(Line(word, key, int(pid), float(at)))

    def count(self, what: str, key: str | None = None) -> int:
        return sum(key in (None, line.key) for line in self.lines(what))

    def counts(self, what: str) -> Counter[str]:
        return Counter(line.key for line in self.lines(what))

    def wait_for(self, what: str, key: str | None = None, count: int = 1, timeout: float = 20) -> Line:
        """The ``count``-th line of this kind."""

        def found() -> Line | None:
            lines = [line for line in self.lines(what) if key in (None, line.key)]
            return lines[count - 1] if len(lines) >= count else None

        return wait_for(found, timeout, lambda: f"{count} x {what} {key}; there is {self.counts(what)}") or Line(
            "", "", 0, 0
        )

    def overlaps(self) -> Iterator[tuple[Line, Line]]:
        """Starts of a run while another process was still at it: that one's end came later."""
        by_key: dict[str, list[Line]] = defaultdict(list)
        for line in self.lines():
            by_key[line.key].append(line)
        for lines in by_key.values():
            for place, line in enumerate(lines):
                for later in lines[place + 1 :] if line.what == "start" else []:
                    ends = [other for other in lines if other.what == "end" and other.pid == line.pid]
                    if later.what == "start" and any(line.at < later.at < end.at for end in ends):
                        yield line, later


def unfinished() -> int:
    return TaskRecord.objects.exclude(status__in=FINAL).count()


def wait_until_finished(timeout: float = 60) -> None:
    """Return once every run has its final status."""

    def state() -> str:
        return f"the end of all runs; {Counter(TaskRecord.objects.values_list('status', flat=True))}"

    wait_for(lambda: unfinished() == 0, timeout, state, interval=0.05)


def assert_nothing_lost(history: History, keys: Iterable[str], *, killed: Iterable[int] = ()) -> int:
    """Every run SUCCESSFUL once in the record, its effect made, and made again only where its process was killed.

    Returns how many starts there were too many.
    """
    keys = set(keys)
    rows = TaskRecord.objects.all()
    assert rows.count() == len(keys)
    assert dict(Counter(rows.values_list("status", flat=True))) == {Status.SUCCESSFUL: len(keys)}
    assert not rows.filter(finished_at=None).exists()
    assert not rows.exclude(started_at__isnull=False, worker__isnull=False).exists()
    assert set(history.counts("end")) == keys
    starts: dict[str, list[Line]] = defaultdict(list)
    for line in history.lines("start"):
        starts[line.key].append(line)
    repeated = [line for lines in starts.values() for line in lines[:-1]]
    not_excused = [line for line in repeated if line.pid not in set(killed)]
    assert not not_excused, f"started again although their process was not killed: {not_excused[:5]}"
    assert not list(history.overlaps())
    return len(repeated)


def assert_registry_is_clean() -> None:
    """No run is held, and no process counted as living."""
    assert not TaskRecord.objects.filter(status=Status.RUNNING).exists()
    assert not WorkerProcess.objects.filter(stopped_at=None).exists()


def crashes() -> list[tuple[str, str]]:
    """(run, error class) of every crash in the record."""
    found = TaskAttempt.objects.filter(kind=AttemptKind.CRASHED).values_list("task_id", "class_path")
    return [(str(task), path.rpartition(".")[2]) for task, path in found]


def assert_no_orphans(worker: Worker, timeout: float = 10) -> None:
    """Everything it started ends by itself."""
    wait_for(lambda: not worker.tree(), timeout, lambda: f"the end of {worker.tree()}\n{worker.log()}")
