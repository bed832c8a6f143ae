"""The no-op, recorded like any other run, or on a broker without rows."""

import os
from typing import Any

from peer_recorder import record

from django_taskq import task
from django_taskq.models import TaskRecord

HAS_ROWS = os.environ.get("PEER_ROWS", "1") == "1"
OPTIONS: dict[str, Any] = {} if HAS_ROWS else {"track_pending": False, "ignore_result": True}


@task(**OPTIONS)
def work(number: int) -> None:
    record(number)


def send(number: int) -> None:
    work.delay(number)


if HAS_ROWS:

    def stored() -> int:
        return TaskRecord.objects.filter(status="SUCCESSFUL").count()
