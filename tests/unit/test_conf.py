"""The ``TASKQ`` setting: read late, validated as a whole, each problem named with its mend."""

from __future__ import annotations

import subprocess
import sys
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from django.core.exceptions import ImproperlyConfigured
from django.test import override_settings

from django_taskq import conf
from django_taskq.conf_brokers import BrokerConfig, QueueConfig
from django_taskq.conf_routes import Route, Rule
from django_taskq.conf_workers import Autoscale

NOT_SECONDS = ["5", True, -1, float("nan"), float("inf"), 1e300, [], timedelta(0)]
ENTRY = {"task": "shop.tasks.remind", "schedule": "@daily"}
BAD: dict[str, list[Any]] = {
    "BROKER_URL": ["", None, "redis", "redi://x", "databas://", 5, [], ["redis://a", ""], "redis://a;b"],
    "BROKERS": [None, [], "redis://a", {"a": "redis://a"}, {"a": {}}, {"a b": {"URL": "redis://a"}}],
    "DATABASE": ["", None, 5],
    "QUEUES": [
        "mail",
        5,
        None,
        ["a b"],
        ["a", 5],
        [["a"]],
        {"mail": {"brokr": "x"}},
        {"mail": 5},
        {5: {}},
        {"mail": {"max_cpu": 0}},
        {"mail": {"max_memory": 101}},
        {"mail": {"max_cpu": "80"}},
    ],
    "EXCHANGES": [None, [], {"a": 5}, {"a b": {}}, {"a": {"type": "headers"}}, {"a": {"kind": "topic"}}],
    "ROUTES": [None, 5, "nodot", [5], {"": "mail"}, {"a.*": 5}, {"a.*": {}}, {"a.*": {"queue": "mail"}}],
    "ENQUEUE_TIMEOUT": [*NOT_SECONDS, None, 0],
    "ENQUEUE_FALLBACK": ["database", "", True, 0],
    "EAGER": [1, "True", None],
    "MAX_PAYLOAD": [0, -1, 1.5, "1", True, None],
    "MAX_WORKFLOW_SIZE": [0, -1, 1.5, "1", True, None],
    "TIME_LIMIT": [*NOT_SECONDS, 0],
    "SOFT_TIME_LIMIT": [*NOT_SECONDS, 0],
    "RESULT_EXPIRES": [*NOT_SECONDS, 0],
    "FAILURE_EXPIRES": [*NOT_SECONDS, 0],
    "UNKNOWN_TASK_DEADLINE": [*NOT_SECONDS, 0],
    "HEARTBEAT_INTERVAL": [*NOT_SECONDS, None, 0],
    "LEASE_DURATION": [*NOT_SECONDS, None, 0],
    "PROCESSES": [0, 1.0, "2", True, None],
    "THREADS": [0, "2", None],
    "COROUTINES": [-1, "2", 1.5, None, True],
    "COROUTINE_CONNECTIONS": [0, "2", None],
    "MAX_TASKS_PER_CHILD": [0, "2", -1, True],
    "MAX_MEMORY_PER_CHILD": [0, "lots", -1, True, 1.5],
    "SLOTS": [None, "mail=2", ["mail"], {"mail": 0}, {"mail": True}, {"a b": 1}, {"": 1}, {"a": 1, "b+a": 1}],
    "AUTOSCALE": [5, "2,8", [2], [2, 8, 9], [0, 2], [3, 2], ["2", "8"], [True, 2]],
    "AUTOSCALE_METRIC": ["", "nodot", "a b.c", 5, "shop.", len],
    "AUTOSCALE_DOWN_AFTER": [*NOT_SECONDS, None, 0],
    "POOL": ["threads", "", None, 5, True, []],
    "START_METHOD": ["fork", "", 5, True, []],
    "LOG_FORMAT": ["xml", "", None, 5],
    "HEALTH_PORT": [-1, 65536, "8080", True, 1.5],
    "HEALTH_HOST": ["", None, 5, "a b"],
    "HEALTH_TOKEN": ["", 5, "x" * 15, "with blanks in it", "ä" * 20],
    "HEALTH_FILE": ["", 5, "a\0b", True],
    "HEALTH_TIMEOUT": [*NOT_SECONDS, None, 0],
    "GRACE": [*NOT_SECONDS[:-1], None, False],
    "SCHEDULE": [None, [], {"": ENTRY}, {5: ENTRY}, {"a": 5}, {"a": {"task": "b"}}, {"a": ENTRY | {"crontab": 1}}],
}
GOOD: dict[str, tuple[Any, Any]] = {
    "BROKER_URL": ("database://", "database://"),
    "DATABASE": ("other", "other"),
    "BROKERS": ({"a": {"URL": "redis://a"}}, {"a": BrokerConfig("a", "redis://a")}),
    "QUEUES": ({"mail": {}, "bulk": None}, {"mail": QueueConfig(), "bulk": QueueConfig()}),
    "EXCHANGES": ({}, {}),
    "ROUTES": ({"shop.*": "mail"}, (Rule("shop.*", Route("mail")),)),
    "ENQUEUE_TIMEOUT": (timedelta(seconds=5), 5.0),
    "ENQUEUE_FALLBACK": ("outbox", "outbox"),
    "EAGER": (True, True),
    "MAX_PAYLOAD": (5, 5),
    "MAX_WORKFLOW_SIZE": (5, 5),
    "TIME_LIMIT": (timedelta(minutes=1), 60.0),
    "SOFT_TIME_LIMIT": (None, None),
    "RESULT_EXPIRES": (60, timedelta(minutes=1)),
    "FAILURE_EXPIRES": (None, None),
    "UNKNOWN_TASK_DEADLINE": (timedelta(hours=1), timedelta(hours=1)),
    "HEARTBEAT_INTERVAL": (1, 1.0),
    "LEASE_DURATION": (60, 60.0),
    "PROCESSES": (2, 2),
    "THREADS": (8, 8),
    "COROUTINES": (0, 0),
    "COROUTINE_CONNECTIONS": (20, 20),
    "MAX_TASKS_PER_CHILD": (1000, 1000),
    "MAX_MEMORY_PER_CHILD": ("300MB", 300 << 20),
    "SLOTS": ({"mail+sms": 2}, {"mail+sms": 2}),
    "AUTOSCALE": ([2, 8], Autoscale(2, 8)),
    "AUTOSCALE_METRIC": ("shop.scaling.wanted", "shop.scaling.wanted"),
    "AUTOSCALE_DOWN_AFTER": (timedelta(minutes=2), 120.0),
    "POOL": ("solo", "solo"),
    "START_METHOD": ("spawn", "spawn"),
    "LOG_FORMAT": ("json", "json"),
    "HEALTH_PORT": (0, 0),
    "HEALTH_HOST": ("::", "::"),
    "HEALTH_TOKEN": ("x" * 16, "x" * 16),
    "HEALTH_FILE": ("/run/healthy", Path("/run/healthy")),
    "HEALTH_TIMEOUT": (timedelta(minutes=1), 60.0),
    "GRACE": (0, 0.0),
    "SCHEDULE": ({"a": ENTRY}, {"a": ENTRY}),
}


