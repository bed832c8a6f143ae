"""The three tasks of an election's eve.

Each takes a key and reads what it needs itself: rows change while a run waits, and a copy of them in the queue would
be an old one.
"""

from __future__ import annotations

from itertools import islice
from pathlib import Path

from django.utils import timezone

from django_taskq import task
from polling import assigning, generator, printing
from polling.models import Centre, PrintedList, Station, Voter

BATCH = 1000


@task
def load_voters(path: Path) -> int:
    """Bring a register into the database, and return how many voters it has.

    A national register takes minutes, so it is not one transaction: others want to write, too. A run that a crash
    cut short is started again, and passes over the voters that it finds.
    """
    rows = generator.read(path)
    centres: dict[str, Centre] = {}
    loaded = 0
    while batch := list(islice(rows, BATCH)):
        for row in batch:
            if row.centre_code not in centres:
                names = {"name": row.centre_name}
                centres[row.centre_code], _ = Centre.objects.get_or_create(code=row.centre_code, defaults=names)
        Voter.objects.bulk_create((_voter(row, centres[row.centre_code]) for row in batch), ignore_conflicts=True)
        loaded += len(batch)
    return loaded


@task(transactional=True)
def assign_centre(centre_id: int) -> int:
    """Share a centre's voters out among its stations, have their lists printed, and return how many stations it has.

    ``transactional``: the stations, the printing that they need and the success of this run are committed together.
    Whatever is killed, and whenever, no list is printed of stations that were never stored, and none is forgotten.
    """
    stations = assigning.assign(Centre.objects.get(pk=centre_id))
    print_list.enqueue_many(((station.pk,), {}) for station in stations)
    return len(stations)


@task(queue_name="printing")
def print_list(station_id: int) -> str:
    """Print a station's list, and return its file. Printing takes a while and no transaction is held meanwhile."""
    station = Station.objects.select_related("centre").get(pk=station_id)
    entries = list(station.entries.select_related("voter"))
    pages = printing.print_pdf(station, entries)
    file = printing.list_file(station)
    PrintedList.objects.update_or_create(
        station=station,
        defaults={"file": file, "voters": len(entries), "pages": pages, "printed_at": timezone.now()},
    )
    return file


def _voter(row: generator.Row, centre: Centre) -> Voter:
    return Voter(number=row.number, family_name=row.family_name, given_name=row.given_name, centre=centre)
