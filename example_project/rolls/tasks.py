"""The work of printing a country's rolls, as tasks of five sizes. ``ways.py`` puts them together."""

from __future__ import annotations

import time
from collections.abc import Iterable, Sequence
from typing import NamedTuple

from polling.sizes import split

from django_taskq import current_task, task
from rolls import country, pdf

SHIFT = 1.0  # seconds that a run of print_onwards prints before it hands on


class Count(NamedTuple):
    """What one run tells the next: so many rolls of a district, on so many pages."""

    district: int
    rolls: int
    pages: int


@task
def prepare(centres: int, seed: int) -> None:
    """What has to be there before anything is printed."""
    country.prepare(centres, seed)


@task
def print_station(number: int, station: int) -> Count:
    """One roll."""
    centre = country.centre(number)
    return Count(centre.district, 1, country.print_roll(centre, station))


@task
def print_centre(number: int) -> Count:
    """The rolls of one centre."""
    return _centre(number)


@task
def print_country(centres: int) -> list[Count]:
    """All of them."""
    return _districts(map(_centre, range(1, centres + 1)))


@task
def print_onwards(first: int, centres: int, so_far: Sequence[Count] = ()) -> list[Count]:
    """The rolls of the centres from ``first`` on, a shift at a time: the rest takes this run's place.

    What is done travels as an argument, in so few numbers that it may. A worker that stops waits for one centre.
    """
    done, ends_at = [Count(*count) for count in so_far], time.monotonic() + SHIFT
    for number in range(first, centres + 1):
        done.append(_centre(number))
        if number < centres and (time.monotonic() > ends_at or current_task.stop_requested()):
            current_task.replace(print_onwards.si(number + 1, centres, _districts(done)))
    return _districts(done)


@task
def add_up(counts: Sequence[Count]) -> Count:
    """Counts of one district as one."""
    (total,) = _districts(_flat(counts))
    return total


@task
def bind(counts: Sequence[Count]) -> tuple[int, int]:
    """Add up all pages and print the index; returns how many rolls there are, and how many pages."""
    districts = _districts(_flat(counts))
    lines = ["Index of the rolls", "", "district    rolls     pages"]
    lines += [f"{each.district:8} {each.rolls:8,} {each.pages:9,}" for each in districts]
    rolls, pages = sum(each.rolls for each in districts), sum(each.pages for each in districts)
    pdf.write(country.folder() / "index.pdf", [*lines, "", f"in all   {rolls:8,} {pages:9,}"])
    return rolls, pages


def _centre(number: int) -> Count:
    centre = country.centre(number)
    stations = range(1, len(split(centre.voters)) + 1)
    return Count(centre.district, len(stations), sum(country.print_roll(centre, station) for station in stations))


def _districts(counts: Iterable[Count]) -> list[Count]:
    """One count for each district."""
    found: dict[int, Count] = {}
    for district, rolls, pages in counts:
        before = found.get(district, Count(district, 0, 0))
        found[district] = Count(district, before.rolls + rolls, before.pages + pages)
    return [found[district] for district in sorted(found)]


def _flat(counts: Sequence[Count | Sequence[Count]]) -> Iterable[Count]:
    """Counts, or the lists of them that chunks return."""
    for each in counts:
        if isinstance(each, Count):
            yield each
        else:
            yield from each
