"""What ``TASKQ`` and the command line say about the health of a worker, parsed."""

from __future__ import annotations

import ipaddress
import os
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

LOOPBACK = "127.0.0.1"
SHORTEST_TOKEN = 16


@dataclass(frozen=True, slots=True)
class HealthOptions:
    """What was asked for. ``port`` 0 takes any that is free; without a port and a file there is nothing to do.

    ``timeout``: seconds without progress after which a worker is unhealthy.
    """

    port: int | None = None
    host: str = LOOPBACK
    token: str | None = None
    file: Path | None = None
    timeout: float = 20.0

    @property
    def is_on(self) -> bool:
        """Whether anything was asked for."""
        return self.port is not None or self.file is not None

    @property
    def is_open(self) -> bool:
        """Whether anybody on the network may read the metrics."""
        return self.port is not None and self.token is None and not is_loopback(self.host)


def is_loopback(host: str) -> bool:
    """Whether only this host can connect there, as far as the name tells."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def parse_port(value: Any) -> int | None:
    """``HEALTH_PORT``. Raises ``ValueError``."""
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, int) or not 0 <= value <= 65535:
        raise ValueError("None, or a port from 0 to 65535, where 0 is any that is free")
    return value


def parse_port_text(text: str) -> int | None:
    """The same from the command line."""
    return parse_port(int(text) if re.fullmatch(r"[0-9]{1,5}", text) else text)


def parse_host(value: Any) -> str:
    """``HEALTH_HOST``. Raises ``ValueError``."""
    if not isinstance(value, str) or re.fullmatch(r"[A-Za-z0-9.:_%-]{1,255}", value) is None:
        raise ValueError('an address or host name, such as "127.0.0.1", "0.0.0.0" or "::"')
    return value


def parse_token(value: Any) -> str | None:
    """``HEALTH_TOKEN``. Raises ``ValueError``, which does not repeat it."""
    if value is None:
        return None
    if not isinstance(value, str) or re.fullmatch(r"[\x21-\x7e]+", value) is None or len(value) < SHORTEST_TOKEN:
        raise ValueError(f"None, or at least {SHORTEST_TOKEN} printable ASCII characters without blanks")
    return value


def parse_file(value: Any) -> Path | None:
    """``HEALTH_FILE``. Raises ``ValueError``."""
    if value is None:
        return None
    if not isinstance(value, str | os.PathLike) or not os.fspath(value) or "\0" in str(value):
        raise ValueError("None, or the path of a file")
    return Path(value)
