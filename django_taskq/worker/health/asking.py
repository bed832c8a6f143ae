"""The part of a worker's health that asks the database and the brokers: in a thread of its own, which may wait.

Probes never wait for it. It looks for work that idle processes do not take, and at the backlog when somebody wants it.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from functools import partial
from typing import Any

from django_taskq import brokers, conf
from django_taskq.exceptions import DepotError
from django_taskq.worker.health import backlog
from django_taskq.worker.health.backlog import Backlog
from django_taskq.worker.health.progress import Stalls
from django_taskq.worker.service import Service

OLDEST_SHOWN = 60.0  # seconds after which an old backlog is no backlog
LOOKS_PER_TIMEOUT = 4
MOST_REASON = 200  # characters


class Asking(Service):
    """Looks, again and again; what it found is read from other threads."""

    name = "health"

    def __init__(
        self, state: Callable[[], dict[str, Any]], is_fetched: Callable[[str], bool], on_news: Callable[[], None]
    ) -> None:
        """``state`` is a snapshot of now, ``is_fetched`` whether a queue is to be; ``on_news``: there is a new look."""
        super().__init__()
        self.stalls = Stalls()
        self.down: dict[str, str] = {}
        """Brokers that do not answer, by alias, and why not."""
        self._state = state
        self._is_fetched = is_fetched
        self._on_news = on_news
        self._backlog: Backlog | None = None
        self._is_wanted = False
        self._look_at = 0.0

    def backlog(self) -> tuple[Backlog | None, bool]:
        """The last look (None: there is none that is worth showing), and whether it is fresh. Has a new one made."""
        found = self._backlog
        if found is not None and found.is_fresh:
            return found, True
        self._is_wanted = True
        self.wake()
        is_shown = found is not None and time.monotonic() - found.looked_at < OLDEST_SHOWN
        return found if is_shown else None, False

    def work(self) -> float:
        interval = conf.get_settings().health_timeout / LOOKS_PER_TIMEOUT
        if self._is_wanted:
            self._is_wanted = False
            try:
                self._backlog = backlog.look()
            finally:
                self._on_news()
        if time.monotonic() >= self._look_at:
            self._look_at = time.monotonic() + interval
            self._look_for_stalls()
        return 0.0 if self._is_wanted else max(0.0, self._look_at - time.monotonic())

    def _look_for_stalls(self) -> None:
        state = self._state()
        down: dict[str, str] = {}
        # Who lacks a resource leaves the work that needs it to others.
        groups = {} if state["degraded"] else self.stalls.idle(state)
        with_work = {
            queues: self._with_work([name for name in names if self._is_fetched(name)], down)
            for queues, names in groups.items()
        }
        depots = brokers.get_depots()
        for name in {name for each in state["processes"] for name in each["names"]} if depots else ():
            alias = brokers.alias_of(name)
            if alias in depots:
                _ask(alias, partial(depots[alias].size, name), down)
        self.down = down
        # As it is now: what came meanwhile may have been taken at once.
        self.stalls.look(self._state(), time.monotonic(), with_work)

    def _with_work(self, names: list[str], down: dict[str, str]) -> list[str]:
        depots = brokers.get_depots()
        in_rows = [name for name in names if brokers.alias_of(name) not in depots]
        found = brokers.get_rows().queues_with_work(in_rows) if in_rows else []
        for name in names:
            depot = depots.get(brokers.alias_of(name))
            if depot is not None and _ask(depot.config.alias, partial(depot.size, name), down):
                found.append(name)
        return found


def _ask(alias: str, question: Callable[[], int], down: dict[str, str]) -> int:
    """The answer of a depot, 0 from one that does not answer; each is waited for once."""
    if alias in down:
        return 0
    try:
        return question()
    except DepotError as error:
        down[alias] = " ".join(str(error).split())[:MOST_REASON] or type(error).__name__
        return 0
