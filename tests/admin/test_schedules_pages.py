"""The list and the page of one: what they show, what they cost, and that no name becomes markup."""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta
from time import perf_counter
from typing import Any
from uuid import uuid4

import pytest
from django.db import connection
from django.test import Client
from django.test.utils import CaptureQueriesContext, override_settings
from django.utils import timezone

from django_taskq import schedules
from django_taskq.admin import schedule_preview
from django_taskq.models import PeriodicTask, ScheduleTick
from django_taskq.models.schedule import Decision, Source
from tests.admin.periodic import SCHEDULES, make_declared, make_periodic, make_scheduler, page_of, words_of
from tests.admin.rows import TASK, detail_url, make_record, make_user
from tests.admin.test_pages import NASTY, elements

pytestmark = pytest.mark.django_db


def tick(row: PeriodicTask, **fields: Any) -> ScheduleTick:
    values: dict[str, Any] = {"due_at": timezone.now(), "decision": Decision.ENQUEUED}
    return ScheduleTick.objects.create(periodic_task=row, **(values | fields))


def listed(client: Client, **query: str) -> list[str]:
    response = client.get(SCHEDULES, query)
    assert response.status_code == 200
    return re.findall(r'class="tq-name">([^<]+)<', response.content.decode())


def queries(client: Client, url: str) -> list[str]:
    with CaptureQueriesContext(connection) as captured:
        assert client.get(url).status_code == 200
    return [query["sql"] for query in captured]


def test_the_list(boss: Client) -> None:
    make_scheduler()
    row = make_periodic()
    make_periodic("off", is_enabled=False, timezone="")
    make_declared("by code")
    make_declared("by settings", source=Source.SETTINGS, schedule="every 5 minutes")
    make_declared("gone", is_retired=True)
    run = make_record()
    tick(row, due_at=timezone.now() - timedelta(days=1), decision=Decision.MISSED, count=3)
    tick(row, run_id=run.pk)
    page = boss.get(SCHEDULES).content.decode()
    text = words_of(page)
    assert '<span title="30 1 * * *">At 01:30 AM</span>' in page
    for word in ("Europe/Riga", "the project&#x27;s zone", "from code", "from settings", "overridden", "Disabled",
                 "No longer in the code", "Every 5 minutes", "in "):  # fmt: skip
        assert word in text, word
    assert f'href="{detail_url(run)}"' in page
    assert "enqueued" in text
    assert "missed" not in text
    assert "No scheduler is running" not in text


def test_filters_search_and_order(boss: Client) -> None:
    make_periodic("b")
    make_periodic("a", task_name="app.tasks.other", is_enabled=False)
    make_declared("c")
    make_declared("d", source=Source.SETTINGS)
    make_declared("e", is_retired=True)
    assert listed(boss) == list("abcde")
    assert listed(boss, enabled="yes") == list("bcd")
    assert listed(boss, enabled="no") == list("ae")
    assert listed(boss, source="database") == list("ab")
    assert listed(boss, source="code") == ["c"]
    assert listed(boss, source="settings") == ["d"]
    assert listed(boss, source="retired") == ["e"]
    assert listed(boss, task="app.tasks.other") == ["a"]
    assert listed(boss, q="tasks.oth") == ["a"]
    assert listed(boss, o="-2") == list("edcba")
    for number in range(1, 7):
        assert len(listed(boss, o=str(number))) == 5
    for wrong in ({"enabled": "x"}, {"source": "x"}):
        assert boss.get(SCHEDULES, wrong).status_code == 302
    for lookup in ("payload__startswith", "payload", "declared__contains", "ticks__reason__contains", "id__gt"):
        assert boss.get(SCHEDULES, {lookup: "1"}).status_code == 400, lookup


def test_nobody_schedules(boss: Client) -> None:
    row = make_periodic()
    for url in (SCHEDULES, page_of(row)):
        text = words_of(boss.get(url).content.decode())
        assert "No scheduler is running, so nothing starts by itself. Start one: manage.py taskworker" in text
    make_scheduler()
    for url in (SCHEDULES, page_of(row)):
        assert "No scheduler is running" not in boss.get(url).content.decode()


