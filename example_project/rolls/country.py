"""A country of polling centres, and the rolls they need. A roll has its voters by number, so it names nobody."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from itertools import accumulate
from pathlib import Path
from random import Random
from typing import NamedTuple

from django.conf import settings
from polling import generator
from polling.sizes import split

from django_taskq import current_task
from rolls import pdf

IN_A_DISTRICT = 50  # centres
_LINE = "{0:07d},{1:09d},{2:07d}\n"
_WIDTH = len(_LINE.format(0, 0, 0))


class Note(NamedTuple):
    """One roll that was printed: by which attempt of which run, and when, in seconds since the epoch."""

    roll: str
    attempt: str
    at: float


class Centre(NamedTuple):
    """One centre: its number from 1, its first voter's number, and how many voters it has."""

    number: int
    first_voter: int
    voters: int

    @property
    def district(self) -> int:
        """The number of its district."""
        return (self.number - 1) // IN_A_DISTRICT + 1


def centres(count: int, seed: int) -> Iterator[Centre]:
    """The centres of a country, the same for the same seed."""
    sizes = generator.centre_sizes(count * generator.VOTERS_PER_CENTRE, count, Random(seed))
    firsts = accumulate(sizes, initial=generator.FIRST_NUMBER)
    return map(Centre, range(1, count + 1), firsts, sizes)


def prepare(count: int, seed: int) -> None:
    """Write down what the runs will read, and take away what was printed before."""
    folder().mkdir(parents=True, exist_ok=True)
    for path in folder().iterdir():
        path.unlink(missing_ok=True)
    (folder() / "country.csv").write_text("".join(_LINE.format(*centre) for centre in centres(count, seed)))


def centre(number: int) -> Centre:
    """One centre, without reading the others."""
    with (folder() / "country.csv").open() as file:
        file.seek((number - 1) * _WIDTH)
        return Centre(*map(int, file.read(_WIDTH).split(",")))


def print_roll(of: Centre, station: int) -> int:
    """Print the roll of a centre's station, counted from 1, and return how many pages it has."""
    sizes = split(of.voters)
    first = of.first_voter + sum(sizes[: station - 1])
    lines = [f"Centre {of.number}, station {station} of {len(sizes)}: {sizes[station - 1]} voters", ""]
    lines += [f"{line:5}. {first + line - 1:9}  {'_' * 40}" for line in range(1, sizes[station - 1] + 1)]
    pages = pdf.write(folder() / roll_file(of.number, station), lines)
    _note(f"{of.number}-{station}")
    return pages


def roll_file(number: int, station: int) -> str:
    """The name of a station's roll."""
    return f"centre-{number:05}-{station}.pdf"


def folder() -> Path:
    """Where rolls go."""
    return Path(settings.OUTPUT_DIR) / "rolls"


def printed() -> list[Note]:
    """What was printed, in its order. What was printed again stands there again."""
    try:
        lines = (folder() / "printed.log").read_text().splitlines()
    except FileNotFoundError:
        return []
    return [Note(roll, attempt, float(at)) for roll, attempt, at in map(str.split, lines)]


def _note(roll: str) -> None:
    attempt = f"{current_task.id}/{current_task.attempt}" if current_task else "-"
    # One write at the end of the file: many processes do that at once, and a killed one leaves a whole line or none.
    file = os.open(folder() / "printed.log", os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o644)
    try:
        os.write(file, f"{roll} {attempt} {time.time():.3f}\n".encode())
    finally:
        os.close(file)
