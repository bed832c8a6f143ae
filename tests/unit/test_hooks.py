"""Start and stop hooks: declared order, and what errors do."""

from __future__ import annotations

import logging
import threading
from types import SimpleNamespace
from typing import Any

import pytest

from django_taskq import hooks
from django_taskq.exceptions import HookFailed, InvalidHook
from django_taskq.hooks import Moment, on_process_start, on_process_stop, on_worker_start, on_worker_stop
from django_taskq.worker import process

CALLS: list[str] = []
DECORATORS: dict[Moment, Any] = {
    Moment.WORKER_START: on_worker_start,
    Moment.WORKER_STOP: on_worker_stop,
    Moment.PROCESS_START: on_process_start,
    Moment.PROCESS_STOP: on_process_stop,
}


@pytest.fixture(autouse=True)
def own_hooks(monkeypatch: pytest.MonkeyPatch) -> None:
    CALLS.clear()
    monkeypatch.setattr(hooks, "_hooks", {moment: [] for moment in Moment})


def declare(decorator: Any, name: str, error: BaseException | None = None) -> None:
    def hook() -> None:
        CALLS.append(name)
        if error is not None:
            raise error

    hook.__qualname__ = name
    assert decorator(hook) is hook


@pytest.mark.parametrize("moment", list(Moment), ids=lambda moment: moment.value)
def test_order(moment: Moment) -> None:
    decorator = DECORATORS[moment]
    for name, order in (("c", 0), ("d", 0), ("e", 5), ("a", -3), ("b", -2)):
        declare(decorator(order=order) if order else decorator, name)
    is_start = moment in (Moment.WORKER_START, Moment.PROCESS_START)
    (hooks.start if is_start else hooks.stop)(moment)
    assert "".join(CALLS) == ("abcde" if is_start else "edcba")


@pytest.mark.parametrize("error", [ValueError("no"), SystemExit(3), KeyboardInterrupt()], ids=repr)
def test_a_failing_start_is_named_and_ends_it(error: BaseException) -> None:
    declare(on_process_start, "good")
    declare(on_process_start, "bad", error)
    declare(on_process_start, "later")
    text = f"the hook @on_process_start {__name__}.bad failed: {type(error).__name__}"
    with pytest.raises(HookFailed, match=text) as caught:
        hooks.start(Moment.PROCESS_START)
    assert caught.value.__cause__ is error
    assert CALLS == ["good", "bad"]


@pytest.mark.parametrize("error", [ValueError("no"), SystemExit(3)], ids=repr)
def test_a_failing_stop_is_logged_and_holds_up_nothing(error: BaseException, caplog: pytest.LogCaptureFixture) -> None:
    declare(on_worker_stop, "last")
    declare(on_worker_stop, "bad", error)
    with caplog.at_level(logging.ERROR):
        hooks.stop(Moment.WORKER_STOP)
    assert CALLS == ["bad", "last"]
    assert f"the hook @on_worker_stop {__name__}.bad failed" in caplog.text


def test_declared_twice_it_is_called_once() -> None:
    declare(on_worker_start, "same")
    declare(on_worker_start, "same")
    hooks.start(Moment.WORKER_START)
    assert CALLS == ["same"]


async def _coroutine() -> None: ...


@pytest.mark.parametrize(
    ("function", "order", "text"),
    [
        (lambda worker: None, 0, "called without arguments"),
        (_coroutine, 0, "coroutine function"),
        (lambda: None, 1.5, "order=1.5"),
        (lambda: None, True, "order=True"),
    ],
    ids=["arguments", "coroutine", "fraction", "flag"],
)
def test_what_could_not_be_called(function: Any, order: Any, text: str) -> None:
    with pytest.raises(InvalidHook, match=text):
        on_worker_start(order=order)(function)


class TestTearingDown:
    """Closing and stop hooks that hang do not keep a process for ever."""

    @pytest.fixture
    def left(self, monkeypatch: pytest.MonkeyPatch) -> threading.Event:
        """Set when the process would have ended."""
        ended = threading.Event()
        monkeypatch.setattr(process, "SHORTEST_TEAR_DOWN", 0.01)
        monkeypatch.setattr("django_taskq.worker.reaping.leave", lambda code: ended.set())
        monkeypatch.setattr(logging, "shutdown", lambda: None)
        return ended

    @pytest.mark.parametrize(
        ("closing", "what"),
        [("pool", "resource pool does not close"), ("", "a stop hook does not end")],
        ids=["resource", "hook"],
    )
    def test_what_hangs_is_cut_short_and_named(
        self, left: threading.Event, closing: str, what: str, caplog: pytest.LogCaptureFixture
    ) -> None:
        resourcing: Any = SimpleNamespace(closing=closing)
        with caplog.at_level(logging.ERROR), process._limited(resourcing, 0.01, is_child=True):
            assert left.wait(10)
        assert f"{what} within 0.01 s" in caplog.text

    @pytest.mark.parametrize(("grace", "is_child"), [(60, True), (0.01, False)], ids=["in time", "no child"])
    def test_otherwise_it_is_not(self, left: threading.Event, grace: float, is_child: bool) -> None:
        before = set(threading.enumerate())
        resourcing: Any = SimpleNamespace(closing="pool")
        with process._limited(resourcing, grace, is_child=is_child):
            pass
        for thread in set(threading.enumerate()) - before:
            thread.join(10)
        assert not left.is_set()
