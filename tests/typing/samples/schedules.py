"""``crontab``, ``every`` and ``@task(schedule=...)``."""

from datetime import UTC, datetime, timedelta
from typing import assert_type

from django_taskq import TaskResult, crontab, every, once, solar, task
from django_taskq.schedules import Crontab, Every, Once, Schedule, Solar

assert_type(crontab(hour=3), Crontab)
assert_type(crontab("30 1 * * *", timezone="Europe/Riga"), Crontab)
assert_type(every(minutes=5), Every)
assert_type(every(timedelta(hours=1)), Every)
assert_type(once(datetime(2030, 1, 1, tzinfo=UTC)), Once)
assert_type(solar("sunset", latitude=57, longitude=24), Solar)

crontab(3)  # E: arg-type
crontab("30 1 * * *", 3)  # E: call-arg
every(minutes="5")  # E: arg-type
every("5 minutes")  # E: arg-type
every(anchor=5)  # E: arg-type


@task(schedule=crontab(hour=3))
def nightly(day: str = "today") -> int:
    return len(day)


@task(schedule=every(minutes=5), priority=3)
async def often() -> None: ...


assert_type(nightly.enqueue(), TaskResult[int])
assert_type(nightly.enqueue("yesterday").get(), int)
assert_type(often.enqueue(), TaskResult[None])
nightly.enqueue(3)  # E: arg-type
often.enqueue(3)  # E: call-arg

either: list[Schedule] = [crontab(hour=3), every(minutes=5)]
