"""Metrics for ``AUTOSCALE_METRIC``."""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path

from django_taskq.worker.scaling import Facts, needed


def whatever_the_load(facts: Facts) -> int:
    """The worker's own decision, as on a host with nothing else to do: tests share theirs with other tests."""
    return needed(replace(facts, cpu=None, memory=None))


def from_file(facts: Facts) -> int:
    """What a test has written; it may ask for less than nothing and for more than is allowed."""
    return int(Path(os.environ["TASKQ_TEST_WANTED"]).read_text())
