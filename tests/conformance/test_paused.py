"""Claims in the database pass over a queue from the commit on that pauses it, whoever knows of it."""

from __future__ import annotations

from django_taskq.models import Queue
from tests.conformance.bed import QUEUE, Bed


def test_a_paused_queue_hands_out_nothing(rows: Bed) -> None:
    rows.put(3)
    rows.put(1, queue_name="mail")
    Queue.objects.pause(QUEUE, by="ann", reason="the provider is down")
    assert rows.take() == []
    assert len(rows.take(queue="mail")) == 1
    assert rows.broker.size(QUEUE) == 3


def test_what_is_enqueued_meanwhile_waits_and_all_of_it_is_there_afterwards(rows: Bed) -> None:
    Queue.objects.pause(QUEUE, by="", reason="")
    put = rows.put(3)
    assert rows.take() == []
    assert Queue.objects.resume(QUEUE) is True
    assert Queue.objects.resume(QUEUE) is False
    assert rows.take_ids() == [message.id for message in put]
