"""Where the calls of batch tasks wait in a worker process until there are enough of them. For the courier's thread."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field

from django_taskq import registry
from django_taskq.message import Delivery
from django_taskq.worker.batching import goes_alone

# What slots take: one delivery, or a batch.
Unit = Delivery | list[Delivery]


@dataclass(slots=True)
class _Batch:
    """One that is not whole yet; ``due_at`` is when it goes as it is, on the monotonic clock."""

    size: int
    due_at: float
    deliveries: list[Delivery] = field(default_factory=list)


class Gathering:
    """The batches of a process that are not whole yet, one for each task."""

    def __init__(self) -> None:
        self._batches: dict[str, _Batch] = {}

    def __len__(self) -> int:
        return sum(len(batch.deliveries) for batch in self._batches.values())

    def add(self, deliveries: Iterable[Delivery], now: float) -> Iterator[Unit]:
        """What of these goes to a slot now, alone or as a whole batch; the rest is kept."""
        for delivery in deliveries:
            task = registry.find(delivery.name)
            if task is None or task.options.batch_size is None:
                yield delivery
            elif goes_alone(delivery):
                yield [delivery]
            else:
                size, wait = task.options.batch_size, task.options.batch_wait
                batch = self._batches.setdefault(delivery.name, _Batch(size, now + wait))
                batch.deliveries.append(delivery)
                if len(batch.deliveries) >= size:
                    yield self._batches.pop(delivery.name).deliveries

    def due(self, now: float) -> Iterator[list[Delivery]]:
        """The batches that go as they are, because their first has waited for long enough."""
        for name in [name for name, batch in self._batches.items() if batch.due_at <= now]:
            yield self._batches.pop(name).deliveries

    @property
    def due_at(self) -> float | None:
        """When the next one goes; None where nothing waits."""
        return min((batch.due_at for batch in self._batches.values()), default=None)

    @property
    def missing(self) -> int:
        """How many more to fetch for these. Four times as many as there are at most: others may come in their place."""
        if not self._batches:
            return 0
        sizes = [(batch.size, len(batch.deliveries)) for batch in self._batches.values()]
        return sum(min(size - count, 4 * count) for size, count in sizes)

    def take_back(self) -> list[Delivery]:
        """Everything, which is no longer kept."""
        batches, self._batches = self._batches, {}
        return [delivery for batch in batches.values() for delivery in batch.deliveries]
