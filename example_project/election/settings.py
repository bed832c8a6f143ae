"""Settings of the example project. The environment, or a file ``.env`` beside ``manage.py``, chooses what may differ.

DATABASE_URL      where everything is stored, queue included; default: SQLite in ``db.sqlite3``
TASKQ_BROKER_URL  who carries tasks to the workers; default: the database, so nothing else has to run
OUTPUT_DIR        where the CSV, the printed lists and the e-mails go; default: ``output``
"""

from pathlib import Path

import environ

BASE_DIR = Path(__file__).resolve().parent.parent
env = environ.Env()
env.read_env(BASE_DIR / ".env")

SECRET_KEY = env.str("SECRET_KEY", default="not a secret: this project only ever runs on your own machine")
DEBUG = env.bool("DEBUG", default=True)
ALLOWED_HOSTS = env.list("ALLOWED_HOSTS", default=[])
SITE_URL = env.str("SITE_URL", default="http://127.0.0.1:8000")  # what links in e-mails begin with

INSTALLED_APPS = [
    "django.contrib.admin",
    "django.contrib.auth",
    "django.contrib.contenttypes",
    "django.contrib.sessions",
    "django.contrib.messages",
    "django.contrib.staticfiles",
    "django_taskq",  # this line is the whole installation
    "polling",
    "accounts",
    "showcase",
    "rolls",
    "feeds",
]

TASKQ = {
    "BROKER_URL": env.str("TASKQ_BROKER_URL", default="database://"),
}

DATABASES = {
    "default": env.db("DATABASE_URL")
    if "DATABASE_URL" in env
    else {"ENGINE": "django.db.backends.sqlite3", "NAME": BASE_DIR / "db.sqlite3"}
}
if DATABASES["default"]["ENGINE"].endswith("sqlite3"):
    # What lets a web server and several workers write to one SQLite file: readers never wait (WAL), and a writer takes
    # its place in the queue when its transaction begins, instead of failing at once in the middle of it.
    DATABASES["default"]["OPTIONS"] = {
        "transaction_mode": "IMMEDIATE",
        "timeout": 20,
        "init_command": "PRAGMA journal_mode=WAL; PRAGMA synchronous=NORMAL;",
    }
TIME_ZONE = "UTC"
DEFAULT_AUTO_FIELD = "django.db.models.BigAutoField"

MIDDLEWARE = [
    "django.middleware.security.SecurityMiddleware",
    "django.contrib.sessions.middleware.SessionMiddleware",
    "django.middleware.common.CommonMiddleware",
    "django.middleware.csrf.CsrfViewMiddleware",
    "django.contrib.auth.middleware.AuthenticationMiddleware",
    "django.contrib.messages.middleware.MessageMiddleware",
]
ROOT_URLCONF = "election.urls"
WSGI_APPLICATION = "election.wsgi.application"
STATIC_URL = "static/"
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

OUTPUT_DIR = Path(env.str("OUTPUT_DIR", default=str(BASE_DIR / "output")))
FEEDS_URL = env.str("FEEDS_URL", default=(OUTPUT_DIR / "feeds" / "servers").resolve().as_uri())  # feeds/tasks.py

# E-mails become files: sending needs no server, and you can read them.
EMAIL_BACKEND = "django.core.mail.backends.filebased.EmailBackend"
EMAIL_FILE_PATH = OUTPUT_DIR / "mail"
