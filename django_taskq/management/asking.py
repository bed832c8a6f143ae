"""Depots as people ask them: one that is down costs a command one wait and a line of text, not everything else."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

from django.core.management.base import CommandError

from django_taskq.exceptions import DepotError
from django_taskq.management.storage import RUNTIME_EXIT
from django_taskq.management.text import mask, one_line

T = TypeVar("T")


class Inquiry:
    """What one command asks its depots. ``errors`` says by alias which of them did not answer, and why."""

    def __init__(self) -> None:
        self.errors: dict[str, str] = {}

    def ask(self, alias: str, question: Callable[[], T]) -> T | None:
        """The answer; None from a depot that failed now or before: every further try would be a wait as long."""
        if alias in self.errors:
            return None
        try:
            return question()
        except DepotError as error:
            self.errors[alias] = shown(error)
            return None

    def fail(self) -> None:
        """Raise ``CommandError`` when somebody did not answer. For the end, when all else has been said."""
        if self.errors:
            texts = [f"broker {alias!r} is unreachable: {text}" for alias, text in self.errors.items()]
            raise CommandError("\n".join(texts), returncode=RUNTIME_EXIT)


def shown(error: DepotError) -> str:
    """The error as one line that may be printed."""
    return one_line(mask(" ".join(str(error).split())))
