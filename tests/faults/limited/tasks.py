from __future__ import annotations

from django_taskq import task
from tests.testapp.tasks import note, write_line


@task(concurrency=3)
def note_one_of_three(path: str, key: str, seconds: float) -> None:
    note.function(path, key, seconds)


@task(rate_limit="100/s")
def note_at_a_rate(path: str, key: str) -> None:
    write_line(path, "start", key)


@task(concurrency=1, concurrency_key="tenant:{tenant}")
def note_of_tenant(path: str, tenant: str, key: str, seconds: float = 0) -> None:
    note.function(path, key, seconds)
