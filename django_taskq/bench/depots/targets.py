"""The brokers to measure, under names of the benchmark's own on their servers, and gone from there when it ends."""

from __future__ import annotations

import re
import secrets
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

from django.core.exceptions import ImproperlyConfigured
from django.core.management.base import CommandError

from django_taskq import conf
from django_taskq.bench.depots.base import connect
from django_taskq.brokers import make_depot
from django_taskq.conf_brokers import DEFAULT_BROKER, BrokerConfig
from django_taskq.exceptions import DepotError


@dataclass(frozen=True, slots=True)
class Target:
    """One broker. ``alias`` is the project's own, whose ``OPTIONS`` then hold; None for a URL of the command line."""

    config: BrokerConfig
    alias: str | None

    @property
    def name(self) -> str:
        """For people: no password."""
        return shown(self.config.url)


def shown(url: str) -> str:
    """A URL without who connects, and without what may stand behind a question mark."""
    return ";".join(re.sub(r"//.*@", "//", each.partition("?")[0]) for each in url.split(";"))


def targets(urls: Sequence[str]) -> list[Target]:
    """The brokers of these URLs; with none, those that the project keeps queues on, besides the database."""
    if urls:
        return [Target(BrokerConfig(DEFAULT_BROKER, url, _prefix()), None) for url in urls]
    settings = conf.get_settings()
    found = [settings.broker(alias) for alias in settings.broker_aliases()]
    return [
        Target(BrokerConfig(DEFAULT_BROKER, config.url, _prefix(), config.options), config.alias)
        for config in found
        if not config.is_database
    ]


@contextmanager
def kept_apart(found: Sequence[Target]) -> Iterator[None]:
    """Try each server first; in the end remove whatever has been put there. Raises ``CommandError``."""
    tried: list[Target] = []
    try:
        for target in found:
            tried.append(target)
            try:
                _try(target)
            except CommandError:
                tried.pop()
                raise
        yield
    finally:
        for target in tried:
            _wipe(target)


def _try(target: Target) -> None:
    try:
        depot = make_depot(target.config)
        if not depot.capabilities.is_shared:
            raise CommandError(f"the broker {target.name} is no other process's: workers could not reach it")
        try:
            depot.check()
        finally:
            depot.close()
    except (DepotError, ImproperlyConfigured, ImportError) as error:
        raise CommandError(f"the broker {target.name} cannot be measured: {error}") from None


def _wipe(target: Target) -> None:
    try:
        server = connect(target.config)
        try:
            server.wipe()
        finally:
            server.close()
    # Of whatever client; and there may be more to remove, on another server.
    except Exception as error:
        text = f"what begins with {target.config.prefix} may be left on {target.name}: {type(error).__name__}"
        print(text, file=sys.stderr)


def _prefix() -> str:
    return f"taskqbench{secrets.token_hex(6)}"
