"""JSON with the types people pass to tasks every day, and a registry for one's own.

Plain JSON values stand for themselves. Anything else travels as ``{"__taskq__": tag, "v": encoded}``; a dict that
has that key itself, or keys that are not strings, travels as tagged pairs, so that what a task receives equals what
was passed. Reading never imports anything: enums and dataclasses are looked up in modules that are already loaded.
"""

from __future__ import annotations

import base64
import dataclasses
import json
import math
import sys
from collections.abc import Callable, Mapping
from datetime import date, datetime, time, timedelta
from decimal import Decimal
from enum import Enum, Flag
from pathlib import Path, PurePath, PurePosixPath, PureWindowsPath
from typing import Any
from uuid import UUID

from django.db.models import Model
from django.db.models.query import QuerySet
from django.utils.functional import Promise

from django_taskq.exceptions import SerializationError

TAG = "__taskq__"
# Python's own JSON reader recurses; what nests deeper is refused at enqueue, where somebody reads the error.
MAX_DEPTH = 64

_PLAIN = frozenset({str, int, bool, type(None)})
_encoder = json.JSONEncoder(ensure_ascii=False, separators=(",", ":"), allow_nan=False, check_circular=False).encode

_scan = json.JSONDecoder().scan_once  # type: ignore[attr-defined]  # public in all but the stubs

Encode = Callable[[Any], Any]
Decode = Callable[[Any], Any]
_encoders: dict[type, tuple[str, Encode]] = {}
_decoders: dict[str, Decode] = {}


def register_type(cls: type, tag: str, encode: Encode, decode: Decode) -> None:
    """Teach the serializer a type.

    ``encode`` turns an instance into values the serializer knows, ``decode`` turns them back. ``tag`` names the type
    in stored text, so it must stay the same for as long as runs with it exist. Call it where every process sees it,
    for example in ``AppConfig.ready``. Raises ``ValueError`` when the tag is taken by another type.
    """
    known = _decoders.get(tag)
    if known is not None and _encoders.get(cls, ("",))[0] != tag:
        raise ValueError(f"the serializer tag {tag!r} is taken already; choose another one for {cls.__qualname__}")
    _encoders[cls] = (tag, encode)
    _decoders[tag] = decode


def dumps(value: Any) -> str:
    """``value`` as JSON text. Raises :exc:`SerializationError` naming what cannot travel."""
    try:
        text = _encoder(_pack(value, 0))
        if not text.isascii():
            text.encode()  # a lone surrogate would fail later, inside the database driver
    except (ValueError, RecursionError) as error:
        raise SerializationError(f"the value cannot be written as JSON: {error}") from error
    return text


def loads(text: str) -> Any:
    """The value that :func:`dumps` wrote. Raises :exc:`SerializationError` when the text is not of its making."""
    try:
        if TAG in text:
            return json.loads(text, object_hook=_unpack)
        # What dumps() wrote has no white space around it, so the scanner alone will do; it is half of json.loads.
        value, end = _scan(text, 0)
        return value if end == len(text) else json.loads(text)
    except SerializationError:
        raise
    except StopIteration as error:
        raise SerializationError("the stored value cannot be read: it is not JSON") from error
    except (ValueError, TypeError, LookupError, ArithmeticError, RecursionError, AttributeError) as error:
        raise SerializationError(f"the stored value cannot be read: {type(error).__name__}: {error}") from error


def _pack(value: Any, depth: int) -> Any:
    kind = type(value)
    if kind in _PLAIN:
        return value
    if kind is float:
        return value if math.isfinite(value) else {TAG: "float", "v": repr(value)}
    if depth >= MAX_DEPTH:
        raise SerializationError(f"the value is nested more than {MAX_DEPTH} levels deep")
    if kind is list:
        return [item if type(item) in _PLAIN else _pack(item, depth + 1) for item in value]
    if kind is dict:
        return _pack_dict(value, depth)
    tag, encode = _find_encoder(value)
    packed = _pack(encode(value), depth + 1)
    return packed if tag == "" else {TAG: tag, "v": packed}


def _pack_dict(value: dict[Any, Any], depth: int) -> Any:
    if not value:
        return value
    if TAG in value or any(type(key) is not str for key in value):
        pairs = [[key, item] for key, item in value.items()]
        return {TAG: "dict", "v": _pack(pairs, depth + 1)}
    return {key: _pack(item, depth + 1) for key, item in value.items()}


