"""Chosen tests of the worker again, with processes that are spawned: as on Windows, macOS, and where imports thread.

Everything runs so with ``TASKQ_TEST_START_METHOD=spawn`` in the environment.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import pytest

from tests.integration.test_worker import (
    history,
    test_a_run_from_end_to_end,
    test_burst_ends_with_the_work,
    test_threads,
)
from tests.integration.test_worker_stopping import test_a_second_signal_cuts_at_once, test_what_runs_may_finish
from tests.integration.test_worker_times import (
    test_a_hard_limit_ends_the_process,
    test_a_soft_limit_lets_the_task_tidy_up,
)
from tests.workers import WorkerProcess

pytestmark = [pytest.mark.django_db(transaction=True), pytest.mark.one_database]

__all__ = [
    "history",
    "test_a_hard_limit_ends_the_process",
    "test_a_run_from_end_to_end",
    "test_a_second_signal_cuts_at_once",
    "test_a_soft_limit_lets_the_task_tidy_up",
    "test_burst_ends_with_the_work",
    "test_threads",
    "test_what_runs_may_finish",
]


@pytest.fixture
def worker(worker: Callable[..., WorkerProcess]) -> Callable[..., WorkerProcess]:
    return partial(worker, "--start-method", "spawn")


def test_they_are_spawned(worker: Callable[..., WorkerProcess]) -> None:
    """Or the other tests here would prove nothing."""
    process = worker("--processes", "1")
    (child,) = process.children()
    with open(f"/proc/{child}/cmdline", "rb") as file:
        assert b"spawn_main" in file.read()
