"""The page of dead letters: who sees what, who may do what, and what a broker that is down costs."""

from __future__ import annotations

import re
from datetime import timedelta
from typing import Any
from uuid import uuid4

import pytest
from django.contrib.admin.models import CHANGE, DELETION, LogEntry
from django.test import Client
from django.utils import timezone, translation

from django_taskq import brokers
from django_taskq.admin import dead_letters
from django_taskq.message import new_ids
from django_taskq.status import Status
from tests.admin.conftest import browser_of
from tests.admin.rows import LIST, detail_url, make_record, make_worker
from tests.lettered_depot import LetteredDepot
from tests.servers import RedisServer

pytestmark = pytest.mark.django_db

PAGE = f"{LIST}dead-letters/"
PERMISSIONS = {"replay": "replay_deadletter", "discard": "discard_deadletter"}
ROLES: dict[str, dict[str, Any] | None] = {
    "anonymous": None,
    "not staff": {"is_staff": False, "is_superuser": True},
    "staff": {},
    "view": {"permissions": ["view_taskrecord"]},
    "change and delete": {"permissions": ["change_taskrecord", "delete_taskrecord", "view_taskrecord"]},
    **{f"only {verb}": {"permissions": [name]} for verb, name in PERMISSIONS.items()},
    **{f"view and {verb}": {"permissions": ["view_taskrecord", name]} for verb, name in PERMISSIONS.items()},
    "superuser": {"is_superuser": True},
}

Depots = dict[str, LetteredDepot]


@pytest.fixture
def depots(settings: Any, monkeypatch: pytest.MonkeyPatch) -> Depots:
    made = {"default": LetteredDepot(), "bulk": LetteredDepot("bulk")}
    monkeypatch.setattr(brokers, "make_depot", lambda config: made[config.alias])
    settings.TASKQ = {"BROKER_URL": "memory://", "BROKERS": {"bulk": {"URL": "memory://"}}}
    return made


def shown(client: Client) -> str:
    response = client.get(PAGE)
    assert response.status_code == 200
    return str(response.content.decode())


def act(client: Client, action: str, *ids: str, broker: str = "default", **more: str) -> Any:
    data = {"action": action, "broker": broker, "letter": list(ids), **more}
    return client.post(PAGE, data, follow=True)


