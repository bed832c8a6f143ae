"""The admin in a real browser under a strict policy: no violation, light and dark, wide and narrow.

With ``TASKQ_SCREENSHOTS=directory`` every page is left there as a picture, for a person to look at.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from django.contrib.staticfiles.handlers import StaticFilesHandler
from django.test import Client
from django.test.testcases import LiveServerThread
from django.utils import timezone

from django_taskq.models import TaskRecord
from django_taskq.status import Status
from tests.admin.rows import LIST, detail_url, make_attempt, make_process, make_record, make_user, make_worker

pytestmark = [pytest.mark.browser, pytest.mark.django_db(transaction=True)]

WORKERS = "/admin/django_taskq/worker/"
SIZES = {"desktop": (1280, 900), "phone": (400, 800)}
# Each size in one theme; `make test-whole` has the other as well.
LOOKS = [
    pytest.param(size, theme, marks=() if (place + turn) % 2 == 0 else pytest.mark.whole)
    for place, size in enumerate(SIZES)
    for turn, theme in enumerate(("light", "dark"))
]

LISTEN = """
window.tqViolations = [];
document.addEventListener('securitypolicyviolation', e => {
  window.tqViolations.push(e.violatedDirective + ' ' + e.blockedURI + ' ' + (e.sample || '') + ' ' + e.sourceFile);
});
"""
TRACEBACK = """Traceback (most recent call last):
  File "/srv/shop/orders/tasks.py", line 41, in send_invoice
    smtp.send(message, timeout=settings.SMTP_TIMEOUT)
  File "/usr/lib/python3.12/smtplib.py", line 254, in send
    raise SMTPServerDisconnected("Connection unexpectedly closed")
