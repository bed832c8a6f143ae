"""PDFs of plain lines, written by hand: pages of text in the font that every reader has."""

from __future__ import annotations

import re
import zlib
from collections.abc import Sequence
from pathlib import Path
from uuid import uuid4

WIDTH, HEIGHT = 595, 842  # A4, in points
LINES_ON_A_PAGE = 60
_FONT = "<< /Type /Font /Subtype /Type1 /BaseFont /Courier >>"


def write(target: Path, lines: Sequence[str]) -> int:
    """Print ``lines``, which are ASCII, and return how many pages they take.

    The file appears whole or not at all, and the same lines give the same bytes: whoever prints may be started again.
    """
    pages = [lines[start : start + LINES_ON_A_PAGE] for start in range(0, len(lines), LINES_ON_A_PAGE)] or [[]]
    # Objects by number: the catalogue, the list of pages, the font, then each page and what stands on it.
    numbers = range(4, 4 + 2 * len(pages), 2)
    objects = [
        b"<< /Type /Catalog /Pages 2 0 R >>",
        f"<< /Type /Pages /Kids [{' '.join(f'{n} 0 R' for n in numbers)}] /Count {len(pages)} >>".encode(),
        _FONT.encode(),
    ]
    for number, page in zip(numbers, pages, strict=True):
        objects += [_page(number + 1), _content(page)]
    target.parent.mkdir(parents=True, exist_ok=True)
    unfinished = target.with_suffix(f".{uuid4().hex}.tmp")
    unfinished.write_bytes(_file(objects))
    unfinished.replace(target)
    return len(pages)


def read(path: Path) -> list[list[str]]:
    """The lines on each page of what :func:`write` wrote."""
    streams = re.findall(rb"stream\n(.*?)\nendstream", path.read_bytes(), re.DOTALL)
    texts = [zlib.decompress(stream).decode() for stream in streams]
    return [[_plain(line) for line in re.findall(r"^\((.*)\) Tj", text, re.MULTILINE)] for text in texts]


def _page(content: int) -> bytes:
    box = f"/MediaBox [0 0 {WIDTH} {HEIGHT}]"
    return (
        f"<< /Type /Page /Parent 2 0 R {box} /Resources << /Font << /F 3 0 R >> >> /Contents {content} 0 R >>".encode()
    )


def _content(lines: Sequence[str]) -> bytes:
    shown = "\n".join(f"({_escaped(line)}) Tj T*" for line in lines)
    stream = zlib.compress(f"BT /F 9 Tf 12.5 TL 50 {HEIGHT - 50} Td\n{shown}\nET".encode("ascii"))
    return b"<< /Length %d /Filter /FlateDecode >>\nstream\n%s\nendstream" % (len(stream), stream)


def _file(objects: Sequence[bytes]) -> bytes:
    """Objects behind each other, then the table that says where each begins."""
    written, starts = bytearray(b"%PDF-1.4\n"), []
    for number, item in enumerate(objects, 1):
        starts.append(len(written))
        written += b"%d 0 obj\n%s\nendobj\n" % (number, item)
    table = "".join(f"{start:010} 00000 n \n" for start in starts)
    size = len(objects) + 1
    end = f"xref\n0 {size}\n0000000000 65535 f \n{table}trailer\n<< /Size {size} /Root 1 0 R >>\n"
    return bytes(written) + f"{end}startxref\n{len(written)}\n%%EOF\n".encode()


def _escaped(line: str) -> str:
    return re.sub(r"([\\()])", r"\\\1", line)


def _plain(line: str) -> str:
    return re.sub(r"\\(.)", r"\1", line)
