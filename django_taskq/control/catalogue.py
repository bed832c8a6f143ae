"""Every command there is: its arguments, who may issue it, and what makes it acceptable.

It is asked twice: where a command is issued, and again by the worker, because whoever can write the table can write
any row. Nothing here is looked up by a name that a row holds, except in :data:`COMMANDS`.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any
from uuid import UUID

from django_taskq import conf
from django_taskq.exceptions import InvalidCommand
from django_taskq.flow_options import MOST_AT_ONCE, parse_count, parse_rate

MOST_ARGUMENTS = 1 << 14  # bytes of JSON
MOST_SLOTS = 1000
INSPECTED = ("active", "reserved", "registered", "stats", "settings")


@dataclass(frozen=True, slots=True)
class Kind:
    """A command. ``permission`` is the codename that its issuer needs.

    ``is_noted``: the row is only there for the record; no worker answers it.
    """

    permission: str
    parameters: Mapping[str, Callable[[Any], Any]]
    is_noted: bool = False


def _whole(value: Any) -> int:
    if isinstance(value, bool) or not isinstance(value, int) or not 1 <= value <= MOST_SLOTS:
        raise ValueError(f"a whole number from 1 to {MOST_SLOTS:,}")
    return value


def _name(value: Any) -> str:
    if not isinstance(value, str) or not 0 < len(value) <= 255:
        raise ValueError("a name of 1 to 255 characters")
    return value


def _text(value: Any) -> str:
    if value is not None and not isinstance(value, str):
        raise ValueError("a text")
    return (value or "")[:500]


def _limit(value: Any) -> float | None:
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not 0 < value <= conf.MOST_SECONDS:
        raise ValueError("a number of seconds above 0, of at most ten years, or None")
    return float(value)


def _key(value: Any) -> str:
    if not isinstance(value, str) or not 0 < len(value) <= 500:
        raise ValueError("the key of a limit, of 1 to 500 characters")
    return value


def _run(value: Any) -> str:
    try:
        return str(UUID(value))
    except (ValueError, TypeError, AttributeError):
        raise ValueError("the id of a run") from None


def _most(value: Any) -> int | None:
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, int) or not 0 <= value <= MOST_AT_ONCE:
        raise ValueError(f"a whole number from 0 to {MOST_AT_ONCE:,}")
    return value


def limit_rate(value: Any) -> float | None:
    """How many may start in a second, or ``ValueError``."""
    if value is None:
        return None
    return 0.0 if value == 0 and not isinstance(value, (bool, str)) else parse_rate(value).per_second


def _burst(value: Any) -> int | None:
    return None if value is None else parse_count(value)


def _inspected(value: Any) -> list[str]:
    if not isinstance(value, list) or not value or not all(isinstance(word, str) for word in value):
        raise ValueError(f"a list of some of {', '.join(INSPECTED)}")
    for word in value:
        if word not in INSPECTED:
            raise ValueError(f"a list of some of {', '.join(INSPECTED)}.{conf.suggest(word, INSPECTED)}")
    return sorted(set(value), key=INSPECTED.index)


COMMANDS: dict[str, Kind] = {
    "ping": Kind("view_worker", {}),
    "inspect": Kind("view_worker", {"what": _inspected}),
    "quiet": Kind("control_worker", {}),
    "work": Kind("control_worker", {}),
    "restart": Kind("control_worker", {}),
    "shutdown": Kind("control_worker", {}),
    "dump_stacks": Kind("control_worker", {}),
    "set_processes": Kind("control_worker", {"number": _whole}),
    "set_threads": Kind("control_worker", {"number": _whole}),
    "set_autoscale": Kind("control_worker", {"least": _whole, "most": _whole}),
    "add_consumer": Kind("control_worker", {"queue_name": _name}),
    "cancel_consumer": Kind("control_worker", {"queue_name": _name}),
    "pause_queue": Kind("pause_queue", {"queue_name": _name, "reason": _text}),
    "resume_queue": Kind("pause_queue", {"queue_name": _name}),
    "set_time_limits": Kind("set_limits", {"task_name": _name, "soft": _limit, "hard": _limit}),
    "set_limit": Kind(
        "change_limits", {"key": _key, "most": _most, "rate": limit_rate, "burst": _burst}, is_noted=True
    ),
    "clear_limit": Kind("change_limits", {"key": _key}, is_noted=True),
    "reset_breaker": Kind("change_limits", {"key": _key}, is_noted=True),
    "release_permit": Kind("change_limits", {"key": _key, "run": _run}, is_noted=True),
    "cancel": Kind("cancel_taskrecord", {"run": _name}, is_noted=True),
}


def find(name: str) -> Kind:
    """The command of this name. Raises :exc:`InvalidCommand`."""
    if name not in COMMANDS:
        raise InvalidCommand(f"no command is named {name[:100]!r}.{conf.suggest(name[:100], COMMANDS)}")
    return COMMANDS[name]


def check(name: str, arguments: Mapping[str, Any]) -> dict[str, Any]:
    """The arguments as the command takes them; those left out are None. Raises :exc:`InvalidCommand`."""
    kind = find(name)
    for key in arguments:
        if key not in kind.parameters:
            hint = conf.suggest(str(key)[:100], kind.parameters)
            raise InvalidCommand(f"{name} has no argument {str(key)[:100]!r}.{hint}")
    found = {}
    for key, parse in kind.parameters.items():
        try:
            found[key] = parse(arguments.get(key))
        except ValueError as error:
            shown = repr(arguments.get(key))[:100]
            raise InvalidCommand(f"{name}({key}={shown}) is not usable: it takes {error}") from None
    if name == "set_autoscale" and found["least"] > found["most"]:
        raise InvalidCommand(f"set_autoscale: at least {found['least']} is more than at most {found['most']}")
    if name == "set_time_limits" and None not in (found["soft"], found["hard"]) and found["soft"] >= found["hard"]:
        raise InvalidCommand("set_time_limits: the soft limit must be below the hard one, or it would never strike")
    return found


def dumps(name: str, arguments: Mapping[str, Any]) -> str:
    """The arguments as a row holds them, checked. Raises :exc:`InvalidCommand`."""
    try:
        size = len(json.dumps(arguments))  # it is ASCII
    except (TypeError, ValueError, RecursionError):
        raise InvalidCommand(f"the arguments of {name[:100]} are not JSON") from None
    if size > MOST_ARGUMENTS:
        raise InvalidCommand(f"the arguments take {size:,} bytes, and {MOST_ARGUMENTS:,} are allowed")
    return json.dumps(check(name, arguments))


def loads(name: str, text: str, size: int) -> dict[str, Any]:
    """What a row says, checked as if nobody had. ``size`` is the length of the whole. Raises :exc:`InvalidCommand`."""
    find(name)
    if size > MOST_ARGUMENTS:
        raise InvalidCommand(f"the arguments take {size:,} characters, and {MOST_ARGUMENTS:,} are allowed")
    try:
        arguments = json.loads(text)
    except (ValueError, RecursionError):
        raise InvalidCommand("the arguments are not JSON") from None
    if not isinstance(arguments, dict):
        raise InvalidCommand("the arguments are not a JSON object")
    return check(name, arguments)
