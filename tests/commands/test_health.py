"""``taskq health``, and the look at the queues that it shares with the metrics."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from datetime import timedelta
from functools import partial
from io import StringIO
from typing import Any

import pytest
from django.core.management import call_command
from django.core.management.base import CommandError
from django.utils import timezone

from django_taskq.models import TaskRecord, Worker
from django_taskq.models.clock import database_now_plus
from django_taskq.status import Status
from django_taskq.worker.health import asking, backlog
from tests.commands.conftest import Output
from tests.lettered_depot import LetteredDepot
from tests.testapp.tasks import add
from tests.unit.making import make_message

pytestmark = [pytest.mark.database, pytest.mark.django_db]

Call = Callable[..., Output]


def make(status: Status = Status.READY, queue_name: str = "default", age: float = 0, **columns: Any) -> None:
    TaskRecord.objects.create(
        name=add.name,
        queue_name=queue_name,
        status=status,
        payload="[[2, 3], {}]",
        **({"enqueued_at": timezone.now() - timedelta(seconds=age)} | columns),
    )


def employ(
    queues: str = "default",
    processes: int = 2,
    threads: int = 3,
    lease: float = 60,
    slots: dict[str, int] | None = None,
) -> None:
    Worker.objects.create(
        hostname="box",
        pid=1,
        pid_started=1,
        queues=queues,
        processes=processes,
        threads=threads,
        slots=slots,
        lease_expires_at=database_now_plus("default", lease),
    )


def refused(call: Call, *arguments: str) -> str:
    with pytest.raises(CommandError) as caught:
        call("health", *arguments)
    assert caught.value.returncode == 5
    return str(caught.value)


class TestLook:
    """What waits where."""

    def test_due_and_running(self) -> None:
        now = timezone.now()
        make(age=50)
        make(age=10)
        make(Status.SCHEDULED, age=500, run_after=now - timedelta(seconds=70))
        make(Status.SCHEDULED, age=500, run_after=now + timedelta(seconds=70))
        make(Status.RUNNING, age=30, worker_id=1, claim=1)
        make(Status.RUNNING, age=900, worker_id=1, claim=2, started_at=now)
        make(Status.SUCCESSFUL, age=900, finished_at=now)
        make(Status.READY, "exchange:orders", age=900)
        found = backlog.look().queues
        assert set(found) == {"default"}
        assert (found["default"].due, found["default"].running) == (4, 1)
        assert 70 <= found["default"].latency < 75

    def test_a_retry_is_due_from_its_own_time_on(self) -> None:
        make(age=500, run_after=timezone.now() - timedelta(seconds=20))
        assert 20 <= backlog.look().queues["default"].latency < 25

    def test_nothing_due_has_no_latency(self) -> None:
        assert backlog.look().queues["default"] == backlog.QueueState()

    def test_who_serves(self, settings: Any) -> None:
        settings.TASKQ = {"QUEUES": ["mail", "bulk"]}
        employ("default,mail")
        employ("mail=3,default=1", processes=1, threads=1)
        employ("bulk+mail=2", processes=1, threads=2)
        employ("default", lease=-1)
        found = backlog.look().queues
        assert {name: (queue.workers, queue.slots) for name, queue in found.items()} == {
            "default": (2, 7), "mail": (3, 9), "bulk": (1, 2),
        }  # fmt: skip

    def test_slots_of_their_own(self, settings: Any) -> None:
        settings.TASKQ = {"QUEUES": ["mail", "bulk"]}
        employ("mail=2,default=6", processes=4, threads=2, slots={"mail": 2, "default": 6})
        employ("bulk", processes=2, threads=1, slots={"bulk": 1002})
        employ("", slots={})
        found = backlog.look().queues
        assert {name: (queue.workers, queue.slots) for name, queue in found.items()} == {
            "default": (1, 6), "mail": (1, 2), "bulk": (1, 1002),
        }  # fmt: skip

    def test_depots_count_their_messages(self, depots: dict[str, LetteredDepot]) -> None:
        make(Status.READY, "mail", publish_after=timezone.now())
        depots["bulk"].publish([make_message(queue_name="mail") for _ in range(3)])
        found = backlog.look()
        assert found.queues["mail"].due == 3
        assert found.outbox == 1
        assert found.brokers == {"default": True, "bulk": True, "rows": True}

    def test_why_a_broker_does_not_answer(self, depots: dict[str, LetteredDepot]) -> None:
        depots["bulk"].go_down()
        down: dict[str, str] = {}
        assert asking._ask("bulk", partial(depots["bulk"].size, "mail"), down) == 0
        assert down == {"bulk": "the depot was told to fail"}

    def test_a_depot_that_is_down(self, depots: dict[str, LetteredDepot]) -> None:
        make(Status.READY, "mail")
        depots["bulk"].go_down()
        found = backlog.look()
        assert found.queues["mail"].due == 1
        assert found.brokers["bulk"] is False

    def test_it_takes_few_queries(self, django_assert_num_queries: Any) -> None:
        make()
        with django_assert_num_queries(3):
            backlog.look()

    def test_a_look_that_took_long_is_used_long(self) -> None:
        found = backlog.look()
        assert found.is_fresh
        found.looked_at -= 10
        assert not found.is_fresh
        found.took = 1.0
        assert found.is_fresh


class TestVerb:
    """What it says, and how it exits."""

    def test_all_is_well(self, call: Call) -> None:
        employ()
        make(age=5)
        out = call("health", "--max-latency", "60").out
        assert "1 worker(s) online" in out
        assert re.search(r"1 due, the oldest for \d+\.\d s; 0 running; 1 worker\(s\), 6 slot\(s\)", out)
        document = json.loads(call("health", "--json").out)
        assert document["is_healthy"] is True
        assert document["problems"] == []
        assert document["workers"] == 1
        assert document["queues"]["default"]["due"] == 1

    def test_nobody_works(self, call: Call) -> None:
        assert refused(call) == "no worker is online"

    def test_a_queue_that_nobody_serves(self, call: Call, settings: Any) -> None:
        settings.TASKQ = {"QUEUES": ["mail"]}
        employ("default")
        call("health")
        make(queue_name="mail")
        assert refused(call) == "no worker serves queue mail, where 1 run(s) are due"

    def test_work_that_waits_for_too_long(self, call: Call) -> None:
        employ()
        make(age=90)
        call("health")
        assert refused(call, "--max-latency", "60").startswith("in queue default a run has been due for 9")

    def test_a_broker_that_is_down(self, call: Call, depots: dict[str, LetteredDepot]) -> None:
        employ("default,mail,rows")
        depots["bulk"].go_down()
        assert refused(call) == "broker bulk does not answer"

    def test_the_document_comes_all_the_same(self) -> None:
        out = StringIO()
        with pytest.raises(CommandError):
            call_command("taskq", "health", "--json", stdout=out)
        document = json.loads(out.getvalue())
        assert (document["is_healthy"], document["problems"]) == (False, ["no worker is online"])

    @pytest.mark.parametrize("text", ["-1", "x", "inf", "nan"])
    def test_bad_input(self, call: Call, text: str) -> None:
        with pytest.raises(CommandError, match="not usable"):
            call("health", f"--max-latency={text}")
