"""Tasks for workers on depots: those of the test app in their untracked forms, and what only matters there."""

from __future__ import annotations

from django_taskq import current_task, task
from tests.testapp.tasks import note, write_line


@task(track_pending=False, ignore_result=True)
def note_untracked(path: str, key: str, seconds: float = 0, how: str = "sleep") -> None:
    """Leaves no row when it succeeds soon."""
    note.function(path, key, seconds, how)


@task(track_pending=False)
def note_late(path: str, key: str, seconds: float = 0, how: str = "sleep") -> str:
    """Leaves a row when it is over."""
    note.function(path, key, seconds, how)
    return key


@task(track_pending=False, ignore_result=True)
def fail_untracked(text: str) -> None:
    raise ValueError(text)


@task(autoretry_for=(OSError,), max_retries=5, default_retry_delay=0)
def retry_at_once(path: str, key: str, good: int) -> int:
    """Fail until this attempt."""
    write_line(path, "start", key)
    if current_task.attempt < good:
        raise OSError(f"attempt {current_task.attempt}")
    return int(current_task.attempt)


@task
async def note_async(path: str, key: str) -> str:
    write_line(path, "start", key)
    return key


@task
def fan_out(path: str, count: int) -> int:
    """Enqueue others, some with a row and some without."""
    calls = [((path, f"child{number}"), {}) for number in range(count)]
    note.enqueue_many(calls[::2])
    note_untracked.enqueue_many(calls[1::2])
    return len(calls)
