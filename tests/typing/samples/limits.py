"""What holds runs back: numbers, texts and :class:`Breaker`, in every form that works."""

from datetime import timedelta
from typing import assert_type

from django_taskq import Breaker, TaskResult, task


@task(
    concurrency=3,
    concurrency_key="{tenant}",
    rate_limit="100/m",
    breaker=Breaker(rest=timedelta(minutes=1), on=OSError),
)
def sync(tenant: str) -> int:
    return len(tenant)


@task(lock="report:{number}", breaker=Breaker(3, rest=2.5, on=(OSError, ValueError)))
def report(number: int) -> None: ...


@task(breaker=5)
def fragile() -> None: ...


Breaker(on="OSError")  # E: arg-type
Breaker(rest="a minute")  # E: arg-type

assert_type(sync.enqueue("a"), TaskResult[int])
assert_type(Breaker(rest=timedelta(minutes=1)).rest, float)
