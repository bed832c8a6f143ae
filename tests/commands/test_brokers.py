"""What a worker learns of its brokers before it begins."""

from __future__ import annotations

import re
import threading
import time
from collections.abc import Callable
from typing import Any

import pytest
from django.core.management.base import CommandError

from django_taskq import brokers as all_brokers
from django_taskq import conf
from django_taskq.brokers.depot import Finding
from django_taskq.management import banner, brokers
from django_taskq.management.commands.taskworker import Command
from django_taskq.management.worker_arguments import parse
from django_taskq.models import TaskRecord, Worker
from tests.lettered_depot import LetteredDepot
from tests.servers import RedisServer
from tests.testapp.tasks import add
from tests.waiting import wait_for
from tests.workers import WorkerProcess

Depots = dict[str, LetteredDepot]
Start = Callable[..., WorkerProcess]


class TestCheck:
    def test_all_is_well(self, depots: Depots) -> None:
        said: list[str] = []
        depots["bulk"].findings = [Finding("info", "loses nothing", "never shown")]
        default, bulk = brokers.check(["default", "mail", "rows"], said.append)
        assert said == []
        assert (default.alias, default.url, default.texts("info")) == ("default", "memory://", [])
        assert (bulk.alias, bulk.url, bulk.texts("info")) == ("bulk", "memory://ann:***@mq", ["loses nothing."])
        assert depots["bulk"].is_closed

    def test_only_those_of_its_queues_are_asked(self, depots: Depots) -> None:
        assert brokers.check(["rows"], pytest.fail) == []
        assert [report.alias for report in brokers.check(["rows", "mail"], pytest.fail)] == ["bulk"]
        assert not depots["default"].asked

    def test_errors_end_it_with_all_of_them(self, depots: Depots) -> None:
        depots["default"].findings = [Finding("error", "it forgets", "ask it not to."), Finding("warning", "slow")]
        depots["bulk"].findings = [Finding("error", "too old at redis://u:hunter2@h.", "use 6.2")]
        with pytest.raises(CommandError) as caught:
            brokers.check(["default", "mail"], pytest.fail)
        assert caught.value.returncode == 2
        assert str(caught.value).splitlines() == [
            "broker 'default' (memory://): it forgets. Ask it not to.",
            "broker 'bulk' (memory://ann:***@mq): too old at redis://u:***@h. Use 6.2.",
        ]

    def test_warnings(self, depots: Depots) -> None:
        said: list[str] = []
        depots["default"].findings = [Finding("warning", "it keeps nothing", "CONFIG SET appendonly yes")]
        (report,) = brokers.check(["default"], said.append)
        assert said == ["broker 'default' (memory://): it keeps nothing. CONFIG SET appendonly yes."]
        assert report.texts("info") == []

    def test_one_that_is_down_is_a_warning(self, depots: Depots) -> None:
        said: list[str] = []
        depots["bulk"].go_down()
        default, bulk = brokers.check(["default", "mail"], said.append)
        assert said == [
            "broker 'bulk' (memory://ann:***@mq) does not answer; connecting to it later: the depot was told to fail"
        ]
        assert (default.error, bulk.error) == ("", "the depot was told to fail")

    def test_one_that_breaks_in_its_own_way_is_one_too(self, depots: Depots, monkeypatch: pytest.MonkeyPatch) -> None:
        def break_down() -> list[Finding]:
            raise KeyError("amqp://a:hunter2@b")

        said: list[str] = []
        monkeypatch.setattr(depots["default"], "check", break_down)
        brokers.check(["default"], said.append)
        assert "KeyError: 'amqp://a:***@b'" in said[0]

    def test_nobody_waits_for_long(self, depots: Depots, monkeypatch: pytest.MonkeyPatch) -> None:
        end = threading.Event()

        def hang() -> list[Finding]:
            end.wait(20)
            return []

        monkeypatch.setattr(brokers, "SECONDS", 0.2)
        for depot in depots.values():
            monkeypatch.setattr(depot, "check", hang)
        said: list[str] = []
        start = time.monotonic()
        reports = brokers.check(["default", "mail"], said.append)
        assert time.monotonic() - start < 2
        assert [report.error for report in reports] == ["no answer in 0.2 s"] * 2
        end.set()
        wait_for(lambda: all(depot.is_closed for depot in depots.values()))
        assert [report.error for report in reports] == ["no answer in 0.2 s"] * 2


