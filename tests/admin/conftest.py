from __future__ import annotations

import pytest
from django.test import Client

from tests.admin.rows import make_user


@pytest.fixture
def boss(db: None) -> Client:
    """A superuser's browser."""
    client = Client()
    client.force_login(make_user("boss", is_superuser=True))
    return client


@pytest.fixture
def viewer(db: None) -> Client:
    """May see runs and workers, but no payload."""
    client = Client()
    client.force_login(make_user("viewer", ["view_taskrecord", "view_worker"]))
    return client
