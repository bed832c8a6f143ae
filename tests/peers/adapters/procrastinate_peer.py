"""Procrastinate as a Django app; the row of a job stays, with its status."""

import os

from peer_recorder import record
from procrastinate.contrib.django import app

if os.environ.get("PEER_ASYNC") == "1":

    @app.task(name="peer.work")
    async def work(number: int) -> None:
        record(number)

else:

    @app.task(name="peer.work")
    def work(number: int) -> None:
        record(number)


def send(number: int) -> None:
    work.defer(number=number)


if os.environ.get("PEER_KEEPS_ROWS") == "1":

    def stored() -> int:
        from procrastinate.contrib.django.models import ProcrastinateJob

        return ProcrastinateJob.objects.filter(status="succeeded").count()
