"""What may be set on a canvas: options of calls, by our names and Celery's, the failure policy, a name."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from django_taskq.options import PLAIN_CALL

POLICIES = ("stop", "continue")
_CELERY_S_NAMES = {"queue": "queue_name", "eta": "run_after"}


def parse_options(options: Mapping[str, Any]) -> dict[str, Any]:
    """The options by our names, their values as they are kept. Raises ``TypeError`` or ``ValueError``."""
    named = {_CELERY_S_NAMES.get(name, name): value for name, value in options.items()}
    policy = named.pop("on_failure", None)
    parsed = PLAIN_CALL.changed(named)
    found = {name: getattr(parsed, name) for name in named}
    if "on_failure" in options:
        found["on_failure"] = None if policy is None else parse_policy(policy)
    return found


def parse_policy(value: Any) -> str:
    """``"stop"`` or ``"continue"``, or ``ValueError``."""
    if value not in POLICIES:
        raise ValueError(f'on_failure={value!r} is not usable: it takes "stop" or "continue"')
    return str(value)


def parse_name(value: Any) -> str:
    """The name of a workflow, or ``ValueError``."""
    if not isinstance(value, str) or not 0 < len(value) <= 255:
        raise ValueError(f"a workflow's name is a text of 1 to 255 characters, not {value!r}")
    return value