def test_the_pages_cost_the_same_for_many_rows(boss: Client) -> None:
    def fill(count: int) -> PeriodicTask:
        for number in range(count):
            row = make_periodic(f"row {number} of {count}")
            for day in range(5):
                tick(row, due_at=timezone.now() - timedelta(days=day), run_id=make_record().pk)
        return row

    page = page_of(fill(3))
    queries(boss, page)  # Django asks once for the content type, and keeps it
    few = queries(boss, SCHEDULES)
    row = fill(30)
    many = queries(boss, SCHEDULES)
    assert len(few) == len(many) <= 8, "\n".join(many)
    assert not any("COUNT(" in sql and "tick" in sql for sql in many)
    assert not any(sql.startswith('SELECT "taskq_schedule_tick"') for sql in many)
    one = queries(boss, page_of(row))
    for day in range(5, 50):
        tick(row, due_at=timezone.now() - timedelta(days=day), run_id=make_record().pk)
    assert len(queries(boss, page_of(row))) == len(one) <= 6, "\n".join(one)


def test_the_page_of_one(boss: Client) -> None:
    row = make_periodic()
    now = timezone.now()
    run = make_record()
    gone = uuid4()
    tick(row, run_id=run.pk)
    tick(row, due_at=now - timedelta(hours=1), run_id=gone)
    tick(row, due_at=now - timedelta(hours=2), decision=Decision.BY_HAND)
    tick(row, due_at=now - timedelta(hours=3), decision=Decision.REFUSED, reason="UnknownQueue: no queue zq7")
    tick(row, due_at=now - timedelta(hours=4), decision=Decision.MISSED, count=42, first_due_at=now - timedelta(days=2))
    page = boss.get(page_of(row)).content.decode()
    text = words_of(page)
    assert f'href="{detail_url(run)}"' in page
    assert str(gone) not in page
    for word in (
        "removed",
        "42",
        "missed: nobody was there",
        "run by hand",
        "UnknownQueue: no queue zq7",
        "At 01:30 AM",
    ):
        assert word in text, word
    assert "Europe/Riga (of the schedule)" in text
    reader = Client()
    reader.force_login(make_user("reader", ["view_periodictask"]))
    seen = words_of(reader.get(page_of(row)).content.decode())
    assert "zq7" not in seen
    assert "UnknownQueue" in seen
    assert f'href="{detail_url(run)}"' not in reader.get(page_of(row)).content.decode()
    assert "Run the newest of them once" in seen
    assert "You may not see arguments" in seen


def test_the_planned_run_comes_first(boss: Client) -> None:
    row = make_periodic()
    first = boss.get(page_of(row)).context["preview"].runs
    boss.post(f"{SCHEDULES}{row.pk}/do/skip/")
    assert boss.get(page_of(row)).context["preview"].runs[:4] == first[1:]


def test_next_runs_in_three_zones_with_a_note_where_the_clocks_change(monkeypatch: pytest.MonkeyPatch) -> None:
    now = datetime(2026, 3, 27, 12, tzinfo=UTC)
    monkeypatch.setattr(timezone, "now", lambda: now)
    timezone.activate("Asia/Tokyo")
    found = schedule_preview.of_schedule(schedules.parse("30 4 * * *", timezone="America/New_York"))
    assert found.zones == ("America/New_York", "Asia/Tokyo", "UTC")
    assert found.runs[0]["times"] == ["Sat 2026-03-28 04:30", "Sat 2026-03-28 17:30", "Sat 2026-03-28 08:30"]
    assert found.notes == ()
    found = schedule_preview.of_schedule(schedules.parse("30 3 * * *", timezone="Europe/Riga"))
    assert [run["times"][0] for run in found.runs[:3]] == [
        "Sat 2026-03-28 03:30", "Sun 2026-03-29 04:00", "Mon 2026-03-30 03:30",
    ]  # fmt: skip
    assert [run["is_near"] for run in found.runs] == [True, True, True, False, False]
    assert found.notes == (
        "The clocks of Europe/Riga go forward by 1 h 0 min: from then on it is Sun 2026-03-29 04:00.",
    )
    found = schedule_preview.of_schedule(schedules.parse("30 3 25 10 *", timezone="Europe/Riga"))
    assert len(found.notes) <= schedule_preview.SHOWN_CHANGES
    assert "go back by 1 h 0 min" in " ".join(found.notes)
    assert schedule_preview.of_schedule(schedules.parse("0 0 30 2 *")).runs == ()
    last = schedules.parse("@daily", timezone="UTC", end=datetime(2026, 3, 29, tzinfo=UTC), jitter=90)
    found = schedule_preview.of_schedule(last)
    assert len(found.runs) == 2
    assert found.notes == ("Each starts up to 1 min 30 s later (jitter).",)


