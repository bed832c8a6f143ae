"""The settings of a worker in a test: the project's own, with the names of the test databases."""

from __future__ import annotations

import json
import os
from importlib import import_module

MODULE_VARIABLE = "TASKQ_TESTING_SETTINGS_MODULE"
DATABASES_VARIABLE = "TASKQ_TESTING_DATABASES"

if MODULE_VARIABLE in os.environ:
    _project = import_module(os.environ[MODULE_VARIABLE])
    globals().update({name: getattr(_project, name) for name in dir(_project) if name.isupper()})
    _names = json.loads(os.environ[DATABASES_VARIABLE])
    DATABASES = {
        alias: {**database, "NAME": _names.get(alias, database.get("NAME"))}
        for alias, database in _project.DATABASES.items()
    }
