"""Three tasks to look at. Their queue is one that no worker of the project serves."""

from __future__ import annotations

from django_taskq import current_task, task

QUEUE = "taskq-demo"


@task(queue_name=QUEUE)
def add(x: int, y: int) -> int:
    """Return a value."""
    return x + y


@task(queue_name=QUEUE, autoretry_for=(OSError,), default_retry_delay=0)
def succeed_at_the_third_try() -> str:
    """Fail twice, and be tried again by itself."""
    if current_task.attempt < 3:
        raise ConnectionError(f"attempt {current_task.attempt} met a network that was down")
    return f"attempt {current_task.attempt} went through"


@task(queue_name=QUEUE)
def fail() -> None:
    """Fail for good."""
    raise ValueError("this one always fails")
