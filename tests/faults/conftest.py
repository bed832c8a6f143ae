"""Fault injection. ``TASKQ_FAULT_ROUNDS`` is how often each random kill is tried: 2 by default, 20 for a release."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from tests.faults.history import History

ROUNDS = int(os.environ.get("TASKQ_FAULT_ROUNDS", "2"))


@pytest.fixture(scope="session")
def worker_env(worker_env: dict[str, str]) -> dict[str, str]:
    """Without a line in the log for each of thousands of runs."""
    return worker_env | {"TASKQ_TEST_LOG_LEVEL": "WARNING"}


@pytest.fixture
def history(tmp_path: Path) -> History:
    return History(tmp_path / "history")
