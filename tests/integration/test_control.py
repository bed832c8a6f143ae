"""Commands to real workers: what each does, who may issue it, and what is refused."""

from __future__ import annotations

import json
import re
import time
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from django.contrib.auth.models import Permission, User
from django.core.exceptions import PermissionDenied
from django.db import transaction
from django.utils import timezone

from django_taskq import control, maintenance, signals
from django_taskq.control.issuing import issue
from django_taskq.exceptions import InvalidCommand, ResultNotFound, TaskCancelled, TimeLimitExceeded, UnknownQueue
from django_taskq.models import Command, CommandReply, Queue, TaskLimits, Worker
from django_taskq.status import Status
from tests.faults.history import History
from tests.faults.processes import waited_for_processor
from tests.testapp.tasks import add, nap, note
from tests.waiting import wait_for
from tests.workers import WorkerProcess

pytestmark = pytest.mark.django_db(transaction=True)

Start = Callable[..., WorkerProcess]
PATIENT = 20.0  # seconds, for workers on a loaded machine


QUEUES: dict[str, Any] = {"QUEUES": {"mail": {}, "bulk": {}}}


@pytest.fixture(autouse=True)
def _queues(settings: Any) -> None:
    settings.TASKQ = QUEUES


@pytest.fixture
def worker(worker: Start) -> Start:
    """With these queues."""

    def start(*arguments: str, taskq: dict[str, Any] | None = None, **how: Any) -> WorkerProcess:
        return worker(*arguments, taskq=QUEUES | (taskq or {}), **how)

    return start


@pytest.fixture
def history(tmp_path: Path) -> History:
    return History(tmp_path / "history")


def only(replies: dict[str, control.Reply]) -> Any:
    """What the one worker answered."""
    (reply,) = replies.values()
    assert reply.is_ok, reply.error
    return reply.value


def refusal(replies: dict[str, control.Reply]) -> str:
    (reply,) = replies.values()
    assert not reply.is_ok
    return reply.error


def inspected(*what: str) -> Any:
    return only(control.inspect(*what, timeout=PATIENT))


class TestAsking:
    def test_ping(self, worker: Start) -> None:
        process = worker("--processes", "1")
        before = time.monotonic()
        replies = control.ping(timeout=PATIENT, by="ann")
        took = time.monotonic() - before
        (name,) = replies
        assert name.endswith(f":{process.pid}")
        assert only(replies)["pid"] == process.pid
        # The doorbell brings it: nobody waits for the look once a second.
        print(f"\nping answered after {took * 1000:.0f} ms")
        command = Command.objects.get()
        assert (command.name, command.issued_by, command.worker_id) == ("ping", "ann", None)
        assert command.reply_set.get().is_ok

    def test_nobody_is_there(self) -> None:
        assert control.ping() == {}

    def test_only_one_of_two(self, worker: Start) -> None:
        first, second = worker("--processes", "1"), worker("--processes", "1")
        name = next(name for name in control.ping(timeout=PATIENT) if name.endswith(f":{second.pid}"))
        assert [reply.value["pid"] for reply in control.ping(name, timeout=PATIENT).values()] == [second.pid]
        pk = Worker.objects.get(pid=first.pid).pk
        assert [reply.value["pid"] for reply in control.ping([pk], timeout=PATIENT).values()] == [first.pid]
        with pytest.raises(InvalidCommand, match="no worker online is 'nobody:1'"):
            control.ping("nobody:1")

    @pytest.mark.one_database
    def test_what_it_does_and_knows(self, worker: Start, history: History) -> None:
        worker("--processes", "1", "--queues", "default", taskq={"BROKERS": {"bulk": {"URL": "redis://u:hunter2@x"}}})
        result = note.enqueue(history.path, "long", 30)
        history.wait_for("start", "long")
        found = inspected()
        (run,) = found["active"]
        assert (run["id"], run["name"], run["queue_name"]) == (result.id, note.name, "default")
        assert run["seconds"] < PATIENT + 30
        assert found["reserved"] == []
        assert add.name in found["registered"]
        assert (found["stats"]["queues"], found["stats"]["slots"], found["stats"]["busy"]) == ("default", 1, 1)
        assert found["settings"]["THREADS"] == {"value": 1, "source": "default"}
        assert "***" in str(found["settings"]["BROKERS"])
        # Neither secrets nor arguments.
        assert "hunter2" not in json.dumps(found)
        assert str(history.path) not in json.dumps(found)

    @pytest.mark.one_database
    def test_only_what_is_asked_for(self, worker: Start) -> None:
        worker("--processes", "1")
        assert set(inspected("registered", "active")) == {"registered", "active"}
        with pytest.raises(InvalidCommand, match='Did you mean "active"'):
            control.inspect("activ")

    @pytest.mark.one_database
    def test_stacks(self, worker: Start, history: History) -> None:
        process = worker("--processes", "1")
        note.enqueue(history.path, "long", 30)
        history.wait_for("start", "long")
        assert "taskq-commands" in only(control.dump_stacks(timeout=PATIENT))
        wait_for(lambda: len(re.findall(r"stacks of process \d+:", process.log())) == 2)
        assert "in spend" in process.log()


