"""The pages of periodic tasks in a real browser: the policy is kept, nothing is too wide, and the form works."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest
from django.utils import timezone

from django_taskq.models import PeriodicTask, ScheduleTick
from django_taskq.models.schedule import Decision, Source
from tests.admin.periodic import SCHEDULES, make_declared, make_periodic, page_of
from tests.admin.rows import make_record
from tests.browser.test_admin import LOOKS, page, picture, see, show, strict_server

__all__ = ["page", "strict_server"]

pytestmark = [pytest.mark.browser, pytest.mark.django_db(transaction=True)]

ADD = f"{SCHEDULES}add/"


@pytest.fixture
def periodic() -> dict[str, PeriodicTask]:
    now = timezone.now()
    found = {
        "nightly": make_periodic("nightly invoices", payload='[[{"api_key":"zq7","days":7},2],{}]'),
        "declared": make_declared(
            "reports.tasks.yearly_report_of_every_customer",
            schedule="*/5 8-17 * * mon-fri",
            timezone="America/New_York",
        ),
    }
    make_declared("cleanup", source=Source.SETTINGS)
    make_declared("old cleanup", is_retired=True)
    make_periodic("heartbeat", schedule="every 5 minutes", timezone="", is_enabled=False)
    found["broken"] = make_periodic("broken")
    PeriodicTask.objects.filter(pk=found["broken"].pk).update(schedule="99 * * * *")
    decisions = [Decision.ENQUEUED, Decision.BY_HAND, Decision.MISSED, Decision.OVERLAP, Decision.REFUSED]
    for number, decision in enumerate(decisions):
        run = make_record() if decision in decisions[:2] else None
        ScheduleTick.objects.create(
            periodic_task=found["nightly"],
            due_at=now - timedelta(days=number),
            decision=decision,
            count=3 if decision == Decision.MISSED else 1,
            first_due_at=now - timedelta(days=number + 3) if decision == Decision.MISSED else None,
            run_id=run and run.pk,
            reason="UnknownQueue: no queue is named 'nowhere'." if decision == Decision.REFUSED else "",
        )
    return found


@pytest.mark.parametrize(("size", "theme"), LOOKS)
def test_every_page_keeps_the_policy(page: Any, periodic: dict[str, PeriodicTask], size: str, theme: str) -> None:
    addresses = {
        "schedules": SCHEDULES,
        "schedule": page_of(periodic["nightly"]),
        "schedule-declared": page_of(periodic["declared"]),
        "schedule-broken": page_of(periodic["broken"]),
        "schedule-add": ADD,
    }
    for name, address in addresses.items():
        show(page("/admin/login/"), size, theme)
        browser = page(address)
        picture(browser, f"{name}-{size}-{theme}")
        wide = browser.execute_script("return document.documentElement.scrollWidth - window.innerWidth")
        assert wide <= 0, f"{name} is {wide} pixels wider than the screen"


def test_a_preview_and_a_save_by_hand(page: Any, periodic: dict[str, PeriodicTask]) -> None:
    browser = page(page_of(periodic["nightly"]))
    show(browser, "desktop", "light")
    field = browser.find_element("id", "id_schedule")
    field.clear()
    field.send_keys("0 0 30 2 *")
    browser.find_element("name", "_save").click()
    see(browser, ".errorlist", "It never runs")
    picture(browser, "schedule-never")
    field = browser.find_element("id", "id_schedule")
    field.clear()
    field.send_keys("every 2 hours")
    browser.find_element("name", "_preview").click()
    see(browser, "#preview", "Every 2 hours")
    page.check()
    picture(browser, "schedule-preview")
    browser.find_element("name", "_save").click()
    see(browser, ".messagelist", "was changed successfully")
    page.check()
    periodic["nightly"].refresh_from_db()
    assert periodic["nightly"].schedule == "every 2 hours"
    # What a text area does to line ends has not touched the arguments, nor has the mask.
    assert periodic["nightly"].payload == '[[{"api_key":"zq7","days":7},2],{}]'
