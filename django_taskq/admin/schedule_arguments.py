"""Arguments as JSON that a person edits: typed values in their stored form, and what looks secret behind a mask.

A mask that is left in its place stands for the stored value. Text that says the same as the stored one changes
nothing, so values of types that this process does not know survive.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

from django.utils.translation import gettext as _

from django_taskq import conf, registry, serializers
from django_taskq.admin import payload as shown_payload
from django_taskq.admin.payload import MASK, is_secret
from django_taskq.admin.words import visible
from django_taskq.exceptions import SerializationError
from django_taskq.serializers import MAX_DEPTH, TAG

ONE_LINE = 70  # characters; longer JSON is indented
Way = tuple[Any, ...]


class ArgumentsError(ValueError):
    """What was typed cannot be used; ``field`` is ``args`` or ``kwargs``."""

    def __init__(self, field: str, message: str) -> None:
        super().__init__(message)
        self.field = field


@dataclass(frozen=True, slots=True)
class Stored:
    """The arguments of a row as plain JSON values, tags and all."""

    task_name: str
    payload: str
    args: list[Any]
    kwargs: dict[str, Any]

    @classmethod
    def read(cls, task_name: str, payload: str) -> Stored | None:
        """None when the text is not of the serializer's making: nobody can edit it then."""
        try:
            args, kwargs = json.loads(payload)
        except (ValueError, TypeError, RecursionError):
            return None
        is_sound = isinstance(args, list) and isinstance(kwargs, dict)
        return cls(task_name, payload, args, kwargs) if is_sound else None

    def shown(self) -> tuple[str, str]:
        """The two texts to edit."""
        args, kwargs = json.loads(self.payload)
        for way in self._hidden():
            _put((args, kwargs), way, MASK)
        return _text(args), _text(kwargs)

    def changed(self, args: Any, kwargs: Any) -> str:
        """The payload that these values, as they were typed, make. Raises :exc:`ArgumentsError`."""
        both = (args, kwargs)
        for way in self._hidden():
            if _get(both, way) == MASK:
                _put(both, way, _get((self.args, self.kwargs), way))
        for field, value in (("args", args), ("kwargs", kwargs)):
            if _has(value, MASK):
                raise ArgumentsError(field, _("%(mask)s stands for no stored value here: give one.") % {"mask": MASK})
        if (canonical(args), canonical(kwargs)) == (canonical(self.args), canonical(self.kwargs)):
            return self.payload
        payload = serializers.dumps([_typed("args", args), _typed("kwargs", kwargs)])
        most = conf.get_settings().max_payload
        if len(payload.encode()) > most:
            raise ArgumentsError("args", _("The arguments take more than %(most)s bytes.") % {"most": f"{most:,}"})
        return payload

    def _hidden(self) -> list[Way]:
        blanks = json.dumps([[None] * len(self.args), {}])
        names = [shown.name for shown in shown_payload.arguments(self.task_name, blanks)]
        found: list[Way] = []
        for index, (name, value) in enumerate(zip(names, self.args, strict=True)):
            found += [(0, index)] if is_secret(name) else [(0, index, *way) for way in _secrets(value, 0)]
        return found + [(1, *way) for way in _secrets(self.kwargs, 0)]


def canonical(value: Any) -> str:
    """A text that tells ``1``, ``1.0`` and ``true`` apart, as ``==`` does not."""
    return json.dumps(value)


def read_json(text: str, kind: type, say: Callable[[], str]) -> Any:
    """What was typed. ``ValueError`` with ``say()`` when it is no JSON, or of another kind."""
    try:
        value = json.loads(text)
        _check_depth(value, 0)
    except json.JSONDecodeError as error:
        where = _("line %(line)d, column %(column)d") % {"line": error.lineno, "column": error.colno}
        raise ValueError(_("This is no JSON (%(where)s). %(say)s") % {"where": where, "say": say()}) from error
    except (ValueError, RecursionError) as error:
        raise ValueError(_("This cannot be read. %(say)s") % {"say": say()}) from error
    if not isinstance(value, kind):
        raise ValueError(say())
    return value


