from __future__ import annotations

import pytest
from hypothesis import settings

from django_taskq import registry

# The same examples each time: a surprise belongs to whoever changes the code, not to whoever runs the tests next.
settings.register_profile("taskq", deadline=None, database=None, derandomize=True, max_examples=200)
settings.load_profile("taskq")


@pytest.fixture(autouse=True)
def own_registry(monkeypatch: pytest.MonkeyPatch) -> None:
    """Tasks defined in a test are forgotten after it."""
    monkeypatch.setattr(registry, "_tasks", dict(registry._tasks))
