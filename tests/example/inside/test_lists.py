"""From voters to paper."""

from __future__ import annotations

from pathlib import Path

import pdf_text
import pytest
from polling import checking, generator, printing, tasks
from polling.models import Centre, Entry, PrintedList, Station, Voter

from django_taskq.models import TaskRecord


def test_loading_twice_is_loading_once(db: None, tmp_path: Path) -> None:
    generator.generate(tmp_path / "a.csv", voters=1500, centres=3, seed=1)
    assert tasks.load_voters(tmp_path / "a.csv") == tasks.load_voters(tmp_path / "a.csv") == 1500
    assert Voter.objects.count() == 1500
    assert Centre.objects.count() == 3


def test_assigning_gives_everyone_one_place_and_has_it_printed(centre: Centre) -> None:
    assert tasks.assign_centre(centre.pk) == 2
    stations = list(centre.stations.all())
    assert [station.entries.count() for station in stations] == [550, 550]
    assert [e.line for e in stations[1].entries.order_by("line")] == list(range(1, 551))
    assert Entry.objects.values("voter").distinct().count() == 1100
    runs = TaskRecord.objects.filter(name="polling.tasks.print_list", queue_name="printing")
    assert sorted(run.args for run in runs) == [[station.pk] for station in stations]


def test_assigning_again_changes_nothing_but_what_has_to(centre: Centre) -> None:
    tasks.assign_centre(centre.pk)
    before = sorted(Entry.objects.values_list("voter", "station", "line"))
    tasks.assign_centre(centre.pk)
    assert sorted(Entry.objects.values_list("voter", "station", "line")) == before
    centre.voters.filter(number__gt=1_000_500).delete()
    tasks.assign_centre(centre.pk)
    assert [station.entries.count() for station in centre.stations.all()] == [500]


def test_accents_do_not_send_a_name_to_the_end(centre: Centre) -> None:
    tasks.assign_centre(centre.pk)
    lines = Entry.objects.order_by("station__number", "line").values_list("voter__family_name", flat=True)
    assert list(dict.fromkeys(lines)) == ["Čolić", "Ćosić", "Đorđević", "Dvořák", "Џелатовић"]


def test_the_pdf_says_what_was_assigned(centre: Centre, output: Path) -> None:
    tasks.assign_centre(centre.pk)
    for station in centre.stations.all():
        path = output / tasks.print_list(station.pk)
        entries = list(station.entries.select_related("voter"))
        drawn = pdf_text.text_of(path)
        names = [text for text in drawn if ", " in text and "(C1)" not in text]
        assert names == [f"{entry.voter.family_name}, {entry.voter.given_name}" for entry in entries]
        assert "Школа, Šumice (C1)" in drawn
        pages = printing.read_back(path)
        assert [number for page in pages for number in page] == [entry.voter.number for entry in entries]
        assert PrintedList.objects.get(station=station).pages == len(pages) == 15


def test_printing_again_gives_the_same_bytes(centre: Centre, output: Path) -> None:
    tasks.assign_centre(centre.pk)
    station = centre.stations.first()
    assert station is not None
    first = (output / tasks.print_list(station.pk)).read_bytes()
    assert (output / tasks.print_list(station.pk)).read_bytes() == first
    assert [path.name for path in (output / "lists").iterdir()] == ["C1-1.pdf"]


@pytest.fixture
def register(db: None, output: Path) -> Path:
    """A register with all its lists printed."""
    path = output / "voters.csv"
    generator.generate(path, voters=1500, centres=3, seed=1)
    tasks.load_voters(path)
    for centre in Centre.objects.all():
        tasks.assign_centre(centre.pk)
    for station in Station.objects.all():
        tasks.print_list(station.pk)
    return path


def test_the_check_finds_nothing_wrong(register: Path) -> None:
    assert list(checking.problems(register)) == []


def test_the_check_finds_a_lost_list(register: Path, output: Path) -> None:
    lost = PrintedList.objects.earliest("pk")
    (output / lost.file).unlink()
    found = "\n".join(checking.problems(register))
    assert f"{lost.file} was printed and is gone." in found
    assert f"{lost.voters} voters stand on no list" in found


def test_the_check_finds_a_list_printed_twice(register: Path, output: Path) -> None:
    first, second = PrintedList.objects.order_by("pk")[:2]
    (output / second.file).write_bytes((output / first.file).read_bytes())
    found = "\n".join(checking.problems(register))
    assert f"{second.file} says something else than the database." in found
    assert f"{first.voters} voters stand on several lists or lines" in found
    assert f"{second.voters} voters stand on no list" in found


def test_the_check_finds_a_voter_who_moved_after_printing(register: Path) -> None:
    last = Entry.objects.order_by("line").last()
    assert last is not None
    file = last.station.printed_list.file
    last.delete()
    assert f"{file} says something else than the database." in list(checking.problems(register))


def test_the_check_finds_stations_without_a_list_and_lists_without_a_station(register: Path, output: Path) -> None:
    PrintedList.objects.earliest("pk").delete()
    found = "\n".join(checking.problems(register))
    assert "1 stations have no list." in found
    assert "1 files in lists/ belong to no station" in found
