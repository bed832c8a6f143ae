"""Limits that are changed while they are in use. Like the other commands they take ``by``, and are kept on record.

A limit is named by its key, as ``taskq limits`` shows it (``"task:app.send"``, ``"rate:app.send:tenant:7"``,
``"queue:mail"``), or by the name of its task.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from typing import Any

from django.apps import apps
from django.utils.module_loading import import_string

from django_taskq import conf, flow, registry
from django_taskq.conflicts import persist
from django_taskq.control import catalogue
from django_taskq.control.issuing import issue
from django_taskq.exceptions import InvalidCommand
from django_taskq.gates import Gate, Kind, bounded

_OPTIONS = {
    Kind.BREAKER: "breaker",
    Kind.TASK: "concurrency",
    Kind.RATE: "rate_limit",
    Kind.QUEUE: "concurrency",
    Kind.QUEUE_RATE: "rate_limit",
}
_KEYED = {Kind.TASK: "concurrency_key", Kind.RATE: "rate_key"}
_RATES = (Kind.RATE, Kind.QUEUE_RATE)
MOST_SUGGESTED = 1000


def set_limit(
    name: str,
    *,
    most: int | None = None,
    rate: float | str | None = None,
    burst: int | None = None,
    by: Any = None,
) -> None:
    """Have this hold instead of what the code declares, from now on and over restarts; 0 lets nothing pass.

    ``most`` is how many may run at once, of a breaker how many failures open it; ``rate`` is ``"100/m"`` or a number a
    second. Set on the limit as a whole it holds for all of its keys. Raises :exc:`InvalidCommand`.
    """
    given = {"most": most, "rate": rate, "burst": burst}
    asked = _asked(name, given)
    for gate, values in asked:
        catalogue.dumps("set_limit", {"key": gate.key, **values})
    for gate, values in asked:
        _issue("set_limit", {"key": gate.key, **values}, by, gate, **_parsed(values))


def clear_limit(name: str, *, by: Any = None) -> bool:
    """Have what the code declares hold again; whether anything was set. Raises :exc:`InvalidCommand`."""
    keys = [gate.key for gate in _of_task(name) if gate.kind != Kind.BREAKER] or [gate_of(name).key]
    cleared = [_issue("clear_limit", {"key": key}, by, key) for key in keys]
    return any(cleared)


def reset_breaker(name: str, *, by: Any = None) -> bool:
    """Close the breaker of a task; whether it was open, or had counted failures. Raises :exc:`InvalidCommand`."""
    gate = gate_of(name if name.startswith(f"{Kind.BREAKER}:") else f"{Kind.BREAKER}:{name}")
    return bool(_issue("reset_breaker", {"key": gate.key}, by, gate.key))


def release_permit(name: str, run: Any, *, by: Any = None) -> bool:
    """Take its permit away from a run (a handle or an id), and let the next one pass; whether it held one.

    For a lock or a limit that somebody knows to be stuck: the run is not stopped, and goes on beside the next one.
    Raises :exc:`InvalidCommand`.
    """
    gate, id = gate_of(name), str(getattr(run, "id", run))
    return bool(_issue("release_permit", {"key": gate.key, "run": id}, by, gate.key, id))


def gate_of(key: str) -> Gate:
    """The gate with this key, as its row or the code has it. Raises :exc:`InvalidCommand` where there is none."""
    row = _limits().filter(pk=key).first()
    if row is not None:
        found: Gate = row.as_gate()
        return found
    for gate in flow.all_declared():
        if key == gate.key:
            return gate
        if key.startswith(f"{gate.key}:") and _is_keyed(gate):
            return gate._replace(sub=bounded(key[len(gate.key) + 1 :]))
    kind, _, rest = key.partition(":")
    if kind == Kind.LOCK and rest:
        return flow.lock(rest)
    raise InvalidCommand(_unknown(key))


def _asked(name: str, given: dict[str, Any]) -> list[tuple[Gate, dict[str, Any]]]:
    """The gates that are meant, each with what is to be set on it."""
    if given["most"] is None and given["rate"] is None:
        raise InvalidCommand("set_limit takes most or rate, or both; clear_limit has what the code declares hold again")
    rates = {"rate": given["rate"], "burst": given["burst"]}
    if registry.find(name) is None:
        gate = gate_of(name)
        is_rate = gate.kind in _RATES
        if is_rate and given["most"] is not None:
            raise InvalidCommand(f"{gate.key} is a rate: it takes rate, not most")
        if not is_rate and (given["rate"] is not None or given["burst"] is not None):
            raise InvalidCommand(f"{gate.key} is no rate: it takes most, not rate and burst")
        if gate.kind == Kind.BREAKER and given["most"] == 0:
            raise InvalidCommand(f"{gate.key} is a breaker, which takes most=1 or more failures to open")
        if gate.kind == Kind.LOCK and given["most"] > 1:
            raise InvalidCommand(f"{gate.key} is a lock, which one holds at a time: it takes most=0 or most=1")
        return [(gate, rates if is_rate else {"most": given["most"]})]
    found = []
    if given["most"] is not None:
        found.append((gate_of(f"{Kind.TASK}:{name}"), {"most": given["most"]}))
    if given["rate"] is not None:
        found.append((gate_of(f"{Kind.RATE}:{name}"), rates))
    elif given["burst"] is not None:
        raise InvalidCommand("burst goes with rate")
    return found


def _parsed(values: dict[str, Any]) -> dict[str, Any]:
    """As they are stored; what cannot be is said by the check that follows."""
    if "rate" not in values:
        return values
    with suppress(ValueError):
        return values | {"rate": catalogue.limit_rate(values["rate"])}
    return values


def keys_of(task_name: str) -> list[str]:
    """The keys of a task's limits, as wholes; none where there is no such task, or it has none."""
    return [gate.key for gate in _of_task(task_name)]