@pytest.mark.one_database
class TestShape:
    def test_processes(self, worker: Start) -> None:
        process = worker("--processes", "1")
        control.set_processes(3, timeout=PATIENT)
        wait_for(lambda: len(process.children()) == 3)
        control.set_processes(1, timeout=PATIENT)
        wait_for(lambda: len(process.children()) == 1)
        wait_for(lambda: Worker.objects.get().processes == 1)

    def test_threads_one_process_after_another(self, worker: Start, history: History) -> None:
        process = worker("--processes", "2")
        result = note.enqueue(history.path, "long", 1)
        history.wait_for("start", "long")
        before = set(process.children())
        control.set_threads(3, timeout=PATIENT)

        def are_exchanged() -> bool:
            found = inspected("stats")["stats"]["processes"]
            return [each["slots"] for each in found] == [3, 3]

        wait_for(are_exchanged, PATIENT)
        assert not before & set(process.children())
        # What ran was finished by whom it was with.
        assert result.get(PATIENT) is None
        assert history.count("start", "long") == 1

    def test_autoscale(self, worker: Start) -> None:
        process = worker("--processes", "1")
        control.set_autoscale(2, 3, timeout=PATIENT)
        wait_for(lambda: len(process.children()) == 2)
        assert inspected("stats")["stats"]["autoscale"] == [2, 3]
        assert "scales between 2,3 by itself" in refusal(control.set_processes(1, timeout=PATIENT))
        with pytest.raises(InvalidCommand, match="at least 3 is more than at most 2"):
            control.set_autoscale(3, 2)

    def test_quiet_and_work(self, worker: Start) -> None:
        worker("--processes", "1")
        only(control.quiet(timeout=PATIENT))
        wait_for(lambda: inspected("stats")["stats"]["is_quiet"])
        result = add.enqueue(1, 2)
        with pytest.raises(TimeoutError):
            result.get(0.3)
        only(control.work(timeout=PATIENT))
        assert result.get(PATIENT) == 3

    def test_restart_leaves_no_gap(self, worker: Start) -> None:
        process = worker("--processes", "1")
        before = set(process.children())
        only(control.restart(timeout=PATIENT))
        wait_for(lambda: process.children() and not before & set(process.children()))
        assert add.enqueue(1, 2).get(PATIENT) == 3

    def test_shutdown(self, worker: Start) -> None:
        process = worker("--processes", "1")
        only(control.shutdown(timeout=PATIENT))
        assert process.wait() == 0

    def test_consumers(self, worker: Start) -> None:
        worker("--processes", "1", "--queues", "default")
        result = add.using(queue_name="mail").enqueue(1, 2)
        only(control.add_consumer("mail", timeout=PATIENT))
        assert result.get(PATIENT) == 3
        assert Worker.objects.get().queues == "default,mail"

        only(control.cancel_consumer("mail", timeout=PATIENT))
        result = add.using(queue_name="mail").enqueue(1, 2)
        assert add.enqueue(3, 4).get(PATIENT) == 7
        assert result.status == Status.READY
        wait_for(lambda: Worker.objects.get().queues == "default")
        assert Worker.objects.get().slots == {"default": 1}
        only(control.add_consumer("mail", timeout=PATIENT))
        assert result.get(PATIENT) == 3
        wait_for(lambda: Worker.objects.get().slots == {"default": 1, "mail": 1})
        only(control.cancel_consumer("mail", timeout=PATIENT))
        assert "does not serve the queue 'bulk'" in refusal(control.cancel_consumer("bulk", timeout=PATIENT))
        with pytest.raises(UnknownQueue):
            control.add_consumer("maill")

    def test_slots_that_belong_to_queues(self, worker: Start) -> None:
        worker("--slots", "mail=1,default+bulk=3", "--threads", "2", "--coroutines", "5")
        # As many processes as it takes, each with its threads and its coroutines.
        assert Worker.objects.get().slots == {"mail": 6, "default": 13, "bulk": 13}
        only(control.cancel_consumer("mail", timeout=PATIENT))
        wait_for(lambda: Worker.objects.get().queues == "default+bulk=3")
        assert Worker.objects.get().slots == {"default": 13, "bulk": 13}
        assert "slots belong to queues" in refusal(control.set_threads(2, timeout=PATIENT))


