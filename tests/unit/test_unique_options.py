"""``@task(unique=...)``: what is taken, what is refused, and which calls have the same key."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest

from django_taskq import Unique, registry, serializers
from django_taskq.exceptions import EnqueueError, InvalidTask, SerializationError
from django_taskq.gates import gates_of
from django_taskq.message import Headers
from django_taskq.uniqueness import keyed
from tests.testapp.models import Effect
from tests.unit.making import make_message, make_task


@pytest.fixture(autouse=True)
def own_registry(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(registry, "_tasks", dict(registry._tasks))


def report(order_id: int, kind: str = "full", **options: Any) -> None:
    pass


def key_of(unique: Any, *args: Any, **kwargs: Any) -> str:
    made = make_task(report, unique=unique)
    (call,) = keyed(made.messages([(args, kwargs)]))
    assert Headers.loads(call.message.headers).unique == call.key
    return call.key


class TestOptions:
    @pytest.mark.parametrize(
        ("given", "meant"),
        [
            (None, None),
            (False, None),
            (True, Unique()),
            (["order_id"], Unique(by=["order_id"])),
            ("order:{order_id}", Unique(by="order:{order_id}")),
            (Unique(period=60), Unique(period=timedelta(minutes=1))),
        ],
    )
    def test_what_is_taken(self, given: Any, meant: Unique | None) -> None:
        assert make_task(report, unique=given).options.unique == meant

    @pytest.mark.parametrize(
        ("given", "said"),
        [
            ({"on_duplicate": "lates"}, 'on_duplicate=\'lates\'.*one of "return", .*Did you mean "latest"'),
            ({"on_duplicate": None}, 'one of "return", "replace", "latest"'),
            ({"period": 0}, "period=0.*seconds above 0, or a timedelta"),
            ({"debounce": timedelta(0)}, "debounce=.*seconds above 0, or a timedelta"),
            ({"debounce": True}, "debounce=True.*seconds above 0"),
            ({"by": []}, r"by=\[\].*names of arguments in a list"),
            ({"by": {"order_id"}}, "names of arguments in a list"),
            ({"by": False}, "by=False.*a key: True, names of arguments"),
            ({"period": 1, "debounce": 1}, "either period or debounce"),
            ({"debounce": 1, "on_duplicate": "replace"}, "leave on_duplicate out"),
            ({"period": 1, "on_duplicate": "latest"}, "leave one out"),
        ],
    )
    def test_what_is_refused(self, given: dict[str, Any], said: str) -> None:
        with pytest.raises(ValueError, match=said):
            Unique(**given)

    @pytest.mark.parametrize(
        ("options", "said"),
        [
            ({"unique": 5}, r"report: @task\(unique=5\) is not usable: it takes a key: True, names of arguments"),
            ({"unique": ["order"]}, r"unique=\('order',\)\) names 'order', and the task's arguments are \(order_id"),
            ({"unique": "x:{order}"}, r"names 'order', and the task's arguments are \(order_id"),
            ({"unique": "x:{order"}, "does not parse"),
            ({"unique": "order_id"}, r"same key for all calls.*unique=\['order_id'\] or unique='report:\{order_id\}'"),
            ({"unique": True, "track_pending": False}, "unique needs a row for each run, and track_pending=False"),
        ],
    )
    def test_what_a_task_refuses(self, options: dict[str, Any], said: str) -> None:
        with pytest.raises(InvalidTask, match=said):
            make_task(report, **options)


class TestKeys:
    def test_all_arguments_however_they_are_given(self) -> None:
        assert key_of(True, 1) == key_of(True, order_id=1) == key_of(True, 1, kind="full")
        assert len({key_of(True, 1), key_of(True, 2), key_of(True, 1, "brief"), key_of(True, 1, x=1)}) == 4

    def test_named_arguments_alone(self) -> None:
        assert key_of(["order_id"], 1) == key_of(["order_id"], 1, "brief", x=1) != key_of(["order_id"], 2)

    def test_a_template_and_a_function(self) -> None:
        assert key_of("order:{order_id}", 7, "brief") == "report:order:7"
        assert key_of(lambda order_id, kind="full": f"{kind}/{order_id}", 7) == "report:full/7"

    def test_long_ones_stay_apart_and_fit(self) -> None:
        keys = {key_of("{kind}", 1, "x" * 5000 + end) for end in "ab"}
        assert len(keys) == 2
        assert max(map(len, keys)) <= 500

    def test_what_does_not_serialise_is_named(self) -> None:
        with pytest.raises(SerializationError, match=r"report: argument 'kind'"):
            make_task(report, unique=["kind"]).enqueue(1, Effect())

    def test_an_exchange_is_refused(self) -> None:
        make_task(report, unique=True)
        with pytest.raises(EnqueueError, match="report is unique, and an exchange makes any number of copies"):
            keyed([make_message(name="report", payload="[[1],{}]", exchange="news")])

    def test_steps_and_tasks_without_it_have_none(self) -> None:
        make_task(report, unique=True)
        step = make_message(name="report", payload="[[1],{}]", workflow_id=make_message().id)
        assert keyed([step, make_message()]) == []


class TestMessages:
    @pytest.mark.parametrize("unique", [Unique(on_duplicate="latest"), Unique(debounce=5)])
    def test_those_that_follow_each_other_pass_a_lock_of_their_own_first(self, unique: Unique) -> None:
        made = make_task(report, unique=unique, lock="shared")
        (call,) = keyed(made.messages([((1,), {})]))
        (gate,) = gates_of(call.message.headers)  # flow.gated adds that of the other lock before
        assert (gate.kind, gate.name, gate.most) == ("lock", f"unique:{call.key}", 1)

    @pytest.mark.parametrize("unique", [True, Unique(on_duplicate="replace"), Unique(period=5)])
    def test_the_others_need_none(self, unique: Any) -> None:
        (call,) = keyed(make_task(report, unique=unique).messages([((1,), {})]))
        assert gates_of(call.message.headers) == ()

    def test_a_debounced_one_starts_later_and_never_before_its_own_time(self) -> None:
        made = make_task(report, unique=Unique(debounce=10))
        starts = []
        for countdown in (0, 5, 20):
            (call,) = keyed(made.using(countdown=countdown).messages([((1,), {})]))
            assert call.message.run_after is not None
            starts.append((call.message.run_after - call.message.enqueued_at).total_seconds())
        assert starts == [10, 10, 20]

    def test_what_else_the_call_says_stays(self) -> None:
        made = make_task(report, unique=True).using(time_limit=7)
        (call,) = keyed(made.messages([((1,), {})]))
        assert serializers.loads(call.message.headers or "") == {"time_limit": 7, "unique": call.key}
