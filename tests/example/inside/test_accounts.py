"""The web flow: an admin action that enqueues e-mails."""

from __future__ import annotations

import re
from typing import Any

import pytest
from accounts.tasks import send_password_reset
from django.contrib.admin.models import LogEntry
from django.contrib.auth.models import User
from django.core import mail
from django.test import Client
from django.urls import reverse

from django_taskq.models import TaskRecord

LIST = "/admin/auth/user/"


@pytest.fixture
def users(db: None) -> list[User]:
    return [User.objects.create_user(f"clerk{n}", f"clerk{n}@example.com", "old password") for n in range(4)]


def act_on(client: Client, users: list[User]) -> Any:
    data = {"action": "send_password_reset", "_selected_action": [user.pk for user in users]}
    return client.post(LIST, data, follow=True)


def enqueued() -> list[list[int]]:
    return sorted(record.args for record in TaskRecord.objects.filter(name="accounts.tasks.send_password_reset"))


def test_exactly_the_selected_users_are_enqueued(admin_client: Client, users: list[User]) -> None:
    page = act_on(admin_client, users[1:3])
    assert enqueued() == [[users[1].pk], [users[2].pk]]
    assert [str(message) for message in page.context["messages"]] == ["2 e-mails are on their way."]
    assert {entry.object_id for entry in LogEntry.objects.all()} == {str(user.pk) for user in users[1:3]}
    assert mail.outbox == []  # that is the worker's work


def test_who_cannot_be_reached_is_left_out_and_named(admin_client: Client, users: list[User]) -> None:
    User.objects.filter(pk=users[0].pk).update(email="")
    User.objects.filter(pk=users[1].pk).update(is_active=False)
    page = act_on(admin_client, users[:3])
    assert enqueued() == [[users[2].pk]]
    assert [str(message) for message in page.context["messages"]] == [
        "1 e-mail is on its way.",
        "2 users have no address, or are not active.",
    ]


@pytest.mark.django_db(transaction=True)
def test_a_rollback_takes_the_runs_back(admin_client: Client, users: list[User], monkeypatch: Any) -> None:
    enqueue = type(send_password_reset).enqueue_many

    def enqueue_and_fail(self: Any, calls: Any) -> None:
        enqueue(self, calls)
        assert len(enqueued()) == 2
        raise RuntimeError("after the enqueue")

    monkeypatch.setattr(type(send_password_reset), "enqueue_many", enqueue_and_fail)
    with pytest.raises(RuntimeError, match="after the enqueue"):
        act_on(admin_client, users[:2])
    assert enqueued() == []
    assert not LogEntry.objects.exists()


def test_the_action_needs_the_permission_to_change_users(client: Client, users: list[User]) -> None:
    users[0].is_staff = True
    users[0].save()
    client.force_login(users[0])
    assert act_on(client, users[1:]).status_code == 403
    assert enqueued() == []


def test_the_link_in_the_email_sets_a_new_password(client: Client, users: list[User]) -> None:
    assert send_password_reset(users[0].pk) == "clerk0@example.com"
    (message,) = mail.outbox
    assert message.to == ["clerk0@example.com"]
    link = re.search(r"http://127\.0\.0\.1:8000(\S+)", message.body)
    assert link is not None
    form = client.get(link[1], follow=True)
    new = {"new_password1": "kqmwz7!x", "new_password2": "kqmwz7!x"}
    done = client.post(form.redirect_chain[-1][0], new)
    assert done.url == reverse("password_reset_complete")
    users[0].refresh_from_db()
    assert users[0].check_password("kqmwz7!x")
