"""The rolls of a country, cut into runs in five ways; and the index behind them."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from django.conf import settings
from rolls import country, pdf, tasks, ways
from rolls.management.commands.rolls import cancel_earlier, children, problems, tree

from django_taskq import testing
from django_taskq.models import TaskRecord
from django_taskq.workflow_result import WorkflowResult

CENTRES, SEED = 60, 7

pytestmark = pytest.mark.django_db


@pytest.fixture(autouse=True)
def short_shifts(monkeypatch: pytest.MonkeyPatch) -> None:
    """A shift of the fifth way ends after one centre."""
    monkeypatch.setattr(tasks, "SHIFT", 0.0)


def run(way: int) -> WorkflowResult:
    result = ways.start(way, CENTRES, SEED)
    testing.drain()
    return result


def rolls() -> int:
    return sum(1 for path in country.folder().glob("centre-*.pdf"))


@pytest.mark.parametrize("way", list(ways.WAYS))
def test_every_way_prints_the_same(way: int, output: Path) -> None:
    result = run(way)
    found = result.get(timeout=0)
    assert problems(CENTRES, SEED, found) == []
    assert found[0] == rolls() == len(country.printed())
    assert result.progress().successful == result.progress().total


def test_the_docs_page_names_all_ways() -> None:
    page = (Path(settings.BASE_DIR).parent / "docs" / "task-size.md").read_text()
    for number, way in ways.WAYS.items():
        # Once with its canvas, once with what was measured.
        assert page.count(f"| {number} {way.title} |") == 2


def test_they_differ_in_their_runs(output: Path) -> None:
    sizes = {}
    for way in ways.WAYS:
        run(way)
        sizes[way] = TaskRecord.objects.exclude(workflow=None).count()
        printed = rolls()
        TaskRecord.objects.all().delete()
    # Besides prepare and bind: everything, a centre each, chunks, a roll each with a sum for two districts, shifts.
    assert sizes[1] == 3
    assert sizes[2] == CENTRES + 2
    assert sizes[3] == 2 + 2
    assert sizes[4] == printed + 2 + 2
    assert sizes[5] > CENTRES / 2


def test_problems_are_found(output: Path) -> None:
    found = run(2).get(timeout=0)
    first, second = country.roll_file(1, 1), country.roll_file(2, 1)
    (country.folder() / first).unlink()
    (country.folder() / second).write_bytes((country.folder() / country.roll_file(3, 1)).read_bytes())
    said = problems(CENTRES, SEED, found)
    assert f"{first} is missing." in said
    assert "The rolls of centre 2 do not have each of its voters once." in said
    (country.folder() / "index.pdf").unlink()
    assert "The index says something else than the rolls." in problems(CENTRES, SEED, found)
    assert any("the index was told of [1, 2]" in text for text in problems(CENTRES, SEED, [1, 2]))


def test_printing_again_gives_the_same_bytes_and_a_note(output: Path) -> None:
    tasks.prepare(3, SEED)
    tasks.print_centre(2)
    path = country.folder() / country.roll_file(2, 1)
    before = path.read_bytes()
    tasks.print_centre(2)
    assert path.read_bytes() == before
    assert [note.roll for note in country.printed()].count("2-1") == 2


def test_a_pdf_can_be_read_by_anybody(output: Path) -> None:
    lines = ["plain", r"(brackets) and \ back-strokes", *(f"line {number}" for number in range(100))]
    assert pdf.write(output / "a.pdf", lines) == 2
    assert [line for page in pdf.read(output / "a.pdf") for line in page] == lines
    data = (output / "a.pdf").read_bytes()
    table = int(data.rpartition(b"startxref\n")[2].split()[0])
    starts = [int(line[:10]) for line in data[table:].splitlines()[3:] if line.endswith(b"n ")]
    assert data[table:].startswith(b"xref\n")
    assert [data[start:].split(b" ", 1)[0] for start in starts] == [b"%d" % number for number in range(1, 8)]
    assert data.count(b"/Type /Page ") == 2
    assert b"/Count 2" in data


def test_an_empty_pdf_has_a_page(output: Path) -> None:
    assert pdf.write(output / "a.pdf", []) == 1
    assert pdf.read(output / "a.pdf") == [[]]


def test_what_an_earlier_command_left_is_cancelled(output: Path) -> None:
    left = ways.start(3, CENTRES, SEED)
    tasks.prepare.enqueue(1, SEED)
    cancel_earlier()
    assert testing.drain() == []
    left.refresh()
    assert left.status == "CANCELLED"


def test_a_process_is_in_its_own_tree() -> None:
    assert tree(os.getpid())[0] == os.getpid()
    assert os.getpid() in children(os.getppid())
