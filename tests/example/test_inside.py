"""Runs ``inside/``: ordinary tests of the project's apps, under the project's own settings."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from tests.example.conftest import PROJECT, ROOT

INSIDE = Path(__file__).parent / "inside"


def test_inside(project_env: dict[str, str]) -> None:
    paths = f"{PROJECT}:{ROOT}"
    command = [sys.executable, "-m", "pytest", "-c", INSIDE / "pytest.ini", "--confcutdir", INSIDE]
    ran = subprocess.run(
        [*command, "-p", "no:cacheprovider", INSIDE],
        env=project_env | {"PYTHONPATH": paths},
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert ran.returncode == 0, ran.stdout + ran.stderr
