"""Which due times to run after a pause of the schedulers, and which are missed. Pure."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta

from django_taskq.schedules import CatchUp, Schedule

# A pause of all schedulers that is shorter than this is no downtime: what came due in it is only a little late.
GRACE_SECONDS = 20.0
GRACE = timedelta(seconds=GRACE_SECONDS)
# Counting the due times of years of downtime one by one would hold everything up; beyond this it is "at least".
MOST_COUNTED = 10_000
INSTANT = timedelta(microseconds=1)


@dataclass(frozen=True, slots=True)
class Overdue:
    """Due times up to now: those to run, in order, and how many before them were missed, from when to when."""

    runs: list[datetime]
    missed: int = 0
    missed_from: datetime | None = None
    missed_to: datetime | None = None

    @property
    def last(self) -> datetime | None:
        """The latest of them all."""
        return self.runs[-1] if self.runs else self.missed_to


def find_overdue(schedule: Schedule, key: str, first: datetime, now: datetime) -> Overdue:
    """What to do when ``first``, the earliest due time nobody has decided, is overdue at ``now``.

    After a downtime ``schedule.catch_up`` decides: NONE runs what is only a little late, LAST the newest, ALL the
    newest ``catch_up_limit``. ``key`` is the schedule's name, for its jitter: a due time that is to start later stays.
    """
    if now - first <= GRACE:
        return Overdue(_started(schedule, key, [first, *schedule.runs_between(first, now)], now))
    # All of these have started, wherever their jitter put them.
    until = max(first, now - timedelta(seconds=schedule.jitter))
    runs = _kept(schedule, first - INSTANT, until, now)
    end = runs[0] - INSTANT if runs else until
    missed = schedule.count_between(first - INSTANT, end, MOST_COUNTED)
    if not missed:
        return Overdue(runs)
    return Overdue(runs, missed, first, schedule.latest_runs(first - INSTANT, end, 1)[-1])


def _kept(schedule: Schedule, after: datetime, until: datetime, now: datetime) -> list[datetime]:
    if schedule.catch_up is CatchUp.NONE:
        return list(schedule.runs_between(max(after, now - GRACE), until)) if until > now - GRACE else []
    return schedule.latest_runs(after, until, 1 if schedule.catch_up is CatchUp.LAST else schedule.catch_up_limit)


def _started(schedule: Schedule, key: str, runs: list[datetime], now: datetime) -> list[datetime]:
    """Up to the first whose jittered start is still to come: that one is planned next."""
    for place, due in enumerate(runs):
        if schedule.starts_at(due, key) > now:
            return runs[:place]
    return runs