class TestPage:
    def test_what_it_shows(self, boss: Client, depots: Depots) -> None:
        depots["default"].refuse("a1", '[1,"x"]', "the message is not readable JSON: JSONDecodeError")
        depots["bulk"].refuse("b2", "<script>alert(1)</script>\u202e\x00", "<b>odd</b>")
        page = shown(boss)
        assert re.findall(r'name="letter" value="([^"]+)"', page) == ["a1", "b2"]
        assert "[1,&quot;x&quot;]" in page
        assert "the message is not readable JSON: JSONDecodeError" in page
        assert "&lt;script&gt;alert(1)&lt;/script&gt;\\u202e\\u0000" in page
        assert "&lt;b&gt;odd" in page
        assert "<time " in page
        assert not re.search(r"style=|<script(?![^>]* src=)|\son\w+=", re.sub(r"<script[^>]* src=[^>]*>", "", page))

    def test_the_way_to_it(self, boss: Client, depots: Depots, settings: Any) -> None:
        assert f'href="{PAGE}"' in boss.get(LIST).content.decode()
        settings.TASKQ = {}
        assert PAGE not in boss.get(LIST).content.decode()
        assert "Every queue is in the database" in shown(boss)

    def test_without_the_permission_no_payload_is_on_it(self, viewer: Client, depots: Depots) -> None:
        depots["default"].refuse("a1", "hunter2 is the word", "not of format 1, but {'word': 'hunter2'}")
        page = shown(viewer)
        assert "not of format 1" in page
        assert "hunter2" not in page
        assert "You may not see what the messages say" in page

    def test_what_seems_to_hold_a_secret_is_hidden(self, boss: Client, depots: Depots) -> None:
        depots["default"].refuse("a1", '{"password": "hunter2"}')
        page = shown(boss)
        assert "hunter2" not in page
        assert "it seems to hold a secret" in page

    def test_a_broker_that_is_down(self, boss: Client, depots: Depots) -> None:
        depots["default"].go_down()
        depots["bulk"].refuse("b2")
        page = shown(boss)
        assert "This broker cannot be reached:" in page
        assert "the depot was told to fail" in page
        assert 'value="b2"' in page

    def test_why_it_is_down_shows_no_password(self, boss: Client, depots: Depots) -> None:
        depots["default"].go_down()
        depots["default"].why = "no way to amqp://ann:hunter2@mq <b>"
        for page in (shown(boss), act(boss, "replay", "a1").content.decode()):
            assert "no way to amqp://ann:***@mq &lt;b&gt;" in page
            assert "hunter2" not in page

    def test_no_more_than_it_can_show(self, boss: Client, depots: Depots, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(dead_letters, "SHOWN", 3)
        for number in range(5):
            depots["default"].refuse(f"a{number}", age=number)
        page = shown(boss)
        assert re.findall(r'name="letter" value="([^"]+)"', page) == ["a0", "a1", "a2"]
        assert "Only the newest 3 are shown" in page

    def test_in_another_language(self, boss: Client, depots: Depots) -> None:
        depots["default"].refuse("a1")
        with translation.override("de"):
            response = boss.get(PAGE, headers={"accept-language": "de"})
        assert response.status_code == 200
        assert 'lang="de"' in response.content.decode()


class TestActing:
    @pytest.mark.parametrize("method", ["GET", "POST without token", "POST"])
    @pytest.mark.parametrize("role", ROLES)
    @pytest.mark.parametrize("verb", PERMISSIONS)
    def test_only_the_allowed_cell_does_anything(self, depots: Depots, verb: str, role: str, method: str) -> None:
        depots["default"].refuse("a1")
        client = browser_of(role, ROLES[role])
        data = {"action": verb, "broker": "default", "letter": ["a1"], "confirmed": "yes"}
        if method == "GET":
            response = client.get(PAGE, data)
        else:
            if method == "POST":
                client.cookies["csrftoken"] = "a" * 32
                data["csrfmiddlewaretoken"] = "a" * 32
            response = client.post(PAGE, data)
        expected = method == "POST" and role in (f"view and {verb}", "superuser")
        assert (not depots["default"].letters) is expected, response.status_code
        assert LogEntry.objects.exists() is expected
        assert response.status_code < 500

    @pytest.mark.parametrize("role", [role for role in ROLES if role.startswith("view")])
    def test_only_the_allowed_buttons_are_shown(self, depots: Depots, role: str) -> None:
        depots["default"].refuse("a1")
        page = shown(browser_of(role, ROLES[role]))
        for verb in PERMISSIONS:
            assert (f'value="{verb}"' in page) is (role == f"view and {verb}")
        assert ('name="letter"' in page) is (role != "view")

    def test_replay(self, boss: Client, depots: Depots) -> None:
        for id in ("a1", "a2", "a3"):
            depots["default"].refuse(id, "odd" if id == "a3" else "fine")
        page = act(boss, "replay", "a1", "a2", "a3", "gone").content.decode()
        assert "2 messages were put back." in page
        assert "2 messages stay as they are" in page
        assert list(depots["default"].letters) == ["a3"]
        entry = LogEntry.objects.get()
        assert (entry.action_flag, entry.object_repr) == (CHANGE, "Dead letters of the broker default")
        assert entry.change_message == "Replay (2): a1, a2, a3, gone"

    def test_discard_asks_first(self, boss: Client, depots: Depots) -> None:
        for number in range(7):
            depots["bulk"].refuse(f"b{number}")
        ids = [f"b{number}" for number in range(6)]
        page = act(boss, "discard", *ids, broker="bulk").content.decode()
        assert "Dead letters of the broker bulk: 6." in page
        assert "… and others" in page
        assert re.findall(r'name="letter" value="([^"]+)"', page) == ids
        assert len(depots["bulk"].letters) == 7
        page = act(boss, "discard", *ids, broker="bulk", confirmed="yes").content.decode()
        assert "6 messages were thrown away." in page
        assert list(depots["bulk"].letters) == ["b6"]
        assert LogEntry.objects.get().action_flag == DELETION

    def test_all_that_are_shown(self, boss: Client, depots: Depots) -> None:
        for id in ("a1", "a2"):
            depots["default"].refuse(id)
        ids = re.findall(r'name="shown" value="([^"]+)"', shown(boss))
        boss.post(PAGE, {"action": "replay", "broker": "default", "shown": ids, "every": "yes"})
        assert not depots["default"].letters

    def test_nothing_chosen(self, boss: Client, depots: Depots) -> None:
        depots["default"].refuse("a1")
        assert "No message was selected" in act(boss, "replay").content.decode()
        assert depots["default"].letters

    @pytest.mark.parametrize(("action", "broker"), [("explode", "default"), ("replay", "nowhere"), ("", "")])
    def test_what_the_page_does_not_offer(self, boss: Client, depots: Depots, action: str, broker: str) -> None:
        assert act(boss, action, "a1", broker=broker).status_code == 400

    def test_more_than_the_page_shows(self, boss: Client, depots: Depots) -> None:
        assert act(boss, "replay", *(f"a{number}" for number in range(dead_letters.SHOWN + 1))).status_code == 400

    def test_a_broker_that_is_down(self, boss: Client, depots: Depots) -> None:
        depots["default"].go_down()
        page = act(boss, "replay", "a1").content.decode()
        assert "The broker default could not be asked: the depot was told to fail" in page
        assert not LogEntry.objects.exists()

    @pytest.mark.parametrize("method", ["put", "delete", "patch"])
    def test_other_methods(self, boss: Client, depots: Depots, method: str) -> None:
        assert getattr(boss, method)(PAGE).status_code == 405


class TestRuns:
    """What the page of a run says of exchanges and brokers."""

    def test_copied_from(self, boss: Client) -> None:
        parent = uuid4()
        page = boss.get(detail_url(make_record(parent_id=parent))).content.decode()
        assert "Copied from" in page
        assert str(parent) in page
        assert "Copied from" not in boss.get(detail_url(make_record())).content.decode()

    def test_waits_to_be_published(self, boss: Client, depots: Depots) -> None:
        make_worker()
        record = make_record(Status.READY, publish_after=timezone.now() + timedelta(seconds=9))
        page = boss.get(detail_url(record)).content.decode()
        assert "Published again after" in page
        assert "That the broker default has got it is not noted yet" in page
        record.publish_after = None
        record.save()
        page = boss.get(detail_url(record)).content.decode()
        assert "Published again after" not in page
        assert "It waits at the broker default" in page


def test_on_redis(boss: Client, settings: Any, redis_server: RedisServer) -> None:
    prefix = f"t{uuid4().hex[:12]}"
    settings.TASKQ = {"BROKER_URL": redis_server.url, "BROKERS": {"default": {"PREFIX": prefix}}}
    (id,) = new_ids(1)
    with redis_server.client() as client:
        client.hset(f"{{{prefix}:default}}:messages", id, b".+000not of this package")
        client.zadd(f"{{{prefix}:default}}:ready", {id: 0})
        client.sadd(f"{prefix}:queues", "default")
    depot = brokers.get_depots()["default"]
    assert depot.take("default", 5, 1, 1) == []
    page = shown(boss)
    assert "not of this package" in page
    assert f'name="letter" value="{id}"' in page
    assert "1 message stays as it is" in act(boss, "replay", id).content.decode()
    assert "1 message was thrown away" in act(boss, "discard", id, confirmed="yes").content.decode()
    assert "There are none." in shown(boss)
    depot.close()
