"""What ``TASKS`` says of an alias of ours: its queues, and the options its tasks have by default.

Read from the settings at most once until they change, and shared by all threads.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any

from django.conf import settings
from django.core.signals import setting_changed
from django.utils.module_loading import import_string

from django_taskq import conf
from django_taskq.backend.framework import InvalidTaskBackend
from django_taskq.conf_brokers import parse_queue_name
from django_taskq.exceptions import InvalidTask
from django_taskq.options import TaskOptions, option_names

# The rest of our options: these are the framework's own words, belong to one task, or are the framework's to fill.
NOT_OPTIONS = ("name", "queue_name", "priority", "bind", "takes_context", "schedule", "track_pending")
DEFAULTS = tuple(name for name in option_names() if name not in NOT_OPTIONS)
# Exception classes: dotted paths in settings, which are loaded when they are first needed.
PATHS = ("autoretry_for", "dont_autoretry_for")


@dataclass(frozen=True, slots=True)
class Alias:
    """One alias of ``TASKS``. ``paths`` are the options that name classes, not loaded yet."""

    name: str
    queues: frozenset[str] = frozenset()
    options: Mapping[str, Any] = field(default_factory=dict)
    paths: Mapping[str, tuple[Any, ...]] = field(default_factory=dict)

    def defaults(self) -> dict[str, Any]:
        """The options with their classes loaded. Raises ``InvalidTaskBackend`` for a path that leads to none."""
        found = dict(self.options)
        for option, paths in self.paths.items():
            found[option] = tuple(_load(self.name, option, path) for path in paths)
        return found


def parse(name: str, params: Mapping[str, Any]) -> Alias:
    """Judge what the settings give to an alias, importing nothing; ``InvalidTaskBackend`` names what is wrong."""
    queues = params.get("QUEUES", [conf.DEFAULT_QUEUE])
    try:
        if isinstance(queues, str):
            raise ValueError("a list of queue names")
        checked = frozenset(parse_queue_name(queue) for queue in queues)
    except (ValueError, TypeError) as error:
        problem = error if isinstance(error, ValueError) else "a list of queue names"
        raise InvalidTaskBackend(f"TASKS[{name!r}]['QUEUES'] = {queues!r} is not usable: it takes {problem}.") from None
    given = params.get("OPTIONS", {})
    if not isinstance(given, Mapping):
        raise InvalidTaskBackend(f"TASKS[{name!r}]['OPTIONS'] is a {type(given).__name__}: it takes a dict.")
    plain = {option: value for option, value in given.items() if option not in PATHS}
    paths = {option: _paths(name, option, given[option]) for option in PATHS if option in given}
    for option, value in plain.items():
        if option not in DEFAULTS:
            raise InvalidTaskBackend(_unknown(name, option))
        try:
            TaskOptions.parse("", {option: value})
        except InvalidTask as error:
            takes = str(error).rpartition("is not usable: ")[2]
            text = f"TASKS[{name!r}]['OPTIONS'][{option!r}] = {value!r} is not usable: {takes}"
            raise InvalidTaskBackend(text) from None
    try:
        TaskOptions.parse(f"TASKS[{name!r}]['OPTIONS']", plain)
    except InvalidTask as error:
        raise InvalidTaskBackend(str(error)) from None
    return Alias(name, checked, plain, paths)


def _unknown(name: str, option: Any) -> str:
    text = f"TASKS[{name!r}]['OPTIONS'] has no option {option!r}.{conf.suggest(str(option), DEFAULTS)}"
    return f"{text} It belongs to the task: give it to @task." if option in NOT_OPTIONS else text


def _paths(name: str, option: str, value: Any) -> tuple[Any, ...]:
    paths = (value,) if isinstance(value, (str, type)) else value
    if not isinstance(paths, (tuple, list)) or not all(
        (isinstance(path, str) and "." in path) or (isinstance(path, type) and issubclass(path, BaseException))
        for path in paths
    ):
        raise InvalidTaskBackend(
            f"TASKS[{name!r}]['OPTIONS'][{option!r}] = {value!r} is not usable: it takes a list of dotted paths to "
            f"exception classes, such as 'builtins.OSError'."
        )
    return tuple(paths)


def _load(name: str, option: str, path: Any) -> type[BaseException]:
    try:
        found = import_string(path) if isinstance(path, str) else path
    except ImportError as error:
        raise InvalidTaskBackend(
            f"TASKS[{name!r}]['OPTIONS'][{option!r}] names {path!r}, which cannot be imported: {error}"
        ) from error
    if not isinstance(found, type) or not issubclass(found, BaseException):
        raise InvalidTaskBackend(f"TASKS[{name!r}]['OPTIONS'][{option!r}] names {path!r}, which is no exception class.")
    return found


@lru_cache(maxsize=64)
def get(name: str) -> Alias:
    """An alias as the settings have it; one without anything where they do not have it (any more)."""
    params = getattr(settings, "TASKS", {}).get(name)
    return Alias(name) if params is None or not _is_ours(params) else parse(name, params)


@lru_cache(maxsize=1)
def queue_names() -> frozenset[str]:
    """The queues that the aliases of ours declare."""
    return frozenset[str]().union(
        *(parse(name, params).queues for name, params in getattr(settings, "TASKS", {}).items() if _is_ours(params))
    )


def _is_ours(params: Mapping[str, Any]) -> bool:
    try:
        found = import_string(params.get("BACKEND", ""))
    except ImportError:
        return False
    return getattr(found, "keeps_runs_as_rows", False) is True


def _forget(*, setting: str, **kwargs: Any) -> None:
    if setting == "TASKS":
        get.cache_clear()
        queue_names.cache_clear()


setting_changed.connect(_forget, dispatch_uid="django_taskq.backend")
