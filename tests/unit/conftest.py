from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import settings

from django_taskq import registry
from django_taskq.worker.orders import STOP
from tests.unit.benching import Bench

# The same examples each time: a surprise belongs to whoever changes the code, not to whoever runs the tests next.
settings.register_profile("taskq", deadline=None, database=None, derandomize=True, max_examples=200)
settings.load_profile("taskq")


@pytest.fixture(autouse=True)
def own_registry(monkeypatch: pytest.MonkeyPatch) -> None:
    """Tasks defined in a test are forgotten after it."""
    monkeypatch.setattr(registry, "_tasks", dict(registry._tasks))


@pytest.fixture
def bench(tmp_path: Path) -> Iterator[Any]:
    made: list[Bench] = []

    def make(**how: Any) -> Bench:
        made.append(Bench(tmp_path / f"{len(made)}.slots", **how))
        return made[-1]

    yield make
    for each in made:
        os.write(each.orders, STOP)
        assert each.has_ended()
