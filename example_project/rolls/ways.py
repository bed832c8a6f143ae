"""Five ways of cutting the same work into runs. ``docs/task-size.md`` compares them."""

from __future__ import annotations

from collections.abc import Callable
from itertools import groupby
from typing import Any, NamedTuple

from polling.sizes import split

from django_taskq import Workflow, chain, chord, group
from django_taskq.workflow_result import WorkflowResult
from rolls import country
from rolls.tasks import add_up, bind, prepare, print_centre, print_country, print_onwards, print_station

CHUNK = 50  # centres


class Way(NamedTuple):
    """``make(centres, seed)`` is what prints the rolls and binds the index, once all is prepared."""

    title: str
    make: Callable[[int, int], Any]


def whole(centres: int, seed: int) -> Any:
    """One run prints everything."""
    return chain(print_country.s(centres), bind.s())


def by_centre(centres: int, seed: int) -> Any:
    """A run for each centre, and a join of them all."""
    return chord((print_centre.s(number) for number in range(1, centres + 1)), bind.s())


def by_chunk(centres: int, seed: int) -> Any:
    """A run for fifty centres each."""
    return chain(print_centre.chunks(((number,) for number in range(1, centres + 1)), CHUNK), bind.s())


def by_station(centres: int, seed: int) -> Any:
    """A run for each roll; those of a district are joined, and then the districts."""
    districts = groupby(country.centres(centres, seed), lambda centre: centre.district)
    return chord((chord(group(_stations(found)), add_up.s()) for _, found in districts), bind.s())


def in_turns(centres: int, seed: int) -> Any:
    """One run at a time: each prints for a while, and then puts the rest in its place."""
    return chain(print_onwards.s(1, centres), bind.s())


def _stations(centres: Any) -> Any:
    for centre in centres:
        for station in range(1, len(split(centre.voters)) + 1):
            yield print_station.s(centre.number, station)


WAYS = {
    1: Way("one run for everything", whole),
    2: Way("a run for each centre", by_centre),
    3: Way(f"chunks of {CHUNK} centres", by_chunk),
    4: Way("a run for each station, joined by district", by_station),
    5: Way("one run at a time, replacing itself", in_turns),
}


def start(way: int, centres: int, seed: int) -> WorkflowResult:
    """Start one of them: first what is prepared, then the rolls, then their index."""
    workflow = Workflow(f"rolls, way {way}")
    ready = workflow.add(prepare.s(centres, seed), name="prepare")
    workflow.add(WAYS[way].make(centres, seed), after=ready)
    return workflow.start()
