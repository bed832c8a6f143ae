"""The tasks of ``tests/faults/test_versions.py`` under the same names, with other signatures.

``TASKQ_TEST_RELEASE``: ``new`` has changed them all, ``mended`` takes the old calls as well.
"""

from __future__ import annotations

import os
from typing import Any

from django_taskq import task

KINDS = ("missing", "extra", "renamed", "keyword")
RETRYING: dict[str, Any] = {"autoretry_for": (Exception,), "max_retries": 5, "default_retry_delay": 0}


def name(kind: str) -> str:
    return f"tests.faults.changed.{kind}"


if os.environ.get("TASKQ_TEST_RELEASE") == "new":

    @task(name=name("missing"), **RETRYING)
    def missing(number: int, factor: int) -> int:
        return number * factor

    @task(name=name("extra"), **RETRYING)
    def extra() -> int:
        return 0

    @task(name=name("renamed"), **RETRYING)
    def renamed(amount: int) -> int:
        return amount

    @task(name=name("keyword"), **RETRYING)
    def keyword(*, number: int) -> int:
        return number

    @task(name=name("typed"), max_retries=5)
    def typed(number: int) -> int:
        return 2 ** number.bit_length()

elif os.environ.get("TASKQ_TEST_RELEASE") == "mended":
    for kind in (*KINDS, "typed"):

        @task(name=name(kind))
        def mended(*args: Any, **kwargs: Any) -> int:
            return len(args) + len(kwargs)
