"""Each check by its id: what triggers it, what it says, what to do about it."""

from __future__ import annotations

import importlib.util
import re
import sys
from collections.abc import Callable, Iterator
from io import StringIO
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from django.core.checks import CheckMessage, run_checks
from django.core.management import call_command
from django.db import connections
from django.db.backends.sqlite3.base import DatabaseWrapper

from django_taskq import brokers, checks, registry
from django_taskq.brokers import redis as redis_broker
from django_taskq.task import task

Found = Callable[..., list[CheckMessage]]
WAL = "PRAGMA journal_mode=WAL; PRAGMA synchronous=NORMAL;"
GOOD = {"transaction_mode": "IMMEDIATE", "timeout": 20, "init_command": WAL}


@pytest.fixture
def found(settings: Any, django_db_blocker: Any) -> Found:
    """The messages under a ``TASKQ``; touching a database fails the test."""

    def run(**taskq: Any) -> list[CheckMessage]:
        settings.TASKQ = taskq
        with django_db_blocker.block():
            return run_checks(tags=[checks.TAG])

    return run


@pytest.fixture
def replace(monkeypatch: pytest.MonkeyPatch) -> Callable[..., Any]:
    """Put another connection behind an alias, as far as the checks see."""
    known = {name: connections[name] for name in connections}
    monkeypatch.setattr(checks, "connections", known)

    def put(connection: Any, alias: str = "default") -> Any:
        known[alias] = connection
        return connection

    return put


@pytest.fixture
def own_tasks() -> Iterator[None]:
    """Only the tasks that the test defines."""
    before = dict(registry._tasks)
    registry._tasks.clear()
    yield
    registry._tasks.clear()
    registry._tasks.update(before)


def sqlite(name: str = "db.sqlite3", alias: str = "default", **changed: Any) -> DatabaseWrapper:
    options = {key: value for key, value in (GOOD | changed).items() if value is not None}
    settings = {"TIME_ZONE": None, "CONN_MAX_AGE": 0, "CONN_HEALTH_CHECKS": False, "AUTOCOMMIT": True}
    return DatabaseWrapper(settings | {"NAME": name, "OPTIONS": options}, alias)


def postgresql(**options: Any) -> Any:
    return SimpleNamespace(vendor="postgresql", alias="default", settings_dict={"OPTIONS": options}, close=lambda: None)


def only(messages: list[CheckMessage], name: str) -> CheckMessage:
    (message,) = messages
    assert message.id == f"django_taskq.{name}"
    assert message.hint
    assert message.msg.endswith(".")
    assert message.is_serious() == name.startswith("E")
    return message


def test_all_is_well(found: Found, replace: Any) -> None:
    replace(sqlite())
    assert found() == []


def test_E001(found: Found, settings: Any) -> None:
    settings.TASKQ = [1]
    message = only(run_checks(tags=[checks.TAG]), "E001")
    assert message.msg == "TASKQ is a list."


def test_E002(found: Found) -> None:
    message = only(found(THREDS=2), "E002")
    assert message.msg == "TASKQ['THREDS'] is not a setting."
    assert 'Did you mean "THREADS"?' in str(message.hint)


def test_E003(found: Found) -> None:
    message = only(found(THREADS="two"), "E003")
    assert message.msg == "TASKQ['THREADS'] = 'two' is not usable."
    assert message.hint == "It takes a whole number of at least 1."


def test_E003_for_the_url_of_a_broker_nobody_speaks(found: Found) -> None:
    message = only(found(BROKER_URL="databse://a:hunter2@b"), "E003")
    assert "database://, redis://, rediss://, amqp://" in str(message.hint)
    assert "hunter2" not in str(message)


def test_E003_for_queue_names(found: Found) -> None:
    assert "1 to 100 letters" in str(only(found(QUEUES=["x'; DROP TABLE"]), "E003").hint)


def test_E004(found: Found) -> None:
    assert "LEASE_DURATION" in only(found(LEASE_DURATION=9, HEARTBEAT_INTERVAL=5), "E004").msg


