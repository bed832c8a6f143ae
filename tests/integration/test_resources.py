"""Resources, hooks and signals in real workers: what is opened and called where, how often and in which order."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest
from django.utils import timezone

from django_taskq import client
from django_taskq.message import Message, new_ids
from django_taskq.models import TaskRecord
from django_taskq.status import Status
from tests.conftest import ROOT
from tests.waiting import wait_for
from tests.workers import WorkerProcess

pytestmark = [pytest.mark.django_db(transaction=True), pytest.mark.one_database]

Start = Callable[..., WorkerProcess]

TASKS = '''
import os
from pathlib import Path

from django_taskq import Task, current_task, injected, resource, signals, task
from django_taskq.hooks import on_process_start, on_process_stop, on_worker_start, on_worker_stop
from tests.testapp.models import Effect
from tests.testapp.tasks import write_line

HERE = Path(__file__).parent.parent


def say(*words):
    write_line(str(HERE / "log"), *words)


def fails(name):
    """Whether a test wants this to fail, by a file of that name."""
    return (HERE / name).exists()


@resource
def pool():
    if fails("no-pool"):
        raise OSError("no route")
    say("open", "pool")
    yield "pool"
    say("close", "pool")


@resource(check=lambda value: not fails("bad-index"), check_interval=0.05)
def index(pool):
    say("open", "index")
    yield f"index in {pool}"
    say("close", "index")


@task
def plain(number):
    return number


@task
def search(number, *, index=injected):
    say("run", number)
    return f"{number} {index}"


@task
async def asearch(number, *, index=injected):
    return f"{number} {index} {current_task.resources.pool}"


class Counted(Task):
    def before_start(self, context):
        Effect.objects.create(name=f"before {context.attempt}")

    def on_success(self, context, value):
        Effect.objects.create(name=f"success {value}")

    def after_return(self, context, status, result):
        Effect.objects.create(name=f"after {status}")


@task(base=Counted)
def counted(number):
    return number


@task(base=Counted)
async def acounted(number):
    return number


class Deadly(Task):
    def on_success(self, context, value):
        say("deadly", context.id)
        os._exit(0)


@task(base=Deadly)
def deadly():
    return 1


@on_worker_start
def worker_begins():
    if fails("no-worker"):
        raise RuntimeError("not today")
    say("hook", "worker_start")


@on_worker_stop
def worker_ends():
    say("hook", "worker_stop")


@on_process_start(order=2)
def second():
    say("hook", "second_start")


@on_process_start(order=1)
def first():
    if fails("no-process"):
        say("hook", "failing")
        raise RuntimeError("not here")
    say("hook", "first_start")


@on_process_stop(order=2)
def second_end():
    say("hook", "second_stop")


@on_process_stop(order=1)
def first_end():
    say("hook", "first_stop")


def hear(name):
    def receiver(sender, signal, **payload):
        said = ",".join(f"{key}:{type(value).__name__}" for key, value in sorted(payload.items()))
        say("signal", name, sender, said)

    getattr(signals, name).connect(receiver, weak=False)


for name, value in list(vars(signals).items()):
    if isinstance(value, signals.Signal):
        hear(name)
'''


class Shop:
    """A project of its own, whose tasks the process of the test does not know."""

    def __init__(self, path: Path) -> None:
        self.path = path
        (path / "shop").mkdir()
        (path / "shop" / "__init__.py").touch()
        (path / "shop" / "tasks.py").write_text(TASKS)
        (path / "shop_settings.py").write_text("from tests.settings import *\nINSTALLED_APPS += ['shop']\n")
        self.env = {"PYTHONPATH": f"{path}{os.pathsep}{ROOT}", "DJANGO_SETTINGS_MODULE": "shop_settings"}

    def enqueue(self, name: str, payload: str = "[[],{}]") -> str:
        (id,) = new_ids(1)
        client.enqueue([Message(id, f"shop.tasks.{name}", "default", 0, payload, None, timezone.now())])
        return id

    def said(self, *kinds: str) -> list[list[str]]:
        """The lines of these kinds, without their times: kind, words, pid."""
        log = self.path / "log"
        lines = [line.split()[:-1] for line in log.read_text().splitlines()] if log.exists() else []
        return [line for line in lines if line[0] in kinds]

    def words(self, *kinds: str) -> list[str]:
        return [" ".join(line[:-1]) for line in self.said(*kinds)]


@pytest.fixture
def shop(tmp_path: Path) -> Shop:
    return Shop(tmp_path)


def row(id: str) -> TaskRecord:
    return TaskRecord.objects.get(pk=id)


def wait_until(id: str, status: Status, process: WorkerProcess) -> TaskRecord:
    wait_for(lambda: row(id).status == status, 15, lambda: f"{status}: {row(id).reason}\n{process.log()}")
    return row(id)


def test_from_start_to_stop(worker: Start, shop: Shop) -> None:
    process = worker("--processes", "1", "--threads", "3", env=shop.env)
    assert shop.words("open") == [], "nothing is opened before it is needed"
    for number in range(9):
        wait_until(shop.enqueue("search", f"[[{number}],{{}}]"), Status.SUCCESSFUL, process)
    process.terminate()
    assert process.wait() == 0
    assert shop.words("open", "close", "hook") == [
        "hook worker_start",
        "hook first_start",
        "hook second_start",
        "open pool",
        "open index",
        "close index",
        "close pool",
        "hook second_stop",
        "hook first_stop",
        "hook worker_stop",
    ]
    pids = {line[-1] for line in shop.said("open", "close", "run")} | {
        line[-1] for line in shop.said("hook") if "worker" not in line[1]
    }
    assert len(pids) == 1
    assert {line[-1] for line in shop.said("hook") if "worker" in line[1]} == {str(process.pid)}


def test_each_process_has_its_own_also_when_it_is_recycled(worker: Start, shop: Shop) -> None:
    process = worker("--processes", "1", "--max-tasks-per-child", "2", env=shop.env)
    for number in range(2):
        wait_until(shop.enqueue("search", f"[[{number}],{{}}]"), Status.SUCCESSFUL, process)
    wait_for(lambda: len(shop.words("close")) == 2, 20, process.log)
    found = wait_until(shop.enqueue("search", "[[2],{}]"), Status.SUCCESSFUL, process)
    assert found.return_value == "2 index in pool"
    process.terminate()
    assert process.wait() == 0
    opened, closed = shop.said("open"), shop.said("close")
    assert len({line[-1] for line in opened}) == 2
    assert sorted(line[1:] for line in opened) == sorted(line[1:] for line in closed)


def test_coroutines(worker: Start, shop: Shop) -> None:
    process = worker("--processes", "1", "--coroutines", "4", env=shop.env)
    found = wait_until(shop.enqueue("asearch", "[[7],{}]"), Status.SUCCESSFUL, process)
    assert found.return_value == "7 index in pool pool"
    wait_until(shop.enqueue("acounted", "[[7],{}]"), Status.SUCCESSFUL, process)
    from tests.testapp.models import Effect

    assert list(Effect.objects.order_by("pk").values_list("name", flat=True)) == [
        "before 1",
        "success 7",
        "after SUCCESSFUL",
    ]


def test_a_resource_that_cannot_be_opened_leaves_its_runs_to_others(worker: Start, shop: Shop) -> None:
    (shop.path / "no-pool").touch()
    process = worker("--processes", "1", env=shop.env)
    id = shop.enqueue("search", "[[1],{}]")
    found = wait_until(id, Status.SCHEDULED, process)
    assert found.reason == "ResourceUnavailable: resource pool cannot be opened: OSError: no route"
    assert (found.attempt, found.crashes) == (1, 0)
    assert wait_until(shop.enqueue("plain", "[[2],{}]"), Status.SUCCESSFUL, process).return_value == 2
    assert process.log().count("degraded: resource pool cannot be opened: OSError: no route") == 1
    assert "tries again" not in process.log(), "it is said once, not for each run"
    (shop.path / "no-pool").unlink()
    other = worker("--processes", "1", env=shop.env)
    TaskRecord.objects.filter(pk=id).update(run_after=timezone.now())
    assert wait_until(id, Status.SUCCESSFUL, other).return_value == "1 index in pool"


def test_while_its_check_fails_the_worker_is_degraded(worker: Start, shop: Shop) -> None:
    process = worker("--processes", "1", env=shop.env)
    wait_until(shop.enqueue("search", "[[1],{}]"), Status.SUCCESSFUL, process)

    (shop.path / "bad-index").touch()
    wait_for(lambda: "degraded: the check of resource index says no" in process.log(), 10, process.log)
    left = [shop.enqueue("search", "[[2],{}]") for _ in range(3)]
    for id in left:
        assert wait_until(id, Status.SCHEDULED, process).reason.startswith("ResourceUnavailable: the check of")
    assert wait_until(shop.enqueue("plain", "[[3],{}]"), Status.SUCCESSFUL, process).return_value == 3
    assert shop.words("run") == ["run 1"]

    (shop.path / "bad-index").unlink()
    wait_for(lambda: "resource index is back after" in process.log(), 10, process.log)
    TaskRecord.objects.filter(pk__in=left).update(run_after=timezone.now())
    for id in left:
        assert wait_until(id, Status.SUCCESSFUL, process).attempt == 1
    assert process.log().count("degraded: ") == 1


def test_hooks_of_a_class_and_a_hook_that_kills_is_charged(worker: Start, shop: Shop) -> None:
    process = worker("--processes", "1", env=shop.env)
    id = shop.enqueue("deadly")
    found = wait_until(id, Status.FAILED, process)
    assert found.reason.startswith("PoisonTask")
    assert len(shop.words("deadly")) == 3
    process.terminate()
    assert process.wait() == 0
    (line,) = [line for line in shop.said("signal") if line[1] == "task_failed"]
    assert line[-1] == str(process.pid), "what a supervisor records it tells of itself"


class TestFailingStarts:
    def test_of_the_worker(self, worker: Start, shop: Shop) -> None:
        (shop.path / "no-worker").touch()
        process = worker("--processes", "1", env=shop.env, ready=False)
        assert process.wait() == 1
        assert "the hook @on_worker_start shop.tasks.worker_begins failed: RuntimeError: not today" in process.log()
        assert shop.words("hook") == []

    def test_of_every_process(self, worker: Start, shop: Shop) -> None:
        """Fault case F10."""
        (shop.path / "no-process").touch()
        process = worker("--processes", "1", env=shop.env, ready=False)
        assert process.wait(40) == 1
        assert "the hook @on_process_start shop.tasks.first failed: RuntimeError: not here" in process.log()
        assert 2 <= shop.words("hook").count("hook failing") <= 10
        assert shop.words("hook")[-1] == "hook worker_stop"


EXPECTED = {
    "worker_started None": "worker:Worker",
    "process_started None": "process_id:int,worker_id:int",
    "task_started shop.tasks.search": "delivery:Delivery",
    "task_finished shop.tasks.search": "delivery:Delivery,outcome:Outcome",
    "task_failed shop.tasks.plain": "delivery:Delivery,outcome:Outcome",
    "task_retried shop.tasks.search": "delivery:Delivery,outcome:Outcome",
    "resource_degraded None": "process_id:int,reason:str,resource:str,worker_id:int",
    "resource_recovered None": "process_id:int,resource:str,seconds:float,worker_id:int",
    "process_stopped None": "process_id:int,worker_id:int",
    "worker_stopped None": "exit_code:int,worker:Worker",
}


def test_signals_carry_what_is_documented(worker: Start, shop: Shop) -> None:
    process = worker("--processes", "1", env=shop.env)
    wait_until(shop.enqueue("search", "[[1],{}]"), Status.SUCCESSFUL, process)
    wait_until(shop.enqueue("plain", "[[],{}]"), Status.FAILED, process)
    (shop.path / "bad-index").touch()
    wait_for(lambda: "degraded: " in process.log(), 10, process.log)
    wait_until(shop.enqueue("search", "[[2],{}]"), Status.SCHEDULED, process)
    (shop.path / "bad-index").unlink()
    wait_for(lambda: " is back after" in process.log(), 10, process.log)
    process.terminate()
    assert process.wait() == 0
    heard = {" ".join(line[1:3]): line[3] for line in shop.said("signal")}
    assert {name: heard.get(name) for name in EXPECTED} == EXPECTED
    log = process.log()
    assert "signal receiver" not in log
