"""A worker process from its first line to its last: it only puts courier and slots together."""

from __future__ import annotations

import logging
import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from multiprocessing import connection as mp_connection
from multiprocessing.process import parent_process
from pathlib import Path
from types import FrameType

from django_taskq import hooks, signals
from django_taskq.brokers import get_broker
from django_taskq.exceptions import HookFailed
from django_taskq.worker import courier, log, printing, reaping
from django_taskq.worker.fetcher import Fetcher
from django_taskq.worker.health.counts import Reporter
from django_taskq.worker.memory import Wear
from django_taskq.worker.options import Post
from django_taskq.worker.resourcing import Resourcing
from django_taskq.worker.table import PULSE, READY, SlotTable

logger = logging.getLogger("django_taskq")

LEFT_TO_SUPERVISOR = (signal.SIGINT, signal.SIGQUIT, signal.SIGHUP, signal.SIGUSR1)

SHORTEST_TEAR_DOWN = 5.0  # seconds; for a process that is replaced by a worker without grace

PULSE_INTERVAL = 1.0  # seconds


@dataclass(frozen=True, slots=True)
class ProcessPlan:
    """What a child is told; it travels by pickle.

    ``shows_runs``: log each run on stderr, in ``log_format``, where the project configured no logging. ``sys_path`` is
    the supervisor's.
    After ``most_runs``, or with ``most_memory`` bytes, it asks to be replaced. ``grace`` is how many seconds it may
    take to close its resources and for its stop hooks.
    """

    worker_id: int
    process_id: int
    table: Path
    post: Post
    shows_runs: bool
    sys_path: tuple[str, ...]
    settings_module: str
    most_runs: int | None = None
    most_memory: int | None = None
    grace: float = 0.0
    log_format: str = "text"


def main(plan: ProcessPlan, orders: mp_connection.Connection, reports: mp_connection.Connection | None = None) -> None:
    """The child's whole life. ``reports`` is where it tells what it counts, if it is to count."""
    reaping.lead_session()
    _set_up_django(plan)
    # The terminal's Ctrl-C, and what a service manager sends to the whole group, reach every process; only the
    # supervisor decides. Handlers, not SIG_IGN, because what is ignored stays ignored in programs that tasks start.
    for number in LEFT_TO_SUPERVISOR:
        signal.signal(number, _leave_to_supervisor)
    serve(plan, orders, reports, is_child=True)
    # Python waits for what multiprocessing has started here, and for threads that tasks have left, for ever if need be.
    reaping.end_session(os.getpid())
    end = threading.Timer(SHORTEST_TEAR_DOWN, reaping.leave, (0,))
    end.daemon = True
    end.start()


def serve(
    plan: ProcessPlan,
    orders: mp_connection.Connection,
    reports: mp_connection.Connection | None = None,
    *,
    is_child: bool,
) -> None:
    """Take and run what there is, in the main thread of this process, until the supervisor says that it is enough."""
    table = SlotTable(plan.table, SlotTable.slots_in(plan.table))
    fetcher = Fetcher(get_broker(), plan.process_id, plan.post.order, runs_singly=table.slots == 1)
    wear = Wear(table, plan.most_runs, plan.most_memory)
    reporter = None if reports is None else Reporter(reports.fileno())
    carrier = courier.Courier(
        get_broker(),
        plan.process_id,
        fetcher,
        table,
        orders.fileno(),
        coroutines=plan.post.coroutines,
        quota=plan.post.quota,
        wear=wear,
        reporter=reporter,
    )
    os.register_at_fork(after_in_child=_restore_signals)
    if is_child:
        signal.signal(signal.SIGTERM, lambda number, frame: carrier.ask_to_stop())
        threading.Thread(target=_die_with_parent, args=(table,), name="taskq-parent-watch", daemon=True).start()
        printing.show_prints(is_shared=plan.post.slots > 1)
        if plan.shows_runs:
            log.configure_for_terminal(plan.log_format)
        log.connect(in_worker=True)
    _run_start_hooks()
    signals.send(signals.process_started, None, worker_id=plan.worker_id, process_id=plan.process_id)
    resourcing = Resourcing(table, plan.worker_id, plan.process_id)
    resourcing.start()
    thread = threading.Thread(target=_essential, args=(carrier.run,), name="taskq-courier", daemon=True)
    thread.start()
    table.words[READY] = 1
    _run_slots(carrier)
    thread.join()
    table.words[READY] = 0  # it serves no more, and nobody is to miss its progress
    with _limited(resourcing, plan.grace, is_child=is_child):
        resourcing.stop()
        hooks.stop(hooks.Moment.PROCESS_STOP)
    signals.send(signals.process_stopped, None, worker_id=plan.worker_id, process_id=plan.process_id)


def _run_start_hooks() -> None:
    try:
        hooks.start(hooks.Moment.PROCESS_START)
    except HookFailed as error:
        # Like an import that fails: the supervisor tries again, more patiently each time, and gives up in the end.
        logger.critical("%s", error, exc_info=error.__cause__)
        raise SystemExit(1) from None


@contextmanager
def _limited(resourcing: Resourcing, grace: float, *, is_child: bool) -> Iterator[None]:
    """Everything is recorded by now: what hangs is cut short, also where no supervisor waits for the end."""
    seconds = max(grace, SHORTEST_TEAR_DOWN)
    cut = threading.Timer(seconds, _cut_short, (resourcing, seconds))
    cut.daemon = True
    if is_child:
        cut.start()
    yield
    cut.cancel()


def _cut_short(resourcing: Resourcing, seconds: float) -> None:
    what = f"resource {resourcing.closing} does not close" if resourcing.closing else "a stop hook does not end"
    logger.error("%s within %g s: the process ends without it", what, seconds)
    logging.shutdown()
    reaping.leave(0)


def _run_slots(carrier: courier.Courier) -> None:
    slots = carrier.threads.slots
    # The main thread where there is but one, so that a soft time limit's signal interrupts even a blocking call.
    is_alone = len(slots) == 1
    threads = [] if is_alone else [_thread(slot.run, f"taskq-slot-{slot.number}") for slot in slots]
    if carrier.coroutines is not None:
        threads.append(_thread(carrier.coroutines.run, "taskq-loop"))
    for thread in threads:
        thread.start()
    if is_alone:
        _essential(slots[0].run)
    for thread in threads:
        thread.join()


def _thread(part: Callable[[], None], name: str) -> threading.Thread:
    return threading.Thread(target=_essential, args=(part,), name=name, daemon=True)


def _essential(part: Callable[[], None]) -> None:
    """Run what the process is no use without: failing, it would look alive and do nothing; dead, it is replaced."""
    try:
        part()
    except BaseException:
        logger.critical("%s failed", part.__qualname__, exc_info=True)
        logging.shutdown()
        reaping.leave(1)


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
    for number in (*LEFT_TO_SUPERVISOR, signal.SIGTERM, signal.SIGALRM):
        signal.signal(number, signal.SIG_DFL)


def _die_with_parent(table: SlotTable) -> None:
    """A child nobody heartbeats for must not go on: its runs will be rescued, and two would run at once.

    Beside it, this thread shows that the interpreter is not held by a run.
    """
    parent = parent_process()
    if parent is not None:
        while not mp_connection.wait([parent.sentinel], PULSE_INTERVAL):
            table.times[PULSE] = time.monotonic()
        reaping.leave(1)
