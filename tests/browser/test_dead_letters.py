"""The page of dead letters in a real browser: the policy is kept, nothing is too wide, and its buttons work."""

from __future__ import annotations

from typing import Any

import pytest

from django_taskq import brokers
from tests.admin.rows import LIST, make_record
from tests.browser.test_admin import LOOKS, SIZES, page, picture, see, show, strict_server
from tests.lettered_depot import LetteredDepot

__all__ = ["page", "strict_server"]

pytestmark = [pytest.mark.browser, pytest.mark.django_db(transaction=True)]

PAGE = f"{LIST}dead-letters/"
LONG = '[1,"01990a5d-ac96-774b-bcce-b302099a8057","shop.tasks.send_invoice","' + "x" * 700 + '"]'


@pytest.fixture
def depots(settings: Any, monkeypatch: pytest.MonkeyPatch) -> dict[str, LetteredDepot]:
    made = {"default": LetteredDepot(), "rabbit": LetteredDepot("rabbit"), "cache": LetteredDepot("cache")}
    monkeypatch.setattr(brokers, "make_depot", lambda config: made[config.alias])
    others = {alias: {"URL": "memory://"} for alias in ("rabbit", "cache")}
    settings.TASKQ = {"BROKER_URL": "memory://", "BROKERS": others}
    letters = made["default"]
    letters.refuse("01990a5d-ac96-774b-bcce-b302099a8057", LONG, "the message is not of format 1, but [2, 'shop']", 90)
    letters.refuse("01990a5e-0b1c-7c55-9d0e-5d1f4c2b7a10", '{"task": "celery\u202e"}', "not readable JSON", 4000)
    letters.refuse("01990a5f-1111-7c55-9d0e-5d1f4c2b7a11", '{"password": "x"}', "a field has a wrong type", 90_000)
    made["cache"].go_down()
    return made


@pytest.mark.parametrize(("size", "theme"), LOOKS)
def test_it_keeps_the_policy_and_fits(page: Any, depots: Any, size: str, theme: str) -> None:
    make_record()
    for name, address in {"dead-letters": PAGE, "list-with-brokers": LIST}.items():
        browser = page(address)
        show(browser, size, theme)
        script = "return [document.documentElement.scrollWidth, window.innerWidth]"
        width, room = browser.execute_script(script)
        assert width <= room, (name, width, room)
        picture(browser, f"{name}-{size}-{theme}")


@pytest.mark.parametrize("size", SIZES)
def test_by_mouse(page: Any, depots: dict[str, LetteredDepot], size: str) -> None:
    browser = page(PAGE)
    show(browser, size, "light")
    browser.find_element("css selector", ".tq-letter label").click()
    browser.find_element("css selector", "button[value=replay]").click()
    see(browser, ".messagelist", "1 message was put back.")
    assert len(depots["default"].letters) == 2
    browser.find_element("css selector", "input[name=every]").click()
    browser.find_element("css selector", "button[value=discard]").click()
    see(browser, "#content-main", "Dead letters of the broker default: 2.")
    page.check()
    picture(browser, f"dead-letters-confirm-{size}")
    browser.find_element("css selector", "#content-main form button").click()
    see(browser, ".messagelist", "2 messages were thrown away.")
    page.check()
    assert not depots["default"].letters
