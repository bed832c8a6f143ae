"""Making room for the next register."""

from __future__ import annotations

from django.conf import settings

from django_taskq.models import TaskRecord
from polling.models import Centre


def clear() -> None:
    """Take away what an earlier demonstration left, be it finished or not. Its task records stay to be looked at."""
    TaskRecord.objects.filter(name__startswith="polling.").cancel()
    # Centre by centre: Django reads the rows that a delete takes along, and a nation's would fill the memory.
    for centre in Centre.objects.all():
        centre.delete()
    lists = settings.OUTPUT_DIR / "lists"
    lists.mkdir(parents=True, exist_ok=True)
    for path in lists.iterdir():
        path.unlink()
