"""What ``TASKQ["ROUTES"]`` says, parsed: which tasks go where, whatever their code says."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import Any

from django_taskq.conf_brokers import parse_queue_name

KEYS = ("queue_name", "priority", "exchange", "routing_key")


@dataclass(frozen=True, slots=True)
class Route:
    """What a route changes for a call; None leaves it to the task."""

    queue_name: str | None = None
    priority: int | None = None
    exchange: str | None = None
    routing_key: str | None = None


# Takes the task's name, args and kwargs; gives what ``ROUTES`` may say for a pattern, or None for no opinion.
Router = Callable[[str, Any, Any], Any]


@dataclass(frozen=True, slots=True)
class Rule:
    """A pattern of task names (``*``, ``?`` and ``[...]`` as in file names) with its route, or a router."""

    pattern: str = ""
    route: Route | None = None
    router: str | Router | None = None

    def matches(self, task_name: str) -> bool:
        """Whether a task of this name is meant."""
        return fnmatchcase(task_name, self.pattern)


def parse_routes(value: Any) -> tuple[Rule, ...]:
    """``ROUTES``: a dict from patterns to routes, or a list of such dicts and of routers; the first that says something
    holds."""
    entries = value if isinstance(value, (list, tuple)) else [value]
    rules: list[Rule] = []
    for entry in entries:
        if isinstance(entry, Mapping):
            rules += [Rule(_pattern(pattern), parse_route(route)) for pattern, route in entry.items()]
        elif callable(entry) or (isinstance(entry, str) and "." in entry):
            rules.append(Rule(router=entry))
        else:
            raise ValueError(
                "a dict from patterns of task names to routes, or a list of such dicts and of functions "
                "(or their dotted paths)"
            )
    return tuple(rules)


def parse_route(value: Any) -> Route:
    """A queue's name, or a dict of queue_name, priority, exchange and routing_key; ``ValueError`` otherwise."""
    if isinstance(value, str):
        return Route(queue_name=parse_queue_name(value))
    if not isinstance(value, Mapping) or not value or not set(value) <= set(KEYS):
        raise ValueError(f"as a route a queue's name, or a dict of {', '.join(KEYS)}; not {value!r}")
    queue_name, priority = value.get("queue_name"), value.get("priority")
    if queue_name is not None:
        parse_queue_name(queue_name)
    if priority is not None and (isinstance(priority, bool) or not isinstance(priority, int)):
        raise ValueError(f"as a route's 'priority' a whole number, not {priority!r}")
    for key in ("exchange", "routing_key"):
        if not isinstance(value.get(key), (str, type(None))):
            raise ValueError(f"as a route's {key!r} a text, not {value[key]!r}")
    if queue_name is not None and value.get("exchange") is not None:
        raise ValueError("as a route a queue_name or an exchange, not both: an exchange chooses the queues")
    return Route(queue_name, priority, value.get("exchange"), value.get("routing_key"))


def _pattern(value: Any) -> str:
    if not isinstance(value, str) or not value:
        raise ValueError(f"patterns of task names such as 'shop.tasks.mail_*', not {value!r}")
    return value