def _find_encoder(value: Any) -> tuple[str, Encode]:
    kind = type(value)
    if _is_namedtuple(kind):
        return "namedtuple", _encode_namedtuple
    if issubclass(kind, Enum):
        # Before the types it may be mixed with: an enum of floats is an enum.
        return "enum", _encode_enum
    for cls in kind.__mro__:
        if cls in _encoders:
            return _encoders[cls]
    if dataclasses.is_dataclass(kind):
        return "dataclass", _encode_dataclass
    for plain, encode in _PLAIN_SUBCLASSES.items():
        if isinstance(value, plain):
            return "", encode
    if isinstance(value, Model):
        raise SerializationError(
            f"a model instance ({kind.__name__}) cannot be passed to a task: pass its primary key "
            f"and fetch it in the task, where it will be fresh"
        )
    if isinstance(value, QuerySet):
        raise SerializationError("a QuerySet cannot be passed to a task: pass a list of primary keys")
    raise SerializationError(
        f"a value of type {kind.__module__}.{kind.__qualname__} cannot travel as JSON: pass plain values, "
        f"or teach the serializer the type with django_taskq.serializers.register_type"
    )


def _unpack(found: dict[str, Any]) -> Any:
    if TAG not in found:
        return found
    tag = found[TAG]
    decode = _decoders.get(tag)
    if decode is None:
        raise SerializationError(f"the serializer tag {tag!r} is not registered in this process")
    return decode(found["v"])


def _encode_class(cls: type) -> str:
    path = f"{cls.__module__}:{cls.__qualname__}"
    if _find_class(path) is not cls:
        raise SerializationError(f"{path} cannot travel: no worker could find it; move it to module level, unprefixed")
    return path


def _decode_class(path: str, base: Callable[[Any], bool]) -> Any:
    found = _find_class(path)
    if found is None or not base(found):
        raise SerializationError(f"the class {path!r} is not loaded in this process; import it where tasks are defined")
    return found


def _find_class(path: str) -> type | None:
    """A public class of a loaded module. vars(), not getattr(): a module's own ``__getattr__`` may import."""
    module, _, qualname = path.partition(":")
    found: type | None = None
    namespace: Mapping[str, Any] = vars(sys.modules[module]) if module in sys.modules else {}
    for name in qualname.split("."):
        found = None if name.startswith("_") else namespace.get(name)
        if not isinstance(found, type):
            return None
        namespace = vars(found)
    return found


def _is_enum(cls: Any) -> bool:
    return issubclass(cls, Enum)


def _encode_enum(value: Enum) -> Any:
    # Combinations of flags have no name of their own.
    member = value.value if isinstance(value, Flag) else value.name
    return [_encode_class(type(value)), member]


def _decode_enum(encoded: Any) -> Any:
    path, member = encoded
    cls = _decode_class(path, _is_enum)
    return cls(member) if issubclass(cls, Flag) else cls[member]


def _encode_dataclass(value: Any) -> Any:
    state = {f.name: getattr(value, f.name) for f in dataclasses.fields(value) if f.init}
    return [_encode_class(type(value)), state]


def _decode_dataclass(encoded: Any) -> Any:
    path, state = encoded
    return _decode_class(path, dataclasses.is_dataclass)(**state)


def _encode_namedtuple(value: Any) -> Any:
    return [_encode_class(type(value)), list(value)]


def _is_namedtuple(cls: Any) -> bool:
    return issubclass(cls, tuple) and hasattr(cls, "_fields")


def _decode_namedtuple(encoded: Any) -> Any:
    path, items = encoded
    return _decode_class(path, _is_namedtuple)(*items)


_PATHS = {"posix": PurePosixPath, "windows": PureWindowsPath, "path": Path}


def _encode_path(value: PurePath) -> Any:
    kind = "path" if isinstance(value, Path) else "windows" if isinstance(value, PureWindowsPath) else "posix"
    return [kind, str(value)]


register_type(float, "float", float.__repr__, float)
register_type(dict, "dict", lambda value: [[key, item] for key, item in value.items()], dict)
register_type(tuple, "tuple", list, tuple)
register_type(set, "set", list, set)
register_type(frozenset, "frozenset", list, frozenset)
register_type(bytes, "bytes", lambda value: base64.b64encode(value).decode(), base64.b64decode)
register_type(datetime, "datetime", datetime.isoformat, datetime.fromisoformat)
register_type(date, "date", date.isoformat, date.fromisoformat)
register_type(time, "time", time.isoformat, time.fromisoformat)
register_type(
    timedelta,
    "timedelta",
    lambda value: [value.days, value.seconds, value.microseconds],
    lambda parts: timedelta(days=parts[0], seconds=parts[1], microseconds=parts[2]),
)
register_type(Decimal, "decimal", str, Decimal)
register_type(UUID, "uuid", str, UUID)
register_type(PurePath, "path", _encode_path, lambda parts: _PATHS[parts[0]](parts[1]))
# str() of a safe string is itself again; str.__str__ makes a plain one.
_PLAIN_SUBCLASSES: dict[type, Encode] = {
    str: str.__str__,
    int: int,
    list: list,
    Promise: lambda lazy: str.__str__(str(lazy)),
}
_decoders["enum"] = _decode_enum
_decoders["dataclass"] = _decode_dataclass
_decoders["namedtuple"] = _decode_namedtuple
