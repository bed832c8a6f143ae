"""One station's list as a PDF, and reading back what a PDF says."""

from __future__ import annotations

import base64
import re
import zlib
from pathlib import Path
from uuid import uuid4

from django.conf import settings
from reportlab.lib.pagesizes import A4
from reportlab.lib.units import mm
from reportlab.pdfbase import pdfmetrics
from reportlab.pdfbase.ttfonts import TTFont
from reportlab.pdfgen.canvas import Canvas

from polling.models import Entry, Station

# The fonts built into PDF readers know neither Č nor Ћ, so one that does travels with the project.
NAMES_FONT, NUMBERS_FONT = "DejaVuSans", "Courier"
pdfmetrics.registerFont(TTFont(NAMES_FONT, Path(__file__).parent / "fonts" / "DejaVuSans.ttf"))

LEFT, RIGHT = 20 * mm, A4[0] - 20 * mm
VOTER, NAME, SIGNATURE = LEFT + 14 * mm, LEFT + 36 * mm, RIGHT - 50 * mm
TOP, LINE_HEIGHT, LINES_PER_PAGE = A4[1] - 45 * mm, 6 * mm, 38


def list_file(station: Station) -> str:
    """Where a station's list belongs, relative to ``OUTPUT_DIR``."""
    return f"lists/{station.centre.code}-{station.number}.pdf"


def print_pdf(station: Station, entries: list[Entry]) -> int:
    """Print the list and return how many pages it has.

    The file appears whole or not at all, and the same entries give the same bytes: a task may be started a second
    time after a crash, and must not leave half a list, or another one.
    """
    target = settings.OUTPUT_DIR / list_file(station)
    target.parent.mkdir(parents=True, exist_ok=True)
    unfinished = target.with_suffix(f".{uuid4().hex}.tmp")
    canvas = Canvas(str(unfinished), pagesize=A4, invariant=True, pageCompression=1)
    canvas.setTitle(str(station))
    pages = [entries[start : start + LINES_PER_PAGE] for start in range(0, len(entries), LINES_PER_PAGE)]
    for number, page in enumerate(pages, 1):
        _draw_heading(canvas, station, len(entries), f"page {number} of {len(pages)}")
        for row, entry in enumerate(page):
            _draw_entry(canvas, entry, TOP - row * LINE_HEIGHT)
        canvas.showPage()
    canvas.save()
    unfinished.replace(target)
    return len(pages)


def _draw_heading(canvas: Canvas, station: Station, voters: int, page: str) -> None:
    canvas.setFont(NAMES_FONT, 15)
    canvas.drawString(LEFT, A4[1] - 22 * mm, f"{station.centre.name} ({station.centre.code})")
    canvas.setFont(NAMES_FONT, 10)
    canvas.drawString(LEFT, A4[1] - 29 * mm, f"Polling station {station.number}: {voters} voters")
    canvas.drawRightString(RIGHT, A4[1] - 29 * mm, page)
    canvas.setFont(NAMES_FONT, 7)
    for x, title in zip((LEFT, VOTER, NAME, SIGNATURE), ("line", "voter", "name", "signature"), strict=True):
        canvas.drawString(x, TOP + LINE_HEIGHT, title)
    canvas.setLineWidth(0.3)


def _draw_entry(canvas: Canvas, entry: Entry, y: float) -> None:
    canvas.setFont(NUMBERS_FONT, 9)
    canvas.drawRightString(LEFT + 9 * mm, y, f"{entry.line}.")
    canvas.drawString(VOTER, y, str(entry.voter.number))
    canvas.setFont(NAMES_FONT, 9)
    canvas.drawString(NAME, y, f"{entry.voter.family_name}, {entry.voter.given_name}")
    canvas.line(SIGNATURE, y - 1 * mm, RIGHT, y - 1 * mm)


def read_back(path: Path) -> list[list[int]]:
    """The voter numbers that stand on each page of a printed list, taken from the page itself.

    Good for lists of :func:`print_pdf` alone: their pages are what it compressed, their numbers are not in a font of
    ours, and so stand there as they are.
    """
    streams = re.findall(rb"stream\r?\n(.*?)endstream", path.read_bytes(), re.DOTALL)
    pages = [re.findall(rb"\((\d{7})\) Tj", _unpack(stream)) for stream in streams]
    return [[int(number) for number in page] for page in pages if page]


def _unpack(stream: bytes) -> bytes:
    try:
        return zlib.decompress(base64.a85decode(stream.strip(), adobe=True))
    except (ValueError, zlib.error):  # a font, for instance
        return b""
