"""Writing what was decided: the one place where outcomes become rows and signals."""

from __future__ import annotations

import logging
from collections.abc import Sequence

from django.db.utils import DataError, IntegrityError

from django_taskq import registry, signals
from django_taskq.brokers.base import Broker
from django_taskq.exceptions import SerializationError
from django_taskq.message import Action, Delivery, Outcome, Room
from django_taskq.worker.describing import describe
from django_taskq.worker.health.counts import Reporter

logger = logging.getLogger("django_taskq")

_TOLD = (signals.task_finished, signals.task_failed, signals.task_retried, signals.task_snoozed)


class Recorder:
    """Records the outcomes of one worker process."""

    def __init__(self, broker: Broker, process_id: int, reporter: Reporter | None = None) -> None:
        """``reporter`` is to count them, where somebody wants to know."""
        self._broker = broker
        self._process_id = process_id
        self._reporter = reporter

    def record(self, outcomes: Sequence[Outcome]) -> list[Outcome]:
        """Write them; returns those whose claim was lost. Safe to repeat after an error of unknown effect."""
        return self._broker.settle(self._process_id, outcomes) if outcomes else []

    def record_and_take(self, outcomes: Sequence[Outcome], room: Room) -> tuple[list[Outcome], list[Delivery]]:
        """:meth:`record`, and what of that which followed was claimed at once."""
        return self._broker.settle_and_take(self._process_id, outcomes, room) if outcomes else ([], [])

    def record_singly(self, outcomes: Sequence[Outcome]) -> list[Outcome]:
        """One outcome the database refuses must not hold up the others: it is FAILED with the refusal."""
        lost: list[Outcome] = []
        for outcome in outcomes:
            try:
                with self._broker.transaction():
                    lost += self.record([outcome])
            except (DataError, IntegrityError) as error:
                refusal = SerializationError(f"the database refused what the run left: {error}")
                outcome.action, outcome.result, outcome.error = Action.FAILED, None, describe(refusal)
                with self._broker.transaction():
                    lost += self.record([outcome])
        return lost

    def announce(self, outcomes: Sequence[Outcome], lost: Sequence[Outcome]) -> None:
        """Tell whoever listens, once the writes are committed."""
        if self._reporter is not None:
            self._reporter.note(outcomes, lost)
        for outcome in lost:
            delivery = outcome.delivery
            logger.warning("run %s of %s was taken over; its outcome is refused", delivery.id, delivery.name)
        if not any(signal.receivers for signal in _TOLD) and not registry.is_watched():
            return
        refused = {id(outcome) for outcome in lost}
        for outcome in outcomes:
            if id(outcome) not in refused:
                tell(outcome)


def tell(outcome: Outcome) -> None:
    """Send the signals of one recorded outcome."""
    delivery = outcome.delivery
    if outcome.action in (Action.RELEASED, Action.REPLACED) or outcome.gate is not None:
        return  # it has not ended: what took its place is its result, or it waits for a lock
    task = registry.find(delivery.name)
    if task is not None and task.watcher is not None:
        task.watcher.concluded(outcome)
    if outcome.action is Action.RETRY:
        signal = signals.task_snoozed if outcome.is_snoozed else signals.task_retried
        signals.send(signal, delivery.name, delivery=delivery, outcome=outcome)
        return
    if outcome.action is Action.FAILED:
        signals.send(signals.task_failed, delivery.name, delivery=delivery, outcome=outcome)
    if signals.task_finished.receivers:
        signals.send(signals.task_finished, delivery.name, delivery=delivery, outcome=outcome)
