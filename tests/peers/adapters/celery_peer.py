"""Celery in a Django project, with django-celery-results where the case has results."""

from celery import Celery
from django.conf import settings
from peer_recorder import record

app = Celery("celery_peer")
app.config_from_object("django.conf:settings", namespace="CELERY")


@app.task(name="peer.work")
def work(number: int) -> None:
    record(number)


def send(number: int) -> None:
    work.delay(number)


if "django_celery_results" in settings.INSTALLED_APPS:

    def stored() -> int:
        from django_celery_results.models import TaskResult

        return TaskResult.objects.filter(status="SUCCESS").count()
