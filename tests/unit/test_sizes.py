"""Amounts of memory, read and written."""

from __future__ import annotations

from typing import Any

import pytest

from django_taskq import sizes

MB = 1 << 20


@pytest.mark.parametrize(
    ("value", "size"),
    [
        (300, 300),
        ("7", 7),
        ("300MB", 300 * MB),
        ("300 mb", 300 * MB),
        ("300M", 300 * MB),
        ("300MiB", 300 * MB),
        ("1.5GB", 1536 * MB),
        (" 2K ", 2048),
    ],
)
def test_what_is_understood(value: Any, size: int) -> None:
    assert sizes.parse(value) == size
    assert sizes.parse_or_none(value) == size


@pytest.mark.parametrize("value", [0, -1, True, None, 1.5, "", "MB", "-3MB", "3 elephants", "0MB", 1 << 61, "9e9GB"])
def test_what_is_not(value: Any) -> None:
    with pytest.raises(ValueError, match="300MB"):
        sizes.parse(value)


def test_none_may_stay_none() -> None:
    assert sizes.parse_or_none(None) is None


@pytest.mark.parametrize(
    ("size", "text"),
    [
        (0, "0 bytes"),
        (999, "999 bytes"),
        (2048, "2 KB"),
        (312 * MB, "312 MB"),
        (1536 * MB, "1.5 GB"),
        (5 << 40, "5 TB"),
    ],
)
def test_how_it_is_shown(size: int, text: str) -> None:
    assert sizes.text(size) == text
