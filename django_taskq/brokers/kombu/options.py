"""``OPTIONS`` of a broker that kombu speaks to: what there is, what it may be, and what holds when nothing is said."""

from __future__ import annotations

import ssl
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, fields
from typing import Any

from django.core.exceptions import ImproperlyConfigured

from django_taskq.conf import suggest
from django_taskq.conf_brokers import BrokerConfig

_SSL_KEYS = ("ca_certs", "certfile", "keyfile", "cert_reqs", "check_hostname")
_CERT_REQS = {"required": ssl.CERT_REQUIRED, "optional": ssl.CERT_OPTIONAL, "none": ssl.CERT_NONE}


def _seconds(value: Any) -> float:
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not 0 < value <= 3600:
        raise ValueError("a number of seconds above 0")
    return float(value)


def _whole(value: Any) -> int:
    if isinstance(value, bool) or not isinstance(value, int) or value < 1:
        raise ValueError("a whole number of at least 1")
    return value


def _bands(value: Any) -> tuple[int, ...]:
    bounds = tuple(value) if isinstance(value, (list, tuple)) else ()
    is_sound = bounds and all(type(bound) is int for bound in bounds)
    if not is_sound or list(bounds) != sorted(set(bounds), reverse=True) or len(bounds) > 10:
        raise ValueError("a list of 1 to 10 falling whole numbers: the lowest priority of each band")
    return bounds


def _queue_type(value: Any) -> str:
    if value not in ("quorum", "classic"):
        raise ValueError('"quorum" or "classic"')
    return str(value)


def _names(value: Any) -> tuple[str, ...]:
    if not isinstance(value, (list, tuple)) or not value or not all(isinstance(name, str) for name in value):
        raise ValueError("a list of serializers by name")
    return tuple(value)


def _name(value: Any) -> str:
    if not isinstance(value, str):
        raise ValueError("the name of a serializer")
    return value


def _compression(value: Any) -> str | None:
    if value not in (None, "gzip", "bzip2", "zstd"):
        raise ValueError('None, "gzip", "bzip2" or "zstd"')
    return str(value) if value else None


def _mapping(value: Any) -> Mapping[str, Any]:
    if not isinstance(value, Mapping):
        raise ValueError("a dict")
    return dict(value)


def _ssl(value: Any) -> Mapping[str, Any]:
    if not isinstance(value, Mapping) or set(value) - set(_SSL_KEYS):
        raise ValueError(f"a dict of {', '.join(_SSL_KEYS)}")
    found = dict(value)
    requirement = found.get("cert_reqs", ssl.CERT_REQUIRED)
    if isinstance(requirement, str):
        requirement = _CERT_REQS.get(requirement.lower().removeprefix("cert_"))
    if requirement not in _CERT_REQS.values():
        raise ValueError('as cert_reqs "required", "optional" or "none"')
    found["cert_reqs"] = requirement
    return found


def _option(parse: Callable[[Any], Any], default: Any) -> Any:
    return field(default=default, metadata={"parse": parse})


@dataclass(frozen=True, slots=True)
class Options:
    """The options, parsed.

    ``bands`` are the priorities told apart, as the lowest of each. ``delivery_limit`` is how often a quorum queue
    hands out a message that comes back every time. ``max_body`` bounds a body in bytes, also once decompressed.
    ``prefetch`` bounds what the server sends ahead for each queue and band. ``queue_type`` and ``delivery_limit``
    are RabbitMQ's; ``transport_options`` go to kombu's other transports.
    """

    bands: tuple[int, ...] = _option(_bands, (1, 0, -100))
    queue_type: str = _option(_queue_type, "quorum")
    delivery_limit: int = _option(_whole, 20)
    serializer: str = _option(_name, "json")
    accept: tuple[str, ...] = _option(_names, ("json",))
    compression: str | None = _option(_compression, None)
    max_body: int = _option(_whole, 8 << 20)
    prefetch: int = _option(_whole, 1024)
    connect_timeout: float = _option(_seconds, 5.0)
    socket_timeout: float = _option(_seconds, 5.0)
    ssl: Mapping[str, Any] | None = _option(_ssl, None)
    transport_options: Mapping[str, Any] = _option(_mapping, None)


def parse_options(config: BrokerConfig) -> Options:
    """The broker's options, or ``ImproperlyConfigured`` naming the one that is wrong; values are never repeated."""
    known = {option.name: option for option in fields(Options)}
    found: dict[str, Any] = {"transport_options": {}}
    for name, value in config.options.items():
        where = f"OPTIONS[{name!r}] of the broker {config.alias!r}"
        if name not in known:
            raise ImproperlyConfigured(f"{where} is unknown.{suggest(name, known)}")
        try:
            found[name] = known[name].metadata["parse"](value)
        except ValueError as error:
            raise ImproperlyConfigured(f"{where} is not usable: it takes {error}.") from None
    options = Options(**found)
    if options.serializer not in options.accept:
        raise ImproperlyConfigured(
            f"The broker {config.alias!r} would write {options.serializer!r}, which its workers refuse: add it to "
            f"OPTIONS['accept']."
        )
    return options
