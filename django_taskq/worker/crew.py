"""The processes of one worker: started, watched, buried and replaced. It runs in the supervisor's main loop."""

from __future__ import annotations

import logging
import os
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any, NamedTuple

from django.db import connections
from django.db.utils import Error

from django_taskq.exceptions import TaskqError
from django_taskq.worker import enforcing, memory, orders, presence, process, reaping, starting, table, watching
from django_taskq.worker.child import Child
from django_taskq.worker.health.totals import Totals
from django_taskq.worker.keeper import Keeper
from django_taskq.worker.options import Post, WorkerOptions

logger = logging.getLogger("django_taskq")

MOST_BOOT_FAILURES = 5
YOUNG = 5.0  # seconds
SUCCESSION_PAUSE = 5.0  # seconds before the next try when a successor could not start
WEAR = {table.WORN_OUT: "it has run its number of tasks", table.GROWN: "it has taken its amount of memory"}


class Vacancy(NamedTuple):
    """A post that nobody fills, and when (monotonic seconds) it may be filled."""

    at: float
    post: Post


class Crew:
    """All worker processes of one worker. For the main thread, but for :meth:`tell` and :attr:`idle_queues`."""

    child_class = Child

    def __init__(
        self,
        options: WorkerOptions,
        start: starting.StartMethod,
        worker_id: int,
        directory: Path,
        keeper: Keeper,
        *,
        brief: Callable[[Child], None] = lambda child: None,
        totals: Totals | None = None,
    ) -> None:
        """``directory`` is for the slot tables; ``keeper`` settles the deaths; ``brief`` gives a new one its orders.

        With ``totals`` they count their runs and tell it.
        """
        self.worker_id = worker_id
        self.children: list[Child] = []
        self._options = options
        self._start = start
        self._directory = directory
        self._keeper = keeper
        self._brief = brief
        self._totals = totals
        self._vacancies: list[Vacancy] = []
        self._boot_failures = 0
        self._is_closing = False
        self._patience = watching.patience()
        self._replaces_again_at = 0.0
        self._memory_kills = memory.kills_in_control_group()

    # What the supervisor asks.

    @property
    def is_gone(self) -> bool:
        """Whether nobody is left and nobody will come."""
        return not self.children and not self._vacancies

    @property
    def is_up(self) -> bool:
        """Whether somebody has finished starting."""
        return any(child.is_up for child in self.children)

    @property
    def is_dry(self) -> bool:
        """Whether nothing is left that could run now."""
        return not self._vacancies and self._keeper.is_settled and all(child.is_dry for child in self.children)

    @property
    def idle_queues(self) -> set[str]:
        """The queues of everybody who waits for work; from any thread."""
        names: set[str] = set()
        for child in list(self.children):
            with suppress(ValueError):  # it has ended, and its table is closed
                if child.is_idle:
                    names.update(child.post.order.names)
        return names

    @property
    def is_hopeless(self) -> bool:
        """Whether processes have failed to start so often that trying again is pointless."""
        return self._boot_failures >= MOST_BOOT_FAILURES

    @property
    def sentinels(self) -> list[Any]:
        """What becomes ready when a process ends (:func:`multiprocessing.connection.wait`)."""
        return [child.process.sentinel for child in self.children]

    # What the supervisor has it do.

    def fill(self, posts: Iterable[Post]) -> None:
        """Start a process for each of these, now."""
        for post in posts:
            self._spawn(post)

    def replace(self, child: Child, why: str, *, level: int = logging.INFO) -> None:
        """Have another fill its post and let it go once that one serves, so that there is no gap.

        Its runs are finished in peace. Harmless for a child that is being replaced, or leaves, already.
        """
        if child.is_stopping or child.successor is not None or time.monotonic() < self._replaces_again_at:
            return
        logger.log(level, "worker process %d is replaced: %s", child.pid, why)
        if child.post.quota is not None:
            # How much a successor may take is known when this one has ended.
            child.stop()
            return
        try:
            child.successor = self._spawn(child.post)
        except Exception as error:
            self._on_failed_spawn(error)
            self._replaces_again_at = time.monotonic() + SUCCESSION_PAUSE

    def retire(self, child: Child) -> None:
        """Let it finish what runs, and end; nobody follows it."""
        if not child.is_leaving:
            child.is_leaving = True
            child.stop()

    def reshape(self, posts: Iterable[Post]) -> None:
        """Fill exactly these posts: start whom they lack, and retire who has none, the idle first."""
        wanted = Counter(posts)
        staying = [child for child in self.children if not child.is_leaving and child.successor is None]
        for child in sorted(staying, key=lambda child: child.is_idle):
            if wanted[child.post]:
                wanted[child.post] -= 1
            else:
                self.retire(child)
        for vacancy in list(self._vacancies):
            if wanted[vacancy.post]:
                wanted[vacancy.post] -= 1
            else:
                self._vacancies.remove(vacancy)
        # Not at once: a registry that cannot be reached is tried again.
        self._vacancies += [Vacancy(0.0, post) for post in wanted.elements()]

    def repost(self, change: Callable[[Post], Post]) -> None:
        """Change the posts under those who fill them: whoever follows them has the new ones."""
        for child in self.children:
            child.post = change(child.post)
        self._vacancies = [Vacancy(at, change(post)) for at, post in self._vacancies]

    def tell(self, order: orders.Order) -> None:
        """Give everybody an order, from any thread."""
        for child in list(self.children):
            child.order(order)

    def close(self) -> None:
        """Have everybody stop in order, and replace nobody any more."""
        self._is_closing = True
        self._vacancies.clear()
        for child in self.children:
            child.stop()

    def kill(self) -> bool:
        """Kill everybody, which is not their runs' fault; whether something ran."""
        was_running = any(child.table.running() for child in self.children)
        living = reaping.living()
        for child in self.children:
            child.kill("the worker was told to end it", is_blameless=True, among=living)
        return was_running

    def end_cancelled(self, process_id: int, claim: int) -> bool:
        """End a run that heeds no cancelling, with its process or as lost beside others; whether it still ran.

        The run ends CANCELLED and is charged nothing.
        """
        for child in self.children:
            running = child.table.running()
            if child.process_id == process_id and any(entry.claim == claim for entry in running):
                self._lose(child, enforcing.cancel(child, claim))
                enforcing.end_if_spent(child, running)
                return True
        return False

    def look(self, ended: set[Any], now: float) -> None:
        """Bury those whose sentinels have ended, see to the others, and fill what is vacant."""
        for child in list(self.children):
            if child.process.sentinel in ended:
                self._on_death(child, now)
            else:
                child.flush()
                self._look_at(child, now)
        for child in self.children:
            if child.successor is not None and child.successor.is_serving:
                self.retire(child)
        self._fill_vacancies(now)

    def _look_at(self, child: Child, now: float) -> None:
        if child.killed_for:
            return
        running = child.table.running()
        self._keep_limits(child, running, now)
        if child.killed_for:
            return
        if child.progress.is_stalled(running, now):
            # Not even its bookkeeping thread gets to run: a task holds the GIL. What waits behind it goes elsewhere.
            self._keeper.give_back(child.process_id, *child.table.revoke_unstarted())
        missing = child.progress.missing(running, now)
        if missing and not running:
            logger.error("worker process %d makes no progress and is killed: %s", child.pid, missing)
            child.kill(f"it made no progress: {missing}", is_blameless=True)
        elif missing:
            self.replace(child, missing, level=logging.ERROR)
        worn = child.table.words[table.WORN]
        # One at a time: those that began together wear out together.
        if worn and not any(other.successor for other in self.children):
            self.replace(child, WEAR[worn])

    def _keep_limits(self, child: Child, running: list[table.Running], now: float) -> None:
        self._lose(child, enforcing.keep(child, running, now))
        enforcing.end_if_spent(child, running)

    def _lose(self, child: Child, lost: Mapping[int, TaskqError]) -> None:
        """These of its runs are over for everybody but itself."""
        if lost:
            logger.error(
                "worker process %d has lost %d of its %d slots to runs that cannot be ended",
                child.pid, len(child.lost), child.table.slots,
            )  # fmt: skip
            self._keeper.end_runs(child.process_id, lost)
            self.replace(child, "a run of it cannot be ended")

    def _was_out_of_memory(self) -> bool:
        """Whether the kernel has killed somebody for memory since this was last asked."""
        before, self._memory_kills = self._memory_kills, memory.kills_in_control_group()
        return before is not None and self._memory_kills is not None and self._memory_kills > before

    def _on_death(self, child: Child, now: float) -> None:
        was_up, has_worked, post = child.is_up, bool(child.table.words[table.DONE]), child.post_left()
        death = child.bury(self._was_out_of_memory)
        self.children.remove(child)
        self._keeper.settle(death, self._directory / f"{child.process_id}.slots")
        was_successor = self._was_successor(child)
        has_post = child.successor is None and not was_successor
        if self._is_closing or post.quota == 0 or child.is_leaving:
            return
        level = logging.INFO if child.is_stopping and not child.killed_for else logging.ERROR
        logger.log(level, "worker process %d is gone: %s", child.pid, death.cause)
        is_ours = child.is_stopping or bool(child.killed_for)
        if is_ours or (was_up and (has_worked or death.running or now - child.born_at > YOUNG)):
            self._boot_failures = 0
        elif was_successor:
            # Whom it was to follow still serves.
            self._replaces_again_at = now + SUCCESSION_PAUSE
        else:
            # It never got to a task: a broken environment, not a broken task. No storm of processes.
            self._boot_failures += 1
            if self.is_hopeless:
                logger.critical("worker processes cannot start; giving up after %d tries", self._boot_failures)
                return
        delay = min(5.0, 0.2 * 2.0**self._boot_failures) if self._boot_failures else 0.0
        if has_post:
            self._vacancies.append(Vacancy(now + delay, post))

    def _was_successor(self, child: Child) -> bool:
        """Whether somebody still waits for it to take over; from now on no longer."""
        waiting = [other for other in self.children if other.successor is child]
        for other in waiting:
            other.successor = None
        return bool(waiting)

    def _fill_vacancies(self, now: float) -> None:
        due = [vacancy.post for vacancy in self._vacancies if vacancy.at <= now]
        self._vacancies = [vacancy for vacancy in self._vacancies if vacancy.at > now]
        for post in due:
            try:
                self._spawn(post)
            except Exception as error:
                self._on_failed_spawn(error)
                self._vacancies.append(Vacancy(now + 0.5, post))

    def _on_failed_spawn(self, error: Exception) -> None:
        # The registry cannot be reached: the services say so, and this tries again as long as they do.
        logger.warning("a worker process could not be started yet", exc_info=error)
        connections.close_all()

    def _spawn(self, post: Post) -> Child:
        process_id = presence.register_process(self.worker_id)
        path = self._directory / f"{process_id}.slots"
        table.SlotTable.create(path, post.slots).close()
        plan = process.ProcessPlan(
            self.worker_id,
            process_id,
            path,
            post,
            self._options.shows_runs,
            tuple(entry or os.getcwd() for entry in sys.path),
            os.environ["DJANGO_SETTINGS_MODULE"],
            most_runs=self._options.max_tasks_per_child,
            most_memory=self._options.max_memory_per_child,
            grace=self._options.grace,
            log_format=self._options.log_format,
        )
        child = self.child_class(process_id, plan, self._start, self._patience, self._totals)
        self.children.append(child)
        try:
            presence.note_pid(process_id, child.pid)
        except Error:
            # It runs all the same, and is watched; only a successor of this supervisor would not find it.
            logger.warning("the pid of worker process %d could not be noted", child.pid, exc_info=True)
            connections.close_all()
        self._brief(child)
        return child
