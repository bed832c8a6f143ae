"""The verbs of ``manage.py taskq``, one module each; a new one is entered here."""

from django_taskq.management.verbs.base import AnyVerb
from django_taskq.management.verbs.bench import Bench
from django_taskq.management.verbs.cancel import Cancel
from django_taskq.management.verbs.dead_letters import DeadLetters
from django_taskq.management.verbs.demo import Demo
from django_taskq.management.verbs.health import Health
from django_taskq.management.verbs.import_celery_beat import ImportCeleryBeat
from django_taskq.management.verbs.limits import Limits
from django_taskq.management.verbs.prune import Prune
from django_taskq.management.verbs.queues import Queues
from django_taskq.management.verbs.retry import Retry
from django_taskq.management.verbs.run import Run
from django_taskq.management.verbs.schedules import Schedules
from django_taskq.management.verbs.settings import ShowSettings
from django_taskq.management.verbs.show import Show
from django_taskq.management.verbs.status import ShowStatus
from django_taskq.management.verbs.workers import Workers
from django_taskq.management.verbs.workflow import WorkflowVerb

VERBS: dict[str, type[AnyVerb]] = {
    "status": ShowStatus,
    "health": Health,
    "queues": Queues,
    "workers": Workers,
    "limits": Limits,
    "workflow": WorkflowVerb,
    "show": Show,
    "run": Run,
    "retry": Retry,
    "cancel": Cancel,
    "dead-letters": DeadLetters,
    "schedules": Schedules,
    "prune": Prune,
    "settings": ShowSettings,
    "demo": Demo,
    "bench": Bench,
    "import-celery-beat": ImportCeleryBeat,
}

__all__ = ["VERBS"]