def _of_task(name: str) -> list[Gate]:
    task = registry.find(name)
    return [] if task is None or task.flow is None else task.flow.declared()


def _issue(command: str, arguments: dict[str, Any], by: Any, *args: Any, **values: Any) -> Any:
    """Store the command and carry it out in one transaction; what the verb of the same name returned."""
    using = conf.get_settings().database
    results = []

    def effect(alias: str, who: str) -> None:
        extra = {"by": who} if command == "set_limit" else {}
        results.append(_verb(command)(alias, *args, **values, **extra))

    persist(using, lambda: issue(command, arguments, by=by, timeout=0, effect=effect))
    # With very many keys this takes its time, in which nobody else is to wait.
    _verb("let_pass")(using, arguments["key"])
    return results[-1]


def _verb(name: str) -> Callable[..., Any]:
    verb: Callable[..., Any] = import_string(f"django_taskq.brokers.database.limit_verbs.{name}")
    return verb


def _is_keyed(gate: Gate) -> bool:
    task, option = registry.find(gate.name), _KEYED.get(Kind(gate.kind))
    return task is not None and option is not None and getattr(task.options, option) is not None


def _unknown(key: str) -> str:
    kind, _, rest = key.partition(":")
    shown = key[:200]
    if kind in _OPTIONS and rest:
        option = _OPTIONS[Kind(kind)]
        if registry.find(rest) is not None and kind not in (Kind.QUEUE, Kind.QUEUE_RATE):
            return f"{rest} has no {option}, so its runs pass no limit {shown!r}. Declare one: @task({option}=...)."
        if rest in conf.get_settings().queues and kind in (Kind.QUEUE, Kind.QUEUE_RATE):
            return (
                f"the queue {rest} has no {option}, so its runs pass no limit {shown!r}. Declare one: "
                f"TASKQ['QUEUES'][{rest!r}][{option!r}]."
            )
    known = [gate.key for gate in flow.all_declared()]
    known += _limits().order_by("pk").values_list("pk", flat=True)[:MOST_SUGGESTED]
    tasks = [gate.name for gate in flow.all_declared() if gate.kind not in (Kind.QUEUE, Kind.QUEUE_RATE)]
    hint = conf.suggest(key[:300], [*known, *tasks])
    return f"no limit has the key {shown!r}.{hint}"


def _limits() -> Any:
    return apps.get_model("django_taskq", "Limit").objects.using(conf.get_settings().database)
