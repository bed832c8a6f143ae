"""The pages of workflows: what they show and cost, who may press which button, and that the buttons work."""

from __future__ import annotations

import re
from typing import Any
from uuid import UUID, uuid4

import pytest
from django.contrib.admin.models import LogEntry
from django.db import connection
from django.test import Client
from django.test.utils import CaptureQueriesContext
from django.urls import reverse
from django.utils import timezone

from django_taskq.admin import paging
from django_taskq.canvas import chain, chord, group
from django_taskq.graph import Workflow as Graph
from django_taskq.models import TaskRecord, Workflow, workflow_steps
from django_taskq.models.workflow_steps import page_of_steps
from django_taskq.status import Status
from django_taskq.testing import drain
from django_taskq.testing import running as running_module
from django_taskq.worker import eager
from django_taskq.workflow_result import WorkflowResult
from tests.admin.conftest import browser_of
from tests.admin.rows import make_record, make_user
from tests.testapp.canvas_tasks import add, alert, becomes, echo, fail_after, total

pytestmark = pytest.mark.django_db

LIST = "/admin/django_taskq/workflow/"
PERMISSIONS = {
    "cancel": "cancel_workflow",
    "retry": "resume_workflow",
    "resume": "resume_workflow",
    "resume-from": "resume_workflow",
}
ROLES: dict[str, dict[str, Any] | None] = {
    "anonymous": None,
    "not staff": {"is_staff": False, "is_superuser": True},
    "staff": {},
    "view": {"permissions": ["view_workflow"]},
    "runs only": {"permissions": ["view_taskrecord", "cancel_taskrecord", "retry_taskrecord"]},
    "only cancel": {"permissions": ["cancel_workflow"]},
    "only resume": {"permissions": ["resume_workflow"]},
    "view and cancel": {"permissions": ["view_workflow", "cancel_workflow"]},
    "view and resume": {"permissions": ["view_workflow", "resume_workflow"]},
    "superuser": {"is_superuser": True},
}


def page_url(workflow: WorkflowResult) -> str:
    return f"{LIST}{workflow.id}/change/"


def verb_url(workflow: WorkflowResult, verb: str) -> str:
    return reverse("admin:django_taskq_workflow_do", args=[workflow.id, verb])


def show(client: Client, url: str, **query: Any) -> str:
    response = client.get(url, query)
    assert response.status_code == 200
    return str(response.content.decode())


def run_one() -> str:
    """Run what is due first, and nothing after it; its id."""
    delivery = running_module._next()
    assert delivery is not None
    eager.run_claimed(delivery)
    return delivery.id


def failing() -> WorkflowResult:
    """It has run: one step good, one FAILED, one CANCELLED because of that."""
    graph = Graph("invoices")
    first = graph.add(add.s(1, 2), name="first")
    second = graph.add(fail_after.s(0, "secret 4711"), after=[first], name="second")
    graph.add(echo.s("printed"), after=[second], name="third")
    result = graph.start()
    drain()
    return result


def running() -> WorkflowResult:
    return chain(add.s(1, 1), add.s(1), add.s(1)).named("going").enqueue()


def state(workflow: WorkflowResult) -> list[tuple[Any, ...]]:
    row = Workflow.objects.values_list("status", "cancel_requested_at").get(pk=workflow.id)
    return [row, *workflow.steps().values_list("pk", "status", "attempt", "cancel_requested_at")]


@pytest.mark.parametrize("role", ROLES)
@pytest.mark.parametrize("verb", PERMISSIONS)
def test_only_who_may_can(verb: str, role: str) -> None:
    client = browser_of(role, ROLES[role])
    workflow = running() if verb == "cancel" else failing()
    data = {"confirmed": "yes", "step": str(workflow.step("second").id) if verb != "cancel" else ""}
    before = state(workflow)
    assert client.get(verb_url(workflow, verb), data).status_code in (302, 403, 405)
    assert client.post(verb_url(workflow, verb), data).status_code in (302, 403)
    assert state(workflow) == before
    client.cookies["csrftoken"] = "a" * 32
    response = client.post(verb_url(workflow, verb), data | {"csrfmiddlewaretoken": "a" * 32})
    is_allowed = role in ("superuser", "view and " + PERMISSIONS[verb].partition("_")[0])
    assert (state(workflow) != before) is is_allowed, response.status_code
    assert LogEntry.objects.exists() is is_allowed
    assert response.status_code in (302, 403)


