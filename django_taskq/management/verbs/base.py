"""What a verb of ``manage.py taskq`` is."""

from __future__ import annotations

import json
from typing import Any, Protocol

from django.core.management.base import BaseCommand, CommandParser
from django.core.serializers.json import DjangoJSONEncoder


class AnyVerb(Protocol):
    """What the command asks of a verb."""

    help: str

    def add_arguments(self, parser: CommandParser) -> None:
        """Declare options and arguments."""

    def handle(self, command: BaseCommand, options: dict[str, Any]) -> None:
        """Do it; what failed raises ``CommandError``."""


class Verb:
    """A verb that writes: data goes to stdout, messages to stderr."""

    help: str
    command: BaseCommand
    verbosity = 1

    def handle(self, command: BaseCommand, options: dict[str, Any]) -> None:
        """Do it for this command."""
        self.command, self.verbosity = command, options["verbosity"]
        self.run(**options)

    @property
    def stdout(self) -> Any:
        """Where data goes."""
        return self.command.stdout

    @property
    def style(self) -> Any:
        """Colours, or none."""
        return self.command.style

    def add_arguments(self, parser: CommandParser) -> None:
        """Declare options and arguments."""

    def run(self, **options: Any) -> None:
        """Do it. ``options`` are the parsed arguments, Django's own among them."""
        raise NotImplementedError

    def say(self, text: str) -> None:
        """A message to a person, on stderr; silent at ``--verbosity 0``."""
        if self.verbosity:
            self.command.stderr.write(text, lambda plain: plain)

    def write(self, text: str) -> None:
        """A line of data."""
        self.stdout.write(text)

    def write_json(self, document: Any) -> None:
        """One JSON document. Its keys are stable; values JSON does not know become text."""
        text = json.dumps(document, indent=2, ensure_ascii=False, cls=_Encoder)
        # JSON lets characters through that a terminal obeys.
        self.write("".join(char if char.isprintable() or char == "\n" else json.dumps(char)[1:-1] for char in text))


class _Encoder(DjangoJSONEncoder):
    def default(self, o: Any) -> Any:
        try:
            return super().default(o)
        except TypeError:
            return sorted(map(str, o)) if isinstance(o, (set, frozenset)) else str(o)


def add_json_option(parser: CommandParser) -> None:
    """``--json``, for every verb that reads."""
    parser.add_argument("--json", action="store_true", dest="as_json", help="Print one JSON document.")
