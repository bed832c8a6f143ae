"""What the end of runs means for those that wait at the gates which they have passed."""

from __future__ import annotations

from collections.abc import Sequence
from uuid import UUID

from django.db import connections

from django_taskq.brokers.database.admission import Admission, Rows
from django_taskq.brokers.database.breakers import judge
from django_taskq.message import Action, Outcome
from django_taskq.models import Permit


def let_others_pass(rows: Rows, process_id: int, outcomes: Sequence[Outcome], *, has_arrivals: bool) -> None:
    """These runs of a process, with gates, have ended, or will start again later: in the transaction that recorded it.

    ``has_arrivals`` says that this transaction has put others at gates.
    """
    admission = Admission(rows)
    judge(rows.using, admission, outcomes)
    left = [outcome.delivery for outcome in outcomes if outcome.action is not Action.RELEASED]
    free = admission.leave([(run.id, run.headers) for run in left])
    if free:
        rows.dialect.step_up(connections[rows.using], process_id, sorted(free))
    again = [o.delivery.id for o in outcomes if o.action is Action.RETRY and not o.delay and o.run_after is None]
    if again:
        Permit.objects.using(rows.using).put_at_gates([UUID(id) for id in again])
    if again or has_arrivals:
        admission.take_arrivals()
    admission.look()