class TestPausing:
    def test_nothing_of_it_starts_until_it_is_resumed(self, worker: Start) -> None:
        worker("--processes", "1")
        only(control.pause_queue("mail", reason="the provider is down", by="ann", timeout=PATIENT))
        queue = Queue.objects.get()
        assert (queue.name, queue.paused_by, queue.reason) == ("mail", "ann", "the provider is down")
        held, free = add.using(queue_name="mail").enqueue(1, 2), add.enqueue(3, 4)
        assert free.get(PATIENT) == 7
        assert inspected("stats")["stats"]["closed"] == {"paused": ["mail"]}
        held.refresh()
        assert held.status == Status.READY
        only(control.resume_queue("mail", timeout=PATIENT))
        assert held.get(PATIENT) == 3

    def test_it_holds_over_restarts(self, worker: Start) -> None:
        control.pause_queue("mail")
        held = add.using(queue_name="mail").enqueue(1, 2)
        # Nothing else is there, so a worker that ends when it finds nothing ends.
        assert worker("--processes", "1", "--burst").wait() == 0
        held.refresh()
        assert held.status == Status.READY
        control.resume_queue("mail")
        assert worker("--processes", "1", "--burst").wait() == 0
        assert held.get(PATIENT) == 3

    def test_the_second_reason_replaces_the_first(self) -> None:
        control.pause_queue("mail", reason="one", by="ann")
        control.pause_queue("mail", reason="two", by="bob")
        queue = Queue.objects.get()
        assert (queue.reason, queue.paused_by) == ("two", "bob")

    def test_unknown_queues(self) -> None:
        with pytest.raises(UnknownQueue):
            control.pause_queue("maill")
        with pytest.raises(UnknownQueue):
            control.resume_queue("maill")
        # One that the settings have forgotten meanwhile can still be resumed.
        Queue.objects.pause("maill", by="", reason="")
        control.resume_queue("maill")
        assert not Queue.objects.paused().exists()

    def test_signals(self) -> None:
        heard: list[tuple[str, Any]] = []

        def on_paused(queue_name: str, reason: str, by: Any, **kwargs: Any) -> None:
            heard.append((queue_name, reason))

        def on_resumed(queue_name: str, by: Any, **kwargs: Any) -> None:
            heard.append((queue_name, by))

        signals.queue_paused.connect(on_paused)
        signals.queue_resumed.connect(on_resumed)
        try:
            control.pause_queue("mail", reason="why")
            control.resume_queue("mail", by="ann")
        finally:
            signals.queue_paused.disconnect(on_paused)
            signals.queue_resumed.disconnect(on_resumed)
        assert heard == [("mail", "why"), ("mail", "ann")]


class TestCancelling:
    def test_a_run_that_sleeps(self, worker: Start, history: History) -> None:
        process = worker("--processes", "1")
        result = note.enqueue(history.path, "long", 30)
        history.wait_for("start", "long")
        children = process.children()
        before, waited = time.monotonic(), waited_for_processor(process)
        # READY until the row says that it has begun.
        assert control.cancel(result, by="ann") in (Status.READY, Status.RUNNING)
        with pytest.raises(TaskCancelled):
            result.get(PATIENT)
        took = time.monotonic() - before
        waited = waited_for_processor(process) - waited
        print(f"\ncancelled after {took:.2f} s, {waited:.2f} s of them without a processor")
        assert took < 1.5 + 2 * waited
        assert result.status == Status.CANCELLED
        assert not history.count("end", "long")
        assert process.children() == children
        assert Command.objects.get().issued_by == "ann"
        assert add.enqueue(1, 2).get(PATIENT) == 3

    @pytest.mark.one_database
    def test_in_threads(self, worker: Start, history: History) -> None:
        worker("--processes", "1", "--threads", "2")
        beside = note.enqueue(history.path, "beside", 2)
        result = note.enqueue(history.path, "long", 30, "until-told")
        history.wait_for("start", "beside")
        history.wait_for("start", "long")
        assert result.cancel() is False
        with pytest.raises(TaskCancelled):
            result.get(PATIENT)
        assert beside.get(PATIENT) is None

    @pytest.mark.one_database
    def test_one_that_heeds_nothing_is_killed(self, worker: Start, history: History) -> None:
        process = worker("--processes", "1")
        result = note.enqueue(history.path, "long", 30, "gil")
        history.wait_for("start", "long")
        children = process.children()
        result.cancel()
        with pytest.raises(TaskCancelled):
            result.get(PATIENT)
        assert add.enqueue(1, 2).get(PATIENT) == 3
        assert not set(children) & set(process.children())

    def test_what_has_not_started_and_what_is_over(self) -> None:
        result = add.enqueue(1, 2)
        assert control.cancel(result) == Status.CANCELLED
        assert control.cancel(result.id) == Status.CANCELLED

    def test_what_has_no_row(self) -> None:
        with pytest.raises(ResultNotFound, match="has no row yet"):
            control.cancel("01890a5d-ac96-774b-bcce-b302099a8057")
        with pytest.raises(ResultNotFound, match="not the id of a run"):
            control.cancel("mine")


