"""The pages: what they show, what they cost, and that nothing a task chose becomes markup."""

from __future__ import annotations

import re
from datetime import timedelta
from html.parser import HTMLParser
from typing import Any
from uuid import UUID, uuid4

import pytest
from django.contrib import admin
from django.db import connection
from django.test import Client
from django.test.utils import CaptureQueriesContext, override_settings
from django.urls import path
from django.utils import timezone, translation

import django_taskq.admin as taskq_admin
from django_taskq.admin import paging
from django_taskq.models import TaskRecord, Worker
from django_taskq.status import Status
from tests.admin.rows import (
    LIST,
    TASK,
    detail_url,
    make_attempt,
    make_process,
    make_record,
    make_worker,
)

pytestmark = pytest.mark.django_db

WORKERS = "/admin/django_taskq/worker/"


def listed(client: Client, **query: Any) -> list[str]:
    response = client.get(LIST, query)
    assert response.status_code == 200
    return re.findall(r'name="_selected_action" value="([^"]+)"', response.content.decode())


def ids(*records: TaskRecord) -> list[str]:
    return [str(record.pk) for record in records]


def test_tabs(boss: Client) -> None:
    unbegun = make_record(Status.RUNNING, started_at=None)
    ready, waiting = make_record(Status.READY), make_record(Status.WAITING)
    running, scheduled = make_record(Status.RUNNING), make_record(Status.SCHEDULED)
    retrying, good = make_record(Status.SCHEDULED, attempt=2), make_record(Status.SUCCESSFUL)
    failed, cancelled = make_record(Status.FAILED), make_record(Status.CANCELLED)
    assert listed(boss, status="waiting") == ids(waiting, ready, unbegun)
    for status, record in {
        "scheduled": scheduled, "running": running, "retrying": retrying, "successful": good, "failed": failed,
        "cancelled": cancelled,
    }.items():  # fmt: skip
        assert listed(boss, status=status) == ids(record), status
    assert len(listed(boss)) == 9
    assert listed(boss)[0] == str(cancelled.pk)
    assert boss.get(LIST, {"status": "odd"}).status_code == 302


def test_status_is_a_shape_and_a_word(boss: Client) -> None:
    make_record(Status.RUNNING, started_at=None)
    make_record(Status.SCHEDULED, attempt=2)
    page = boss.get(LIST).content.decode()
    assert "Ready</span>" in page
    assert "Retrying</span>" in page
    assert page.count('<svg class="tq-icon"') == 2
    assert "style=" not in page


def test_filters_and_search(boss: Client) -> None:
    first = make_record(queue_name="mail", name="app.tasks.send")
    second = make_record()
    assert listed(boss, queue="mail") == ids(first)
    assert listed(boss, task=TASK) == ids(second)
    assert listed(boss, task="app.tasks.send", queue="mail", status="successful") == ids(first)
    assert listed(boss, q=str(first.pk)) == listed(boss, q=first.pk.hex.upper()) == ids(first)
    assert set(ids(first, second)) >= set(listed(boss, q=str(first.pk)[:13])) >= {str(first.pk)}
    assert listed(boss, q="app.tasks.se") == ids(first)
    assert listed(boss, q="testapp.tasks.ad") == ids(second)  # a part, of a registered name
    assert listed(boss, q="nothing") == []
    assert boss.get(LIST, {"before": "x"}).status_code == 302


def test_pages_by_key(boss: Client, monkeypatch: pytest.MonkeyPatch) -> None:
    records = ids(*reversed([make_record() for _ in range(230)]))
    seen, url = [], LIST
    while url:
        page = boss.get(url).content.decode()
        seen.append(re.findall(r'name="_selected_action" value="([^"]+)"', page))
        found = re.search(r'rel="next" href="([^"]+)"', page)
        back = re.search(r'rel="prev" href="([^"]+)"', page)
        url = LIST + found[1] if found else ""
    assert [len(page) for page in seen] == [100, 100, 30]
    assert [id for page in seen for id in page] == records
    assert back
    page = boss.get(LIST + back[1]).content.decode()
    assert re.findall(r'name="_selected_action" value="([^"]+)"', page) == records[100:200]
    assert len(listed(boss, after=records[50])) == 100  # fewer than a page are newer: the first page


