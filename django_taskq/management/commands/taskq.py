"""``manage.py taskq <verb>``: look at the queue and act on it."""

from __future__ import annotations

import argparse
import os
import sys
from typing import Any

from django.core.exceptions import ImproperlyConfigured
from django.core.management.base import BaseCommand, CommandError, CommandParser
from django.db.utils import InterfaceError, OperationalError, ProgrammingError

from django_taskq import conf
from django_taskq.management import storage
from django_taskq.management.verbs import VERBS


class Command(BaseCommand):
    """Finds the verb; the verbs do the work (``management/verbs``)."""

    help = "Look at background tasks and act on them."
    requires_system_checks = []

    def add_arguments(self, parser: CommandParser) -> None:
        subparsers = parser.add_subparsers(dest="verb", metavar="VERB", required=True)
        for name, kind in VERBS.items():
            subparser = subparsers.add_parser(name, help=kind.help, description=kind.help)
            kind().add_arguments(subparser)
            _add_common_options(subparser)
        subparsers.choices = _Verbs(subparsers.choices)

    def handle(self, *args: Any, **options: Any) -> None:
        settings = storage.check_settings()
        try:
            VERBS[options["verb"]]().handle(self, options)
            self.stdout.flush()
        except BrokenPipeError:
            # The reader (head, less) has seen enough; the interpreter must not stumble over it again on its way out.
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        except (OperationalError, InterfaceError, ProgrammingError) as error:
            raise _explained(error, settings.database) from error
        except ImproperlyConfigured as error:
            raise CommandError(str(error), returncode=storage.USAGE_EXIT) from error


class _Verbs(dict[str, Any]):
    """The verbs' parsers; asked for one that does not exist, it knows what was meant."""

    def __contains__(self, name: object) -> bool:
        if not super().__contains__(name):
            known = ", ".join(self)
            raise argparse.ArgumentError(
                None, f"no verb is named {name!r}.{conf.suggest(str(name), self)} Verbs: {known}."
            )
        return True


def _add_common_options(parser: CommandParser) -> None:
    """Django's options, so that they may also stand behind the verb; what stands before it holds otherwise."""
    for flags, options in (
        (("-v", "--verbosity"), {"type": int, "choices": [0, 1, 2, 3]}),
        (("--settings",), {}),
        (("--pythonpath",), {}),
        (("--traceback",), {"action": "store_true"}),
        (("--no-color",), {"action": "store_true"}),
        (("--force-color",), {"action": "store_true"}),
    ):
        settings: dict[str, Any] = {"default": argparse.SUPPRESS, "help": argparse.SUPPRESS, **options}
        parser.add_argument(*flags, **settings)


def _explained(error: Exception, alias: str) -> CommandError:
    """Why the database refused: it is out of reach, not migrated, or something else."""
    try:
        storage.check_migrated(alias)
    except CommandError as reason:
        return reason
    except (OperationalError, InterfaceError):
        return storage.unreachable(error, alias)
    return CommandError(
        f"the database {alias!r} refused: {storage.masked(error, alias)}", returncode=storage.RUNTIME_EXIT
    )
