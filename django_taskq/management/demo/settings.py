"""The project's settings with the demonstration's app installed, for the demonstration's worker.

The project's module is named by ``TASKQ_DEMO_SETTINGS``.
"""

from __future__ import annotations

import os
from importlib import import_module

PROJECT_VARIABLE = "TASKQ_DEMO_SETTINGS"

if os.environ.get(PROJECT_VARIABLE):
    _project = import_module(os.environ[PROJECT_VARIABLE])
    globals().update({name: getattr(_project, name) for name in dir(_project) if name.isupper()})
    INSTALLED_APPS = [*_project.INSTALLED_APPS, "django_taskq.management.demo"]
