"""The tests' own project with traces. They are written to the file that ``TASKQ_TEST_TRACES`` names."""

from tests.settings import *  # noqa: F403
from tests.settings import INSTALLED_APPS

INSTALLED_APPS = [*INSTALLED_APPS, "tests.integration.tracing"]
