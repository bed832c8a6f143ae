"""The options of ``taskworker`` about its health port and file, over the settings."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

from django.core.management.base import CommandParser

from django_taskq import conf
from django_taskq.conf_health import HealthOptions, parse_file, parse_host, parse_port_text

T = TypeVar("T")


def add_to(parser: CommandParser) -> None:
    """Declare them."""
    group = parser.add_argument_group("health and metrics")
    group.add_argument(
        "--health-port",
        type=_as(parse_port_text),
        metavar="PORT",
        help="Serve /livez, /readyz, /startupz, /metrics and /metrics.json on this port; 0 takes one that is free. "
        "Default: TASKQ['HEALTH_PORT'], or else nothing is served.",
    )
    group.add_argument(
        "--health-host",
        type=_as(parse_host),
        metavar="HOST",
        help="The address of that port. "
        f"Default: TASKQ['HEALTH_HOST'], or else {conf.Settings().health_host}, which only this host can reach.",
    )
    group.add_argument(
        "--health-file",
        type=_as(parse_file),
        metavar="PATH",
        help="Touch this file every second while the worker is healthy. "
        "Default: TASKQ['HEALTH_FILE'], or else no file is touched.",
    )


def parse(settings: conf.Settings, given: dict[str, Any]) -> HealthOptions:
    """The command line over the settings."""
    port: int | None = given.get("health_port")
    file: Path | None = given.get("health_file")
    return HealthOptions(
        port=settings.health_port if port is None else port,
        host=given.get("health_host") or settings.health_host,
        token=settings.health_token,
        file=settings.health_file if file is None else file,
        timeout=settings.health_timeout,
    )


def _as(parse: Callable[[str], T]) -> Callable[[str], T]:
    def convert(text: str) -> T:
        try:
            return parse(text)
        except ValueError as error:
            raise argparse.ArgumentTypeError(f"{text!r} is not usable: it takes {error}") from error

    return convert
