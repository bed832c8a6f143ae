"""What the tests inside the project share."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from polling.models import Centre, Voter


@pytest.fixture(autouse=True)
def output(settings: Any, tmp_path: Path) -> Path:
    """Where this test's files go."""
    settings.PASSWORD_HASHERS = [
        "django.contrib.auth.hashers.MD5PasswordHasher"
    ]  # fast, nothing here is worth guarding
    settings.OUTPUT_DIR = tmp_path
    return tmp_path


@pytest.fixture
def centre(db: None) -> Centre:
    """A centre with 1,100 voters: two stations, and names in both scripts that the alphabet has to sort."""
    centre = Centre.objects.create(code="C1", name="Школа, Šumice")
    names = [("Čolić", "Željko"), ("Ćosić", "Łucja"), ("Dvořák", "Zoë"), ("Đorđević", "Љиљана"), ("Џелатовић", "Његош")]
    Voter.objects.bulk_create(
        Voter(number=1_000_001 + n, family_name=names[n % 5][0], given_name=names[n % 5][1], centre=centre)
        for n in range(1100)
    )
    return centre
