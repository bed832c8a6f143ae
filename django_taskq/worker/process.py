"""A worker process from its first line to its last: it only puts courier and slots together."""

from __future__ import annotations

import logging
import os
import signal
import sys
import threading
from collections.abc import Callable
from dataclasses import dataclass
from multiprocessing import connection as mp_connection
from multiprocessing.process import parent_process
from pathlib import Path
from types import FrameType

from django_taskq import signals
from django_taskq.brokers import get_broker
from django_taskq.worker import courier, log
from django_taskq.worker.fetcher import Fetcher, QueueOrder
from django_taskq.worker.table import READY, SlotTable

logger = logging.getLogger("django_taskq")


@dataclass(frozen=True, slots=True)
class ProcessPlan:
    """What a child is told; it travels by pickle.

    ``shows_runs``: log each run on stderr where the project configured no logging. ``sys_path`` is the supervisor's.
    """

    worker_id: int
    process_id: int
    table: Path
    order: QueueOrder
    quota: int | None
    shows_runs: bool
    sys_path: tuple[str, ...]
    settings_module: str


def main(plan: ProcessPlan, orders: mp_connection.Connection) -> None:
    """The child's whole life."""
    _set_up_django(plan)
    # The terminal's Ctrl-C reaches every process; only the supervisor decides. Handlers, not SIG_IGN, because what
    # is ignored stays ignored in programs that tasks start.
    signal.signal(signal.SIGINT, _leave_to_supervisor)
    table = SlotTable(plan.table, SlotTable.slots_in(plan.table))
    fetcher = Fetcher(get_broker(), plan.process_id, plan.order)
    carrier = courier.Courier(get_broker(), plan.process_id, fetcher, table, orders.fileno(), quota=plan.quota)
    signal.signal(signal.SIGTERM, lambda number, frame: carrier.ask_to_stop())
    os.register_at_fork(after_in_child=_restore_signals)
    threading.Thread(target=_die_with_parent, name="taskq-parent-watch", daemon=True).start()
    if plan.shows_runs:
        log.configure_for_terminal()
    log.connect(in_worker=True)
    signals.send(signals.process_started, None, worker_id=plan.worker_id, process_id=plan.process_id)
    thread = threading.Thread(target=_essential, args=(carrier.run,), name="taskq-courier", daemon=True)
    thread.start()
    table.words[READY] = 1
    _run_slots(carrier)
    thread.join()
    signals.send(signals.process_stopped, None, worker_id=plan.worker_id, process_id=plan.process_id)


def _run_slots(carrier: courier.Courier) -> None:
    if len(carrier.slots) == 1:
        # The main thread, so that a soft time limit's signal interrupts even a blocking call.
        _essential(carrier.slots[0].run)
        return
    threads = [
        threading.Thread(target=_essential, args=(slot.run,), name=f"taskq-slot-{slot.number}", daemon=True)
        for slot in carrier.slots
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()


def _essential(part: Callable[[], None]) -> None:
    """Run what the process is no use without: failing, it would look alive and do nothing; dead, it is replaced."""
    try:
        part()
    except BaseException:
        logger.critical("%s failed", part.__qualname__, exc_info=True)
        logging.shutdown()
        os._exit(1)


def _set_up_django(plan: ProcessPlan) -> None:
    missing = [entry for entry in plan.sys_path if entry not in sys.path]
    if missing and "django_taskq.worker.preload" in sys.modules:
        # Python 3.11's fork server drops sys.path, and then preloading fails in silence; see supervisor._start_method.
        print(f"taskworker: the fork server did not get these import paths: {missing}", file=sys.stderr)
    sys.path[:] = [*plan.sys_path, *(entry for entry in sys.path if entry not in plan.sys_path)]
    os.environ["DJANGO_SETTINGS_MODULE"] = plan.settings_module
    import django

    django.setup()


def _leave_to_supervisor(number: int, frame: FrameType | None) -> None:
    """Nothing: see :func:`main`."""


def _restore_signals() -> None:
    """A process that a task forks is not a worker: SIGTERM must end it, or its parent waits for it for ever."""
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGALRM):
        signal.signal(number, signal.SIG_DFL)


def _die_with_parent() -> None:
    """A child nobody heartbeats for must not go on: its runs will be rescued, and two would run at once."""
    parent = parent_process()
    if parent is not None:
        mp_connection.wait([parent.sentinel])
        os._exit(1)
