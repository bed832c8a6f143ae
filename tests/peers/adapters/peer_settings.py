"""The Django project of every queue that wants one. The environment says where its database and its broker are."""

import json
import os
from typing import Any
from urllib.parse import urlsplit

_url = urlsplit(os.environ["PEER_DATABASE"])
_broker = os.environ.get("PEER_BROKER", "")


def _database() -> dict[str, Any]:
    if _url.scheme == "sqlite":
        # As the peers were measured before, and as our own check advises.
        pragmas = "PRAGMA journal_mode=WAL; PRAGMA synchronous=NORMAL;"
        options = {"transaction_mode": "IMMEDIATE", "timeout": 20, "init_command": pragmas}
        return {"ENGINE": "django.db.backends.sqlite3", "NAME": _url.path, "OPTIONS": options}
    return {
        "ENGINE": "django.db.backends.postgresql",
        "NAME": _url.path.lstrip("/"),
        "USER": _url.username or "",
        "PASSWORD": _url.password or "",
        "HOST": _url.hostname or "",
        "PORT": str(_url.port or ""),
    }


SECRET_KEY = "not a secret: nothing here is served"
USE_TZ = True
DEFAULT_AUTO_FIELD = "django.db.models.BigAutoField"
DATABASES = {"default": _database() | {"CONN_MAX_AGE": 600}}
INSTALLED_APPS: list[str] = []
LOGGING = {
    "version": 1,
    "disable_existing_loggers": False,
    "handlers": {"stderr": {"class": "logging.StreamHandler"}},
    "root": {"handlers": ["stderr"], "level": "ERROR"},
}

CELERY_BROKER_URL = _broker
CELERY_TASK_DEFAULT_QUEUE = "taskq-peers"
TASKQ = {"BROKER_URL": _broker or "database://"}
TASKS = {"default": {"BACKEND": "django_tasks_db.DatabaseBackend"}}

# What the case sets beside or instead of these.
globals().update(json.loads(os.environ.get("PEER_SETTINGS", "{}")))
if "django_tasks" in INSTALLED_APPS or "django_tasks_db" in INSTALLED_APPS:
    LOGGING["loggers"] = {"django_tasks": {"level": "ERROR"}, "django_tasks_db": {"level": "ERROR"}}
