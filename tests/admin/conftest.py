from __future__ import annotations

from typing import Any

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


def browser_of(name: str, how: dict[str, Any] | None) -> Client:
    """The browser of a user in this role, who is staff unless said otherwise; of nobody with None."""
    client = Client(enforce_csrf_checks=True)
    if how is not None:
        fields = dict(how)
        staff = fields.pop("is_staff", True)
        user = make_user(name, fields.pop("permissions", ()), **fields)
        user.is_staff = staff
        user.save()
        client.force_login(user)
    return client