def test_no_name_becomes_markup(boss: Client) -> None:
    row = make_periodic(
        NASTY, task_name=NASTY, payload=f'[["</script>"],{{"{NASTY[2:30]}": 1}}]', queue_name=NASTY[:90]
    )
    PeriodicTask.objects.update(schedule=NASTY[:200])
    tick(row, reason=NASTY, decision=Decision.REFUSED)
    broken = make_periodic("broken", payload=NASTY)
    declared = make_declared("d" + NASTY, schedule="0 5 * * *", timezone="")
    chosen = {"_selected_action": [str(row.pk)], "index": 0}
    pages = [boss.get(url, follow=True) for url in (
        SCHEDULES, f"{SCHEDULES}?q={NASTY}", f"{SCHEDULES}?task={NASTY}", page_of(row), page_of(broken),
        page_of(declared), f"{SCHEDULES}{row.pk}/history/", f"{SCHEDULES}{row.pk}/delete/",
        f"{SCHEDULES}{NASTY}/change/",
    )]  # fmt: skip
    pages += [
        boss.post(SCHEDULES, chosen | {"action": "run_selected", "select_across": "1"}),
        boss.post(SCHEDULES, chosen | {"action": "delete_selected"}),
        boss.post(SCHEDULES, chosen | {"action": "run_selected"}, follow=True),
        boss.post(f"{SCHEDULES}{row.pk}/do/skip/", follow=True),
        boss.post(
            page_of(row), {"name": NASTY, "schedule": NASTY, "timezone": NASTY, "task_name": NASTY, "args": NASTY}
        ),
    ]
    for response in pages:
        page = response.content.decode()
        assert response.status_code == 200
        assert "<img src=x" not in page
        assert "<script>alert" not in page
        assert not elements(page), elements(page)
        assert "62710561" not in page


def test_one_that_is_gone(boss: Client) -> None:
    for id in ("12345", "x", "9" * 30):
        assert boss.get(f"{SCHEDULES}{id}/change/").status_code == 302
        assert boss.post(f"{SCHEDULES}{id}/do/run/").status_code in (302, 404)
    assert boss.post(SCHEDULES, {"action": "run_selected", "_selected_action": ["x"], "index": 0}).status_code == 400


@override_settings(ROOT_URLCONF="tests.admin.test_pages")
def test_a_site_of_ones_own(boss: Client) -> None:
    row = make_periodic()
    own = "/second/django_taskq/periodictask/"
    page = boss.get(f"{own}{row.pk}/change/").content.decode()
    assert f'action="{own}{row.pk}/do/run/"' in page
    assert '"/admin/' not in page
    assert boss.post(f"{own}{row.pk}/do/run/").headers["Location"] == f"{own}{row.pk}/change/"
    page = boss.get(own).content.decode()
    assert f"{own}{row.pk}/change/" in page
    assert "/second/django_taskq/taskrecord/" in page
    assert '"/admin/' not in page


def test_a_schedule_in_a_far_year_takes_no_longer(boss: Client) -> None:
    row = make_periodic(schedule="once 2490-01-01T00:00:00+00:00")
    started = perf_counter()
    assert boss.get(page_of(row)).status_code == 200
    assert perf_counter() - started < 5  # no clock change of the centuries between is looked for


def test_unused_words(boss: Client) -> None:
    assert "There is no periodic task yet." in boss.get(SCHEDULES).content.decode()
    assert "No periodic task matches." in boss.get(SCHEDULES, {"task": TASK}).content.decode()