def test_E005(found: Found, replace: Any) -> None:
    assert "SOFT_TIME_LIMIT" in only(found(SOFT_TIME_LIMIT=9, TIME_LIMIT=9), "E005").msg


def test_E006(found: Found) -> None:
    assert 'Did you mean "other"?' in str(only(found(DATABASE="othr"), "E006").hint)


def test_E007(found: Found, settings: Any, replace: Any) -> None:
    replace(sqlite(alias="other"), "other")
    message = only(found(DATABASE="other"), "E007")
    assert "'other'" in message.msg
    assert "django_taskq.router.TaskqRouter" in str(message.hint)
    settings.DATABASE_ROUTERS = ["django_taskq.router.TaskqRouter"]
    assert found(DATABASE="other") == []


def test_E008(found: Found, replace: Any) -> None:
    replace(SimpleNamespace(vendor="oracle", alias="default", settings_dict={}, close=lambda: None))
    message = only(found(), "E008")
    assert message.msg == "TASKQ['DATABASE'] is 'default', a oracle database, which the queue does not speak."
    assert "postgresql, sqlite" in str(message.hint)


def test_E008_knows_what_the_queue_speaks() -> None:
    from django_taskq.brokers.database import broker

    assert set(checks.SUPPORTED) == set(broker._DIALECTS)


