"""django-tasks-db, whose queue row is the result row."""

from django_tasks import task
from django_tasks_db.models import DBTaskResult
from peer_recorder import record


@task()
def work(number: int) -> None:
    record(number)


def send(number: int) -> None:
    work.enqueue(number)


def stored() -> int:
    return DBTaskResult.objects.filter(status="SUCCESSFUL").count()
