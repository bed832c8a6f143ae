"""``@resource``: what may be declared, what is opened when, and what is closed in which order."""

from __future__ import annotations

import gc
import logging
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from pathlib import Path
from typing import Any

import pytest
from asgiref.sync import async_to_sync

from django_taskq import checks, current_task, injected, open_resources, resource, resources, signals, task
from django_taskq.exceptions import InvalidArguments, InvalidResource, InvalidTask, ResourceUnavailable
from django_taskq.message import Action
from django_taskq.open_resources import FIRST_DELAY, Resources
from django_taskq.worker import resourcing
from django_taskq.worker.table import SlotTable
from tests.unit.making import FakeGuard, execute, make_task
from tests.waiting import wait_for


@pytest.fixture(autouse=True)
def own_resources(monkeypatch: pytest.MonkeyPatch) -> None:
    """Resources declared in a test are forgotten after it."""
    monkeypatch.setattr(resources, "_resources", dict(resources._resources))


@pytest.fixture
def events() -> list[str]:
    return []


@pytest.fixture
def pool(events: list[str]) -> resources.Resource[..., str]:
    def pool() -> Iterator[str]:
        events.append("open pool")
        yield "the pool"
        events.append("close pool")

    return resource(pool)


@pytest.fixture
def search(events: list[str], pool: Any) -> resources.Resource[..., str]:
    @resource
    def search(pool: str) -> Iterator[str]:
        events.append("open search")
        yield f"search in {pool}"
        events.append("close search")

    return search


class TestDeclaring:
    def test_a_function_that_returns_a_context_manager(self) -> None:
        @contextmanager
        def manager() -> Iterator[int]:
            yield 5

        @resource
        def five() -> Any:
            return manager()

        with five() as value:
            assert value == 5

    def test_called_it_is_a_context_manager_of_its_own(self, search: Any, events: list[str]) -> None:
        with search("mine") as value:
            assert value == "search in mine"
        assert events == ["open search", "close search"]

    def test_it_is_known_by_its_function_s_name_or_its_own(self, pool: Any) -> None:
        named = resource(name="other")(lambda: iter([1]))
        assert (resources.find("pool"), resources.find("other")) == (pool, named)

    def test_what_returns_no_context_manager_says_so(self) -> None:
        resource(name="wrong")(lambda: 5)  # type: ignore[arg-type,return-value]
        with open_resources.scope() as found, pytest.raises(ResourceUnavailable, match="no context manager: yield"):
            found["wrong"]

    def test_two_of_one_name(self, pool: Any) -> None:
        with pytest.raises(InvalidResource, match="two resources are named 'pool'"):
            resource(name="pool")(lambda: 5)  # type: ignore[arg-type,return-value]

    def test_the_same_one_declared_again(self, pool: Any) -> None:
        again = resource(pool.__wrapped__)
        assert resources.find("pool") is again

    def test_a_circle_is_refused(self) -> None:
        resource(name="a")(lambda b: b)
        resource(name="b")(lambda c: c)
        with pytest.raises(InvalidResource, match="in a circle: c -> a -> b -> c"):
            resource(name="c")(lambda a: a)
        assert resources.find("c") is None

    def test_a_circle_of_one(self) -> None:
        with pytest.raises(InvalidResource, match="in a circle: a -> a"):
            resource(name="a")(lambda a: a)

    def test_async_ones_are_refused(self) -> None:
        async def client() -> Any:
            yield 1

        with pytest.raises(InvalidResource, match="plain function"):
            resource(client)

    @pytest.mark.parametrize(
        ("options", "text"),
        [
            ({"check": 5}, "check=5"),
            ({"check_interval": 0}, "check_interval=0"),
            ({"check_interval": True}, "check_interval=True"),
            ({"name": "not a name"}, "name of a parameter"),
        ],
        ids=["check", "interval of 0", "interval that is a flag", "name"],
    )
    def test_options_that_cannot_work(self, options: dict[str, Any], text: str) -> None:
        with pytest.raises(InvalidResource, match=text):
            resource(**({"name": "wrong"} | options))(lambda: iter([1]))

    @pytest.mark.parametrize("function", [lambda *names: 1, lambda **names: 1, lambda name, /: 1], ids=["*", "**", "/"])
    def test_parameters_that_name_nothing(self, function: Any) -> None:
        with pytest.raises(InvalidResource, match="its parameters name resources"):
            resource(name="wrong")(function)

    def test_only_functions(self) -> None:
        with pytest.raises(InvalidResource, match="decorates functions"):
            resource(dict)  # type: ignore[arg-type]

    def test_e018_names_who_needs_what_is_not_there(self, pool: Any) -> None:
        resource(name="search")(lambda poool: poool)

        def uses(*, serach: Any = injected) -> None: ...

        make_task(uses)
        found = {issue.msg for issue in checks.check_resources() if issue.id == "django_taskq.E018"}
        assert found == {
            "The task uses needs 'serach', and no resource is named 'serach' here: did you mean \"search\"?.",
            "The resource search needs 'poool', and no resource is named 'poool' here: did you mean \"pool\"?.",
        }


