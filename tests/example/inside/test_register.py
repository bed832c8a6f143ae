"""The generator, and the rule about sizes."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from random import Random

import pytest
from polling import generator, printing
from polling.sizes import divides_well, split
from reportlab.pdfbase import pdfmetrics


def make(path: Path, seed: int = 2026, **how: int) -> bytes:
    generator.generate(path, **({"voters": 10_000, "centres": 16} | how), seed=seed)
    return path.read_bytes()


def test_the_same_seed_makes_the_same_register(tmp_path: Path) -> None:
    assert make(tmp_path / "a.csv") == make(tmp_path / "b.csv")
    assert make(tmp_path / "a.csv") != make(tmp_path / "b.csv", seed=7)


def test_the_register_is_what_was_asked_for(tmp_path: Path) -> None:
    make(tmp_path / "a.csv")
    rows = list(generator.read(tmp_path / "a.csv"))
    assert len({row.number for row in rows}) == len(rows) == 10_000
    sizes = Counter(row.centre_code for row in rows)
    assert len(sizes) == 16
    assert max(sizes.values()) > 20 * min(sizes.values())
    scripts = Counter(row.family_name[-1] > "\u0400" for row in rows)
    assert min(scripts[True], scripts[False]) > 4_000


def test_every_letter_is_in_the_font(tmp_path: Path) -> None:
    make(tmp_path / "a.csv")
    letters = set((tmp_path / "a.csv").read_text(encoding="utf-8")) - {"\n", "\r"}
    known = pdfmetrics.getFont(printing.NAMES_FONT).face.charToGlyph
    assert {letter for letter in letters if ord(letter) not in known} == set()


@pytest.mark.parametrize(("voters", "centres"), [(10_000, 16), (1_500, 4), (1_250_000, 2_000), (16, 16)])
@pytest.mark.parametrize("seed", range(5))
def test_centres_add_up(voters: int, centres: int, seed: int) -> None:
    sizes = generator.centre_sizes(voters, centres, Random(seed))
    assert sum(sizes) == voters
    assert len(sizes) == centres
    assert min(sizes) >= 1


@pytest.mark.parametrize("seed", range(20))
def test_stations_of_500_to_600_in_every_generated_centre(seed: int) -> None:
    assert all(divides_well(size) for size in generator.centre_sizes(10_000, 16, Random(seed)))


def test_no_station_is_overfilled_and_small_ones_are_unavoidable() -> None:
    for voters in range(1, 6_000):
        sizes = split(voters)
        assert sum(sizes) == voters
        assert max(sizes) <= 600
        assert max(sizes) - min(sizes) <= 1
        exists = any(500 * stations <= voters <= 600 * stations for stations in range(1, 13))
        assert exists == (min(sizes) >= 500), voters
    assert split(0) == []
    assert split(499) == [499]
    assert split(1100) == [550, 550]
