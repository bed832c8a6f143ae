"""The options of ``@task``: each bad value is an error at import that names task, option and what it takes."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from django.test import override_settings

from django_taskq import options
from django_taskq.exceptions import InvalidTask
from django_taskq.flow_options import Breaker, Rate
from django_taskq.options import TaskOptions, option_names
from django_taskq.schedules import crontab
from django_taskq.task import Task
from django_taskq.unique_options import Unique

NOT_SECONDS = ["5", True, -1, float("nan"), float("inf"), 1e300, [], timedelta(seconds=-1)]
BAD: dict[str, list[Any]] = {
    "name": ["", "x" * 256, 5, b"x"],
    "queue_name": ["", "a b", "a" * 101, None, 5, "ä", "a\n"],
    "priority": [101, -101, 1.0, "1", True, None],
    "bind": [1, "yes", None],
    "takes_context": [0, None],
    "max_retries": [-1, 1.5, "3", True],
    "default_retry_delay": [*NOT_SECONDS, None],
    "autoretry_for": ["OSError", 5, (int,), (OSError(),), None],
    "dont_autoretry_for": [object, ["x"]],
    "retry_backoff": ["yes", -1, None, float("inf"), 1e300],
    "retry_backoff_max": [*NOT_SECONDS, None],
    "retry_jitter": [1, None],
    "time_limit": [*NOT_SECONDS, 0],
    "soft_time_limit": [*NOT_SECONDS, 0],
    "memory_limit": [0, -1, True, 1.5, "a lot", "0MB"],
    "expires": [*NOT_SECONDS, 0, datetime(2030, 1, 1, tzinfo=UTC)],
    "ignore_result": [1, None],
    "acks_late": ["no", None],
    "track_pending": [1, None, "no"],
    "transactional": [1, None],
    "base": ["Task", 5, True],
    "batch_size": [1, 0, -5, 10_001, 2.0, "10", True],
    "batch_wait": [*NOT_SECONDS, None, 3601],
    "unique": [5, "", [], ["x", 1], {"x"}],
    "concurrency": [0, -1, 1.0, "3", True, 2_000_000],
    "concurrency_key": ["", 5, b"x", ["x"]],
    "rate_limit": ["", "100", "100/x", "-1/s", "0/m", 0, -1, True, [], "1/2/s"],
    "rate_burst": [0, -1, 1.0, "3", True],
    "rate_key": ["", 5],
    "lock": ["", 5, ["x"]],
    "breaker": [0, True, "5", 2.0],
    "schedule": [5, "", "every blue moon", "60 * * * *", "0 0 * *", timedelta(hours=1)],
}
GOOD: dict[str, tuple[Any, Any]] = {
    "name": ("a.b", "a.b"),
    "queue_name": ("Mail_1.x-y", "Mail_1.x-y"),
    "priority": (-100, -100),
    "bind": (True, True),
    "takes_context": (True, True),
    "max_retries": (None, None),
    "default_retry_delay": (timedelta(minutes=1), 60.0),
    "autoretry_for": ([OSError, ValueError], (OSError, ValueError)),
    "dont_autoretry_for": (OSError, (OSError,)),
    "retry_backoff": (2, 2.0),
    "retry_backoff_max": (0, 0.0),
    "retry_jitter": (False, False),
    "time_limit": (timedelta(seconds=5), 5.0),
    "soft_time_limit": (0.5, 0.5),
    "memory_limit": ("200MB", 200 << 20),
    "expires": (None, None),
    "ignore_result": (True, True),
    "acks_late": (False, False),
    "transactional": (True, True),
    "track_pending": (False, False),
    "base": (Task, Task),
    "batch_size": (10_000, 10_000),
    "batch_wait": (timedelta(seconds=1), 1.0),
    "unique": (["order_id"], Unique(by=["order_id"])),
    "concurrency": (3, 3),
    "concurrency_key": ("tenant:{tenant_id}", "tenant:{tenant_id}"),
    "rate_limit": ("120/m", Rate(2.0, 1)),
    "rate_burst": (5, 5),
    "rate_key": ("{x}", "{x}"),
    "lock": ("stock:{sku}", "stock:{sku}"),
    "breaker": (5, Breaker(5)),
    "schedule": ("0 3 * * *", crontab(hour=3)),
}


def test_the_tables_here_know_every_option() -> None:
    assert set(BAD) == set(GOOD) == set(option_names())


@pytest.mark.parametrize(("option", "value"), [(name, value) for name, bad in BAD.items() for value in bad])
def test_a_bad_value_names_task_option_and_what_it_takes(option: str, value: Any) -> None:
    with pytest.raises(InvalidTask) as caught:
        TaskOptions.parse("app.send", {option: value})
    text = str(caught.value)
    assert text.startswith(f"app.send: @task({option}=")
    assert (
        " it takes a" in text
        or "it takes True or False" in text
        or "it takes exception classes" in text
        or "it takes queue names" in text
        or option == "schedule"  # whose texts are tests/unit/test_schedules*.py's business
    ), text


@pytest.mark.parametrize("option", GOOD)
def test_a_good_value_is_kept(option: str) -> None:
    given, kept = GOOD[option]
    found = getattr(TaskOptions.parse("app.send", {option: given}), option)
    assert (found, type(found)) == (kept, type(kept))


@pytest.mark.parametrize(
    ("option", "meant"),
    [
         ("que_name", "queue_name"), ("max_retry", "max_retries"),
     ("retry_back_off", "retry_backoff"), ("prio", "priority"),
     ("timelimit", "time_limit"), ("ack_late", "acks_late")],
)  # fmt: skip
def test_an_unknown_option_gets_a_suggestion(option: str, meant: str) -> None:
    with pytest.raises(InvalidTask, match=f'app.send: @task has no option {option!r}.*Did you mean "{meant}"'):
        TaskOptions.parse("app.send", {option: 1})


@pytest.mark.parametrize("option", ["sensitive", "compression", "serializer"])
def test_an_option_that_is_not_built_yet_is_unknown(option: str) -> None:
    with pytest.raises(InvalidTask, match=f"no option '{option}'"):
        TaskOptions.parse("app.send", {option: True})


@pytest.mark.parametrize(
    ("given", "text"),
    [
        ({"time_limit": 5, "soft_time_limit": 5}, "soft_time_limit must be below time_limit"),
        ({"bind": True, "takes_context": True}, "choose one of bind and takes_context"),
        ({"transactional": True, "acks_late": False}, "exactly once"),
        ({"track_pending": False, "transactional": True}, "transactional=True needs a row before"),
        ({"track_pending": False, "acks_late": False}, "acks_late=False needs a row before"),
    ],
)
def test_contradictions(given: dict[str, Any], text: str) -> None:
    with pytest.raises(InvalidTask, match=f"app.send: .*{text}"):
        TaskOptions.parse("app.send", given)


class TestRunAfter:
    def test_naive_is_refused_with_time_zones(self) -> None:
        with pytest.raises(ValueError, match="aware datetime, as USE_TZ is on"):
            options.parse_run_after(datetime(2030, 1, 1))  # noqa: DTZ001

    def test_naive_is_local_without(self) -> None:
        with override_settings(USE_TZ=False):
            found = options.parse_run_after(datetime(2030, 1, 1))  # noqa: DTZ001
        assert found == datetime(2029, 12, 31, 22, tzinfo=UTC)

    def test_aware_is_kept(self) -> None:
        moment = datetime(2030, 1, 1, tzinfo=UTC)
        assert options.parse_run_after(moment) is moment

    @pytest.mark.parametrize("value", ["2030-01-01", 5, timedelta(1)])
    def test_anything_else_is_refused(self, value: Any) -> None:
        with pytest.raises(ValueError, match="a datetime"):
            options.parse_run_after(value)