class TestOpening:
    def test_at_first_need_once_and_closed_in_reverse_order(self, search: Any, events: list[str]) -> None:
        with open_resources.scope() as found:
            assert events == []
            assert found["search"] == found[search] == found.search == "search in the pool"
            assert events == ["open pool", "open search"]
            assert found.opened() == ["pool", "search"]
        assert events == ["open pool", "open search", "close search", "close pool"]

    def test_an_unknown_name(self, search: Any) -> None:
        with open_resources.scope() as found:
            with pytest.raises(ResourceUnavailable, match='"search"'):
                found["serach"]
            with pytest.raises(AttributeError, match='"search"'):
                found.serach  # noqa: B018 - the look-up is what is tested

    def test_outside_of_everything(self) -> None:
        with pytest.raises(RuntimeError, match="worker processes"):
            open_resources.current()

    def test_several_threads_open_it_once(self, events: list[str]) -> None:
        entered, go_on = threading.Event(), threading.Event()

        @resource
        def slow() -> Iterator[int]:
            entered.set()
            go_on.wait(10)
            events.append("open")
            yield 5

        seen: list[int] = []
        found = Resources()
        threads = [threading.Thread(target=lambda: seen.append(found["slow"])) for _ in range(8)]
        for thread in threads:
            thread.start()
        assert entered.wait(10)
        go_on.set()
        for thread in threads:
            thread.join(10)
        assert (seen, events) == ([5] * 8, ["open"])

    def test_one_that_is_slow_holds_up_no_other(self, pool: Any) -> None:
        entered, go_on = threading.Event(), threading.Event()

        @resource
        def slow() -> Iterator[int]:
            entered.set()
            go_on.wait(10)
            yield 5

        found = Resources()
        thread = threading.Thread(target=lambda: found["slow"])
        thread.start()
        assert entered.wait(10)
        assert found["pool"] == "the pool"
        assert not go_on.is_set()
        go_on.set()
        thread.join(10)

    def test_it_is_opened_and_closed_in_one_context_without_the_run_s_task(self, events: list[str]) -> None:
        variable = ContextVar("variable", default="unset")

        @resource
        def sets() -> Iterator[str]:
            token = variable.set("set")
            events.append(f"inside a task: {bool(current_task)}")
            yield "x"
            variable.reset(token)
            events.append("reset")

        def uses(*, sets: str = injected) -> str:
            return variable.get()

        with open_resources.scope():
            assert execute(make_task(uses)).result == '"unset"'
        assert events == ["inside a task: False", "reset"]

    def test_one_that_asks_for_itself(self) -> None:
        found = Resources()

        @resource
        def snake() -> Iterator[Any]:
            yield found["snake"]

        with pytest.raises(ResourceUnavailable, match="asked for itself"):
            found["snake"]

    def test_errors_in_closing_are_logged_and_hold_up_nothing(
        self, pool: Any, events: list[str], caplog: pytest.LogCaptureFixture
    ) -> None:
        @resource
        def broken(pool: str) -> Iterator[int]:
            yield 5
            raise SystemExit(3)

        with caplog.at_level(logging.ERROR), open_resources.scope() as found:
            found["broken"]
        assert events == ["open pool", "close pool"]
        assert "resource broken could not be closed" in caplog.text

    def test_nothing_is_opened_after_the_end(self, pool: Any, events: list[str]) -> None:
        found = Resources()
        found.close()
        with pytest.raises(ResourceUnavailable, match="its process stops"):
            found["pool"]
        assert events == ["open pool", "close pool"]


