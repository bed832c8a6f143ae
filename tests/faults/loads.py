"""Work for depots, half of it with rows from the start and half without, and what has to have become of it."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field

from django_taskq.brokers.depot import Depot
from django_taskq.models import TaskRecord
from django_taskq.status import Status
from tests.depots.tasks import note_untracked
from tests.faults.history import History, Line, unfinished
from tests.testapp.tasks import note
from tests.waiting import wait_for


@dataclass(slots=True)
class Load:
    """The runs a test has enqueued, by the keys they write into the history."""

    history: History
    tracked: list[str] = field(default_factory=list)
    untracked: list[str] = field(default_factory=list)

    def add(self, runs: int, seconds: float = 0.001, how: str = "sleep") -> None:
        """Enqueue so many more, each of which lasts so."""
        first = len(self.tracked) + len(self.untracked)
        keys = [str(number) for number in range(first, first + runs)]
        for some, mine, task in ((keys[::2], self.tracked, note), (keys[1::2], self.untracked, note_untracked)):
            task.enqueue_many([((self.history.path, key, seconds, how), {}) for key in some])
            mine += some

    @property
    def keys(self) -> set[str]:
        return {*self.tracked, *self.untracked}

    def wait_until_done(self, timeout: float = 60, log: Callable[[], str] = str) -> None:
        """Until everything has ended at least once, and every row is final."""
        keys = self.keys

        def missing() -> set[str]:
            return keys - {line.key for line in self.history.lines("end")}

        def state() -> str:
            statuses = Counter(TaskRecord.objects.values_list("status", flat=True))
            return f"the end of {sorted(missing())[:10]} ({len(missing())} in all); {statuses}\n{log()}"

        wait_for(lambda: not missing() and not unfinished(), timeout, state, interval=0.05)

    def assert_done(self, *, killed: Iterable[int] = (), may_repeat: Iterable[str] = ()) -> int:
        """Everything ended well, and started again only where its process was killed; how many starts too many."""
        assert {line.key for line in self.history.lines("end")} == self.keys
        rows = TaskRecord.objects.filter(name=note.name)
        assert dict(Counter(rows.values_list("status", flat=True))) == {Status.SUCCESSFUL: len(self.tracked)}
        # Those that had lasted, or whose process died, have got a row.
        others = TaskRecord.objects.exclude(name=note.name).exclude(status=Status.SUCCESSFUL)
        assert not others.exists(), list(others.values_list("name", "status", "reason"))
        starts: dict[str, list[Line]] = defaultdict(list)
        for line in self.history.lines("start"):
            starts[line.key].append(line)
        repeated = [line for lines in starts.values() for line in lines[:-1]]
        excused = {*killed}, {*may_repeat}
        not_excused = [line for line in repeated if line.pid not in excused[0] and line.key not in excused[1]]
        assert not not_excused, f"started again although their process was not killed: {not_excused[:5]}"
        self._assert_one_at_a_time(excused[0])
        return len(repeated)

    def _assert_one_at_a_time(self, killed: set[int]) -> None:
        """Nobody started what another was at. One process may do the same run twice, one after the other."""
        at_it: dict[str, set[int]] = defaultdict(set)
        for line in sorted(self.history.lines(), key=lambda line: line.at):
            if line.what == "start":
                others = at_it[line.key] - killed
                assert not others, f"{line} while {others} were at it"
                at_it[line.key].add(line.pid)
            else:
                at_it[line.key].discard(line.pid)


def resumed_after(history: History, since: float, timeout: float, log: Callable[[], str]) -> float:
    """Seconds from ``since`` to the first start after it, which must come in time."""

    def found() -> float:
        later = [line.at for line in history.lines("start") if line.at > since]
        return max(later[0] - since, 1e-6) if later else 0.0

    return round(wait_for(found, timeout, lambda: f"work to go on\n{log()}"), 2)


def assert_empty(depot: Depot) -> None:
    """Nothing waits on the server, and nobody holds anything."""
    wait_for(
        lambda: (depot.size("default"), depot.holders()) == (0, {}),
        10,
        lambda: (
            f"an empty depot; {depot.holders()} and {depot.peek('default', 3)} of {depot.size('default')} are there"
        ),
    )
