from __future__ import annotations

from typing import Any

import pytest


@pytest.mark.browser
@pytest.mark.django_db(transaction=True)
def test_the_browser_opens_the_admin(browser: Any, live_server: Any) -> None:
    browser.get(f"{live_server.url}/admin/")
    assert browser.title.startswith("Log in")
