"""The Django project the tests run in; the same module serves pytest and the workers it starts.

The environment chooses: ``TASKQ_TEST_DB`` (sqlite, postgresql), ``TASKQ_TEST_DB_NAME``, ``_HOST``, ``_PORT``,
``_USER``, ``_PASSWORD``, ``TASKQ_TEST_OTHER_DB_NAME`` for the second alias, ``TASKQ_TEST_SETTINGS`` (JSON) for
``TASKQ``, ``TASKQ_TEST_START_METHOD`` for all workers, ``TASKQ_TEST_FRAMEWORK_QUEUES`` for more queues of
``TASKS["default"]`` and ``TASKQ_TEST_LOG_LEVEL``. Without any of them importing this opens and makes no file.
"""

import json
import os
from importlib.util import find_spec
from typing import Any

env = os.environ.get

# What our own check recommends for SQLite.
SQLITE: dict[str, Any] = {
    "ENGINE": "django.db.backends.sqlite3",
    "OPTIONS": {
        "transaction_mode": "IMMEDIATE",
        "timeout": 20,
        "init_command": "PRAGMA journal_mode=WAL; PRAGMA synchronous=NORMAL;",
    },
}

if env("TASKQ_TEST_DB", "sqlite") == "postgresql":
    DEFAULT: dict[str, Any] = {
        "ENGINE": "django.db.backends.postgresql",
        "NAME": env("TASKQ_TEST_DB_NAME", "postgres"),
        "USER": env("TASKQ_TEST_DB_USER", "postgres"),
        "PASSWORD": env("TASKQ_TEST_DB_PASSWORD", ""),
        "HOST": env("TASKQ_TEST_DB_HOST", ""),
        "PORT": env("TASKQ_TEST_DB_PORT", ""),
    }
else:
    DEFAULT = SQLITE | {"NAME": env("TASKQ_TEST_DB_NAME", ":memory:")}

# conftest.py gives the SQLite databases of a session a file each: a worker process could not open one in memory.
DATABASES = {
    "default": DEFAULT,
    "other": SQLITE | {"NAME": env("TASKQ_TEST_OTHER_DB_NAME", ":memory:")},
}
DEFAULT_AUTO_FIELD = "django.db.models.BigAutoField"

INSTALLED_APPS = [
    "django.contrib.admin",
    "django.contrib.auth",
    "django.contrib.contenttypes",
    "django.contrib.sessions",
    "django.contrib.messages",
    "django.contrib.staticfiles",
    "django_taskq",
    "tests.testapp",
]
TASKQ = json.loads(env("TASKQ_TEST_SETTINGS", "{}"))
if env("TASKQ_TEST_START_METHOD"):
    TASKQ["START_METHOD"] = env("TASKQ_TEST_START_METHOD")

# Django's tasks framework, or its backport. tests/backend defines tasks of it, for which these aliases are.
if find_spec("django.tasks") is None and find_spec("django_tasks") is not None:
    INSTALLED_APPS += ["django_tasks"]
if find_spec("django.tasks") or find_spec("django_tasks"):
    INSTALLED_APPS += ["tests.backend"]
TASKQ_BACKEND = "django_taskq.backend.TaskqBackend"
TASKS: dict[str, dict[str, Any]] = {
    "default": {"BACKEND": TASKQ_BACKEND, "QUEUES": ["default", *env("TASKQ_TEST_FRAMEWORK_QUEUES", "").split()]},
    "patient": {
        "BACKEND": TASKQ_BACKEND,
        "OPTIONS": {"max_retries": 2, "autoretry_for": ["builtins.OSError"], "retry_backoff": 0.05, "time_limit": 60},
    },
    "open": {"BACKEND": TASKQ_BACKEND, "QUEUES": []},
    "other": {
        "BACKEND": f"django{'.' if find_spec('django.tasks') else '_'}tasks.backends.dummy.DummyBackend",
        "QUEUES": [],
    },
}

SECRET_KEY = "not a secret: the tests use it"
USE_TZ = True
TIME_ZONE = "Europe/Riga"  # neither UTC nor without daylight saving, so that mixing up time zones shows
LANGUAGES = [("en", "English"), ("de", "German")]
ALLOWED_HOSTS = ["*"]
ROOT_URLCONF = "tests.urls"
STATIC_URL = "static/"
PASSWORD_HASHERS = ["django.contrib.auth.hashers.MD5PasswordHasher"]  # fast, and nothing here is worth guarding

MIDDLEWARE = [
    "django.middleware.security.SecurityMiddleware",
    "django.contrib.sessions.middleware.SessionMiddleware",
    "django.middleware.locale.LocaleMiddleware",
    "django.middleware.common.CommonMiddleware",
    "django.middleware.csrf.CsrfViewMiddleware",
    "django.contrib.auth.middleware.AuthenticationMiddleware",
    "django.contrib.messages.middleware.MessageMiddleware",
]
TEMPLATES = [
    {
        "BACKEND": "django.template.backends.django.DjangoTemplates",
        "APP_DIRS": True,
        "OPTIONS": {
            "context_processors": [
                "django.template.context_processors.request",
                "django.contrib.auth.context_processors.auth",
                "django.contrib.messages.context_processors.messages",
            ],
        },
    },
]
LOGGING = {
    "version": 1,
    "disable_existing_loggers": False,
    "formatters": {"plain": {"format": "%(asctime)s %(process)d %(levelname)s %(name)s: %(message)s"}},
    "handlers": {"stderr": {"class": "logging.StreamHandler", "formatter": "plain"}},
    "loggers": {
        "django_taskq": {"handlers": ["stderr"], "level": env("TASKQ_TEST_LOG_LEVEL", "INFO")},
        # The tasks framework's own logger: Django's, the backport's.
        "django.tasks": {"handlers": ["stderr"], "level": "INFO"},
        "django_tasks": {"handlers": ["stderr"], "level": "INFO"},
    },
}