class TestUnavailable:
    @pytest.fixture
    def shaky(self, events: list[str]) -> Any:
        """It opens when ``events`` says so."""

        @resource
        def shaky() -> Iterator[str]:
            if "go" not in events:
                events.append("tried")
                raise OSError("no route")
            yield "shaky"

        return shaky

    @pytest.fixture
    def clock(self, monkeypatch: pytest.MonkeyPatch) -> list[float]:
        now = [1000.0]
        monkeypatch.setattr("django_taskq.open_resources.time.monotonic", lambda: now[0])
        return now

    def test_it_says_why_and_is_not_tried_again_at_once(
        self, shaky: Any, events: list[str], clock: list[float]
    ) -> None:
        found = Resources()
        for _ in range(3):
            with pytest.raises(ResourceUnavailable, match="shaky cannot be opened: OSError: no route") as caught:
                found["shaky"]
            assert caught.value.delay == FIRST_DELAY
        assert events == ["tried"]
        clock[0] += FIRST_DELAY
        with pytest.raises(ResourceUnavailable):
            found["shaky"]
        assert events == ["tried", "tried"]
        events.append("go")
        clock[0] += 2 * FIRST_DELAY
        assert found["shaky"] == "shaky"
        assert found.troubles() == {}

    @pytest.mark.parametrize(("after", "delay"), [(0, 5), (4, 5), (30, 30), (3600, 60)])
    def test_the_longer_it_lasts_the_longer_runs_stay_away(
        self, shaky: Any, clock: list[float], after: float, delay: float
    ) -> None:
        found = Resources()
        with pytest.raises(ResourceUnavailable):
            found["shaky"]
        clock[0] += after
        with pytest.raises(ResourceUnavailable) as caught:
            found["shaky"]
        assert caught.value.delay == pytest.approx(delay)

    def test_what_requires_it_is_not_there_either(self, shaky: Any) -> None:
        resource(name="above")(lambda shaky: iter([1]))
        found = Resources()
        with pytest.raises(ResourceUnavailable, match="shaky cannot be opened"):
            found["above"]
        assert list(found.troubles()) == ["shaky"]
        with pytest.raises(ResourceUnavailable, match="shaky cannot be opened"):
            found.are_open(["above"])

    @pytest.mark.parametrize("error", [SystemExit(3), KeyboardInterrupt(), ValueError("x")], ids=repr)
    def test_whatever_it_raises(self, error: BaseException) -> None:
        @resource
        def raises() -> Iterator[None]:
            raise error
            yield

        with pytest.raises(ResourceUnavailable, match=type(error).__name__):
            Resources()["raises"]

    def test_given_ones_stand_in(self, shaky: Any) -> None:
        with open_resources.scope({"shaky": "mine"}) as found:
            assert found.are_open(["shaky"])
            assert found["shaky"] == found[shaky] == found.shaky == "mine"


