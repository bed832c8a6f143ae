"""The project of workers in the tests of limits: that of the workers on depots, with limited tasks besides."""

from tests.depots.worker_settings import *  # noqa: F403
from tests.depots.worker_settings import INSTALLED_APPS

INSTALLED_APPS = [*INSTALLED_APPS, "tests.faults.limited"]
