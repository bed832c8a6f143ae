from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from textwrap import dedent

import pytest

import django_taskq
from tests.architecture.package import Package


@pytest.fixture(scope="session")
def package() -> Package:
    """The real one."""
    return Package(Path(django_taskq.__file__).parent)


@pytest.fixture
def make_package(tmp_path: Path) -> Callable[..., Package]:
    """A small package from a dict of files, to show that a rule can fail."""

    def make(files: dict[str, str]) -> Package:
        root = tmp_path / "django_taskq"
        for name, text in {"__init__.py": "", **files}.items():
            path = root / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(dedent(text))
        return Package(root)

    return make
