"""The samples of the example project, as their commands run them: they take real workers and real time."""

from __future__ import annotations

import re
from pathlib import Path

from tests.example.test_commands import Manage, workers_using


def test_rolls_prints_a_country_in_every_way(manage: Manage, tmp_path: Path) -> None:
    ran = manage("rolls", "--centres", "60")
    assert ran.returncode == 0, ran.stdout + ran.stderr
    rows = [line.split() for line in ran.stdout.splitlines() if line.endswith((" ms", " -"))]
    assert [row[0] for row in rows] == ["1", "2", "3", "4", "5"]
    assert (tmp_path / "output" / "rolls" / "index.pdf").is_file()
    assert workers_using(tmp_path) == []


def test_rolls_survives_the_death_of_its_workers(manage: Manage, tmp_path: Path) -> None:
    ran = manage("rolls", "--way", "1", "--centres", "120", "--kill")
    assert ran.returncode == 0, ran.stdout + ran.stderr
    again = int(ran.stdout.splitlines()[-1].split()[-1].replace(",", ""))
    assert again > 0, ran.stdout  # one run for everything began anew
    assert workers_using(tmp_path) == []


def test_rolls_says_what_is_wrong_with_its_arguments(manage: Manage) -> None:
    assert manage("rolls", "--centres", "0").stderr == "CommandError: --centres and --processes are at least 1.\n"
    assert "invalid choice: 6" in manage("rolls", "--way", "6").stderr


def test_feeds_are_read_over_a_window(manage: Manage, tmp_path: Path) -> None:
    ran = manage("refresh_feeds", "--start", "4", "--stop", "9", "--window", "5")
    assert ran.returncode == 0, ran.stdout + ran.stderr
    assert ran.stdout.startswith("5 feeds, 0.80 s apart")
    (later,) = re.findall(r"50 new entries; .* the last (\d+\.\d) s later", ran.stdout)
    assert float(later) >= 3.0
    assert workers_using(tmp_path) == []