smtplib.SMTPServerDisconnected: Connection unexpectedly closed
"""


@pytest.fixture
def strict_server(settings: Any) -> Iterator[str]:
    """A server of our own: the one pytest-django shares has loaded its middleware already."""
    settings.MIDDLEWARE = ["tests.browser.csp.strict_policy", *settings.MIDDLEWARE]
    server = LiveServerThread("localhost", StaticFilesHandler)
    server.daemon = True
    server.start()
    assert server.is_ready.wait(10)
    yield f"http://{server.host}:{server.port}"
    server.terminate()


@pytest.fixture
def page(browser: Any, strict_server: str, settings: Any) -> Iterator[Callable[..., Any]]:
    """Open an address as a superuser; whatever the policy blocked until the end of the test fails it."""
    listener = browser.execute_cdp_cmd("Page.addScriptToEvaluateOnNewDocument", {"source": LISTEN})
    client = Client()
    client.force_login(make_user("boss", is_superuser=True))
    browser.get(f"{strict_server}/admin/login/")
    browser.add_cookie({"name": settings.SESSION_COOKIE_NAME, "value": client.cookies["sessionid"].value})

    def check() -> None:
        assert browser.execute_script("return window.tqViolations") == []

    def visit(address: str) -> Any:
        browser.get(f"{strict_server}{address}")
        check()
        return browser

    visit.check = check  # type: ignore[attr-defined]
    yield visit
    check()
    browser.execute_cdp_cmd("Page.removeScriptToEvaluateOnNewDocument", listener)
    browser.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": []})
    browser.execute_cdp_cmd("Emulation.clearDeviceMetricsOverride", {})
    browser.delete_all_cookies()


def show(browser: Any, size: str, theme: str) -> None:
    width, height = SIZES[size]
    metrics = {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": size == "phone"}
    browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", metrics)
    feature = {"name": "prefers-color-scheme", "value": theme}
    browser.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": [feature]})


def see(browser: Any, selector: str, text: str) -> None:
    """Wait until it stands there: a click returns before the next page has come."""
    from selenium.common.exceptions import WebDriverException
    from selenium.webdriver.support.ui import WebDriverWait

    wait = WebDriverWait(browser, 10, ignored_exceptions=[WebDriverException])
    wait.until(lambda _: text in browser.find_element("css selector", selector).text, f"{selector} never said {text!r}")


def picture(browser: Any, name: str) -> None:
    directory = os.environ.get("TASKQ_SCREENSHOTS")
    if directory:
        browser.save_screenshot(str(Path(directory) / f"{name}.png"))


@pytest.fixture
def rows() -> dict[str, TaskRecord]:
    now = timezone.now()
    worker = make_worker(hostname="web-1.internal")
    make_worker(hostname="web-2.internal", pid=31, queues="mail=3,default=1", lease_expires_at=now - timedelta(hours=2))
    make_worker(hostname="web-1.internal", pid=17, stopped_at=now - timedelta(days=1))
    process = make_process(worker)
    common = {"worker_id": process.pk}
    failed = make_record(
        Status.FAILED,
        name="orders.tasks.send_invoice",
        queue_name="mail",
        attempt=3,
        payload='[[1041],{"to":"anna@example.org","smtp_password":"hunter2","lines":[{"sku":"A-1","qty":2}],'
        '"due":{"__taskq__":"date","v":"2026-12-01"}}]',
        reason="SMTPServerDisconnected: Connection unexpectedly closed",
        headers='{"rerun_of":"01a1fb7c-e0b4-72b2-9cd8-68e9466d53d9"}',
        **common,
    )
    for number, kind in enumerate(("RETRIED", "RETRIED", "FAILED"), 1):
        make_attempt(
            failed,
            attempt=number,
            kind=kind,
            worker=str(process.pk),
            class_path="smtplib.SMTPServerDisconnected",
            message="Connection unexpectedly closed",
            traceback=TRACEBACK,
        )
    found = {"failed": failed, "good": make_record(**common), "ready": make_record(Status.READY)}
    found["running"] = make_record(Status.RUNNING, name="reports.tasks.yearly_report_of_every_customer", **common)
    make_record(Status.RUNNING, started_at=None, **common)
    make_record(Status.SCHEDULED, queue_name="mail")
    make_record(Status.SCHEDULED, attempt=2, reason="OSError: timed out")
    make_record(Status.CANCELLED)
    make_record(enqueued_at=now - timedelta(days=3), started_at=now - timedelta(days=3), finished_at=now, **common)
    return found


@pytest.mark.parametrize(("size", "theme"), LOOKS)
def test_every_page_keeps_the_policy(page: Any, rows: dict[str, TaskRecord], size: str, theme: str) -> None:
    addresses = {
        "index": "/admin/",
        "list": LIST,
        "empty": f"{LIST}?status=successful&queue=mail",
        "failed": detail_url(rows["failed"]),
        "ready": detail_url(rows["ready"]),
        "history": f"{LIST}{rows['failed'].pk}/history/",
        "delete": f"{LIST}{rows['failed'].pk}/delete/",
        "workers": WORKERS,
        "worker": f"{WORKERS}{rows['good'].worker.worker_id}/change/",  # type: ignore[union-attr]
    }
    for name, address in addresses.items():
        browser = page("/admin/login/") if name == "index" else page(address)
        show(browser, size, theme)
        browser = page(address)
        picture(browser, f"{name}-{size}-{theme}")
        wide = browser.execute_script("return document.documentElement.scrollWidth - window.innerWidth")
        assert wide <= 0, f"{name} is {wide} pixels wider than the screen"
        if name == "list":
            table = "const e = document.querySelector('.results'); return e.scrollWidth - e.clientWidth"
            assert browser.execute_script(table) <= 0, "the last columns are out of sight"
        assert not browser.find_elements("css selector", "[style]"), name


def test_the_policy_is_in_force_and_seen(page: Any, rows: dict[str, TaskRecord]) -> None:
    browser = page(LIST)
    browser.execute_script("const s = document.createElement('style'); s.textContent = 'p{}'; document.head.append(s)")
    assert "style-src" in browser.execute_async_script(
        "setTimeout(() => arguments[0](window.tqViolations.join()), 200)"
    )
    browser.execute_script("window.tqViolations = []")


def test_contrast_of_the_words(page: Any, rows: dict[str, TaskRecord]) -> None:
    script = """
    const lum = c => { const [r, g, b] = c.match(/[\\d.]+/g).slice(0, 3).map(v => v / 255)
      .map(v => v <= 0.03928 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4); return 0.2126*r + 0.7152*g + 0.0722*b; };
    const back = e => { while (e) { const c = getComputedStyle(e).backgroundColor;
      if (c !== 'rgba(0, 0, 0, 0)' && c !== 'transparent') return c;
      e = e.parentElement; } return 'rgb(255,255,255)'; };
    return [...document.querySelectorAll('.tq-status, .tq-why, .tq-tabs a')].map(e => {
      const [a, b] = [lum(getComputedStyle(e).color), lum(back(e))].sort((x, y) => y - x);
      return [e.textContent, (a + 0.05) / (b + 0.05)]; });
    """
    for theme in ("light", "dark"):
        show(page(LIST), "desktop", theme)
        poor = [found for found in page(LIST).execute_script(script) if found[1] < 4.5]
        assert not poor, (theme, poor)


def test_retry_by_mouse(page: Any, rows: dict[str, TaskRecord]) -> None:
    browser = page(detail_url(rows["failed"]))
    show(browser, "desktop", "light")
    browser.find_element("css selector", "form[action$='/do/retry/'] button").click()
    see(browser, ".messagelist", "1 run is to be tried again.")
    page.check()
    picture(browser, "retried")
    rows["failed"].refresh_from_db()
    assert rows["failed"].status == Status.READY


def test_all_pages_by_mouse(page: Any) -> None:
    for _ in range(120):
        make_record(Status.FAILED)
    browser = page(f"{LIST}?status=failed")
    show(browser, "desktop", "light")
    browser.find_element("id", "action-toggle").click()
    see(browser, ".actions", "100 of 100 selected")
    picture(browser, "selected")
    browser.find_element("css selector", ".actions .question a").click()
    see(browser, ".actions", "All runs that match are selected")
    browser.find_element("css selector", "select[name=action] option[value=retry_selected]").click()
    browser.find_element("css selector", ".actions button").click()
    see(browser, "#content", "All that match are selected: 120.")
    page.check()
    picture(browser, "confirm")
    browser.find_element("css selector", "#content-main form button").click()
    see(browser, ".messagelist", "120 runs are to be tried again.")
    page.check()
    assert TaskRecord.objects.filter(status=Status.READY).count() == 120


def test_every_field_is_named_on_a_phone(page: Any, rows: dict[str, TaskRecord]) -> None:
    browser = page(LIST)
    show(browser, "phone", "light")
    labels = {label.text for label in browser.find_elements("class name", "tq-label") if label.is_displayed()}
    assert {"Queue", "Enqueued", "Started", "Finished", "Waited", "Ran", "Attempt", "Worker"} <= labels
