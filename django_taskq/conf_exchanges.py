"""What ``TASKQ["EXCHANGES"]`` says, parsed: which exchanges there are, and which queues get copies of what."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, get_args

from django_taskq.conf_brokers import DEFAULT_BROKER, parse_queue_name

ExchangeType = Literal["direct", "topic", "fanout"]


@dataclass(frozen=True, slots=True)
class Binding:
    """A queue that gets a copy of what is sent to the exchange under a matching key (fanout: of everything)."""

    queue_name: str
    routing_key: str = ""
    arguments: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class ExchangeConfig:
    """One exchange of one broker: ``direct`` compares keys, ``topic`` matches patterns, ``fanout`` copies to all."""

    name: str
    type: ExchangeType = "direct"
    durable: bool = True
    arguments: Mapping[str, Any] = field(default_factory=dict)
    bindings: tuple[Binding, ...] = ()
    broker: str = DEFAULT_BROKER


def parse_exchanges(value: Any) -> dict[str, ExchangeConfig]:
    """``EXCHANGES``: a dict from names to ``{"type": ..., "broker": ..., "bindings": [{"queue": ...}, ...]}``."""
    if not isinstance(value, Mapping):
        raise ValueError("a dict from exchange names to {'type': ..., 'bindings': [...]}")
    return {_exchange_name(name): _exchange(name, entry) for name, entry in value.items()}


def _exchange_name(value: Any) -> str:
    try:
        return parse_queue_name(value)
    except ValueError:
        raise ValueError("exchange names of 1 to 100 letters, digits or ._-") from None


def _exchange(name: str, entry: Any) -> ExchangeConfig:
    where = f"for exchange {name!r}"
    _known(where, entry, ("type", "broker", "durable", "arguments", "bindings"))
    kind, broker, durable = entry.get("type", "direct"), entry.get("broker", DEFAULT_BROKER), entry.get("durable", True)
    if kind not in get_args(ExchangeType):
        raise ValueError(f"{where} as 'type' one of {', '.join(get_args(ExchangeType))}, not {kind!r}")
    if not isinstance(broker, str):
        raise ValueError(f"{where} as 'broker' an alias in BROKERS")
    if not isinstance(durable, bool):
        raise ValueError(f"{where} as 'durable' True or False")
    bindings = entry.get("bindings", ())
    if not isinstance(bindings, (list, tuple)):
        raise ValueError(f"{where} as 'bindings' a list of {{'queue': ..., 'routing_key': ...}}")
    found = tuple(_binding(f"{where}, binding {number}", kind, each) for number, each in enumerate(bindings, 1))
    return ExchangeConfig(name, kind, durable, _arguments(where, entry), found, broker)


def _binding(where: str, kind: str, entry: Any) -> Binding:
    _known(where, entry, ("queue", "routing_key", "arguments"))
    if "queue" not in entry:
        raise ValueError(f"{where} as 'queue' the name of the queue that gets the copies")
    try:
        queue_name = parse_queue_name(entry["queue"])
    except ValueError as error:
        raise ValueError(f"{where} as 'queue' one of the {error}") from None
    key = entry.get("routing_key", "")
    # 255 bytes is what the protocol can carry.
    if not isinstance(key, str) or len(key.encode()) > 255:
        raise ValueError(f"{where} as 'routing_key' a text of at most 255 bytes")
    if kind == "fanout" and key:
        raise ValueError(f"{where} no 'routing_key': a fanout exchange copies to every bound queue, whatever the key")
    return Binding(queue_name, key, _arguments(where, entry))


def _known(where: str, entry: Any, known: tuple[str, ...]) -> None:
    if not isinstance(entry, Mapping):
        raise ValueError(f"{where} a dict of {', '.join(known)}")
    for key in entry:
        if key not in known:
            raise ValueError(f"{where} the keys {', '.join(known)}, not {key!r}")


def _arguments(where: str, entry: Mapping[str, Any]) -> Mapping[str, Any]:
    arguments = entry.get("arguments", {})
    if not isinstance(arguments, Mapping):
        raise ValueError(f"{where} as 'arguments' a dict")
    return arguments
