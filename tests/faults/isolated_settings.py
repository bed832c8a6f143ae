"""The settings of a project that asks PostgreSQL for another isolation level: ``TASKQ_TEST_ISOLATION``, a number."""

import os

from tests.settings import *  # noqa: F403
from tests.settings import DATABASES

if os.environ.get("TASKQ_TEST_ISOLATION"):
    DATABASES["default"]["OPTIONS"] = {"isolation_level": int(os.environ["TASKQ_TEST_ISOLATION"])}
