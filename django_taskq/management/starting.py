"""What a command that runs until it is told to stop makes sure of before it begins."""

from __future__ import annotations

from collections.abc import Callable

from django.core import checks as django_checks
from django.core.exceptions import ImproperlyConfigured
from django.core.management.base import CommandError

from django_taskq import checks
from django_taskq.management import storage


def check_system(warn: Callable[[str], None], said_elsewhere: str = "") -> None:
    """Run this app's own system checks alone: such a process serves no URLs and renders no templates.

    Errors end in a ``CommandError`` with all of them, warnings are named in one line, but for ``said_elsewhere``.
    """
    found = [issue for issue in django_checks.run_checks(tags=[checks.TAG]) if not issue.is_silenced()]
    errors = [issue for issue in found if issue.is_serious()]
    if errors:
        lines = [f"{issue.msg} {issue.hint or ''} ({issue.id})" for issue in errors]
        raise CommandError("\n".join(lines), returncode=storage.USAGE_EXIT)
    others = sorted({str(issue.id).rpartition(".")[2] for issue in found if issue.id != said_elsewhere})
    if others:
        warn(f"settings to look at ({', '.join(others)}): python manage.py check --tag {checks.TAG}")


def check_database(alias: str, warn: Callable[[str], None]) -> None:
    """Wait until the database answers, and see that it is migrated. Raises ``CommandError``; leaves nothing open."""
    try:
        storage.wait_until_reachable(alias, warn)
    except ImproperlyConfigured as error:
        raise CommandError(str(error), returncode=storage.USAGE_EXIT) from error
    except KeyboardInterrupt:
        raise CommandError("stopped while waiting for the database", returncode=storage.RUNTIME_EXIT) from None
    try:
        storage.check_migrated(alias)
    finally:
        storage.let_go(alias)