@pytest.mark.parametrize("role", ROLES)
def test_only_who_may_sees(role: str) -> None:
    workflow, other = failing(), running()
    client = browser_of(role, ROLES[role])
    sees = role.startswith(("view", "superuser"))
    for url in (LIST, page_url(workflow), page_url(other), f"{LIST}{workflow.id}/history/"):
        response = client.get(url)
        assert (response.status_code == 200) is sees, url
    if sees:
        pages = show(client, page_url(workflow)) + show(client, page_url(other))
        assert ("/do/cancel/" in pages) is (role in ("view and cancel", "superuser"))
        for verb in ("retry", "resume", "resume-from"):
            assert (f"/do/{verb}/" in pages) is (role in ("view and resume", "superuser"))
        assert ("/taskrecord/" in pages) is (role == "superuser")
    for url in (f"{LIST}add/", page_url(workflow), f"{LIST}{workflow.id}/delete/"):
        client.cookies["csrftoken"] = "a" * 32
        response = client.post(url, {"name": "x", "post": "yes", "csrfmiddlewaretoken": "a" * 32})
        assert response.status_code in (302, 403, 405)
    assert Workflow.objects.filter(name="invoices").exists()


class TestList:
    def test_what_it_shows(self, boss: Client) -> None:
        failing()
        running()
        chain(add.s(1, 1), add.s(1)).named("<b>\u202e").enqueue().cancel()
        page = show(boss, LIST)
        assert "&lt;b&gt;\\u202e" in page
        assert page.index("&lt;b&gt;") < page.index(">going<") < page.index(">invoices<")
        assert '<progress max="3" value="3" aria-label="3 of 3">' in page
        assert '<progress max="3" value="0" aria-label="0 of 3">' in page
        assert "1 failed" in page
        assert "style=" not in page

    def test_filters_and_search(self, boss: Client) -> None:
        failed, going = failing(), running()

        def ids(**query: str) -> list[str]:
            return re.findall(rf"{LIST}([0-9a-f-]{{36}})/change/", show(boss, LIST, **query))

        assert ids() == [going.id, failed.id]
        assert ids(status="failed") == [failed.id]
        assert ids(status="running") == [going.id]
        assert ids(status="successful") == ids(status="cancelled") == []
        assert ids(q="VOIC") == ids(q=failed.id) == [failed.id]
        assert ids(q="voic", status="running") == []
        assert boss.get(LIST, {"status": "odd"}).status_code == 302
        assert boss.get(LIST, {"reason__contains": "x"}).status_code == 400

    def test_pages_by_key(self, boss: Client) -> None:
        rows = [Workflow(name=f"n{n}", size=0, enqueued_at=timezone.now()) for n in range(130)]
        Workflow.objects.bulk_create(rows)
        first = show(boss, LIST)
        assert first.count("/change/") == 100
        found = re.search(r'rel="next" href="([^"]+)"', first)
        assert found
        assert show(boss, LIST + found[1]).count("/change/") == 30

    def test_a_filter_without_an_index_looks_so_far(self, boss: Client, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(paging, "WINDOW", 3)
        failing()
        for _ in range(5):
            running()
        assert "Look further back" in show(boss, LIST, q="invoices")

    def test_without_any(self, boss: Client) -> None:
        assert "chord([" in show(boss, LIST)
        running()
        assert "No workflow matches" in show(boss, LIST, q="nothing of this name")

    @pytest.mark.parametrize(("workflows", "steps"), [(1, 2), (20, 2), (2, 200)])
    def test_what_it_costs(self, boss: Client, workflows: int, steps: int) -> None:
        for _ in range(workflows):
            group(add.s(n, 1) for n in range(steps)).enqueue()
        with CaptureQueriesContext(connection) as captured:
            show(boss, LIST)
        about = [query["sql"] for query in captured if "taskq_" in query["sql"]]
        # The page, the permissions of a superuser being none; and the one that counts.
        assert len(about) == 2, about
        assert sum("COUNT(" in sql for sql in about) == 1

    def test_of_what_has_ended_only_what_was_not_successful_is_counted(self) -> None:
        failing()
        row = Workflow.objects.get()
        with CaptureQueriesContext(connection) as captured:
            counts = workflow_steps.count_steps("default", [row])
        assert counts == {row.pk: {"SUCCESSFUL": 1, "FAILED": 1, "CANCELLED": 1}}
        (query,) = captured
        assert "FAILED" in query["sql"]


class TestPage:
    def test_what_it_shows(self, boss: Client) -> None:
        page = show(boss, page_url(failing()))
        assert page.index("What failed first") < page.index('id="steps"')
        assert "ValueError: secret 4711" in page
        assert "UpstreamFailed" in page
        assert ">first<" in page
        assert "canvas.fail_after" in page
        assert page.count("/do/resume-from/") == 3
        assert "style=" not in page
        assert "<script>" not in page

    def test_messages_only_for_those_who_may(self) -> None:
        workflow = failing()
        page = show(browser_of("view", ROLES["view"]), page_url(workflow))
        assert "4711" not in page
        assert "ValueError" in page
        client = browser_of("more", {"permissions": ["view_workflow", "view_payload"]})
        assert "4711" in show(client, page_url(workflow))

    def test_names_are_text(self, boss: Client) -> None:
        graph = Graph("<i>\u202e")
        graph.add(add.s(1, 2), name="<u>label\u202e")
        page = show(boss, page_url(graph.start()))
        assert "<i>" not in page
        assert "<u>" not in page
        assert "\u202e" not in page

    def test_steps_by_status(self, boss: Client) -> None:
        url = page_url(failing())
        assert "canvas.echo" not in show(boss, url, steps="failed")
        assert "canvas.echo" in show(boss, url, steps="cancelled")
        assert "None." in show(boss, url, steps="waiting")
        assert boss.get(url, {"steps": "odd"}).status_code == 400
        assert boss.get(url, {"after": "odd"}).status_code == 400

    def test_what_each_waits_for(self, boss: Client) -> None:
        workflow = (chord([add.s(1, 1), add.s(2, 2)], total.s()).on_error(alert.s())).enqueue()
        page = re.sub(r"<[^>]+>", "", show(boss, page_url(workflow)))
        assert "It waits for the success of canvas.add (Ready). Others may follow." in page
        assert "It is called when canvas.add (Ready) fails. Or another one." in page

    def test_pages_of_steps(self, boss: Client) -> None:
        workflow = group(add.s(n, 1) for n in range(120)).enqueue()
        seen, query = list[str](), ""
        while True:
            page = show(boss, page_url(workflow) + query)
            seen += re.findall(r"/taskrecord/([0-9a-f-]{36})/change/", page)
            found = re.search(r'rel="next" href="([^"]+)"', page)
            if not found:
                break
            query = found[1].replace("&amp;", "&").partition("#")[0]
        assert seen == [str(row.pk) for row in workflow.steps()]
        assert len(seen) == 120
        assert "First page" in page

    @pytest.mark.parametrize("is_large", [False, True], ids=["in order here", "a part of the table"])
    def test_pages_of_a_large_workflow(self, monkeypatch: pytest.MonkeyPatch, is_large: bool) -> None:
        """Between its steps stand other runs; a page looks through a part of them."""
        result = group(add.s(n, 1) for n in range(10)).enqueue()
        for _ in range(10):
            make_record()
        late = make_record(Status.READY, workflow_id=UUID(result.id))
        workflow = Workflow.objects.get(pk=result.id)
        if is_large:
            monkeypatch.setattr(workflow_steps, "FEW", 5)
            monkeypatch.setattr(workflow_steps, "WINDOW", 6)
        seen, after, pages = list[UUID](), None, 0
        while pages == 0 or after is not None:
            page = page_of_steps("default", workflow, 4, counts={}, after=after)
            seen += [row.pk for row in page.steps]
            after, pages = page.further, pages + 1
        assert seen == [row.pk for row in result.steps()]
        assert seen[-1] == late.pk
        assert page.is_cut is False
        # Where there are few of a status, they are found wherever they stand.
        TaskRecord.objects.filter(pk=late.pk).update(status=Status.FAILED)
        for counted, found in ((1, [late.pk]), (99, [] if is_large else [late.pk])):
            page = page_of_steps("default", workflow, 4, counts={"FAILED": counted}, status=Status.FAILED)
            assert [row.pk for row in page.steps] == found
            assert page.is_cut is (not found)

    @pytest.mark.parametrize("steps", [10, 1000])
    def test_it_costs_the_same_for_any_size(self, boss: Client, steps: int) -> None:
        workflow = chord([add.s(n, 1) for n in range(steps)], total.s()).enqueue()
        url = page_url(workflow)
        for query in ({}, {"steps": "waiting"}, {"steps": "ready"}):
            with CaptureQueriesContext(connection) as captured:
                show(boss, url, **query)
            about = [sql["sql"] for sql in captured if "taskq_" in sql["sql"]]
            assert len(about) <= 6, about
            assert all("LIMIT" in sql or "IN (" in sql or " = " in sql for sql in about)

    def test_one_that_is_gone(self, boss: Client) -> None:
        for id in ("x", str(uuid4())):
            response = boss.get(f"{LIST}{id}/change/", follow=True)
            assert "No workflow has the id" in response.content.decode()
        response = boss.post(reverse("admin:django_taskq_workflow_do", args=[uuid4(), "cancel"]), follow=True)
        assert "No workflow has the id" in response.content.decode()


class TestButtons:
    def test_each_asks_first(self, boss: Client) -> None:
        workflow = failing()
        before = state(workflow)
        page = boss.post(verb_url(workflow, "resume")).content.decode()
        assert 'name="confirmed"' in page
        assert "invoices" in page
        assert page_url(workflow) in page
        step = workflow.step("second").id
        page = boss.post(verb_url(workflow, "resume-from"), {"step": step}).content.decode()
        assert f'name="step" value="{step}"' in page
        assert "second (canvas.fail_after)" in page
        assert state(workflow) == before
        assert not LogEntry.objects.exists()

    def test_cancel(self, boss: Client) -> None:
        workflow = running()
        response = boss.post(verb_url(workflow, "cancel"), {"confirmed": "yes"}, follow=True)
        assert "3 steps were cancelled" in response.content.decode()
        assert drain() == []
        workflow.refresh()
        assert workflow.status == "CANCELLED"
        entry = LogEntry.objects.get()
        assert entry.object_id == workflow.id
        assert "3 steps were cancelled" in entry.change_message
        assert "3 steps were cancelled" in show(boss, f"{LIST}{workflow.id}/history/")

    @pytest.mark.parametrize(
        ("verb", "said", "ran"),
        [("retry", "1 step is", 2), ("resume", "2 steps are", 2), ("resume-from", "2 steps are", 2)],
    )
    def test_those_that_go_on(self, boss: Client, verb: str, said: str, ran: int) -> None:
        workflow = failing()
        TaskRecord.objects.filter(name="canvas.fail_after").update(name="canvas.echo", payload='[["good"],{}]')
        data = {"confirmed": "yes", "step": workflow.step("second").id}
        response = boss.post(verb_url(workflow, verb), data, follow=True)
        assert f"{said} to run again." in response.content.decode()
        assert len(drain()) == ran
        workflow.refresh()
        assert workflow.status == "SUCCESSFUL"
        entry = LogEntry.objects.get()
        assert ("second (canvas.echo)" in entry.change_message) is (verb == "resume-from")

    def test_only_those_that_would_do_something_are_there(self, boss: Client) -> None:
        going, failed = show(boss, page_url(running())), show(boss, page_url(failing()))
        good = (add.s(1, 1) | add.s(1)).on_error(alert.s()).enqueue()
        drain()
        done = show(boss, page_url(good))
        for verb, shown in (("cancel", (True, False, False)), ("retry", (False, True, False)),
                            ("resume", (False, True, False))):  # fmt: skip
            assert tuple(f"/do/{verb}/" in page for page in (going, failed, done)) == shown, verb

    def test_too_late(self, boss: Client) -> None:
        workflow = failing()
        response = boss.post(verb_url(workflow, "cancel"), {"confirmed": "yes"}, follow=True)
        assert "Nothing was there to do" in response.content.decode()
        assert not LogEntry.objects.exists()

    def test_nonsense(self, boss: Client) -> None:
        workflow, other = failing(), running()
        assert boss.post(verb_url(workflow, "explode")).status_code == 404
        for step in ("", "x", str(uuid4()), str(other.steps()[0].pk)):
            response = boss.post(verb_url(workflow, "resume-from"), {"confirmed": "yes", "step": step})
            assert response.status_code == 400, step


class TestRun:
    """The page of a run that is a step."""

    @staticmethod
    def page(client: Client, id: Any) -> str:
        return show(client, reverse("admin:django_taskq_taskrecord_change", args=[id]))

    def test_its_place(self, boss: Client) -> None:
        workflow = failing()
        page = self.page(boss, workflow.step("second").id)
        assert page_url(workflow) in page
        assert "first (canvas.add)" in page
        assert "third (canvas.echo)" in page
        assert page.index("Before it") < page.index("first (canvas.add)") < page.index("After it")
        assert "part of the workflow" not in page
        assert "part of the workflow" in self.page(boss, workflow.step("third").id)

    def test_who_may_not_see_workflows_gets_no_link(self) -> None:
        workflow = failing()
        client = Client()
        client.force_login(make_user("ann", ["view_taskrecord"]))
        page = self.page(client, workflow.step("second").id)
        assert LIST not in page
        assert "invoices" in page

    def test_why_it_waits(self, boss: Client) -> None:
        workflow = running()
        first, second, _ = workflow.steps()
        page = re.sub(r"<[^>]+>", "", self.page(boss, second.pk))
        assert "It waits for the success of canvas.add (Ready)." in page
        assert "Others may follow" not in page
        assert "Before it" not in self.page(boss, first.pk)

    def test_one_that_has_put_others_in_its_place_waits_for_these(self, boss: Client) -> None:
        becomes.enqueue("chain")
        page = re.sub(r"<[^>]+>", "", self.page(boss, run_one()))
        assert "It waits for the success of canvas.add (Waiting)." in page

    def test_it_is_neither_deleted_nor_copied(self, boss: Client) -> None:
        """Its children would wait for it for ever, or run without its value."""
        workflow = failing()
        step = workflow.step("first").id
        page = self.page(boss, step)
        assert "/do/run/" not in page
        assert "/do/delete/" not in page
        plain, before = make_record(), state(workflow)
        for verb, why in (("run", "resume that: 3"), ("delete", "which go with their workflow: 3")):
            chosen = [*(str(row.pk) for row in workflow.steps()), str(plain.pk)]
            data = {"action": f"{verb}_selected", "_selected_action": chosen, "index": 0, "confirmed": "yes"}
            page = boss.post("/admin/django_taskq/taskrecord/", data, follow=True).content.decode()
            assert why in page
            assert boss.post(reverse("admin:django_taskq_taskrecord_do", args=[step, verb]), {"confirmed": "yes"})
        assert state(workflow) == before
        assert not TaskRecord.objects.filter(pk=plain.pk).exists()
        assert TaskRecord.objects.filter(workflow=None).count() == 1

    def test_a_plain_run_has_none(self, boss: Client) -> None:
        assert "Before it" not in self.page(boss, make_record().pk)
        assert LIST not in self.page(boss, make_record().pk).partition("content-main")[2]

    @pytest.mark.parametrize("steps", [3, 300])
    def test_some_of_many(self, boss: Client, steps: int) -> None:
        workflow = chord([add.s(n, 1) for n in range(steps)], total.s()).enqueue()
        body = workflow.steps().get(name="canvas.total")
        with CaptureQueriesContext(connection) as captured:
            page = self.page(boss, body.pk)
        about = [query["sql"] for query in captured if "taskq_" in query["sql"]]
        assert len(about) <= 9, about
        assert page.count('<li><span class="tq-status') == min(steps, 20)
        assert ("… and others" in page) is (steps > 20)
