"""The pages of limits: what they show, who may change and release, and why a run waits."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any
from uuid import UUID

import pytest
from django.contrib.admin.models import LogEntry
from django.contrib.admin.utils import quote
from django.db import connection
from django.test import Client
from django.test.utils import CaptureQueriesContext

from django_taskq import TaskResult, control, maintenance, registry
from django_taskq.models import Command, Limit, Permit, TaskRecord
from django_taskq.models.flow import PermitState
from django_taskq.status import Status
from django_taskq.task import Task
from tests.admin.conftest import browser_of
from tests.admin.rows import detail_url, make_record
from tests.unit.making import make_task
from tests.unit.working import claim, run

pytestmark = pytest.mark.django_db
Made = Task[Any, Any]
PAGE = "/admin/django_taskq/limit/"
NAME = "shop.send"
ROLES: dict[str, dict[str, Any] | None] = {
    "anonymous": None,
    "not staff": {"is_staff": False, "is_superuser": True},
    "staff": {},
    "view": {"permissions": ["view_limit"]},
    "only change": {"permissions": ["change_limits"]},
    "view and change": {"permissions": ["view_limit", "change_limits"]},
    "view and others": {"permissions": ["view_limit", "set_limits", "pause_queue", "control_worker"]},
    "superuser": {"is_superuser": True},
}


@pytest.fixture(autouse=True)
def own_registry(monkeypatch: pytest.MonkeyPatch) -> None:
    # Without what other tests have limited.
    free = {name: task for name, task in registry._tasks.items() if task.flow is None}
    monkeypatch.setattr(registry, "_tasks", free)


@pytest.fixture
def boss(db: None) -> Client:
    return browser_of("boss", {"is_superuser": True})


def page_of(key: str) -> str:
    return f"{PAGE}{quote(key)}/change/"


def post(client: Client, key: str, verb: str, *, has_token: bool = True, **data: Any) -> Any:
    if has_token:
        client.cookies["csrftoken"] = "a" * 32
        data["csrfmiddlewaretoken"] = "a" * 32
    return client.post(f"{PAGE}{quote(key)}/do/{verb}/", data)


def read(client: Client, address: str = PAGE, **query: str) -> str:
    return client.get(address, query).content.decode()


def wait(made: Made, *numbers: int) -> list[TaskResult[Any]]:
    results = [made.enqueue(number) for number in numbers]
    maintenance.tend_limits()
    return results


def locked() -> list[TaskResult[Any]]:
    """Three runs of a task that one at a time may have."""
    return wait(make_task(lambda number=0: None, name=NAME, lock="report/7"), 1, 2, 3)


LOCK = "lock:report/7"
VERBS: dict[str, Callable[[TaskResult[Any]], dict[str, Any]]] = {
    "set": lambda run: {"most": "0"},
    "release": lambda run: {"run": run.id, "confirmed": "yes"},
}


def state() -> list[Any]:
    held = Permit.objects.filter(state=PermitState.HELD).order_by("pk")
    return [*Limit.objects.values_list("set_most", "set_by"), *held.values_list("task_id", flat=True)]


class TestWho:
    @pytest.mark.parametrize("verb", VERBS)
    @pytest.mark.parametrize("role", ROLES)
    def test_only_who_may_can(self, role: str, verb: str) -> None:
        first, *_rest = locked()
        client, before, data = browser_of(role, ROLES[role]), state(), VERBS[verb](first)
        assert post(client, LOCK, verb, has_token=False, **data).status_code in (302, 403)
        assert client.get(f"{PAGE}{quote(LOCK)}/do/{verb}/", data).status_code in (302, 403, 405)
        assert state() == before
        response = post(client, LOCK, verb, **data)
        is_allowed = role in ("view and change", "superuser")
        assert (state() != before) is is_allowed, response.status_code
        assert LogEntry.objects.exists() is is_allowed
        assert Command.objects.exists() is is_allowed

    @pytest.mark.parametrize("role", ROLES)
    def test_only_who_may_sees(self, role: str) -> None:
        locked()
        client = browser_of(role, ROLES[role])
        sees = role not in ("anonymous", "not staff", "staff", "only change")
        for address in (PAGE, page_of(LOCK)):
            response = client.get(address)
            assert (response.status_code == 200) is sees
            assert ("report/7" in response.content.decode()) is sees
        if sees:
            may = role in ("view and change", "superuser")
            page = read(client, page_of(LOCK))
            assert ('id="limit-form"' in page) is may
            assert ("django_taskq.change_limits" in page) is not may

    @pytest.mark.parametrize("verb", ["set", "release", "clear", "reset"])
    def test_nothing_changes_by_looking(self, boss: Client, verb: str) -> None:
        locked()
        assert boss.get(f"{PAGE}{quote(LOCK)}/do/{verb}/").status_code == 405
        assert boss.post(PAGE).status_code in (403, 405)
        assert post(boss, LOCK, "explode").status_code == 404


class TestList:
    def test_what_it_shows(self, boss: Client) -> None:
        assert "Nothing is limited" in read(boss)
        make_task(lambda: None, name="shop.call", rate_limit="100/m")
        make_task(lambda number=0: None, name="shop.each", concurrency=2, concurrency_key="{number}")
        maintenance.declare_limits()
        locked()
        control.set_limit("shop.call", rate="50/m", by="ann<b>")
        page = read(boss)
        # Those with waiters come first.
        assert page.index("lock:report/7") < page.index("rate:shop.call")
        assert "50/m" in page
        assert "ann&lt;b&gt;" in page
        assert "for each of its keys" in page
        assert "Waited for" in page

    @pytest.mark.parametrize(
        ("query", "found"),
        [
            ({}, {LOCK, "breaker:shop.fail", "rate:shop.call"}),
            ({"state": "waiting"}, {LOCK}),
            ({"state": "set"}, {"rate:shop.call"}),
            ({"state": "open"}, {"breaker:shop.fail"}),
            ({"kind": "lock"}, {LOCK}),
            ({"kind": "rate", "state": "waiting"}, set()),
            ({"q": "SHOP."}, {"breaker:shop.fail", "rate:shop.call"}),
            ({"q": "shop", "p": "2"}, set()),
            ({"state": "nonsense", "kind": "nonsense", "p": "-3"}, {LOCK, "breaker:shop.fail", "rate:shop.call"}),
        ],
    )
    def test_filters(self, boss: Client, query: dict[str, str], found: set[str]) -> None:
        make_task(lambda: None, name="shop.call", rate_limit="100/m")
        control.set_limit("shop.call", rate="50/m")
        wait(make_task(lambda number=0: 1 / number, name="shop.fail", breaker=1), 0)
        run(claim())
        locked()
        page = read(boss, **query)
        shown = {key for key in Limit.objects.values_list("pk", flat=True) if f">{key}<" in page}
        assert shown == found
        assert ("No limit matches." in page) is not found

    def test_pages(self, boss: Client) -> None:
        Limit.objects.bulk_create(
            Limit(key=f"lock:{number:03}", base=f"lock:{number:03}", kind="lock", most=1) for number in range(150)
        )
        page = read(boss, q="lock")
        assert "lock:099" in page
        assert "lock:100" not in page
        assert "?q=lock&amp;p=2" in page
        second = read(boss, q="lock", p="2")
        assert "lock:099" not in second
        assert "lock:149" in second
        assert "Further" not in second

    def test_as_many_queries_however_many_rows(self, boss: Client) -> None:
        locked()
        with CaptureQueriesContext(connection) as few:
            read(boss)
        made = make_task(lambda number=0: None, name="shop.each", concurrency=1, concurrency_key="{number}")
        wait(made, *range(20), *range(20))
        with CaptureQueriesContext(connection) as many:
            read(boss)
        assert len(many) == len(few)

    def test_text_that_deceives(self, boss: Client) -> None:
        made = make_task(lambda text: None, name=NAME, lock="{text}")
        made.enqueue("<script>\u202eevil")
        maintenance.tend_limits()
        key = "lock:<script>\u202eevil"
        for page in (read(boss), read(boss, page_of(key))):
            assert "&lt;script&gt;\\u202eevil" in page
            assert "\u202e" not in page


class TestPage:
    def test_holders_and_waiters(self, boss: Client) -> None:
        first, second, third = locked()
        page = read(boss, page_of(LOCK))
        assert "Held by 1, 2 waiting" in page
        held, waiting = page.split("Waiting, the next one first")
        assert first.id in held
        assert waiting.index(second.id) < waiting.index(third.id)

    def test_setting_and_clearing(self, boss: Client) -> None:
        made = make_task(lambda number=0: None, name=NAME, concurrency=1)
        wait(made, *range(5))
        key = f"task:{NAME}"
        post(boss, key, "set", most="3")
        assert TaskRecord.objects.filter(status=Status.READY).count() == 3
        page = read(boss, page_of(key))
        assert "3 (in the code: 1)" in page
        assert f"The limit {key} is changed. At once: 3" in page
        assert Limit.objects.get().set_by == "boss"
        assert LogEntry.objects.get().object_id == key
        post(boss, key, "clear")
        assert Limit.objects.get().set_at is None
        assert "is as in the code again" in read(boss, page_of(key))

    def test_a_rate(self, boss: Client) -> None:
        make_task(lambda number=0: None, name=NAME, rate_limit="100/m")
        maintenance.declare_limits()
        key = f"rate:{NAME}"
        for rate, expected in (("50/m", 50 / 60), ("0", 0.0)):
            post(boss, key, "set", rate=rate, burst="4")
            assert Limit.objects.get().set_rate == pytest.approx(expected)
        assert 'value="0"' in read(boss, page_of(key))
        response = post(boss, key, "set", rate="often")
        assert "it takes a rate" in response.content.decode()
        assert Limit.objects.get().set_rate == 0

    @pytest.mark.parametrize("most", ["", "-1", "2", "many"])
    def test_a_lock_takes_0_or_1(self, boss: Client, most: str) -> None:
        locked()
        response = post(boss, LOCK, "set", most=most)
        assert "errorlist" in response.content.decode()
        assert Limit.objects.get().set_at is None

    def test_releasing_is_confirmed(self, boss: Client) -> None:
        first, second, _third = locked()
        page = post(boss, LOCK, "release", run=first.id).content.decode()
        assert "The run is not stopped" in page
        assert TaskRecord.objects.filter(status=Status.READY).count() == 1
        post(boss, LOCK, "release", run=first.id, confirmed="yes")
        assert TaskRecord.objects.get(pk=second.id).status == Status.READY
        assert "It was not stopped." in read(boss, page_of(LOCK))
        post(boss, LOCK, "release", run=first.id, confirmed="yes")
        assert "That run does not hold it any more." in read(boss, page_of(LOCK))
        assert post(boss, LOCK, "release", run="nonsense").status_code == 400

    def test_a_breaker(self, boss: Client) -> None:
        made = make_task(lambda number=0: 1 / number, name=NAME, breaker=1)
        wait(made, 0)
        run(claim())
        wait(made, 1, 2)
        key = f"breaker:{NAME}"
        assert "errorlist" in post(boss, key, "set", most="0").content.decode()
        page = read(boss, page_of(key))
        assert "ZeroDivisionError" in page
        assert "Open" in page
        post(boss, key, "reset")
        assert TaskRecord.objects.filter(status=Status.READY).count() == 2
        assert "Close the breaker" not in read(boss, page_of(key))

    def test_one_that_is_gone(self, boss: Client) -> None:
        response = boss.get(page_of("lock:gone"))
        assert response.status_code == 302
        assert "There is no such limit" in read(boss)
        assert post(boss, "lock:gone", "clear").status_code == 302


class TestWhyARunWaits:
    def reason(self, client: Client, run: TaskResult[Any]) -> str:
        return read(client, detail_url(TaskRecord.objects.get(pk=UUID(run.id))))

    def test_with_a_link_for_those_who_may_see_it(self, boss: Client) -> None:
        first, _second, third = locked()
        page = self.reason(boss, third)
        said = f"It waits for the lock report/7. 1 run is before it. It is held by {first.id} ({NAME})."
        assert said in page
        assert page_of(LOCK) in page
        assert "It waits for" not in self.reason(boss, first)

    def test_keys_are_for_those_who_may_see_limits(self) -> None:
        # They are made of arguments.
        _first, second, _third = locked()
        page = self.reason(browser_of("ann", {"permissions": ["view_taskrecord"]}), second)
        assert "It waits for a lock. It is the next." in page
        assert "report" not in page

    def test_a_limit_at_0_and_a_rate(self, boss: Client) -> None:
        made = make_task(lambda number=0: None, name=NAME, concurrency=1, concurrency_key="tenant {number}")
        control.set_limit(NAME, most=0)
        (waiting,) = wait(made, 7)
        said = f"It waits for the concurrency limit of {NAME} (tenant 7). It is the next. It is set to let nothing pass"
        assert said in self.reason(boss, waiting)
        made = make_task(lambda number=0: None, name="shop.call", rate_limit="1/h")
        _first, second = wait(made, 1, 2)
        said = "It waits for the rate limit of shop.call. It is the next. The next one may pass at "
        assert said in self.reason(boss, second)

    def test_others_wait_as_before(self, boss: Client) -> None:
        assert "It waits for" not in read(boss, detail_url(make_record(Status.WAITING)))
