"""The project of workers that die at crash points: that of the workers on depots, with this directory besides."""

from tests.depots.worker_settings import *  # noqa: F403
from tests.depots.worker_settings import INSTALLED_APPS

INSTALLED_APPS = [*INSTALLED_APPS, "tests.faults"]
