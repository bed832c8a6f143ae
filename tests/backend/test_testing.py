"""The testing helpers, with tasks of the framework."""

from __future__ import annotations

import pytest

from django_taskq import testing
from tests.backend.tasks import plus

pytestmark = pytest.mark.django_db


def test_they_know_the_framework_s_tasks() -> None:
    with testing.captured_tasks() as tasks:
        result = plus.enqueue(1, y=2)
    assert [(run.args, run.kwargs) for run in tasks.of(plus)] == [([1], {"y": 2})]
    testing.assert_enqueued(plus, args=[1], count=1)
    with pytest.raises(AssertionError, match=r"expected at least one run of tests\.backend\.tasks\.plus"):
        testing.assert_enqueued(plus, args=[2])
    with testing.worker_dies_in(plus, times=1):
        testing.drain()
    result.refresh()
    assert (result.status, result.return_value, result.attempts) == ("SUCCESSFUL", 3, 2)


def test_delays_and_retries_come_at_their_time() -> None:
    with testing.clock() as clock:
        later = plus.using(run_after=clock.now.replace(year=clock.now.year + 1)).enqueue(1)
        assert clock.advance(days=300) == []
        clock.advance(days=70)
    later.refresh()
    assert later.return_value == 1