class TestInTasks:
    def test_a_run_gets_it_by_name(self, search: Any) -> None:
        def uses(x: int, *, search: str = injected) -> list[Any]:
            return [x, search]

        with open_resources.scope():
            assert execute(make_task(uses), 5).result == '[5,"search in the pool"]'

    def test_a_coroutine_too(self, search: Any) -> None:
        async def uses(x: int, *, search: str = injected) -> list[Any]:
            return [x, search]

        with open_resources.scope():
            assert execute(make_task(uses), 5).result == '[5,"search in the pool"]'

    def test_bound_tasks_and_classes(self, pool: Any) -> None:
        from django_taskq import Task

        def bound(self: Any, *, pool: str = injected) -> str:
            return f"{self.name} {pool}"

        class Uses(Task[[], str]):
            def run(self, *, pool: str = injected) -> str:
                return f"{self.name} {pool}"

        with open_resources.scope():
            assert execute(make_task(bound, bind=True)).result == '"bound the pool"'
            assert execute(task(name="uses")(Uses)).result == '"uses the pool"'

    def test_any_run_reaches_it_through_its_context(self, pool: Any) -> None:
        def reaches() -> list[Any]:
            return [current_task.resources["pool"], current_task.resources.pool, current_task.resources[pool]]

        with open_resources.scope():
            assert execute(make_task(reaches)).result == '["the pool","the pool","the pool"]'

    def test_calls_do_not_give_it(self, pool: Any) -> None:
        def uses(x: int, *, pool: str = injected, **more: Any) -> None: ...

        made = make_task(uses)
        made.check_arguments([5], {})
        made.check_arguments([5], {"y": 1})
        with pytest.raises(InvalidArguments, match="'pool' is a resource"):
            made.check_arguments([5], {"pool": "mine"})

    def test_it_has_to_be_keyword_only(self) -> None:
        def uses(pool: str = injected) -> None: ...

        with pytest.raises(InvalidTask, match=r"after a \*"):
            make_task(uses)

    def test_a_direct_call_may_give_it(self, pool: Any, events: list[str]) -> None:
        def uses(x: int, *, pool: str = injected) -> str:
            return f"{x} {pool}"

        assert make_task(uses)(5, pool="mine") == "5 mine"
        assert events == []
        assert make_task(uses)(5) == "5 the pool"
        assert events == ["open pool", "close pool"]

    def test_a_direct_call_that_takes_its_context(self, pool: Any) -> None:
        def uses(context: Any, x: int, *, pool: str = injected) -> str:
            return f"{context.name} {x} {pool}"

        assert make_task(uses, takes_context=True)(5) == "uses 5 the pool"

    def test_a_direct_call_of_a_coroutine(self, pool: Any, events: list[str]) -> None:
        async def uses(*, pool: str = injected) -> str:
            events.append("runs")
            return pool

        made = make_task(uses)

        async def main() -> Any:
            return await made()

        assert async_to_sync(main)() == "the pool"
        assert events == ["open pool", "runs", "close pool"]

    def test_opening_is_guarded_but_not_limited_and_no_part_of_the_run(self, pool: Any) -> None:
        def uses(*, pool: str = injected) -> None: ...

        made = make_task(uses, time_limit=20, soft_time_limit=10, acks_late=False)
        first, second = FakeGuard(), FakeGuard()
        with open_resources.scope():
            execute(made, guard=first)
            execute(made, guard=second)
        assert first.calls[:2] == [("begin", None, False), "end"]
        assert first.calls[2:4] == second.calls[:2] == [("begin", 20, True), ("arm", 10)]

    def test_a_run_taken_back_meanwhile_opens_nothing(self, pool: Any, events: list[str]) -> None:
        def uses(*, pool: str = injected) -> None: ...

        with open_resources.scope():
            assert execute(make_task(uses), guard=FakeGuard(lets_begin=False)).action is Action.RELEASED
        assert events == []

    def test_without_it_the_run_is_left_to_others_and_charged_nothing(self) -> None:
        @resource
        def missing() -> Iterator[None]:
            raise OSError("no route")
            yield

        def uses(*, missing: None = injected) -> None:
            pytest.fail("must not run")

        made = make_task(uses)
        with open_resources.scope():
            for _ in range(2):
                outcome = execute(made)
                assert (outcome.action, outcome.is_counted, outcome.delay) == (Action.RETRY, False, FIRST_DELAY)
                assert outcome.started_at is None
                assert outcome.error is not None
                assert outcome.error.summary.startswith("ResourceUnavailable: resource missing cannot be opened: OSErr")

    def test_what_a_run_only_reaches_for_is_its_own_error(self) -> None:
        @resource
        def missing() -> Iterator[None]:
            raise OSError("no route")
            yield

        with open_resources.scope():
            outcome = execute(make_task(lambda: current_task.resources["missing"], name="reaches"))
        assert outcome.action is Action.FAILED
        assert (outcome.error and outcome.error.class_path) == "django_taskq.exceptions.ResourceUnavailable"


