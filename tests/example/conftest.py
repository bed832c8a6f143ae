"""The example project has settings of its own, so all that is tested of it runs in other processes."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
PROJECT = ROOT / "example_project"

collect_ignore = ["inside"]  # test_inside.py runs what is in there


@pytest.fixture
def project_env(tmp_path: Path) -> dict[str, str]:
    """An environment in which the project leaves its files in ``tmp_path``, as after a fresh checkout."""
    ours = ("DJANGO_", "PYTEST_", "TASKQ_")
    inherited = {name: value for name, value in os.environ.items() if not name.startswith(ours)}
    return inherited | {
        "DATABASE_URL": f"sqlite:///{tmp_path}/db.sqlite3",
        "OUTPUT_DIR": str(tmp_path / "output"),
        "PYTHONPATH": str(ROOT),
        "PYTHONUNBUFFERED": "1",
    }


@pytest.fixture
def manage(project_env: dict[str, str]) -> Callable[..., subprocess.CompletedProcess[str]]:
    """Run ``manage.py`` from another directory to its end: ``manage("demo", "--voters", "1500")``."""

    def run(*arguments: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, str(PROJECT / "manage.py"), *arguments],
            cwd="/",
            env=project_env,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=180,
        )

    return run
