"""What makes one key of many out of a call: a template, some of its arguments, all of them, or a function."""

from __future__ import annotations

import hashlib
import inspect
import json
import string
from collections.abc import Callable, Mapping
from typing import Any

from django_taskq import serializers
from django_taskq.exceptions import InvalidArguments, InvalidTask, SerializationError
from django_taskq.steps import Reference

# Stands for an argument that nobody knows yet: the result of a step before.
UNKNOWN: Any = type("Unknown", (), {"__repr__": lambda self: "unknown"})()


class Key:
    """``source`` is a template such as ``"tenant:{tenant_id}"`` (``"{order[id]}"``), names of arguments, True for all
    arguments, or a function of the task's arguments that returns a text.
    """

    def __init__(self, task: str, option: str, source: Any, signature: inspect.Signature) -> None:
        """Raises :exc:`InvalidTask` for a template that names no argument of the task."""
        self._task = task
        self._option = option
        self._source = source
        self._signature = signature
        self._names = self._named()
        for name in self._names:
            if name not in signature.parameters:
                raise InvalidTask(
                    f"{task}: @task({option}={source!r}) names {name!r}, and the task's arguments are {signature}."
                )

    def _named(self) -> list[str]:
        if callable(self._source) or self._source is True:
            return []
        if not isinstance(self._source, str):
            return list(self._source)
        try:
            fields = [field for _, field, *_ in string.Formatter().parse(self._source) if field is not None]
        except ValueError as error:
            raise InvalidTask(
                f"{self._task}: @task({self._option}={self._source!r}) does not parse: {error}."
            ) from None
        names = [field.partition(".")[0].partition("[")[0] for field in fields]
        if not all(names) or any("." in field for field in fields):
            raise InvalidTask(
                f"{self._task}: @task({self._option}={self._source!r}) takes names of arguments, such as "
                f"{{order_id}} or {{order[id]}}."
            )
        return names

    def of(self, args: Any, kwargs: Mapping[str, Any]) -> str:
        """The key of this call.

        Raises :exc:`InvalidArguments` where it depends on what is not known yet or cannot be worked out, and
        :exc:`SerializationError` where arguments that it is made of do not serialise.
        """
        try:
            bound = self._signature.bind(*args, **kwargs)
        except TypeError as error:
            raise InvalidArguments(f"{self._task} does not accept these arguments: {error}") from error
        bound.apply_defaults()
        values = bound.arguments
        if callable(self._source):
            return self._called(self._source, args, kwargs)
        names = list(values) if self._source is True else self._names
        for name in names:
            if _is_unknown(values[name]):
                raise InvalidArguments(
                    f"{self._task}: {self._option}={self._source!r} is made of {name!r}, which comes from a step "
                    f"before it. Pass it to the step itself, or leave it out of the key."
                )
        if isinstance(self._source, str):
            try:
                return self._source.format_map(values)
            except (LookupError, ValueError, TypeError) as error:
                raise InvalidArguments(
                    f"{self._task}: {self._option}={self._source!r} cannot be filled in from "
                    f"{dict(values)!r}: {error!r}"
                ) from error
        return self._hashed({name: values[name] for name in names})

    def _called(self, source: Callable[..., Any], args: Any, kwargs: Mapping[str, Any]) -> str:
        if any(map(_is_unknown, (*args, *kwargs.values()))):
            raise InvalidArguments(
                f"{self._task}: {self._option} is a function of the arguments, and some of them come from a step "
                f"before it. Use a template of those that are known."
            )
        try:
            found = source(*args, **kwargs)
        except Exception as error:
            raise InvalidArguments(f"{self._task}: {self._option}={source!r} failed: {error!r}") from error
        if not isinstance(found, str):
            raise InvalidArguments(
                f"{self._task}: {self._option}={source!r} returned {found!r}; it is to return a text."
            )
        return found

    def _hashed(self, values: Mapping[str, Any]) -> str:
        for name, value in values.items():
            try:
                serializers.dumps(value)
            except SerializationError as error:
                raise SerializationError(f"{self._task}: argument {name!r}, of {self._option}: {error}") from error
        # What is equal has the same text, in whatever order its keys came.
        plain = json.loads(serializers.dumps(dict(values)))
        text = json.dumps(plain, sort_keys=True, ensure_ascii=False, separators=(",", ":"))
        return text if len(text) <= 100 else hashlib.sha1(text.encode(), usedforsecurity=False).hexdigest()


def _is_unknown(value: Any) -> bool:
    if isinstance(value, Mapping):
        return any(map(_is_unknown, value.values()))
    if isinstance(value, (list, tuple)):
        return any(map(_is_unknown, value))
    return value is UNKNOWN or isinstance(value, Reference)
