"""The pages of queues and of time limits in a real browser, and a worker's page with its commands."""

from __future__ import annotations

from typing import Any

import pytest
from django.utils import timezone

from django_taskq.models import Command, CommandReply, Queue, TaskLimits
from tests.admin.rows import TASK, make_worker
from tests.browser.test_admin import LOOKS, WORKERS, page, picture, see, show, strict_server

__all__ = ["page", "strict_server"]

pytestmark = [pytest.mark.browser, pytest.mark.django_db(transaction=True)]

QUEUES, LIMITS = "/admin/django_taskq/queue/", "/admin/django_taskq/tasklimits/"
LONG = "reports.tasks.yearly_report_of_every_customer_of_the_north_western_region"


@pytest.fixture
def rows() -> dict[str, Any]:
    Queue.objects.pause("default", by="ann", reason="the provider of the mail server is down until nine o'clock")
    Queue.objects.pause("a-queue-that-nobody-declares-any-more-and-has-a-long-name", by="", reason="")
    TaskLimits.objects.put(TASK, 2.5, 30, by="ann")
    TaskLimits.objects.put(LONG, None, 86400, by="root@web-1.internal")
    worker = make_worker(queues="mail=2,default=6", slots={"mail": 2, "default": 6}, processes=4, threads=2)
    for name, arguments, is_ok, reply in (
        ("set_processes", '{"number": 3}', False, '"set_processes: this worker\'s slots belong to queues"'),
        ("quiet", "{}", True, "null"),
    ):
        (command,) = Command.objects.issue(name, arguments, [worker.pk], issued_by="ann", seconds=60)
        CommandReply.objects.create(command=command, worker=worker, is_ok=is_ok, reply=reply, at=timezone.now())
    return {"worker": worker}


@pytest.mark.parametrize(("size", "theme"), LOOKS)
def test_every_page_keeps_the_policy(page: Any, rows: dict[str, Any], size: str, theme: str) -> None:
    addresses = {
        "queues": QUEUES,
        "limits": LIMITS,
        "limits-change": f"{LIMITS}?task={TASK}",
        "commands": f"{WORKERS}{rows['worker'].pk}/change/",
    }
    for name, address in addresses.items():
        show(page(address), size, theme)
        browser = page(address)
        picture(browser, f"{name}-{size}-{theme}")
        wide = browser.execute_script("return document.documentElement.scrollWidth - window.innerWidth")
        assert wide <= 0, f"{name} is {wide} pixels wider than the screen"
        assert not browser.find_elements("css selector", "[style]"), name


def test_pausing_and_resuming_by_mouse(page: Any, settings: Any) -> None:
    settings.TASKQ = {"QUEUES": ["mail"]}
    browser = page(QUEUES)
    show(browser, "phone", "light")
    browser.find_element("css selector", "input[aria-label='Why mail is paused']").send_keys("no route")
    browser.find_element("css selector", "button[aria-label='Pause mail']").click()
    see(browser, ".messagelist", "The queue mail is paused.")
    see(browser, ".tq-cards", "no route")
    picture(browser, "queue-paused")
    browser.find_element("css selector", "button[aria-label='Resume mail']").click()
    see(browser, ".messagelist", "The queue mail is served again.")
    assert not Queue.objects.paused().exists()


def test_limits_by_mouse(page: Any) -> None:
    browser = page(LIMITS)
    show(browser, "desktop", "light")
    browser.find_element("css selector", f"option[value='{TASK}']").click()
    browser.find_element("id", "id_soft").send_keys("40")
    browser.find_element("id", "id_hard").send_keys("30")
    browser.find_element("css selector", "button[value='set']").click()
    see(browser, ".errorlist", "The soft limit must be below the hard one")
    picture(browser, "limits-refused")
    browser.find_element("id", "id_soft").clear()
    browser.find_element("css selector", "button[value='set']").click()
    see(browser, ".messagelist", "soft as in the code, hard 30 s")
    picture(browser, "limits-set")
    browser.find_element("link text", "Change").click()
    see(browser, ".tq-cards", "30 s")
    assert browser.find_element("id", "id_hard").get_attribute("value") == "30"
    browser.find_element("css selector", "button[value='clear']").click()
    see(browser, ".messagelist", "are those in the code again")
    assert not TaskLimits.objects.exists()
