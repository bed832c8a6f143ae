"""A worker without processes: it claims, runs and records in the calling thread, with the parts of a real one."""

from __future__ import annotations

from itertools import count

from django_taskq import maintenance
from django_taskq.brokers import get_broker
from django_taskq.message import Delivery, Outcome
from django_taskq.worker import executor
from django_taskq.worker.interrupting import Drive
from django_taskq.worker.recorder import Recorder

PROCESS = 71
_claims = count(1)


class RecordingGuard:
    """Nothing watches the runs; a transactional success is recorded as in a worker."""

    def begin(self, delivery: Delivery, hard: float | None, memory: int = 0, *, commit_first: bool) -> bool:
        return True

    stop_requested = None

    def arm(self, soft: float | None, drive: Drive | None = None) -> None: ...

    def end(self) -> None: ...

    def commit(self, outcome: Outcome) -> bool:
        return not Recorder(get_broker(), PROCESS).record([outcome])

    def is_cancel(self, error: BaseException) -> bool:
        return False


def claim(queue_name: str = "default", limit: int = 100) -> list[Delivery]:
    first = next(_claims) * 1000
    return get_broker().claim(queue_name, limit, PROCESS, first)


def run(deliveries: list[Delivery]) -> list[Outcome]:
    """Execute these and record what became of them; returns what was lost."""
    recorder = Recorder(get_broker(), PROCESS)
    outcomes = [executor.execute(delivery, RecordingGuard()) for delivery in deliveries]
    lost = recorder.record(outcomes)
    recorder.announce(outcomes, lost)
    return lost


def work(queue_name: str = "default") -> None:
    """One round: what is due and ready is run to an end, or to its next wait."""
    maintenance.promote_due()
    run(claim(queue_name))