@pytest.mark.one_database
class TestLimits:
    def test_they_hold_for_what_starts_from_then_on(self, worker: Start) -> None:
        worker("--processes", "1")
        only(control.set_time_limits(nap.name, hard=0.3, by="ann", timeout=PATIENT))
        assert TaskLimits.objects.get().set_by == "ann"
        with pytest.raises(TimeLimitExceeded, match=r"0\.3 s"):
            nap.enqueue(30).get(PATIENT)
        # The successor of the process that was killed knows them, too.
        with pytest.raises(TimeLimitExceeded):
            nap.enqueue(30).get(PATIENT)
        only(control.set_time_limits(nap.name, timeout=PATIENT))
        assert not TaskLimits.objects.exists()
        assert nap.enqueue(0.5).get(PATIENT) is None

    def test_what_a_call_says_goes_before(self, worker: Start) -> None:
        control.set_time_limits(nap.name, hard=0.2)
        worker("--processes", "1")
        assert nap.using(time_limit=20).enqueue(0.5).get(PATIENT) is None
        with pytest.raises(TimeLimitExceeded):
            nap.enqueue(30).get(PATIENT)

    def test_refusals(self) -> None:
        with pytest.raises(InvalidCommand, match="must be below"):
            control.set_time_limits(nap.name, soft=2, hard=1)
        with pytest.raises(InvalidCommand, match="number of seconds"):
            control.set_time_limits(nap.name, hard=-1)
        with pytest.raises(InvalidCommand, match="Did you mean"):
            control.set_time_limits(nap.name + "x", hard=1)
        assert not Command.objects.exists()
        assert not TaskLimits.objects.exists()


COMMANDS: dict[str, Callable[[Any], object]] = {
    "view_worker": lambda by: control.ping(by=by),
    "control_worker": lambda by: control.quiet(by=by),
    "pause_queue": lambda by: control.pause_queue("mail", by=by),
    "set_limits": lambda by: control.set_time_limits(nap.name, hard=1, by=by),
    "cancel_taskrecord": lambda by: control.cancel(add.enqueue(1, 2), by=by),
}


@pytest.mark.one_database
class TestPermissions:
    @pytest.mark.parametrize("codename", COMMANDS)
    def test_each_needs_its_own(self, codename: str) -> None:
        allowed, other = User.objects.create(username="ann"), User.objects.create(username="bob")
        allowed.user_permissions.add(Permission.objects.get(codename=codename))
        others = [each for each in COMMANDS if each != codename]
        other.user_permissions.set(Permission.objects.filter(codename__in=others))
        with pytest.raises(PermissionDenied, match=codename):
            COMMANDS[codename](other)
        assert not Command.objects.exists()
        assert not Queue.objects.exists()
        COMMANDS[codename](allowed)
        command = Command.objects.get()
        assert (command.issued_by, command.user_id) == ("ann", str(allowed.pk))


