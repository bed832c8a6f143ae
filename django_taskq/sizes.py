"""Amounts of memory, as people write them and as they read them. 1 KB is 1,024 bytes."""

from __future__ import annotations

import re
from typing import Any

_UNITS = {"": 1, "K": 1 << 10, "M": 1 << 20, "G": 1 << 30, "T": 1 << 40}
_PATTERN = re.compile(r"(\d+(?:\.\d+)?)\s*([KMGT]?)(?:I?B)?", re.IGNORECASE)
# No machine has more, and it fits into the 8 bytes of a slot table's word.
MOST_BYTES = 1 << 60


def parse(value: Any) -> int:
    """Bytes from a whole number of them, or from a text such as ``300MB`` or ``1.5 GB``; ``ValueError`` otherwise."""
    size = 0
    if isinstance(value, int) and not isinstance(value, bool):
        size = value
    elif isinstance(value, str) and (found := _PATTERN.fullmatch(value.strip())):
        size = int(float(found[1]) * _UNITS[found[2].upper()])
    if not 0 < size <= MOST_BYTES:
        raise ValueError("a size such as '300MB' or '1.5GB', or a whole number of bytes above 0")
    return size


def parse_or_none(value: Any) -> int | None:
    """As :func:`parse`; None stays None."""
    return None if value is None else parse(value)


def text(size: int) -> str:
    """As people read it: three figures and a unit."""
    amount, unit = float(size), "bytes"
    for unit in ("bytes", "KB", "MB", "GB", "TB"):
        if amount < 1000 or unit == "TB":
            break
        amount /= 1024
    return f"{amount:.3g} {unit}"
