"""What a worker was asked for: by the command line, over the settings."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field, replace

from django_taskq.conf_brokers import LoadLimit
from django_taskq.conf_health import HealthOptions
from django_taskq.conf_workers import PROCESSES, Autoscale, SlotGroup
from django_taskq.worker.fetcher import QueueOrder


@dataclass(frozen=True, slots=True)
class Post:
    """A place for one worker process: the queues it serves, and its slots, first the threads, then the coroutines.

    ``quota`` bounds the runs of all who ever fill it; None is no bound.
    """

    order: QueueOrder
    threads: int
    quota: int | None = None
    coroutines: int = 0

    @property
    def slots(self) -> int:
        """How many slots it has."""
        return self.threads + self.coroutines


@dataclass(frozen=True, slots=True)
class WorkerOptions:
    """What ``taskworker`` was asked for. ``grace`` is in seconds, ``max_tasks`` bounds the runs of the whole worker.

    ``max_tasks_per_child`` and ``max_memory_per_child`` (bytes) say when a process is replaced. With ``groups`` their
    slots say how many processes there are, and ``order`` only names all their queues. With ``autoscale`` ``processes``
    is the number at the moment. ``load_limits`` are by queue. ``start_method`` None: whichever is right here.
    """

    order: QueueOrder
    processes: int
    threads: int
    grace: float
    burst: bool = False
    max_tasks: int | None = None
    max_tasks_per_child: int | None = None
    max_memory_per_child: int | None = None
    coroutines: int = 0
    shows_runs: bool = False
    has_scheduler: bool = True
    health: HealthOptions = HealthOptions()
    groups: tuple[SlotGroup, ...] = ()
    autoscale: Autoscale | None = None
    load_limits: Mapping[str, LoadLimit] = field(default_factory=dict)
    pool: str = PROCESSES
    start_method: str | None = None
    log_format: str = "text"

    def posts(self) -> list[Post]:
        """One for each process, with its share of ``max_tasks``; none without a share."""
        posts = self._grouped() if self.groups else [self._post(self.order, self.threads)] * self.processes
        if self.max_tasks is None:
            return posts
        each, rest = divmod(self.max_tasks, len(posts))
        shares = [each + (number < rest) for number in range(len(posts))]
        return [replace(post, quota=share) for post, share in zip(posts, shares, strict=True) if share]

    def _grouped(self) -> list[Post]:
        """The slots of each group, as many to a process as it has threads; the last one has the rest."""
        posts = []
        for group in self.groups:
            order = QueueOrder(group.names, rotate=True)
            full, rest = divmod(group.slots, self.threads)
            posts += [self._post(order, self.threads)] * full + [self._post(order, rest)] * bool(rest)
        return posts

    def _post(self, order: QueueOrder, threads: int) -> Post:
        return Post(order, threads, coroutines=self.coroutines)

    def without(self, names: Collection[str]) -> WorkerOptions:
        """The same as they are with these queues left out."""
        if not names:
            return self
        left = [(group, tuple(name for name in group.names if name not in names)) for group in self.groups]
        groups = tuple(replace(group, names=rest) for group, rest in left if rest)
        return replace(self, order=self.order.without(names), groups=groups)

    @property
    def served(self) -> str:
        """The queues it serves, as they are written on the command line."""
        return ",".join(str(group) for group in self.groups) or str(self.order)