def test_the_tables_here_know_every_setting() -> None:
    assert set(BAD) == set(GOOD) == set(conf.setting_names())


@pytest.mark.parametrize(("name", "value"), [(name, value) for name, bad in BAD.items() for value in bad])
def test_a_bad_value_is_one_problem_that_names_it(name: str, value: Any) -> None:
    with override_settings(TASKQ={name: value}):
        (problem,) = conf.problems()
        assert name in problem.message
        assert problem.hint
        with pytest.raises(ImproperlyConfigured, match=name):
            conf.get_settings()


@pytest.mark.parametrize("name", GOOD)
def test_a_good_value_is_kept(name: str) -> None:
    given, kept = GOOD[name]
    with override_settings(TASKQ={name: given}):
        assert conf.problems() == []
        assert getattr(conf.get_settings(), name.lower()) == kept


@pytest.mark.parametrize("value", [None, "x", [], 5])
def test_it_is_a_dict(value: Any) -> None:
    with override_settings(TASKQ=value):
        assert [problem.check_id for problem in conf.problems()] == ["E001"]


@pytest.mark.parametrize(
    ("name", "meant"), [("threads", "THREADS"), ("BROKER_UR", "BROKER_URL"), ("BROKER", "BROKERS"), ("GRASE", "GRACE")]
)
def test_an_unknown_setting_gets_a_suggestion(name: str, meant: str) -> None:
    with override_settings(TASKQ={name: 1}):
        (problem,) = conf.problems()
    assert problem.check_id == "E002"
    assert f'Did you mean "{meant}"' in problem.hint


def test_all_problems_are_found_at_once() -> None:
    with override_settings(TASKQ={"THREADS": 0, "PROCESSES": 0, 5: 5}):
        assert len(conf.problems()) == 3


@pytest.mark.parametrize(
    "given",
    [
        {"BROKER_URL": "redi://me:secret@host/0"},
        {"BROKERS": {"a": {"URL": "redi://me:secret@host/0"}}},
        {"BROKERS": {"a": {"URL": ["redis://host", "me:secret@host"]}}},
    ],
)
def test_a_password_in_a_url_is_never_repeated(given: dict[str, Any]) -> None:
    with override_settings(TASKQ=given):
        (problem,) = conf.problems()
        assert "secret" not in f"{problem}"
        with pytest.raises(ImproperlyConfigured) as caught:
            conf.get_settings()
        assert "secret" not in str(caught.value)


