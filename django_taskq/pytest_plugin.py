"""Fixtures for pytest, found through the package's entry point. Importing this loads no models and no helpers."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from importlib import import_module
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from contextlib import AbstractContextManager

    from django_taskq.result import TaskResult
    from django_taskq.testing import Captured, RealWorker, TestClock


@pytest.fixture
def captured_tasks(db: None) -> Iterator[Captured]:
    """What the test enqueues."""
    testing = import_module("django_taskq.testing")
    with testing.captured_tasks() as captured:
        yield captured


@pytest.fixture
def drain_tasks(db: None) -> Callable[..., list[TaskResult[Any]]]:
    """Run what is due: ``drain_tasks()``."""
    drain: Callable[..., list[TaskResult[Any]]] = import_module("django_taskq.testing").drain
    return drain


@pytest.fixture
def taskq_clock(db: None) -> Iterator[TestClock]:
    """The time of the queue, to move on: ``taskq_clock.advance(hours=3)``."""
    testing = import_module("django_taskq.testing")
    with testing.clock() as clock:
        yield clock


@pytest.fixture
def taskq_worker(transactional_db: None) -> Callable[..., AbstractContextManager[RealWorker]]:
    """Real workers: ``with taskq_worker("--processes", "1"):``."""
    worker: Callable[..., AbstractContextManager[RealWorker]] = import_module("django_taskq.testing").worker
    return worker
