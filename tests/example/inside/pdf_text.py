"""The text of a PDF that reportlab made, as a reader's "copy" gives it: through each font's ToUnicode table."""

from __future__ import annotations

import base64
import re
import zlib
from pathlib import Path


def text_of(path: Path) -> list[str]:
    """Each string drawn, in order."""
    data = path.read_bytes()
    objects = {int(n): body for n, body in re.findall(rb"(\d+) 0 obj\s*(.*?)\s*endobj", data, re.DOTALL)}
    tables = {}
    for name, number in re.findall(rb"/(F\d+(?:\+\d+)?) (\d+) 0 R", data):
        if found := re.search(rb"/ToUnicode (\d+) 0 R", objects[int(number)]):
            tables[name] = _table(_stream(objects[int(found[1])]))
    drawn = []
    for body in objects.values():
        page = _stream(body)
        if b"BT" in page and b" Tj" in page:
            drawn += list(_strings(page, tables))
    return drawn


def _strings(page: bytes, tables: dict[bytes, dict[int, str]]) -> list[str]:
    font, drawn = b"", []
    for name, string in re.findall(rb"/(F\d+(?:\+\d+)?) [\d.]+ Tf|\(((?:\\.|[^\\)])*)\) Tj", page, re.DOTALL):
        if name:
            font = name
            continue
        codes = re.sub(rb"\\([0-7]{3}|.)", _unescape, string, flags=re.DOTALL)
        table = tables.get(font)
        drawn.append(codes.decode("latin-1") if table is None else "".join(table[code] for code in codes))
    return drawn


def _unescape(found: re.Match[bytes]) -> bytes:
    escaped = found[1]
    if len(escaped) == 3:
        return bytes([int(escaped, 8)])
    return {b"n": b"\n", b"r": b"\r", b"t": b"\t", b"b": b"\b", b"f": b"\f"}.get(escaped, escaped)


def _table(cmap: bytes) -> dict[int, str]:
    """Codes to characters."""
    pairs = re.findall(rb"^<([0-9A-F]{2})> <([0-9A-F]{4})>$", cmap, re.MULTILINE)
    return {int(code, 16): chr(int(character, 16)) for code, character in pairs}


def _stream(body: bytes) -> bytes:
    found = re.search(rb"stream\r?\n(.*?)endstream", body, re.DOTALL)
    if found is None:
        return b""
    packed = found[1].strip()
    if b"ASCII85Decode" in body:
        packed = base64.a85decode(packed, adobe=True)
    return zlib.decompress(packed) if b"FlateDecode" in body else packed