class TestWhatSomebodyElseWrote:
    """Whoever can write the table can write any row."""

    @pytest.fixture
    def online(self, worker: Start) -> WorkerProcess:
        return worker("--processes", "1")

    def answer(self, name: str, arguments: str, seconds: float = 60) -> str:
        (command,) = Command.objects.issue(name, arguments, [None], seconds=seconds)
        reply = wait_for(lambda: CommandReply.objects.filter(command=command).first(), PATIENT)
        assert reply is not None
        assert not reply.is_ok
        return str(json.loads(reply.reply))

    @pytest.mark.one_database
    def test_is_refused(self, online: WorkerProcess) -> None:
        for name, arguments, why in (
            ("os.system", "{}", "no command is named 'os.system'"),
            ("ping", '{"x": 1}', "has no argument 'x'"),
            ("set_processes", '{"number": 1e9}', "a whole number from 1 to 1,000"),
            ("set_processes", "[]", "not a JSON object"),
            ("ping", "{", "not JSON"),
            ("ping", "[" * 16_000, "not JSON"),
            ("ping", " " * 1_000_000 + "{}", "1,000,002 characters"),
        ):
            assert why in self.answer(name, arguments)
            assert len(online.children()) == 1

    @pytest.mark.one_database
    def test_is_refused_when_it_has_expired(self, online: WorkerProcess) -> None:
        assert "expired" in self.answer("shutdown", "{}", seconds=-1)
        assert online.returncode is None

    def test_what_is_older_than_the_worker_is_not_for_it(self, worker: Start) -> None:
        Command.objects.issue("shutdown", "{}", [None], seconds=60)
        worker("--processes", "1")
        only(control.ping(timeout=PATIENT))
        assert not CommandReply.objects.filter(command__name="shutdown").exists()

    def test_a_lower_number_that_shows_later(self, online: WorkerProcess) -> None:
        (later,) = Command.objects.issue("ping", "{}", [None], seconds=60)
        wait_for(lambda: CommandReply.objects.filter(command=later).exists(), PATIENT)
        gap = Command(pk=later.pk + 1, name="ping", issued_at=timezone.now(), expires_at=timezone.now() + timedelta(60))
        higher = Command(pk=later.pk + 2, name="ping", issued_at=gap.issued_at, expires_at=gap.expires_at)
        higher.save(force_insert=True)
        wait_for(lambda: CommandReply.objects.filter(command=higher).exists(), PATIENT)
        gap.save(force_insert=True)
        wait_for(lambda: CommandReply.objects.filter(command=gap).exists(), PATIENT)


def test_too_long_arguments_are_refused_where_they_are_issued() -> None:
    with pytest.raises(InvalidCommand, match="16,384 are allowed"):
        issue("inspect", {"what": ["active"] * 5000})
    assert not Command.objects.exists()


def test_nothing_is_waited_for_inside_a_transaction(worker: Start) -> None:
    worker("--processes", "1")
    before = time.monotonic()
    with transaction.atomic():
        assert "still open" in refusal(control.ping(timeout=60))
    assert time.monotonic() - before < 30
    wait_for(lambda: CommandReply.objects.exists(), PATIENT)


@pytest.mark.one_database
def test_a_flood_costs_neither_memory_nor_heartbeats(worker: Start) -> None:
    """F60: ten thousand pings whose answers nobody reads."""
    process = worker("--processes", "1", taskq={"HEARTBEAT_INTERVAL": 0.5})
    only(control.ping(timeout=PATIENT))
    status = Path(f"/proc/{process.pid}/statm")
    before, waited = int(status.read_text().split()[1]), waited_for_processor(process)
    for _ in range(20):
        Command.objects.issue("ping", "{}", [None] * 500, seconds=600)
    ages: list[float] = []

    def are_answered() -> bool:
        ages.append((timezone.now() - Worker.objects.get().heartbeat_at).total_seconds())
        return CommandReply.objects.count() == 10_001

    wait_for(are_answered, 120, interval=0.2)
    waited = waited_for_processor(process) - waited
    grown = (int(status.read_text().split()[1]) - before) * 4096
    print(f"\nthe supervisor has grown by {grown / 1e6:.1f} MB, its oldest heartbeat was {max(ages):.1f} s old")
    assert grown < 10_000_000
    assert max(ages) < 2 + 2 * waited
    assert add.enqueue(1, 2).get(PATIENT) == 3
    assert "lease was lost" not in process.log()


def test_old_commands_are_pruned() -> None:
    old, new = Command.objects.issue("ping", "{}", [None, None], seconds=60)
    Command.objects.filter(pk=old.pk).update(issued_at=timezone.now() - timedelta(days=31))
    now = timezone.now()
    worker = Worker.objects.create(
        hostname="h", boot_id="b", pid_namespace="n", pid=1, pid_started=1, table_path="/x", processes=1, threads=1,
        version="0", lease_expires_at=now,
    )  # fmt: skip
    CommandReply.objects.create(command=old, worker=worker, is_ok=True, at=now)
    maintenance.prune()
    assert [command.pk for command in Command.objects.all()] == [new.pk]
    assert not CommandReply.objects.exists()
