"""The pages of workflows in a real browser, with workflows that really ran."""

from __future__ import annotations

from typing import Any

import pytest
from django.utils import timezone

from django_taskq.canvas import chain, chord
from django_taskq.graph import Workflow as Graph
from django_taskq.models import TaskRecord, Workflow
from django_taskq.testing import drain
from django_taskq.workflow_result import WorkflowResult
from tests.admin.rows import detail_url
from tests.browser.test_admin import LOOKS, page, picture, see, show, strict_server
from tests.testapp.canvas_tasks import add, alert, echo, fail_after, total

__all__ = ["page", "strict_server"]

pytestmark = [pytest.mark.browser, pytest.mark.django_db(transaction=True)]

LIST = "/admin/django_taskq/workflow/"


def made() -> WorkflowResult:
    graph = Graph("the invoices of the customers of the north-western region, for November")
    first = graph.add(add.s(1, 2), name="collect")
    second = graph.add(
        fail_after.s(0, "smtp.example.org:587 closed the connection unexpectedly"), after=[first], name="send_them_out"
    )
    graph.add(echo.s("printed"), after=[second], name="archive")
    return graph.start()


@pytest.fixture
def workflows() -> dict[str, WorkflowResult]:
    failed = made()
    (add.s(1, 1) | add.s(1)).named("orders").on_error(alert.s()).enqueue()
    drain()
    chain(add.s(1, 1), add.s(1)).named("never mind").enqueue().cancel()
    big = chord([add.s(n, 1) for n in range(60)], total.s()).named("polling lists of 60 stations").enqueue()
    now = timezone.now()
    done = big.steps()[:41]
    TaskRecord.objects.filter(pk__in=[row.pk for row in done]).update(
        status="SUCCESSFUL", started_at=now, finished_at=now, result="1"
    )
    return {"failed": failed, "big": big}


@pytest.mark.parametrize(("size", "theme"), LOOKS)
def test_every_page_keeps_the_policy(page: Any, workflows: dict[str, WorkflowResult], size: str, theme: str) -> None:
    failed, big = workflows["failed"], workflows["big"]
    body = big.steps().get(name="canvas.total")
    addresses = {
        "workflows": LIST,
        "workflows-none": f"{LIST}?q=nothing-of-this-name",
        "workflow-failed": f"{LIST}{failed.id}/change/",
        "workflow-running": f"{LIST}{big.id}/change/?steps=waiting",
        "workflow-step": detail_url(body),
    }
    for name, address in addresses.items():
        show(page(address), size, theme)
        browser = page(address)
        picture(browser, f"{name}-{size}-{theme}")
        wide = browser.execute_script("return document.documentElement.scrollWidth - window.innerWidth")
        assert wide <= 0, f"{name} is {wide} pixels wider than the screen"
        assert not browser.find_elements("css selector", "[style]"), name


def test_without_any(page: Any) -> None:
    browser = page(LIST)
    show(browser, "phone", "light")
    picture(browser, "workflows-empty")
    assert "chord([" in browser.find_element("css selector", ".tq-empty").text


def test_resuming_and_cancelling_by_mouse(page: Any, workflows: dict[str, WorkflowResult]) -> None:
    failed, big = workflows["failed"], workflows["big"]
    show(page(LIST), "phone", "light")
    browser = page(f"{LIST}{big.id}/change/")
    browser.find_element("css selector", "form[action$='/do/cancel/'] button").click()
    see(browser, ".tq-lead", "polling lists of 60 stations")
    browser.find_element("css selector", "#content-main button[type=submit]").click()
    see(browser, ".messagelist", "20 steps were cancelled")
    assert Workflow.objects.get(pk=big.id).finished_at is not None
    TaskRecord.objects.filter(name="canvas.fail_after").update(name="canvas.echo", payload='[["good"],{}]')
    browser = page(f"{LIST}{failed.id}/change/")
    show(browser, "phone", "light")
    browser.find_element("css selector", "form[action$='/do/resume/'] button").click()
    see(browser, ".tq-examples", "3 of 3, 1 failed".partition(",")[0])
    picture(browser, "workflow-resume-asks")
    browser.find_element("css selector", "#content-main button[type=submit]").click()
    see(browser, ".messagelist", "2 steps are to run again.")
    drain()
    browser = page(f"{LIST}{failed.id}/change/")
    see(browser, ".tq-headline", "Successful")
    browser.find_elements("css selector", ".tq-plain")[-1].click()
    see(browser, ".tq-examples", "archive (canvas.echo)")
    browser.find_element("css selector", "#content-main button[type=submit]").click()
    see(browser, ".messagelist", "1 step is to run again.")
    page.check()
