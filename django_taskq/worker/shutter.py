"""The shutter: what a worker fetches nothing from for now, and why. Its processes are told whenever that changes."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Collection, Mapping

from django_taskq.worker.orders import QUEUES, QUIET, WORK, Order

Tell = Callable[[Order], None]


class Shutter:
    """Closed queues by reason: one may be closed for several, and is open when none is left. For any thread."""

    def __init__(self, tell: Tell) -> None:
        """``tell`` gives an order to every process there is."""
        self._tell = tell
        self._lock = threading.Lock()
        self._reasons: dict[str, frozenset[str]] = {}
        self._is_quiet = False

    @property
    def closed(self) -> frozenset[str]:
        """The queues that are closed, for whatever reason."""
        return frozenset().union(*self._reasons.values())

    @property
    def reasons(self) -> Mapping[str, frozenset[str]]:
        """The closed queues by reason; reasons that close nothing are not there."""
        return dict(self._reasons)

    @property
    def is_quiet(self) -> bool:
        """Whether nothing at all is fetched."""
        return self._is_quiet

    def set(self, reason: str, names: Collection[str]) -> None:
        """Close exactly these queues for this reason; with none it closes nothing any more."""
        with self._lock:
            before, others = self.closed, {key: value for key, value in self._reasons.items() if key != reason}
            # Replaced, never changed: other threads read it without the lock.
            self._reasons = {**others, reason: frozenset(names)} if names else others
            if self.closed != before:
                self._tell(self._order())

    def set_quiet(self, is_quiet: bool) -> None:
        """Have nothing fetched at all, or end that."""
        with self._lock:
            if is_quiet != self._is_quiet:
                self._is_quiet = is_quiet
                self._tell(Order(QUIET if is_quiet else WORK))

    def brief(self, tell: Tell) -> None:
        """Tell somebody new, who is among those that are told of changes already."""
        # Under the lock, or a change that comes at this moment could reach it before what it replaces.
        with self._lock:
            if self._reasons:
                tell(self._order())
            if self._is_quiet:
                tell(Order(QUIET))

    def _order(self) -> Order:
        return Order(QUEUES, json.dumps(sorted(self.closed)))
