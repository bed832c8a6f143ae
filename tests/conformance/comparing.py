"""Holding a written statement to its plain ORM version: both do it to the same rows."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from django.db import transaction


def compare(snapshot: Callable[[], Any], plain: Callable[[], Any], written: Callable[[], Any]) -> Any:
    """Do the same thing both ways: equal answers, equal tables as ``snapshot`` shows them. Returns the answer."""
    before = snapshot()
    with transaction.atomic():
        expected = plain()
        expected_rows = snapshot()
        transaction.set_rollback(True)
    assert snapshot() == before
    assert written() == expected
    assert snapshot() == expected_rows
    return expected
