"""The settings of workers that give a process up after seconds without progress instead of half a minute."""

from django_taskq.worker import watching
from tests.settings import *  # noqa: F403

PATIENCE = 3.0

watching.patience = lambda: PATIENCE
watching.LATE_PULSE = 2.0
