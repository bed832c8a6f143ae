"""Rows that hold the arguments of a call as one text."""

from __future__ import annotations

from typing import Any

from django_taskq import serializers


class WithPayload:
    """For a model with ``payload``: the arguments in it, as a task gets them."""

    payload: Any

    @property
    def args(self) -> list[Any]:
        """The positional arguments. Raises ``SerializationError`` when the stored text cannot be read here."""
        args: list[Any] = serializers.loads(self.payload)[0]
        return args

    @property
    def kwargs(self) -> dict[str, Any]:
        """The keyword arguments. Raises ``SerializationError`` when the stored text cannot be read here."""
        kwargs: dict[str, Any] = serializers.loads(self.payload)[1]
        return kwargs
