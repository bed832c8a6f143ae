"""Checks an installed package from outside: ``python -I tests/check_install.py [--without MODULE ...]``.

It uses nothing but the package and what that depends on, and with ``-I`` the checkout is not importable. It proves
that every file of the checkout's package was installed, that a project with one added line passes ``check`` and
migrates, and that the modules named after ``--without`` are really absent while it does.
"""

from __future__ import annotations

import importlib.util
import sys
import tempfile
from pathlib import Path

import django
from django.conf import settings
from django.core.management import call_command

import django_taskq

CHECKOUT = Path(__file__).resolve().parent.parent / "django_taskq"


def check_absent(modules: list[str]) -> None:
    present = [name for name in modules if importlib.util.find_spec(name)]
    assert not present, f"installed, so this proves nothing: {present}"


def check_files() -> None:
    installed = Path(django_taskq.__file__).resolve().parent
    assert installed != CHECKOUT, "this imports the checkout, not an installed package"
    files = [path.relative_to(CHECKOUT) for path in CHECKOUT.rglob("*") if path.is_file()]
    lost = [str(path) for path in files if "__pycache__" not in path.parts and not (installed / path).exists()]
    assert not lost, f"not in the installed package: {lost}"


def check_project(directory: str) -> None:
    settings.configure(
        SECRET_KEY="not a secret",
        USE_TZ=True,
        INSTALLED_APPS=[
            "django.contrib.admin",
            "django.contrib.auth",
            "django.contrib.contenttypes",
            "django.contrib.messages",
            "django.contrib.sessions",
            "django_taskq",
        ],
        MIDDLEWARE=[
            "django.contrib.sessions.middleware.SessionMiddleware",
            "django.contrib.auth.middleware.AuthenticationMiddleware",
            "django.contrib.messages.middleware.MessageMiddleware",
        ],
        TEMPLATES=[
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
        ],
        DATABASES={"default": {"ENGINE": "django.db.backends.sqlite3", "NAME": f"{directory}/db.sqlite3"}},
        DEFAULT_AUTO_FIELD="django.db.models.BigAutoField",
    )
    django.setup()
    call_command("check")
    call_command("migrate", verbosity=0)


def main(arguments: list[str]) -> None:
    check_absent(arguments[1:] if arguments[:1] == ["--without"] else [])
    check_files()
    with tempfile.TemporaryDirectory() as directory:
        check_project(directory)
    print(f"django_taskq {django_taskq.__version__} in {Path(django_taskq.__file__).parent} is complete and works")


if __name__ == "__main__":
    main(sys.argv[1:])
