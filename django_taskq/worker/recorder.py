"""Writing what was decided: the one place where outcomes become rows and signals."""

from __future__ import annotations

import logging
from collections.abc import Sequence

from django_taskq import registry, signals
from django_taskq.brokers.base import Broker
from django_taskq.message import Action, Outcome

logger = logging.getLogger("django_taskq")


class Recorder:
    """Records the outcomes of one worker process."""

    def __init__(self, broker: Broker, process_id: int) -> None:
        self._broker = broker
        self._process_id = process_id

    def record(self, outcomes: Sequence[Outcome]) -> list[Outcome]:
        """Write them; returns those whose claim was lost. Safe to repeat after an error of unknown effect."""
        return self._broker.settle(self._process_id, outcomes) if outcomes else []

    def announce(self, outcomes: Sequence[Outcome], lost: Sequence[Outcome]) -> None:
        """Tell whoever listens, once the writes are committed."""
        for outcome in lost:
            delivery = outcome.delivery
            logger.warning("run %s of %s was taken over; its outcome is refused", delivery.id, delivery.name)
        listening = signals.task_finished.receivers or signals.task_failed.receivers or signals.task_retried.receivers
        if not listening and not registry.is_watched():
            return
        refused = {id(outcome) for outcome in lost}
        for outcome in outcomes:
            if id(outcome) not in refused:
                tell(outcome)


def tell(outcome: Outcome) -> None:
    """Send the signals of one recorded outcome."""
    delivery = outcome.delivery
    if outcome.action is Action.RELEASED:
        return
    task = registry.find(delivery.name)
    if task is not None and task.watcher is not None:
        task.watcher.concluded(outcome)
    if outcome.action is Action.RETRY:
        signals.send(signals.task_retried, delivery.name, delivery=delivery, outcome=outcome)
        return
    if outcome.action is Action.FAILED:
        signals.send(signals.task_failed, delivery.name, delivery=delivery, outcome=outcome)
    if signals.task_finished.receivers:
        signals.send(signals.task_finished, delivery.name, delivery=delivery, outcome=outcome)
