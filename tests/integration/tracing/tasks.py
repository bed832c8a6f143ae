"""Tasks that say in which span they run."""

from __future__ import annotations

import asyncio
import time

from opentelemetry import trace

from django_taskq import current_task, task
from tests.testapp.tasks import add


def here() -> list[str]:
    found = trace.get_current_span().get_span_context()
    return [f"{found.trace_id:032x}", f"{found.span_id:016x}"]


@task
def say_span(seconds: float = 0) -> list[str]:
    """While others do the same."""
    time.sleep(seconds)
    return here()


@task
async def say_span_async(seconds: float = 0) -> list[str]:
    await asyncio.sleep(seconds)
    return here()


@task
def enqueue_another() -> str:
    return add.enqueue(1, 2).id


@task(max_retries=1)
def fail_then_retry(text: str) -> None:
    """By an error on the first attempt, which asks for another."""
    if current_task.attempt == 1:
        try:
            raise OSError(text)
        except OSError as error:
            current_task.retry(error, countdown=0)


@task(max_retries=1)
def wait_for_more() -> None:
    """Not an error: it asks for another attempt on purpose."""
    if current_task.attempt == 1:
        current_task.retry(countdown=0)