def check_binding(task_name: str, payload: str) -> None:
    """Raise :exc:`ArgumentsError` unless a task that is known here takes these arguments."""
    task = registry.find(task_name)
    if task is None:
        return
    args, kwargs = serializers.loads(payload)
    try:
        task.check_arguments(args, kwargs)
    except TypeError as error:
        is_named = "keyword argument" in str(error) or "multiple values" in str(error)
        raise ArgumentsError("kwargs" if is_named else "args", str(error)) from error


def _typed(field: str, value: Any) -> Any:
    """With its tags made into values: a tag nobody knows is refused here, not by the worker."""
    try:
        typed = serializers.loads(json.dumps(value))
    except SerializationError as error:
        raise ArgumentsError(field, str(error)) from error
    if field == "kwargs" and not (isinstance(typed, dict) and all(type(key) is str for key in typed)):
        raise ArgumentsError(field, _("Keyword arguments are an object with names as keys."))
    if field == "args" and not isinstance(typed, list):
        raise ArgumentsError(field, _("Positional arguments are a list."))
    try:
        serializers.dumps(typed)
    except SerializationError as error:
        raise ArgumentsError(field, str(error)) from error
    return typed


def _text(value: Any) -> str:
    text = json.dumps(value, ensure_ascii=False)
    # Written out as JSON escapes, control characters and marks still mean the same.
    return visible(text if len(text) <= ONE_LINE else json.dumps(value, ensure_ascii=False, indent=2))


def _check_depth(value: Any, depth: int) -> None:
    if depth > 4 * MAX_DEPTH:
        raise ValueError("nested too deep")
    for item in value.values() if isinstance(value, dict) else value if isinstance(value, list) else ():
        _check_depth(item, depth + 1)


def _secrets(value: Any, depth: int) -> Iterator[Way]:
    """The ways to what looks secret in a value as it is stored."""
    if depth > 4 * MAX_DEPTH or not isinstance(value, (list, dict)):
        return
    for way, name, item in _members(value):
        if name is not None and is_secret(name):
            yield way
        else:
            yield from ((*way, *rest) for rest in _secrets(item, depth + 1))


def _members(value: Any) -> Iterator[tuple[Way, str | None, Any]]:
    """The way to each member, the name it goes by, and itself."""
    if isinstance(value, list):
        yield from (((index,), None, item) for index, item in enumerate(value))
        return
    tag, inner = value.get(TAG), value.get("v")
    if tag == "dict" and isinstance(inner, list):
        for index, pair in enumerate(inner):
            if isinstance(pair, list) and len(pair) == 2:
                yield ("v", index, 0), None, pair[0]
                yield ("v", index, 1), pair[0] if isinstance(pair[0], str) else None, pair[1]
    elif tag == "namedtuple" and isinstance(inner, list) and len(inner) == 2 and isinstance(inner[1], list):
        names = _field_names(inner[0], len(inner[1]))
        yield from ((("v", 1, index), names[index], item) for index, item in enumerate(inner[1]))
    else:
        yield from (((key,), key, item) for key, item in value.items())


def _field_names(path: Any, count: int) -> list[str | None]:
    """The fields of a named tuple whose class is loaded here."""
    module, _colon, qualname = str(path).partition(":")
    found: Any = sys.modules.get(module)
    for name in qualname.split("."):
        found = getattr(found, name, None)
    fields = getattr(found, "_fields", None)
    is_sound = isinstance(found, type) and issubclass(found, tuple) and fields and len(fields) == count
    return list(fields) if is_sound and fields else [None] * count


def _get(value: Any, way: Way) -> Any:
    for step in way:
        try:
            value = value[step]
        except (LookupError, TypeError):
            return None
    return value


def _put(value: Any, way: Way, new: Any) -> None:
    _get(value, way[:-1])[way[-1]] = new


def _has(value: Any, wanted: str) -> bool:
    if isinstance(value, (list, dict)):
        return any(_has(item, wanted) for item in (value.values() if isinstance(value, dict) else value))
    return value == wanted if isinstance(value, str) else False