class TestResourcing:
    """The resources of a process: checked, and told of."""

    @pytest.fixture
    def table(self, tmp_path: Path) -> Iterator[SlotTable]:
        made = SlotTable.create(tmp_path / "1.slots", 2)
        yield made
        made.close()

    @pytest.fixture
    def serving(self, table: SlotTable, monkeypatch: pytest.MonkeyPatch) -> Iterator[resourcing.Resourcing]:
        monkeypatch.setattr(resourcing, "LOOK_INTERVAL", 0.01)
        made = resourcing.Resourcing(table, 7, 8)
        yield made
        made.stop()
        open_resources.serve(None)
        gc.collect()

    @pytest.fixture
    def heard(self) -> Iterator[list[Any]]:
        found: list[Any] = []

        def note(sender: Any, signal: Any, **payload: Any) -> None:
            name = next(name for name, value in vars(signals).items() if value is signal)
            found.append((name, sender, payload))

        for signal in (signals.resource_degraded, signals.resource_recovered):
            signal.connect(note)
        yield found
        for signal in (signals.resource_degraded, signals.resource_recovered):
            signal.disconnect(note)

    def test_no_thread_where_nothing_is_declared(self, serving: Any, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(resources, "_resources", {})
        serving.start()
        assert "taskq-resources" not in [thread.name for thread in threading.enumerate()]

    def test_at_start(self, serving: Any, events: list[str], table: SlotTable) -> None:
        @resource(at_start=True)
        def model() -> Iterator[int]:
            events.append("open")
            yield 5

        @resource(at_start=True)
        def missing() -> Iterator[int]:
            raise OSError("no file")
            yield

        serving.start()
        assert events == ["open"]
        assert list(table.degraded()) == ["missing"]
        assert open_resources.current()["model"] == 5

    @pytest.mark.parametrize("kind", ["False", "error", "no answer"])
    def test_a_failing_check_degrades_until_it_passes(
        self, kind: str, serving: Any, table: SlotTable, heard: list[Any], caplog: pytest.LogCaptureFixture
    ) -> None:
        is_well, may_answer = threading.Event(), threading.Event()
        is_well.set()

        def look(value: str) -> Any:
            assert value == "the index"
            if is_well.is_set() or kind == "False":
                return is_well.is_set()
            if kind == "error":
                raise OSError("no route")
            return may_answer.wait(10)

        @resource(check=look, check_interval=0.02)
        def index() -> Iterator[str]:
            yield "the index"

        def uses(*, index: str = injected) -> str:
            return index

        made = make_task(uses)
        serving.start()
        assert execute(made).action is Action.SUCCESS

        is_well.clear()
        wait_for(lambda: heard)
        assert execute(made).action is Action.RETRY
        reason = {"False": "says no", "error": "fails: OSError: no route", "no answer": "has not answered for 0.02 s"}
        ids = {"worker_id": 7, "process_id": 8, "resource": "index"}
        assert heard == [("resource_degraded", None, {**ids, "reason": f"the check of resource index {reason[kind]}"})]
        assert table.degraded() == {"index": f"the check of resource index {reason[kind]}"}

        is_well.set()
        may_answer.set()
        wait_for(lambda: len(heard) == 2)
        assert heard[1][2].pop("seconds") > 0
        assert heard[1] == ("resource_recovered", None, ids)
        assert table.degraded() == {}
        assert execute(made).action is Action.SUCCESS
        logged = [record.getMessage() for record in caplog.records if record.name == "django_taskq"]
        assert len([line for line in logged if line.startswith("degraded: ")]) == 1

    def test_what_could_not_be_opened_is_tried_again_by_itself(
        self, serving: Any, table: SlotTable, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(open_resources, "FIRST_DELAY", 0.02)
        is_there = threading.Event()

        @resource
        def late() -> Iterator[int]:
            if not is_there.is_set():
                raise OSError("not yet")
            yield 5

        serving.start()
        with pytest.raises(ResourceUnavailable):
            open_resources.current()["late"]
        assert list(table.degraded()) == ["late"]
        is_there.set()
        wait_for(lambda: not table.degraded())
        assert open_resources.current().opened() == ["late"]

    def test_names_and_reasons_that_do_not_fit_are_cut(self, table: SlotTable) -> None:
        table.note({f"resource{number}": "ä\n" * 500 for number in range(9)})
        found = table.degraded()
        assert list(found)[:3] == ["resource0", "resource1", "resource2"]
        assert all(len(reason) <= 200 for reason in found.values())
        table.note({})
        assert table.degraded() == {}
