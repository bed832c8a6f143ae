"""The contract of Django's tasks framework, on whichever of Django 6 and the backport is there."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from importlib.util import find_spec
from typing import Any

import pytest

from django_taskq import registry

if find_spec("django.tasks") is None and find_spec("django_tasks") is None:
    collect_ignore_glob = ["test_*.py"]


@pytest.fixture(autouse=True)
def own_registry(monkeypatch: pytest.MonkeyPatch) -> None:
    """Tasks defined in a test are forgotten after it."""
    monkeypatch.setattr(registry, "_tasks", dict(registry._tasks))


@pytest.fixture(autouse=True)
def framework_queue(settings: Any) -> None:
    """The default alias has this queue as well. (For all tests together it would be one more that workers serve.)"""
    default = settings.TASKS["default"] | {"QUEUES": ["default", "framework"]}
    settings.TASKS = settings.TASKS | {"default": default}


@pytest.fixture
def heard() -> Iterator[list[tuple[str, Any, Any, Any]]]:
    """The framework's signals: name, sender, a result, and the class in ``sys.exc_info()`` when it was sent."""
    from django_taskq.backend import framework

    said: list[tuple[str, Any, Any, Any]] = []
    names = ("task_enqueued", "task_started", "task_finished")

    def listener(name: str) -> Any:
        def listen(sender: Any, task_result: Any, **kwargs: Any) -> None:
            said.append((name, sender, task_result, sys.exc_info()[0]))

        return listen

    receivers = {name: listener(name) for name in names}
    for name in names:
        getattr(framework, name).connect(receivers[name])
    yield said
    for name in names:
        getattr(framework, name).disconnect(receivers[name])