def test_E009(found: Found, replace: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    connection = replace(sqlite())
    old = SimpleNamespace(sqlite_version_info=(3, 34, 1), sqlite_version="3.34.1")
    monkeypatch.setattr(connection, "Database", old)
    assert "3.34.1" in only(found(), "E009").msg


def test_E010(found: Found) -> None:
    good = {"task": "tests.testapp.tasks.add", "schedule": "@daily", "args": [1, 2]}
    assert not found(SCHEDULE={"good": good})
    error = only(found(SCHEDULE={"good": good, "bad": good | {"args": [1]}}), "E010")
    assert "TASKQ['SCHEDULE']['bad']: tests.testapp.tasks.add" in error.msg
    assert "no worker starts" in str(error.hint)


def test_E011(found: Found) -> None:
    message = only(found(BROKER_URL="redis://a", BROKERS={"default": {"URL": "redis://:hunter2@b"}}), "E011")
    assert "both name the default broker" in message.msg
    assert "hunter2" not in str(message)


def test_E012(found: Found, replace: Any) -> None:
    replace(sqlite())
    bulk = {"bulk": {"URL": "redis://a"}}
    message = only(found(BROKERS=bulk, QUEUES={"mail": {"broker": "blk"}}), "E012")
    assert message.msg == "TASKQ['QUEUES']['mail'] names the unknown broker 'blk'."
    assert 'Did you mean "bulk"?' in str(message.hint)
    assert "['EXCHANGES']['orders']" in only(found(EXCHANGES={"orders": {"broker": "mq"}}), "E012").msg
    assert found(BROKERS=bulk, QUEUES={"mail": {"broker": "bulk"}}) == []


@pytest.mark.parametrize("url", ["database://", "redis://a", "rediss://a", "unix:///a"])
def test_E013(found: Found, url: str) -> None:
    message = only(found(BROKER_URL=url, EXCHANGES={"orders": {"type": "fanout"}}), "E013")
    assert message.msg == "TASKQ['EXCHANGES']['orders'] is on broker 'default', which has no exchanges."


def test_E015(found: Found) -> None:
    brokers = {"mq": {"URL": "amqp://a"}}
    exchanges = {"orders": {"broker": "mq", "bindings": [{"queue": "mail"}]}}
    message = only(found(BROKERS=brokers, EXCHANGES=exchanges), "E015")
    assert message.msg == "TASKQ['EXCHANGES']['orders'] copies to queue 'mail', which another broker keeps."
    assert "{'mail': {'broker': 'mq'}}" in str(message.hint)
    assert found(BROKERS=brokers, EXCHANGES=exchanges, QUEUES={"mail": {"broker": "mq"}}) == []


def test_E016(found: Found) -> None:
    message = only(found(SLOTS={"mail": 2, "default": 6}, AUTOSCALE=(1, 4)), "E016")
    assert message.msg == "TASKQ['SLOTS'] and TASKQ['AUTOSCALE'] both say how many processes a worker has."
    assert found(AUTOSCALE=(1, 4)) == []


def test_E017(found: Found) -> None:
    assert "cannot be imported" in only(found(AUTOSCALE_METRIC="tests.testapp.tasks.wanted_nowhere"), "E017").msg
    assert "is no function" in only(found(AUTOSCALE_METRIC="tests.settings.ROOT_URLCONF"), "E017").msg
    assert found(AUTOSCALE_METRIC="tests.testapp.tasks.add") == []


def test_E018(found: Found, monkeypatch: pytest.MonkeyPatch) -> None:
    assert found() == []
    needy = SimpleNamespace(name="shop.tasks.needy", needs=("pool",))
    monkeypatch.setattr(registry, "_tasks", registry._tasks | {needy.name: needy})
    message = only(found(), "E018")
    assert "The task shop.tasks.needy needs 'pool'" in message.msg
    assert "@resource" in str(message.hint)


@pytest.mark.parametrize("url", ["redis://:hunter2@a/0", "amqp://ann:hunter2@a//", "memory://"])
def test_E014(found: Found, replace: Any, url: str) -> None:
    replace(sqlite())
    assert found(BROKERS={"fast": {"URL": url}}) == []
    message = only(found(BROKERS={"fast": {"URL": url, "OPTIONS": {"socket_timout": 5}}}), "E014")
    assert "'fast'" in message.msg
    assert 'Did you mean "socket_timeout"?' in message.msg
    assert "TASKQ['BROKERS']['fast']" in str(message.hint)
    message = only(found(BROKER_URL=url, BROKERS={"default": {"OPTIONS": {"socket_timeout": -1}}}), "E014")
    assert "TASKQ['BROKERS']['default']" in str(message.hint)


@pytest.mark.parametrize("url", ["redis://:hunter2@a:x/0", "amqp://ann:hunter2/x@a//", "amqp://a:hunter2@b:c//"])
def test_E014_for_a_url_that_cannot_be_read(found: Found, replace: Any, url: str) -> None:
    replace(sqlite())
    message = only(found(BROKER_URL=url), "E014")
    assert "hunter2" not in str(message)
    assert "TASKQ['BROKER_URL']" in str(message.hint)


def test_E014_for_a_library_that_is_missing(found: Found, replace: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    replace(sqlite())
    find = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name, *rest: None if name == "redis" else find(name, *rest))
    name = redis_broker.__name__  # imported above, so that there is something to take away and to put back
    before = {each: sys.modules.pop(each) for each in list(sys.modules) if each.startswith(name)}
    try:
        message = only(found(BROKER_URL="redis://a"), "E014")
    finally:
        sys.modules.update(before)
        brokers.redis = redis_broker  # type: ignore[attr-defined]
    assert message.msg == ('A broker on Redis needs the Python package redis: pip install "django-kombu-taskq[redis]".')


@pytest.mark.parametrize("mode", [None, "DEFERRED"])
def test_W001(found: Found, replace: Any, mode: str | None) -> None:
    replace(sqlite(transaction_mode=mode))
    assert '"transaction_mode": "IMMEDIATE"' in str(only(found(), "W001").hint)


@pytest.mark.parametrize("timeout", [None, 19])
def test_W002(found: Found, replace: Any, timeout: int | None) -> None:
    replace(sqlite(timeout=timeout))
    assert '"timeout": 20' in str(only(found(), "W002").hint)


def test_W003(found: Found, replace: Any) -> None:
    replace(sqlite(init_command=None))
    assert "journal_mode=WAL" in str(only(found(), "W003").hint)
    for spelling in ("pragma JOURNAL_MODE = wal", "PRAGMA synchronous=1;PRAGMA journal_mode=WAL"):
        replace(sqlite(init_command=spelling))
        assert found() == []


def test_the_hint_for_sqlite_is_python_that_mends_it(found: Found, replace: Any) -> None:
    options = eval(f"{{{checks.SQLITE_OPTIONS}}}")["OPTIONS"]
    replace(DatabaseWrapper({"ENGINE": "x", "NAME": "db.sqlite3", "OPTIONS": options}, "default"))
    assert found() == []


@pytest.mark.parametrize("wal", [False, True])
def test_W004(found: Found, replace: Any, tmp_path: Path, wal: bool, django_db_blocker: Any) -> None:
    path = tmp_path / "db.sqlite3"
    connection = replace(sqlite(str(path), init_command=WAL if wal else "PRAGMA synchronous=NORMAL"))
    assert checks.check_journal_mode(databases=["default"]) == []  # nothing there yet
    with django_db_blocker.unblock():
        with connection.schema_editor() as editor:
            editor.execute("CREATE TABLE some (thing)")
        connection.close()
        messages = checks.check_journal_mode(databases=["default"])
        connection.close()
    if wal:
        assert messages == []
    else:
        assert "not in WAL mode" in only(messages, "W004").msg
    assert checks.check_journal_mode(databases=["other"]) == []
    assert checks.check_journal_mode(databases=None) == []


def test_W005(found: Found, replace: Any, own_tasks: None) -> None:
    replace(sqlite())
    for number in range(7):
        task(name=f"slow{number}", time_limit=5)(lambda: None)
    task(name="tidy", soft_time_limit=5)(lambda: None)
    message = only(found(THREADS=2), "W005")
    assert message.msg.endswith("replaced without it: slow0, slow1, slow2, slow3, slow4 and 2 more.")
    assert only(found(COROUTINES=10), "W005").msg == message.msg
    assert found(THREADS=1) == []


def test_W005_for_the_limit_of_all_tasks(found: Found, replace: Any) -> None:
    replace(sqlite())
    message = only(found(THREADS=2, TIME_LIMIT=5), "W005")
    assert message.msg.startswith("TASKQ['TIME_LIMIT'] is set, but a run past it is not killed where")


@pytest.mark.parametrize(
    ("pool", "threads", "size", "needed"),
    [(True, 4, 4, 6), ({"min_size": 2}, 1, 2, 6), ({"min_size": 2, "max_size": 8}, 8, 8, 9)],
    ids=["default size", "small", "one short"],
)
def test_W006(found: Found, replace: Any, own_tasks: None, pool: Any, threads: int, size: int, needed: int) -> None:
    replace(postgresql(pool=pool))
    message = only(found(THREADS=threads), "W006")
    assert f"holds {size} connections a process" in message.msg
    assert message.hint == f"Set OPTIONS['pool']['max_size'] of DATABASES['default'] to {needed} or more."
    for enough in (False, {"min_size": 4, "max_size": needed}):
        replace(postgresql(pool=enough))
        assert found(THREADS=threads) == []


def test_W006_counts_the_connections_of_coroutines(found: Found, replace: Any, own_tasks: None) -> None:
    replace(postgresql(pool={"min_size": 4, "max_size": 11}))
    assert "uses up to 12" in only(found(COROUTINES=100), "W006").msg
    assert found(COROUTINES=100, COROUTINE_CONNECTIONS=9) == []
    assert found(COROUTINES=9) == []


def test_W006_counts_the_connections_of_health_and_scaling(found: Found, replace: Any, own_tasks: None) -> None:
    replace(postgresql(pool={"min_size": 4, "max_size": 6}))
    assert found() == []
    assert "uses up to 8" in only(found(HEALTH_PORT=8001, AUTOSCALE=(1, 2)), "W006").msg


def test_every_id_is_listed_and_has_a_test_of_its_name() -> None:
    source = Path(checks.__file__).read_text()
    conf = Path(checks.__file__).with_name("conf.py").read_text()
    given = set(re.findall(r'"django_taskq\.([EW]\d{3})"', source)) | set(re.findall(r'Problem\("(E\d{3})"', conf))
    assert given == set(checks.CHECKS)
    assert all(f"test_{name}" in globals() for name in checks.CHECKS)


def test_manage_py_check(settings: Any) -> None:
    settings.TASKQ = {"THREDS": 2}
    with pytest.raises(Exception, match=r"\(django_taskq.E002\) TASKQ\['THREDS'\] is not a setting"):
        call_command("check", tags=[checks.TAG], stdout=StringIO(), stderr=StringIO())