def test_a_filter_without_an_index_looks_so_far_and_says_so(boss: Client, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(paging, "WINDOW", 20)
    old = make_record(Status.CANCELLED)
    for _ in range(50):
        make_record()
    query, pages = "?status=cancelled", 0
    while True:
        page = boss.get(LIST + query).content.decode()
        if str(old.pk) in page:
            break
        assert "Look further back" in page
        query = re.search(r'href="(\?[^"]*before=[^"]*)"', page)[1].replace("&amp;", "&")  # type: ignore[index]
        pages += 1
    assert pages == 2


def queries(client: Client, url: str, **query: Any) -> list[str]:
    with CaptureQueriesContext(connection) as captured:
        assert client.get(url, query).status_code == 200
    return [q["sql"] for q in captured]


def test_the_list_costs_few_queries_and_counts_nothing(boss: Client) -> None:
    worker = make_worker()
    for number in range(300):
        process = make_process(worker)
        make_record(Status.FAILED if number % 3 else Status.SUCCESSFUL, worker_id=process.pk)
    make_record(worker_id=99999)  # its worker was pruned
    costs: dict[tuple[str, ...], tuple[dict[str, str], int]] = {
        ("all",): ({}, 3),
        ("failed",): ({"status": "failed"}, 4),
        ("running",): ({"status": "running"}, 4),
        ("waiting",): ({"status": "waiting"}, 6),
        ("task",): ({"task": TASK}, 4),
        ("search",): ({"q": "tests"}, 4),
        ("id",): ({"q": "01234567"}, 3),
        ("queue", "failed"): ({"queue": "default", "status": "failed"}, 4),
    }
    for query, most in costs.values():
        sent = queries(boss, LIST, **query)
        assert len(sent) <= most, "\n".join(sent)
        rows = [sql for sql in sent if "taskq_task" in sql]
        assert not any("COUNT(" in sql for sql in sent)
        assert not any('"payload"' in sql or '"result"' in sql for sql in rows)
        assert all("LIMIT" in sql for sql in rows)
    assert "no longer known" in boss.get(LIST).content.decode()


def test_the_detail_costs_few_queries(boss: Client) -> None:
    process = make_process(make_worker())
    record = make_record(Status.FAILED, worker_id=process.pk)
    for _ in range(50):
        make_attempt(record, worker=str(process.pk))
    assert len(queries(boss, detail_url(record))) <= 5
    ready = make_record(Status.READY)
    # One more for whether its queue is paused.
    assert len(queries(boss, detail_url(ready))) <= 7


NASTY = '"><img src=x onerror=alert(1)><script>alert(1)</script>{{7919*7919}}\u202ejavascript:alert(1)'


class Elements(HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.bad: list[Any] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        names = dict(attrs)
        source = names.get("src") or ""
        if tag in ("img", "script") and not source.startswith(("/static/", "/admin/jsi18n")):
            self.bad.append((tag, attrs))
        self.bad += [(tag, name) for name in names if name.startswith("on") or name == "style"]
        self.bad += [(tag, value) for value in names.values() if (value or "").startswith("javascript:")]


def elements(page: str) -> list[Any]:
    parser = Elements()
    parser.feed(page)
    return parser.bad


def test_nothing_a_task_chose_becomes_markup(boss: Client) -> None:
    worker = make_worker(hostname=NASTY, queues=NASTY, version="<b>\"'")
    process = make_process(worker)
    record = make_record(
        Status.FAILED, name=NASTY, queue_name=NASTY[:100], reason=f"E: {NASTY}", worker_id=process.pk, result=NASTY,
        payload=f'[["</script>"],{{"{NASTY[2:30]}": 1}}]', headers='{"rerun_of": "javascript:alert(1)"}',
    )  # fmt: skip
    make_attempt(record, class_path=NASTY, message=NASTY, traceback=NASTY, worker=str(process.pk))
    make_attempt(record, worker=NASTY, kind="RETRIED")
    running = make_record(Status.RUNNING, name=NASTY, started_at=None, worker_id=process.pk)
    boss.post(f"{LIST}{record.pk}/do/retry/")
    boss.post(f"{LIST}{record.pk}/do/run/")
    TaskRecord.objects.filter(pk=record.pk).update(status="FAILED", worker=process)
    pages = [
        LIST, f"{LIST}?q={NASTY}", f"{LIST}?task={NASTY}&queue={NASTY}", detail_url(record), detail_url(running),
        f"{LIST}{record.pk}/history/", f"{LIST}{record.pk}/delete/", WORKERS, f"{WORKERS}{worker.pk}/change/",
        "/admin/", f"{LIST}{NASTY}/change/", LIST,
    ]  # fmt: skip
    for url in pages:
        page = boss.get(url, follow=True).content.decode()
        assert "<img src=x" not in page, url
        assert "<script>alert" not in page, url
        assert not elements(page), (url, elements(page))
        assert "62710561" not in page, url  # 7919 * 7919: a template engine got hold of it
        if url not in ("/admin/",) and "history" not in url and "delete" not in url:
            assert "\u202e" not in re.sub(r'(value|aria-label)="[^"]*"', "", page), url
    data = {"action": "delete_selected", "_selected_action": [str(record.pk)], "index": 0}
    assert not elements(boss.post(LIST, data).content.decode())


@pytest.mark.parametrize(
    ("fields", "sentence"),
    [
        ({"status": "SCHEDULED"}, "It is due in 59 min"),
        ({"status": "SCHEDULED", "attempt": 3}, "Attempt 3 is due in"),
        ({"status": "SCHEDULED", "run_after": timezone.now() - timedelta(1)}, "no worker is online"),
        ({"status": "READY"}, "No worker is online: start one with"),
        ({"status": "RUNNING", "started_at": None, "worker_id": 77}, "A worker that is gone had claimed it"),
        ({"status": "WAITING"}, "It is held back until other runs have ended"),
    ],
)
def test_why_it_waits(boss: Client, fields: dict[str, Any], sentence: str) -> None:
    assert sentence in boss.get(detail_url(make_record(**fields))).content.decode()


def test_why_it_waits_with_workers(boss: Client) -> None:
    worker = make_worker(queues="bulk=2,other")
    record = make_record(Status.READY)
    assert "No worker online serves the queue default" in boss.get(detail_url(record)).content.decode()
    Worker.objects.update(queues="", slots={})
    assert "No worker online serves the queue default" in boss.get(detail_url(record)).content.decode()
    Worker.objects.update(queues="mail+default=2", slots=None)
    assert "It is the next of the queue default" in boss.get(detail_url(record)).content.decode()
    make_record(Status.READY, priority=1)
    assert "1 run of the queue default is before it." in boss.get(detail_url(record)).content.decode()
    claimed = make_record(Status.RUNNING, started_at=None, worker_id=make_process(worker).pk)
    page = boss.get(detail_url(claimed)).content.decode()
    assert "Worker web1:4243 has claimed it" in page
    assert f'href="{WORKERS}{worker.pk}/change/"' in page


def test_a_run_that_is_gone_says_why(boss: Client) -> None:
    for id in (str(uuid4()), "x"):
        page = boss.get(f"{LIST}{id}/change/", follow=True).content.decode()
        assert "Ended runs are kept for 7 d 0 h." in page


def test_workers(boss: Client, viewer: Client) -> None:
    now = timezone.now()
    online, stopped = make_worker(), make_worker(hostname="web2", stopped_at=now)
    lost = make_worker(hostname="web3", lease_expires_at=now - timedelta(minutes=1))
    running = make_record(Status.RUNNING, worker_id=make_process(online).pk)
    page = viewer.get(WORKERS).content.decode()
    for word in ("Online", "Stopped", "Lost", "default", "4242"):
        assert word in page
    assert len(queries(boss, WORKERS)) <= 4
    for state, worker in (("online", online), ("stopped", stopped), ("lost", lost)):
        found = viewer.get(WORKERS, {"state": state}).content.decode()
        assert re.findall(rf"{WORKERS}(\d+)/change/", found) == [str(worker.pk)]
    detail = viewer.get(f"{WORKERS}{online.pk}/change/").content.decode()
    assert f'href="{detail_url(running)}"' in detail
    assert viewer.get(f"{WORKERS}12345/change/").status_code == 302
    for method in (boss.post, boss.put, boss.delete):
        assert method(f"{WORKERS}{online.pk}/change/").status_code == 405
    assert boss.post(f"{WORKERS}{online.pk}/delete/", {"post": "yes"}).status_code == 403
    assert boss.get(f"{WORKERS}add/").status_code == 403


def test_durations_are_never_negative(boss: Client) -> None:
    now = timezone.now()
    make_record(enqueued_at=now, started_at=now - timedelta(seconds=5), finished_at=now - timedelta(seconds=9))
    assert not re.search(r"-\d+(\.\d+)? m?s", boss.get(LIST).content.decode())


def test_in_another_language(boss: Client) -> None:
    record = make_record()
    with translation.override("de"):
        assert boss.get(LIST, headers={"accept-language": "de"}).status_code == 200
        assert boss.get(detail_url(record), headers={"accept-language": "de"}).status_code == 200


site = admin.AdminSite(name="second")
taskq_admin.register(site)
taskq_admin.register(site)  # again: nothing happens
urlpatterns = [path("second/", site.urls)]


@override_settings(ROOT_URLCONF="tests.admin.test_pages")
def test_a_site_of_ones_own(boss: Client) -> None:
    record = make_record(Status.FAILED)
    page = boss.get("/second/django_taskq/taskrecord/").content.decode()
    assert f"/second/django_taskq/taskrecord/{record.pk}/change/" in page
    url = f"/second/django_taskq/taskrecord/{record.pk}/change/"
    assert f'action="/second/django_taskq/taskrecord/{record.pk}/do/retry/"' in boss.get(url).content.decode()
    assert boss.post(f"/second/django_taskq/taskrecord/{record.pk}/do/retry/").headers["Location"] == url


def test_a_row_with_a_foreign_id(boss: Client) -> None:
    make_record(id=UUID(int=5))
    assert boss.get(LIST, {"q": "00000000"}).status_code == 200
