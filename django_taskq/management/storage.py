"""The database behind the queue as commands see it: does it answer, is it migrated, what may be shown of it."""

from __future__ import annotations

import pkgutil
import threading
import time
from collections.abc import Callable
from importlib import import_module
from typing import Any

from django.core.management.base import CommandError
from django.db import connections
from django.db.migrations.loader import MigrationLoader
from django.db.migrations.recorder import MigrationRecorder
from django.db.utils import InterfaceError, OperationalError

from django_taskq import conf
from django_taskq.management.text import mask, one_line

RUNTIME_EXIT, USAGE_EXIT, UNREACHABLE_EXIT = 1, 2, 3
TRIES_SECONDS = 10.0
FIRST_PAUSE, LAST_PAUSE = 0.25, 2.0
# How long one try may hang beyond the time for all of them: a host that swallows packets never refuses.
HANGING_SECONDS = 2.0


def describe(alias: str) -> str:
    """The database as a URL without its password, such as ``postgresql://ann:***@db:5432/shop``."""
    connection = connections[alias]
    settings = connection.settings_dict
    if connection.vendor == "sqlite":
        return f"sqlite:///{settings['NAME']}"
    user = f"{settings['USER']}{':***' if settings['PASSWORD'] else ''}@" if settings["USER"] else ""
    port = f":{settings['PORT']}" if settings["PORT"] else ""
    return f"{connection.vendor}://{user}{settings['HOST']}{port}/{settings['NAME']}"


def masked(error: BaseException, alias: str) -> str:
    """An error of the database as one line that holds none of its passwords."""
    settings: dict[str, Any] = connections[alias].settings_dict
    passwords = [str(settings.get("PASSWORD") or ""), str(settings.get("OPTIONS", {}).get("password", ""))]
    return one_line(mask(" ".join(str(error).split()), passwords)) or type(error).__name__


def unreachable(error: BaseException, alias: str) -> CommandError:
    """The error of a command that had to give up on the database."""
    return CommandError(
        f"the database {alias!r} ({describe(alias)}) cannot be reached: {masked(error, alias)}. "
        f"Start it, or correct DATABASES[{alias!r}].",
        returncode=UNREACHABLE_EXIT,
    )


def wait_until_reachable(
    alias: str,
    say: Callable[[str], None],
    *,
    seconds: float | None = None,
    now: Callable[[], float] = time.monotonic,
    sleep: Callable[[float], None] = time.sleep,
) -> None:
    """Connect, trying again for ``seconds`` (ten); then raise :func:`unreachable`."""
    seconds = TRIES_SECONDS if seconds is None else seconds
    deadline, pause, error = now() + seconds, FIRST_PAUSE, _try_to_connect(alias, seconds + HANGING_SECONDS)
    if error is not None:
        say(f"the database {alias!r} does not answer; trying for {seconds:g} s: {masked(error, alias)}")
    while error is not None:
        left = deadline - now()
        if left <= 0:
            raise unreachable(error, alias)
        sleep(min(pause, left))
        pause = min(2 * pause, LAST_PAUSE)
        error = _try_to_connect(alias, max(deadline - now(), 0) + HANGING_SECONDS)


def _try_to_connect(alias: str, seconds: float) -> BaseException | None:
    """The error of one try, which may hang in the network for longer than anybody wants: hence the thread."""
    errors: list[BaseException] = [TimeoutError(f"no answer in {seconds:.0f} s")]

    def connect() -> None:
        try:
            connection = connections[alias]
            try:
                connection.ensure_connection()
                errors.clear()
            finally:
                connection.close()
        except (OperationalError, InterfaceError) as error:
            errors[:] = [error]
        except Exception as error:
            failures.append(error)

    failures: list[Exception] = []
    thread = threading.Thread(target=connect, name="taskq-connect", daemon=True)
    thread.start()
    thread.join(seconds)
    if failures:
        raise failures[0]
    return errors[0] if errors else None


def let_go(alias: str) -> None:
    """Close what this process opened, a connection pool and its threads included: processes cannot fork with them."""
    connection = connections[alias]
    connection.close()
    close_pool = getattr(connection, "close_pool", None)
    if close_pool is not None:
        close_pool()


def unapplied_migrations(alias: str) -> list[str]:
    """This app's migrations that the database has not seen; none where the project switched its migrations off."""
    package, _ = MigrationLoader.migrations_module("django_taskq")
    if package is None:
        return []
    modules = pkgutil.iter_modules(import_module(package).__path__)
    names = [module.name for module in modules if module.name[0] not in "_~"]
    applied = MigrationRecorder(connections[alias]).applied_migrations()
    return sorted(name for name in names if ("django_taskq", name) not in applied)


def check_migrated(alias: str) -> None:
    """Raise ``CommandError`` with the command to run when tables are missing or old."""
    missing = unapplied_migrations(alias)
    if missing:
        option = "" if alias == "default" else f" --database={alias}"
        raise CommandError(
            f"the tables of django_taskq on the database {alias!r} are not up to date "
            f"({', '.join(missing)} not applied). Run:\n\n    python manage.py migrate{option}\n",
            returncode=RUNTIME_EXIT,
        )


def check_settings() -> conf.Settings:
    """The parsed ``TASKQ``, or a ``CommandError`` that lists everything wrong with it."""
    problems = conf.problems()
    if problems:
        lines = [f"{found.message} {found.hint} (django_taskq.{found.check_id})" for found in problems]
        raise CommandError("\n".join(lines), returncode=USAGE_EXIT)
    return conf.get_settings()
