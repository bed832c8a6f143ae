"""Decompression that stops at a limit: a message of a kilobyte may claim to be a gigabyte."""

from __future__ import annotations

import bz2
import sys
import zlib
from collections.abc import Callable
from importlib import import_module
from typing import Any

from django_taskq.exceptions import SerializationError

_PIECE = 1 << 16


def _zlib() -> Any:
    return zlib.decompressobj(wbits=47)  # zlib's own header, as kombu writes it, or gzip's


def _zstd() -> Any:
    name = "compression.zstd" if sys.version_info >= (3, 14) else "backports.zstd"
    try:
        return import_module(name).ZstdDecompressor()
    except ImportError:
        raise SerializationError("the message is compressed with zstd, which is not installed here") from None


# By the names that kombu puts into the header ``compression``.
_MAKERS: dict[str, Callable[[], Any]] = {
    "application/x-gzip": _zlib,
    "application/x-bz2": bz2.BZ2Decompressor,
    "application/zstd": _zstd,
}


def decompress(body: bytes, method: object, limit: int) -> bytes:
    """``body`` decompressed. Raises :exc:`SerializationError` beyond ``limit`` bytes, having made little more."""
    if not isinstance(method, str) or method not in _MAKERS:
        raise SerializationError(f"the message is compressed in an unknown way: {method!r:.60}")
    machine = _MAKERS[method]()
    pieces: list[bytes] = []
    size, rest = 0, body
    try:
        while not machine.eof:
            piece = machine.decompress(rest, _PIECE)
            # zlib hands back what it has not read yet; the others keep it.
            rest = machine.unconsumed_tail if hasattr(machine, "unconsumed_tail") else b""
            if not (piece or rest or machine.eof):
                raise SerializationError("the message is compressed, and cut off")
            pieces.append(piece)
            size += len(piece)
            if size > limit:
                raise SerializationError(f"the message is larger than {limit} bytes once it is decompressed")
    except SerializationError:
        raise
    except Exception as error:
        raise SerializationError(f"the message cannot be decompressed: {type(error).__name__}") from error
    return b"".join(pieces)