class TestBanner:
    def options(self) -> Any:
        given = ["--processes", "1", "--threads", "1"]
        return parse(conf.get_settings(), vars(Command().create_parser("manage.py", "taskworker").parse_args(given)))

    def test_on_a_terminal(self, depots: Depots) -> None:
        text = "a crash of the server loses up to about one second of enqueues (appendfsync everysec)"
        depots["bulk"].findings = [Finding("info", text)]
        reports = brokers.check(["default", "mail"], pytest.fail)
        lines = banner.for_terminal(Worker(hostname="box", pid=1), self.options(), reports).splitlines()
        assert max(map(len, lines)) < 80
        assert "broker" not in lines[1]
        assert lines[2:4] == ["  broker     memory:// (default)", "  broker     memory://ann:***@mq (bulk):"]
        assert " ".join(" ".join(lines[4:6]).split()) == f"{text}."

    def test_the_line_for_logs(self, depots: Depots) -> None:
        reports = brokers.check(["mail"], pytest.fail)
        line = banner.for_log(Worker(hostname="box", pid=1), self.options(), reports)
        assert line.endswith(" brokers=bulk=memory://ann:***@mq")
        assert "\n" not in line

    def test_the_default_broker_is_the_database(self, settings: Any, monkeypatch: pytest.MonkeyPatch) -> None:
        settings.TASKQ = {}
        monkeypatch.setattr("django_taskq.management.storage.describe", lambda alias: "sqlite:///db")
        assert "(broker database://)" in banner.for_terminal(Worker(hostname="box", pid=1), self.options())


@pytest.mark.database
@pytest.mark.django_db(transaction=True)
class TestRealWorkers:
    def test_a_redis_that_throws_messages_away_ends_the_start(self, worker: Start) -> None:
        with RedisServer({"maxmemory-policy": "allkeys-lru"}, password="hunter2") as server:
            process = worker("--processes", "1", taskq={"BROKER_URL": server.url}, ready=False)
            assert process.wait() == 2
        assert "maxmemory-policy is allkeys-lru" in process.log()
        assert "CONFIG SET maxmemory-policy noeviction" in process.log()
        assert "hunter2" not in process.log()

    def test_one_that_keeps_nothing_is_a_warning(self, worker: Start, redis_server: RedisServer) -> None:
        process = worker("--processes", "1", taskq={"BROKER_URL": redis_server.url})
        assert re.search(r"warning: broker 'default' \(redis://127\S+\): the server keeps nothing", process.log())
        assert f"brokers=default={redis_server.url}" in process.log()

    def test_one_that_is_down_is_waited_for_while_working(self, worker: Start, settings: Any) -> None:
        with RedisServer(RedisServer.DURABLE) as server:
            taskq = {"BROKERS": {"fast": {"URL": server.url}}, "QUEUES": {"x": {"broker": "fast"}}}
            settings.TASKQ = taskq
            server.stop("fast")
            process = worker("--processes", "1", taskq=taskq)
            assert "does not answer; connecting to it later" in process.log()
            assert add.enqueue(1, 2).get(timeout=20) == 3  # what is in the database goes on meanwhile
            server.start()
            assert add.using(queue_name="x").enqueue(2, 3).get(timeout=30) == 5
            assert TaskRecord.objects.count() == 2
            all_brokers.get_broker().close()
            process.terminate()
            assert process.wait() == 0
