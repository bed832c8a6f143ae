"""A message as text, and what is refused: what a depot hands out may come from anywhere."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from django_taskq import envelope
from django_taskq.exceptions import SerializationError
from django_taskq.message import Message, Tracking
from tests.unit.making import make_message

TIMES = st.datetimes(datetime(1990, 1, 1), datetime(2090, 1, 1), timezones=st.just(UTC))  # noqa: DTZ001
TEXTS = st.text(st.characters(exclude_categories=["Cs"]))


@given(
    st.builds(
        make_message,
        name=TEXTS,
        queue_name=TEXTS,
        priority=st.integers(-100, 100),
        payload=TEXTS,
        headers=st.none() | TEXTS,
        enqueued_at=TIMES,
        run_after=st.none() | TIMES,
        expires_at=st.none() | TIMES,
        tracking=st.sampled_from(Tracking),
    )
)
def test_there_and_back(message: Message) -> None:
    found = envelope.to_message(envelope.loads(envelope.dumps(message), 7))
    for name in Message.__slots__:
        expected, got = getattr(message, name), getattr(found, name)
        if isinstance(expected, datetime):
            assert abs((got - expected).total_seconds()) < 1e-5
        else:
            assert got == expected


def test_the_parcel() -> None:
    message = make_message(priority=5, tracking=Tracking.END)
    parcel = envelope.loads(envelope.dumps(message).encode(), 7, receipt="r", is_suspect=True)
    assert (parcel.priority, parcel.tracking, parcel.receipt) == (5, Tracking.END, "r")
    run = parcel.delivery
    assert (run.id, run.claim, run.attempt, run.crashes, run.is_suspect) == (message.id, 7, 1, 0, True)


def spoilt(position: int, value: Any) -> str:
    values = envelope.fields(make_message())
    values[position] = value
    return json.dumps(values)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "{",
        "null",
        "5",
        "{}",
        "[]",
        "[1]",
        "\x00",
        b"\xff\xfe\x00",
        '"text"',
        "[" * 200_000,
        "[" * 200_000 + "]" * 200_000,
        json.dumps([2, *envelope.fields(make_message())[1:]]),
        spoilt(1, "short"),
        spoilt(1, 5),
        spoilt(2, None),
        spoilt(4, "high"),
        spoilt(4, True),
        spoilt(5, 4),
        spoilt(5, -1),
        spoilt(6, {"args": []}),
        spoilt(7, []),
        spoilt(9, None),
        spoilt(8, "tomorrow"),
        spoilt(12, 3),
        spoilt(4, 101),
        spoilt(9, float("nan")),
        spoilt(8, float("inf")),
        spoilt(10, 10**18),
        spoilt(9, -1),
    ],
    ids=range(30),
)
def test_what_is_not_ours_is_refused_with_a_reason(text: str | bytes) -> None:
    with pytest.raises(SerializationError, match="message"):
        envelope.loads(text)


def test_fields_of_a_newer_version_are_passed_over() -> None:
    """Old workers go on with the messages of new web processes during a deploy."""
    message = make_message()
    assert envelope.loads(json.dumps([*envelope.fields(message), "new"])).delivery.id == message.id
