"""Arguments and results as a person reads them: decoded, indented, with what looks secret masked at any depth.

The stored text is read as plain JSON and its tags are interpreted here. Unlike ``serializers.loads`` this builds no
object of the project's, so looking at a run executes nothing, and masking sees every key.
"""

from __future__ import annotations

import inspect
import json
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

from django.utils.translation import gettext as _
from django.views.debug import SafeExceptionReporterFilter

from django_taskq import registry
from django_taskq.admin.words import visible
from django_taskq.serializers import MAX_DEPTH, TAG

MASK = SafeExceptionReporterFilter.cleansed_substitute
_HIDDEN = SafeExceptionReporterFilter.hidden_settings
MAX_SHOWN = 100_000  # characters
# One level of a value is up to three of its stored form.
_MAX_NESTING = 4 * MAX_DEPTH


@dataclass(frozen=True, slots=True)
class Shown:
    """A value to show, with its name ("" for a result) and what must be said about it ("" for nothing)."""

    name: str
    text: str
    note: str = ""


def is_secret(name: str) -> bool:
    """Whether a key looks as if it named a secret, by the pattern Django's error reports use."""
    return _HIDDEN.search(name) is not None


def arguments(task_name: str, payload: str) -> list[Shown]:
    """The arguments of a run, each with its parameter's name where the task is registered here."""
    try:
        args, kwargs = json.loads(payload)
        if not isinstance(args, list) or not isinstance(kwargs, dict):
            raise ValueError("not [args, kwargs]")
        named = [*zip(_positional_names(task_name, len(args)), args, strict=True), *_pairs(kwargs)]
    except (ValueError, TypeError, RecursionError):
        return [unreadable(payload)]
    return [_shown(name, value) for name, value in named]


def result(text: str) -> Shown:
    """A stored return value."""
    try:
        return _shown("", json.loads(text))
    except (ValueError, RecursionError):
        return unreadable(text)


def unreadable(text: str) -> Shown:
    """Stored text that is no JSON: as it is, unless it may hold a secret nobody can find and mask."""
    if _HIDDEN.search(text):
        note = _("The stored text cannot be read, and it is hidden because it seems to hold a secret.")
        return Shown("", MASK, note)
    return _bounded("", text, _("The stored text cannot be read; this is all of it, as it is."))


def _shown(name: str, value: Any) -> Shown:
    readable = MASK if is_secret(name) else _readable(value, 0)
    return _bounded(name, json.dumps(readable, indent=2, ensure_ascii=False), "")


def _bounded(name: str, text: str, note: str) -> Shown:
    if len(text) > MAX_SHOWN:
        cut = _("Only the first %(shown)s of %(all)s characters are shown.")
        note = f"{note} {cut % {'shown': f'{MAX_SHOWN:,}', 'all': f'{len(text):,}'}}".strip()
    return Shown(visible(name), visible(text[:MAX_SHOWN]), note)


def _positional_names(task_name: str, count: int) -> list[str]:
    task = registry.find(task_name)
    names: list[str] = []
    if task is not None:
        parameters = list(inspect.signature(task.function).parameters.values())
        own = 1 if task.options.bind or task.options.takes_context else 0
        for parameter in parameters[own:]:
            if parameter.kind is parameter.VAR_POSITIONAL:
                names += [f"*{parameter.name}[{index}]" for index in range(count - len(names))]
            elif parameter.kind in (parameter.POSITIONAL_ONLY, parameter.POSITIONAL_OR_KEYWORD):
                names.append(parameter.name)
    return [names[index] if index < len(names) else f"args[{index}]" for index in range(count)]


def _pairs(value: dict[str, Any]) -> Iterator[tuple[str, Any]]:
    """The items of a stored dict, whether it is plain or travels as tagged pairs."""
    pairs = value["v"] if value.get(TAG) == "dict" else value.items()
    for key, item in pairs:
        yield key if isinstance(key, str) else json.dumps(_readable(key, 0), ensure_ascii=False), item


def _readable(value: Any, depth: int) -> Any:
    if depth > _MAX_NESTING:
        return "…"
    if isinstance(value, list):
        return [_readable(item, depth + 1) for item in value]
    if not isinstance(value, dict):
        return value
    if TAG in value and value.get(TAG) != "dict":
        return _tagged(str(value[TAG]), value.get("v"), depth)
    try:
        return _masked(dict(_pairs(value)), depth)
    except (ValueError, TypeError, KeyError):
        return _masked({str(key): item for key, item in value.items()}, depth)


def _masked(value: dict[str, Any], depth: int) -> dict[str, Any]:
    return {key: MASK if is_secret(key) else _readable(item, depth + 1) for key, item in value.items()}


def _tagged(tag: str, encoded: Any, depth: int) -> Any:
    """A tagged value; anything odd about it, and it is shown the way it is stored."""
    try:
        if tag == "timedelta":
            return str(timedelta(encoded[0], encoded[1], encoded[2]))
        if tag == "path":
            return str(encoded[1])
        if tag == "enum":
            return f"{encoded[0].rpartition(':')[2]}.{encoded[1]}"
        if tag == "dataclass":
            return _masked(dict(encoded[1]), depth)
        if tag == "namedtuple":
            return _named_tuple(encoded[0], encoded[1], depth)
    except (ValueError, TypeError, KeyError, IndexError, AttributeError, OverflowError):
        return {tag: _readable(encoded, depth + 1)}
    if isinstance(encoded, (str, list)):
        return _readable(encoded, depth + 1)
    return {tag: _readable(encoded, depth + 1)}


def _named_tuple(path: str, items: list[Any], depth: int) -> Any:
    """With its field names where its class is loaded; without them, masking could not see what is secret."""
    module, _colon, qualname = path.partition(":")
    found: Any = sys.modules.get(module)
    for name in qualname.split("."):
        found = getattr(found, name, None)
    fields = getattr(found, "_fields", None)
    if isinstance(found, type) and issubclass(found, tuple) and fields and len(fields) == len(items):
        return _masked(dict(zip(fields, items, strict=True)), depth)
    return _readable(items, depth + 1)
