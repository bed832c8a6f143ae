"""The project of the workers on depots: the tests' own, with the tasks of this directory besides."""

from tests.settings import *  # noqa: F403
from tests.settings import INSTALLED_APPS

INSTALLED_APPS = [*INSTALLED_APPS, "tests.depots"]
