"""What a broker's URL and ``OPTIONS`` say about reaching Redis, validated when the depot is made, not when it is used.

``OPTIONS`` for Redis:

``socket_timeout``
    Seconds that one round trip of a worker may take, connecting included (default 5). Enqueueing has its own limit.
``health_check_interval``
    A connection unused for so many seconds is tried with a PING before it is trusted (default 15; 0: never).
``ssl_ca_certs``, ``ssl_certfile``, ``ssl_keyfile``, ``ssl_cert_reqs``
    For ``rediss://``: paths of the authorities' certificates and of our own certificate and key; and whether the
    server's certificate is verified: ``"required"`` (default), ``"optional"`` or ``"none"``.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from inspect import signature
from typing import Any
from urllib.parse import parse_qsl, unquote, urlsplit

from django.core.exceptions import ImproperlyConfigured
from redis import connection as library
from redis.backoff import NoBackoff
from redis.retry import Retry

from django_taskq.conf import suggest
from django_taskq.conf_brokers import BrokerConfig

# The library's types say less than is needed here, and differently from version to version.
_parse_url: Any = library.parse_url
_CLASSES: dict[str, Callable[..., Any]] = {
    "redis": library.Connection,
    "rediss": library.SSLConnection,
    "unix": library.UnixDomainSocketConnection,
}
# Anything else in a URL would be taken for an argument of the library's, unseen by our own validation.
_IN_QUERY = {"db", "username", "password"}


@dataclass(frozen=True, slots=True)
class Address:
    """One server: how to connect to it, and ``label``, its name for people, which holds no secret."""

    label: str
    make: Callable[..., Any] = field(repr=False)
    arguments: Mapping[str, Any] = field(repr=False)
    secrets: tuple[str, ...] = field(repr=False)


def _seconds(value: Any) -> float:
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not 0 < value <= 3600:
        raise ValueError("a number of seconds above 0, at most 3600")
    return float(value)


def _seconds_or_never(value: Any) -> float:
    return 0.0 if value == 0 and not isinstance(value, bool) else _seconds(value)


def _path(value: Any) -> str:
    if not isinstance(value, str) or not value:
        raise ValueError("the path of a file")
    return value


def _requirement(value: Any) -> str:
    if value not in ("required", "optional", "none"):
        raise ValueError('"required", "optional" or "none"')
    return str(value)


_PARSERS: dict[str, Callable[[Any], Any]] = {
    "socket_timeout": _seconds,
    "health_check_interval": _seconds_or_never,
    "ssl_ca_certs": _path,
    "ssl_certfile": _path,
    "ssl_keyfile": _path,
    "ssl_cert_reqs": _requirement,
}
_DEFAULTS = {"socket_timeout": 5.0, "health_check_interval": 15.0}


def parse_options(config: BrokerConfig) -> dict[str, Any]:
    """``OPTIONS`` with the defaults filled in, or :exc:`ImproperlyConfigured` naming the first that is wrong."""
    options: dict[str, Any] = dict(_DEFAULTS)
    for name, value in config.options.items():
        if name not in _PARSERS:
            raise ImproperlyConfigured(
                f"The broker {config.alias!r} has no option {name!r}.{suggest(str(name), _PARSERS)}"
                f" Redis knows {', '.join(_PARSERS)}."
            )
        try:
            options[name] = _PARSERS[name](value)
        except ValueError as error:
            raise ImproperlyConfigured(
                f"The option {name!r} of the broker {config.alias!r} has to be {error}."
            ) from error
    encrypted = [name for name in options if name.startswith("ssl_")]
    if encrypted and "rediss://" not in config.url:
        raise ImproperlyConfigured(
            f"The option {encrypted[0]!r} of the broker {config.alias!r} is for a URL that begins with rediss://."
        )
    return options


def parse_addresses(config: BrokerConfig, options: Mapping[str, Any]) -> list[Address]:
    """The servers to try, in turn; :exc:`ImproperlyConfigured` never repeats a URL, which may hold a password."""
    addresses = []
    for number, url in enumerate(config.url.split(";"), 1):
        try:
            addresses.append(_address(url, options))
        except ValueError as error:
            # Not ``from error``: the library's own text may quote the URL.
            text = f"URL {number} of the broker {config.alias!r} cannot be used: {error}."
            raise ImproperlyConfigured(text) from None
    return addresses


def _address(url: str, options: Mapping[str, Any]) -> Address:
    scheme = url.partition("://")[0]
    if scheme not in _CLASSES:
        raise ValueError(f"its scheme is none of {', '.join(_CLASSES)}")
    try:
        parts = urlsplit(url)
        unknown = {name for name, _ in parse_qsl(parts.query, keep_blank_values=True)} - _IN_QUERY
        arguments: dict[str, Any] = dict(_parse_url(url))
    except ValueError:
        raise ValueError("it is malformed, or its port or database is not a number") from None
    if unknown:
        raise ValueError(f"{min(unknown)!r} does not belong into the URL, but perhaps into OPTIONS")
    if scheme != "unix" and not unquote(parts.path).strip("/").isdigit() and parts.path.strip("/"):
        raise ValueError("what follows the host has to be the number of a database")
    make = arguments.pop("connection_class", _CLASSES[scheme])
    if scheme == "unix":
        place = arguments.get("path", "")
    else:
        place = f"{arguments.get('host', 'localhost')}:{arguments.get('port', 6379)}"
        arguments["socket_keepalive"] = True
    if scheme == "rediss":
        verifies = options.get("ssl_cert_reqs") != "none"
        # Said here because older versions of the library did not compare the host's name by default.
        arguments |= {"ssl_check_hostname": verifies}
        arguments |= {name: value for name, value in options.items() if name.startswith("ssl_")}
    arguments |= {
        # RESP2: nothing of RESP3 is used, its replies take longer to read, and no message can come uncalled-for.
        "protocol": 2,
        "health_check_interval": options["health_check_interval"],
        # Trying again is decided in connection.py, where it is known what may be repeated.
        "retry": Retry(NoBackoff(), 0),
        # Two round trips less for each new connection; older versions of the library know the second spelling.
        **({"driver_info": None} if _knows_driver_info() else {"lib_name": None, "lib_version": None}),
    }
    secrets = tuple(secret for secret in (arguments.get("password"), parts.password) if secret)
    return Address(f"{place}/{arguments.get('db', 0)}", make, arguments, secrets)


def _knows_driver_info() -> bool:
    return "driver_info" in signature(library.AbstractConnection.__init__).parameters
