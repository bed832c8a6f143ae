"""The pages of limits in a real browser, and a run that waits at one."""

from __future__ import annotations

from typing import Any

import pytest
from django.contrib.admin.utils import quote

from django_taskq import control, maintenance, registry
from django_taskq.models import Limit, TaskRecord
from django_taskq.status import Status
from tests.admin.rows import detail_url
from tests.browser.test_admin import SIZES, page, picture, see, show, strict_server
from tests.unit.making import make_task
from tests.unit.working import claim, run

__all__ = ["page", "strict_server"]

pytestmark = [pytest.mark.browser, pytest.mark.django_db(transaction=True)]

LIMITS = "/admin/django_taskq/limit/"
LONG = "reports.tasks.yearly_report_of_every_customer_of_the_north_western_region"
LOCK = "lock:ledger of the north western region/7"


def page_of(key: str) -> str:
    return f"{LIMITS}{quote(key)}/change/"


@pytest.fixture
def rows(monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """One limit of each kind: held, waited for, set, at 0, and a breaker that is open."""
    monkeypatch.setattr(registry, "_tasks", dict(registry._tasks))
    closing = make_task(lambda number=0: None, name="shop.close", lock=LOCK.partition(":")[2])
    each = make_task(lambda tenant="": None, name=LONG, concurrency=2, concurrency_key="tenant:{tenant}")
    call = make_task(lambda number=0: None, name="shop.call", rate_limit="100/h")
    failing = make_task(lambda number=0: 1 / number, name="shop.fetch", breaker=1)
    make_task(lambda number=0: None, name="shop.idle", concurrency=5)
    maintenance.declare_limits()
    runs = [closing.enqueue(number) for number in range(3)]
    failing.enqueue(0)
    maintenance.tend_limits()
    run([delivery for delivery in claim() if delivery.name == "shop.fetch"])
    for number in range(5):
        failing.enqueue(1)
        call.enqueue(number)
        each.enqueue("a-tenant-with-quite-a-long-name.example.org")
    maintenance.tend_limits()
    control.set_limit("shop.call", rate="50/h", by="ann")
    control.set_limit("shop.idle", most=0, by="root@web-1.internal")
    return {"waits": TaskRecord.objects.get(pk=runs[2].id)}


@pytest.mark.parametrize("theme", ["light", "dark"])
@pytest.mark.parametrize("size", SIZES)
def test_every_page_keeps_the_policy(page: Any, rows: dict[str, Any], size: str, theme: str) -> None:
    addresses = {
        "flow": LIMITS,
        "flow-none": f"{LIMITS}?state=set&kind=lock",
        "flow-lock": page_of(LOCK),
        "flow-rate": page_of("rate:shop.call"),
        "flow-breaker": page_of("breaker:shop.fetch"),
        "flow-whole": page_of(f"task:{LONG}"),
        "flow-run": detail_url(rows["waits"]),
    }
    for name, address in addresses.items():
        show(page(address), size, theme)
        browser = page(address)
        picture(browser, f"{name}-{size}-{theme}")
        wide = browser.execute_script("return document.documentElement.scrollWidth - window.innerWidth")
        assert wide <= 0, f"{name} is {wide} pixels wider than the screen"
        assert not browser.find_elements("css selector", "[style]"), name


def test_setting_and_clearing_by_mouse(page: Any, rows: dict[str, Any]) -> None:
    browser = page(LIMITS)
    show(browser, "desktop", "light")
    browser.find_element("link text", "rate:shop.call").click()
    see(browser, ".tq-facts", "50/h")
    rate = browser.find_element("id", "id_rate")
    rate.clear()
    rate.send_keys("often")
    browser.find_element("css selector", "#limit-form button").click()
    see(browser, ".errorlist", "it takes a rate")
    rate = browser.find_element("id", "id_rate")
    rate.clear()
    rate.send_keys("20/m")
    browser.find_element("css selector", "#limit-form button").click()
    see(browser, ".messagelist", "The limit rate:shop.call is changed. Rate: 20/m")
    browser.find_element("css selector", "form[action$='/do/clear/'] button").click()
    see(browser, ".messagelist", "is as in the code again")
    assert Limit.objects.get(pk="rate:shop.call").set_at is None


def test_a_holder_is_released_by_mouse(page: Any, rows: dict[str, Any]) -> None:
    browser = page(detail_url(rows["waits"]))
    show(browser, "phone", "light")
    browser.find_element("link text", "The limit").click()
    see(browser, ".tq-headline", "Held by 1, 2 waiting")
    browser.find_element("css selector", "form[action$='/do/release/'] button").click()
    see(browser, "#content-main", "The run is not stopped")
    picture(browser, "flow-release")
    browser.find_element("css selector", "button.tq-danger").click()
    see(browser, ".messagelist", "It was not stopped.")
    assert TaskRecord.objects.filter(name="shop.close", status=Status.READY).count() >= 1
