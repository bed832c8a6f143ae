"""Keys of calls: templates, argument names, functions, and every way in which they go wrong."""

from __future__ import annotations

import inspect
from typing import Any

import pytest

from django_taskq.exceptions import InvalidArguments, InvalidTask, SerializationError
from django_taskq.keys import UNKNOWN, Key


def send(tenant_id: int, order: Any = None, *more: Any, urgent: bool = False, **rest: Any) -> None: ...


SIGNATURE = inspect.signature(send)


def key(source: Any, *args: Any, **kwargs: Any) -> str:
    return Key("app.send", "lock", source, SIGNATURE).of(args, kwargs)


class TestTemplates:
    def test_arguments_however_they_are_given_and_defaults(self) -> None:
        assert key("tenant:{tenant_id}", 7) == key("tenant:{tenant_id}", tenant_id=7) == "tenant:7"
        assert key("{tenant_id}/{urgent}", 7) == "7/False"

    def test_items_of_arguments(self) -> None:
        assert key("{order[id]}-{order[lines][0]}", 7, {"id": 5, "lines": ["a"]}) == "5-a"

    def test_a_text_without_arguments_is_one_key_for_all(self) -> None:
        assert key("report", 1) == key("report", 2) == "report"

    def test_formats_and_braces(self) -> None:
        assert key("{{{tenant_id:04}}}", 7) == "{0007}"

    @pytest.mark.parametrize(
        ("source", "said"),
        [
            ("{tenant}", r"app.send: @task\(lock='\{tenant\}'\) names 'tenant', .* arguments are \(tenant_id"),
            ("{tenant_id", "does not parse"),
            ("tenant_id}", "does not parse"),
            ("{}", "takes names of arguments"),
            ("{0}", "names '0'"),
            ("{order.id}", "takes names of arguments, such as"),
            ("{tenant_id.__class__}", "takes names of arguments, such as"),
        ],
    )
    def test_bad_ones_are_refused_with_the_task(self, source: str, said: str) -> None:
        with pytest.raises(InvalidTask, match=said):
            Key("app.send", "lock", source, SIGNATURE)

    @pytest.mark.parametrize(
        ("source", "order"),
        [("{order[id]}", {"name": 5}), ("{order[id]}", None), ("{order[7]}", [1, 2]), ("{order:d}", "x")],
    )
    def test_what_cannot_be_filled_in_is_the_callers_error(self, source: str, order: Any) -> None:
        with pytest.raises(InvalidArguments, match=r"app.send: lock=.* cannot be filled in from \{'tenant_id': 7"):
            key(source, 7, order)


class TestArguments:
    def test_named_ones_alone(self) -> None:
        assert key(["tenant_id"], 7, "a") == key(("tenant_id",), tenant_id=7, order="b") != key(["tenant_id"], 8, "a")

    def test_all_of_them_however_they_are_given(self) -> None:
        assert key(True, 7, "a") == key(True, order="a", tenant_id=7) == key(True, 7, "a", urgent=False)
        assert len({key(True, 7), key(True, 7, 1), key(True, 7, 1, 2), key(True, 7, more=1), key(True, 8)}) == 5

    def test_long_ones_are_told_apart_by_a_hash(self) -> None:
        keys = {key(True, 7, "x" * 9999 + end) for end in "ab"}
        assert len(keys) == 2
        assert max(map(len, keys)) <= 100

    def test_an_unknown_name_is_refused_with_the_task(self) -> None:
        with pytest.raises(InvalidTask, match="names 'tenant'"):
            key(["tenant_id", "tenant"], 7)

    def test_one_that_does_not_serialise_is_named(self) -> None:
        with pytest.raises(SerializationError, match="app.send: argument 'order', of lock"):
            key(["tenant_id", "order"], 7, object())


class TestFunctions:
    def test_it_is_called_like_the_task(self) -> None:
        assert key(lambda tenant_id, order=None, *, urgent=False: f"{tenant_id}/{urgent}", 7, urgent=True) == "7/True"

    @pytest.mark.parametrize(
        ("source", "said"),
        [
            (lambda tenant_id: 1 / 0, r"app.send: lock=.* failed: ZeroDivisionError"),
            (lambda: "x", r"app.send: lock=.* failed: TypeError"),
            (lambda tenant_id: tenant_id, "returned 7; it is to return a text"),
            (lambda tenant_id: None, "returned None; it is to return a text"),
        ],
    )
    def test_what_goes_wrong_in_it_is_the_callers_error(self, source: Any, said: str) -> None:
        with pytest.raises(InvalidArguments, match=said):
            key(source, 7)


class TestUnknownValues:
    """Of arguments that are the results of earlier steps."""

    @pytest.mark.parametrize("source", ["{order}", "{order[id]}", ["order"], True])
    @pytest.mark.parametrize("value", [UNKNOWN, [1, UNKNOWN], {"id": UNKNOWN}, {"a": [(UNKNOWN,)]}])
    def test_keys_are_not_made_of_them(self, source: Any, value: Any) -> None:
        with pytest.raises(InvalidArguments, match="is made of 'order', which comes from a step before it"):
            key(source, 7, value)

    def test_what_the_key_does_not_name_may_be_unknown(self) -> None:
        assert key("{tenant_id}", 7, UNKNOWN) == "7"
        assert key(["tenant_id"], 7, [UNKNOWN]) == key(["tenant_id"], 7, "known")

    def test_a_function_gets_none_of_them(self) -> None:
        with pytest.raises(InvalidArguments, match="a function of the arguments, and some of them come from a step"):
            key(lambda tenant_id, order: "x", 7, UNKNOWN)
        with pytest.raises(InvalidArguments, match="a function of the arguments"):
            key(lambda tenant_id, order: "x", 7, order=[UNKNOWN])
