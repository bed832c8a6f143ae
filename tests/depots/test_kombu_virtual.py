"""What the depot on kombu's other transports does beyond the contract, on its transport in memory."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from django_taskq.brokers.kombu.virtual import VirtualDepot
from django_taskq.exceptions import DepotError
from tests.depots.bed import QUEUE, Bed, ids
from tests.depots.rabbitmq_bed import kombu_memory_bed


@pytest.fixture
def bed() -> Iterator[Bed]:
    made = kombu_memory_bed()
    yield made
    made.close()


def queues(bed: Bed) -> set[str]:
    """The queues that kombu has, without the prefix."""
    depot = bed.depot
    assert isinstance(depot, VirtualDepot)
    prefix = f"{depot.config.prefix}."
    with depot.asking.channel() as channel:
        return {name.removeprefix(prefix) for name in channel.queues if name.startswith(prefix)}


def test_a_queue_is_deleted_with_its_bands_when_it_is_empty_or_when_that_does_not_matter(bed: Bed) -> None:
    depot = bed.depot
    assert isinstance(depot, VirtualDepot)
    depot.delete_queue(QUEUE)  # there is none
    (kept,) = bed.put(queue_name="mail")
    for priority in (9, 0, -9):
        bed.put(priority=priority)
    with pytest.raises(DepotError, match="'default' is not empty: 3") as caught:
        depot.delete_queue(QUEUE)
    assert caught.value.is_certain
    assert queues(bed) == {"mail", "default:1", "default", "default:-100"}
    depot.delete_queue(QUEUE, if_empty=False)
    assert queues(bed) == {"mail"}
    (message,) = bed.put()
    assert ids(bed.take()) == [message.id]
    depot.delete_queue(QUEUE)
    assert queues(bed) == {"mail"}
    assert ids(bed.take(queue="mail")) == [kept.id]
