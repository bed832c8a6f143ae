"""Arguments and results: readable, masked at any depth, and only for those who may."""

from __future__ import annotations

import json
from collections import namedtuple
from dataclasses import dataclass
from datetime import date, timedelta
from decimal import Decimal
from enum import Enum
from pathlib import Path
from typing import Any

import pytest
from django.test import Client

from django_taskq import serializers
from django_taskq.admin import payload
from django_taskq.admin.payload import MASK
from django_taskq.status import Status
from tests.admin.rows import LIST, TASK, detail_url, make_attempt, make_record, make_user

MARKER = "zq7marker"


class Colour(Enum):
    RED = 1


@dataclass
class Login:
    user: str
    password: str


Credentials = namedtuple("Credentials", "user api_token")


def shown(*args: Any, **kwargs: Any) -> list[Any]:
    found = payload.arguments("unknown", serializers.dumps([list(args), kwargs]))
    return [json.loads(value.text) for value in found]


def test_values_are_decoded_without_their_classes() -> None:
    values = [Decimal("1.10"), date(2026, 1, 2), timedelta(hours=1), Path("/a"), Colour.RED, (1, "a"), {1: 2}, 1 << 70]
    assert shown(*values) == ["1.10", "2026-01-02", "1:00:00", "/a", "Colour.RED", [1, "a"], {"1": 2}, 1 << 70]
    assert payload.result('{"__taskq__":"never heard of","v":{"a":1}}').text.replace("\n", "").replace(" ", "") == (
        '{"neverheardof":{"a":1}}'
    )


@pytest.mark.parametrize(
    "value",
    [
        {"password": MARKER},
        {"a": [{"b": {"API_KEY": MARKER}}]},
        {"auth": {"user": MARKER}},
        {"a": ({"secret_id": [MARKER]},)},
        {1: {"token": MARKER}},
        {("x",): {"session_token": {MARKER}}},
        Login("a", MARKER),
        [Login("a", MARKER)],
        Credentials("a", MARKER),
        {"__taskq__": "dict", "signature": MARKER},
    ],
)
def test_secrets_are_masked_at_any_depth(value: Any) -> None:
    for text in (serializers.dumps([[value], {}]), serializers.dumps([[], {"x": value}])):
        (found,) = payload.arguments("unknown", text)
        assert MARKER not in found.text
        assert MASK in found.text
    assert MARKER not in payload.result(serializers.dumps(value)).text


def test_secrets_passed_by_keyword_or_position_are_masked() -> None:
    assert shown(password=MARKER) == [MASK]
    from django_taskq import registry, task

    @task(name="tests.admin.log_in")
    def log_in(user: str, password: str, *more: str) -> None: ...

    try:
        found = payload.arguments("tests.admin.log_in", serializers.dumps([["a", MARKER, "b"], {}]))
        assert [value.name for value in found] == ["user", "password", "*more[0]"]
        assert MARKER not in "".join(value.text for value in found)
    finally:
        registry._tasks.pop("tests.admin.log_in")


@pytest.mark.parametrize("text", ["", "nonsense", '{"a": 1}', "[1]", "[[], []]", "[" * 5000, '[[1],{"a":'])
def test_what_cannot_be_read_is_shown_as_it_is(text: str) -> None:
    (found,) = payload.arguments(TASK, text)
    assert found.text == text
    assert "cannot be read" in found.note


def test_what_cannot_be_read_and_may_be_secret_is_hidden() -> None:
    (found,) = payload.arguments(TASK, f'[[],{{"password": "{MARKER}"')
    assert MARKER not in found.text
    assert "hidden" in found.note


def test_long_values_are_cut_and_say_so() -> None:
    found = payload.result(json.dumps("x" * 500_000))
    assert len(found.text) == payload.MAX_SHOWN
    assert "500,002" in found.note


def test_reordering_characters_are_written_out() -> None:
    assert payload.result('"a\u202eb"').text == '"a\\u202eb"'


@pytest.mark.django_db
def test_view_does_not_show_payload(viewer: Client, boss: Client) -> None:
    record = make_record(
        Status.FAILED,
        payload=f'[["{MARKER}"],{{}}]',
        result=f'"{MARKER}"',
        reason=f"ValueError: {MARKER}",
    )
    make_attempt(record, message=MARKER, traceback=f"Traceback\n{MARKER}")
    pages = [detail_url(record), LIST, f"{LIST}{record.pk}/history/", f"{LIST}?q={record.pk}", f"{LIST}?status=failed"]
    for page in pages:
        response = viewer.get(page)
        assert response.status_code == 200, page
        assert MARKER not in response.content.decode(), page
    content = boss.get(detail_url(record)).content.decode()
    assert content.count(MARKER) == 5
    page = viewer.get(detail_url(record)).content.decode()
    assert "ValueError" in page
    assert "needs the permission" in page


@pytest.mark.django_db
def test_no_hidden_column_can_be_guessed(viewer: Client) -> None:
    record = make_record(payload=f'[["{MARKER}"],{{}}]', result=f'"{MARKER}"', name="b.task")
    make_record(payload='[["a"],{}]', name="a.task")
    for lookup in (
        "payload__startswith", "payload__contains", "payload", "result__contains", "reason__regex", "headers__gt",
        "attempt_set__message__contains", "worker__worker__hostname", "id__gt",
    ):  # fmt: skip
        assert viewer.get(LIST, {lookup: MARKER}).status_code == 400, lookup
    plain = viewer.get(LIST).content.decode()
    assert plain.index("a.task") < plain.index("b.task")
    for order in ("1", "-1", "2.3", "-11"):
        page = viewer.get(LIST, {"o": order}).content.decode()
        assert page.index("a.task") < page.index("b.task")
    assert str(record.pk) not in viewer.get(LIST, {"q": MARKER}).content.decode()
    assert viewer.get(LIST, {"_to_field": "payload"}).status_code == 400


@pytest.mark.django_db
def test_payload_permission_alone_is_enough_beside_view() -> None:
    record = make_record(payload=f'[["{MARKER}"],{{}}]')
    client = Client()
    client.force_login(make_user("reader", ["view_taskrecord", "view_payload"]))
    assert MARKER in client.get(detail_url(record)).content.decode()
