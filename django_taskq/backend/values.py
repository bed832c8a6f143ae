"""The framework's JSON rule, for arguments and return values."""

from __future__ import annotations

from typing import Any

from django_taskq.backend.framework import normalize_json


def plain(value: Any) -> Any:
    """``value`` as plain JSON values; ``TypeError`` or ``ValueError`` for what the framework's rule refuses.

    The rule lets subclasses of ``str``, ``int`` and ``float`` pass as they are; JSON knows no enums or safe strings.
    """
    return _exact(normalize_json(value))


def _exact(value: Any) -> Any:
    match value:
        case dict():
            return {_exact(key): _exact(item) for key, item in value.items()}
        case list():
            return [_exact(item) for item in value]
        case str():
            return value if type(value) is str else str.__str__(value)
        case bool() | None:
            return value
        case int():
            return value if type(value) is int else int(value)
        case _:
            return float(value)
