"""The proof of the pudding: does every voter of the register stand on exactly one printed list?"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterator
from pathlib import Path

from django.conf import settings

from polling import generator, printing
from polling.models import Entry, PrintedList, Station
from polling.sizes import split


def problems(register: Path) -> Iterator[str]:
    """What is wrong, one sentence each. The paper is compared with the CSV, then the database with the paper."""
    centre_of = {row.number: row.centre_code for row in generator.read(register)}
    times_printed: Counter[int] = Counter()
    list_sizes: dict[str, list[int]] = defaultdict(list)
    printed = PrintedList.objects.select_related("station__centre").order_by("station__centre", "station__number")
    for sheet in printed:
        path = settings.OUTPUT_DIR / sheet.file
        if not path.exists():
            yield f"{sheet.file} was printed and is gone."
            continue
        pages = printing.read_back(path)
        numbers = [number for page in pages for number in page]
        times_printed.update(numbers)
        list_sizes[sheet.station.centre.code].append(len(numbers))
        stored = list(Entry.objects.filter(station=sheet.station).values_list("voter__number", flat=True))
        if numbers != stored or (sheet.voters, sheet.pages) != (len(numbers), len(pages)):
            yield f"{sheet.file} says something else than the database."
        if strangers := [number for number in numbers if centre_of.get(number) != sheet.station.centre.code]:
            yield f"{sheet.file} has {len(strangers)} voters of no such centre, {strangers[0]} for one."

    if missing := centre_of.keys() - times_printed.keys():
        yield f"{len(missing)} voters stand on no list, {min(missing)} for one."
    if repeated := [number for number, times in times_printed.items() if times > 1]:
        yield f"{len(repeated)} voters stand on several lists or lines, {min(repeated)} for one."
    for code, voters in Counter(centre_of.values()).items():
        if list_sizes[code] != split(voters):
            yield f"The stations of {code} have {list_sizes[code]} voters; the rule makes that {split(voters)}."

    if unprinted := Station.objects.filter(printed_list=None).count():
        yield f"{unprinted} stations have no list."
    recorded = {sheet.file for sheet in printed}
    found = {f"lists/{path.name}" for path in (settings.OUTPUT_DIR / "lists").iterdir()}
    if found - recorded:
        yield f"{len(found - recorded)} files in lists/ belong to no station, {min(found - recorded)} for one."