@pytest.mark.parametrize(
    ("given", "check_id"),
    [
        ({"LEASE_DURATION": 9, "HEARTBEAT_INTERVAL": 5}, "E004"),
        ({"TIME_LIMIT": 5, "SOFT_TIME_LIMIT": 5}, "E005"),
        ({"DATABASE": "othr"}, "E006"),
        ({"BROKER_URL": "redis://a", "BROKERS": {"default": {"URL": "redis://b"}}}, "E011"),
        ({"QUEUES": {"mail": {"broker": "mq"}}}, "E012"),
        ({"SLOTS": {"mail": 2}, "AUTOSCALE": [1, 2]}, "E016"),
        ({"EXCHANGES": {"orders": {"broker": "mq"}}}, "E012"),
        ({"EXCHANGES": {"orders": {}}}, "E013"),
        ({"BROKER_URL": "redis://a", "EXCHANGES": {"orders": {}}}, "E013"),
        (
            {
                "BROKERS": {"mq": {"URL": "amqp://a"}},
                "EXCHANGES": {"orders": {"broker": "mq", "bindings": [{"queue": "mail"}]}},
            },
            "E015",
        ),
    ],
)
def test_contradictions(given: dict[str, Any], check_id: str) -> None:
    with override_settings(TASKQ=given):
        (problem,) = conf.problems()
        assert problem.check_id == check_id
        with pytest.raises(ImproperlyConfigured, match=check_id):
            conf.get_settings()


def test_a_wrong_alias_gets_a_suggestion() -> None:
    with override_settings(TASKQ={"DATABASE": "othr"}):
        assert 'Did you mean "other"' in conf.problems()[0].hint
    given = {"BROKERS": {"rabbit": {"URL": "amqp://"}}, "QUEUES": {"mail": {"broker": "rabit"}}}
    with override_settings(TASKQ=given):
        assert 'Did you mean "rabbit"' in conf.problems()[0].hint


def test_the_default_broker_may_have_its_url_in_either_place() -> None:
    for given in ({"BROKER_URL": "redis://a"}, {"BROKERS": {"default": {"URL": "redis://a"}}}):
        with override_settings(TASKQ=given):
            assert conf.problems() == []
            assert conf.get_settings().broker("default").url == "redis://a"
    with override_settings(TASKQ={"BROKER_URL": "redis://a", "BROKERS": {"default": {"PREFIX": "shop"}}}):
        assert conf.get_settings().broker("default") == BrokerConfig("default", "redis://a", "shop")


def test_which_broker_keeps_a_queue() -> None:
    given = {
        "BROKER_URL": "redis://a",
        "BROKERS": {"mq": {"URL": "amqp://"}, "rows": {"URL": "database://"}},
        "QUEUES": {"mail": {"broker": "mq"}, "slow": {"broker": "rows"}, "plain": {}},
    }
    with override_settings(TASKQ=given):
        settings = conf.get_settings()
        assert settings.broker_aliases() == ["default", "mq", "rows"]
        found = {name: settings.broker_of(name).alias for name in ("mail", "slow", "plain", "nowhere")}
    assert found == {"mail": "mq", "slow": "rows", "plain": "default", "nowhere": "default"}


def test_overriding_takes_effect_and_ends() -> None:
    before = conf.get_settings()
    with override_settings(TASKQ={"THREADS": 7}):
        assert conf.get_settings().threads == 7
        assert conf.configured_names() == {"THREADS"}
    assert conf.get_settings() == before


def test_they_are_parsed_once() -> None:
    assert conf.get_settings() is conf.get_settings()


def test_nothing_is_read_at_import() -> None:
    """``from django_taskq import task`` works before settings exist: a project's modules import it early."""
    code = (
        "from django_taskq import task, conf\n"
        "@task\n"
        "def add(x, y): return x + y\n"
        "assert add(1, 2) == 3\n"
        "from django.conf import settings\n"
        "assert not settings.configured\n"
    )
    root = Path(__file__).parents[2]
    done = subprocess.run(
        [sys.executable, "-c", code],
        cwd=root,
        env={"PYTHONPATH": str(root)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize(
    ("word", "text"), [("defalt", ' Did you mean "default"?'), ("zzz", ""), ("", "")], ids=["near", "far", "empty"]
)
def test_suggest(word: str, text: str) -> None:
    assert conf.suggest(word, ["default", "mail"]) == text
