"""The pages as tests see them: fenced blocks, tables, headings and inline code of README.md and docs/*.md."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
DOCS = ROOT / "docs"
PAGES = [ROOT / "README.md", *sorted(DOCS.glob("*.md"))]

_FENCE = re.compile(r"^(?P<ticks>```+)(?P<language>[^\n]*)\n(?P<text>.*?)^(?P=ticks)[ ]*$", re.MULTILINE | re.DOTALL)
_COMMENT = re.compile(r"<!--.*?-->", re.DOTALL)
_FILE = re.compile(r"# (?P<name>[\w/.-]+\.py)\n")


@dataclass(frozen=True, slots=True)
class Block:
    """A fenced block. ``line`` is the number of its first line of text."""

    page: Path
    line: int
    language: str
    text: str

    @property
    def where(self) -> str:
        return f"{self.page.relative_to(ROOT)}:{self.line}"

    @property
    def file(self) -> str:
        """The file it belongs into, where its first line is a comment that names one."""
        found = _FILE.match(self.text)
        return found["name"] if found else ""

    @property
    def is_settings(self) -> bool:
        return self.file.endswith("settings.py")

    def commands(self) -> list[str]:
        """The commands of a console block, without their prompts."""
        return [line.removeprefix("$ ") for line in self.text.splitlines() if line.startswith("$ ")]


def blocks(page: Path) -> Iterator[Block]:
    text = page.read_text()
    for found in _FENCE.finditer(text):
        line = text.count("\n", 0, found.start("text")) + 1
        yield Block(page, line, found["language"].strip(), found["text"])


def all_blocks(language: str) -> list[Block]:
    return [block for page in PAGES for block in blocks(page) if block.language == language]


def prose(page: Path) -> str:
    """A page without its blocks and comments."""
    return _COMMENT.sub("", _FENCE.sub("", page.read_text()))


def inline_code(page: Path) -> list[str]:
    """What stands between single back-ticks, line breaks as blanks."""
    return [" ".join(text.split()) for text in re.findall(r"`([^`]+)`", prose(page))]


def headings(page: Path, level: int) -> list[str]:
    """Texts of the headings of this level, without back-ticks."""
    return [text.strip("` ") for text in re.findall(rf"^{'#' * level} (.+)$", prose(page), re.MULTILINE)]


def section(page: Path, heading: str) -> str:
    """The text below a heading, up to the next one of any level."""
    found = re.search(rf"^#+ `?{re.escape(heading)}`?\n(.*?)(?=^#|\Z)", prose(page), re.MULTILINE | re.DOTALL)
    assert found, f"{page.name} has no heading {heading!r}"
    return found[1]


def rows(text: str, first: str) -> list[list[str]]:
    """The rows of every table in ``text`` whose first column is headed ``first``."""
    found: list[list[str]] = []
    is_wanted = False
    for line in text.splitlines():
        if not line.startswith("|"):
            is_wanted = False
            continue
        cells = [cell.strip() for cell in line.strip("|").split(" |")]
        if cells[0] == first:
            is_wanted = True
        elif is_wanted and not cells[0].startswith("---"):
            found.append(cells)
    return found


def names(text: str, first: str) -> list[str]:
    """The first column of such tables: what stands in back-ticks there."""
    return [name for row in rows(text, first) for name in re.findall(r"`([^`]+)`", row[0])]
