"""Outcomes become signals, and signals log lines; nothing a task writes can forge one."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from typing import Any

import pytest

from django_taskq import signals
from django_taskq.brokers.memory import MemoryBroker
from django_taskq.logging import JsonFormatter, TextFormatter
from django_taskq.message import Action, ErrorText, Outcome
from django_taskq.worker import log
from django_taskq.worker.recorder import Recorder
from tests.unit.making import execute, make_message, make_outcome, make_task

SIGNALS = {
    "finished": signals.task_finished,
    "failed": signals.task_failed,
    "retried": signals.task_retried,
    "snoozed": signals.task_snoozed,
}


@pytest.fixture
def told() -> Iterator[list[str]]:
    heard: list[str] = []
    receivers = {name: (lambda sender, name=name, **payload: heard.append(name)) for name in SIGNALS}
    for name, signal in SIGNALS.items():
        signal.connect(receivers[name])
    yield heard
    for name, signal in SIGNALS.items():
        signal.disconnect(receivers[name])


class TestRecorder:
    @pytest.mark.parametrize(
        ("action", "signals_sent"),
        [
            (Action.SUCCESS, ["finished"]),
            (Action.FAILED, ["failed", "finished"]),
            (Action.CANCELLED, ["finished"]),
            (Action.RETRY, ["retried"]),
            (Action.RELEASED, []),
            (Action.REPLACED, []),
        ],
    )
    def test_what_is_told(self, told: list[str], action: Action, signals_sent: list[str]) -> None:
        Recorder(MemoryBroker(), 1).announce([make_outcome(action)], [])
        assert told == signals_sent

    def test_a_snoozed_run_is_not_told_as_a_retry(self, told: list[str]) -> None:
        missing = make_outcome(Action.RETRY, is_counted=False, error=ErrorText("app.Missing", "a resource"))
        Recorder(MemoryBroker(), 1).announce([make_outcome(Action.RETRY, is_counted=False, delay=60.0), missing], [])
        assert told == ["snoozed", "retried"]

    def test_a_refused_outcome_is_logged_and_not_told(self, told: list[str], caplog: pytest.LogCaptureFixture) -> None:
        outcome = make_outcome(Action.SUCCESS)
        Recorder(MemoryBroker(), 1).announce([outcome], [outcome])
        assert told == []
        assert outcome.delivery.id in caplog.text

    def test_a_receiver_that_raises_disturbs_nobody(self, told: list[str], caplog: pytest.LogCaptureFixture) -> None:
        def broken(**kwargs: Any) -> None:
            raise RuntimeError("receiver")

        signals.task_finished.connect(broken)
        try:
            Recorder(MemoryBroker(), 1).announce([make_outcome(Action.SUCCESS)], [])
        finally:
            signals.task_finished.disconnect(broken)
        assert told == ["finished"]
        assert "broken failed" in caplog.text

    def test_it_settles_with_its_broker(self) -> None:
        broker = MemoryBroker()
        broker.enqueue([make_message(), make_message()])
        outcomes = [make_outcome(Action.SUCCESS, delivery) for delivery in broker.claim("default", 5, 1, 1)]
        assert Recorder(broker, 2).record(outcomes) == outcomes
        assert Recorder(broker, 1).record(outcomes) == []
        assert Recorder(broker, 1).record([]) == []


@pytest.fixture
def connected(caplog: pytest.LogCaptureFixture) -> Iterator[None]:
    factory = logging.getLogRecordFactory()
    caplog.set_level(logging.INFO, "django_taskq")
    log.connect(in_worker=True)
    yield
    logging.setLogRecordFactory(factory)
    for signal in SIGNALS.values():
        signal.disconnect(dispatch_uid="django_taskq.log")


@pytest.mark.usefixtures("connected")
class TestLog:
    def announce(self, outcome: Outcome) -> None:
        Recorder(MemoryBroker(), 1).announce([outcome], [])

    def test_records_inside_a_task_carry_its_fields(self, caplog: pytest.LogCaptureFixture) -> None:
        outcome = execute(make_task(lambda: logging.getLogger("app").warning("inside"), name="logs"), attempt=2)
        logging.getLogger("app").warning("outside")
        inside, outside = caplog.records[-2:]
        fields = (inside.task_id, inside.task_name, inside.queue_name, inside.attempt)
        assert fields == (outcome.delivery.id, "logs", "default", 2)
        assert (outside.task_id, outside.task_name, outside.queue_name, outside.attempt) == ("", "", "", 0)

    def test_our_own_lines_carry_them_too(self, caplog: pytest.LogCaptureFixture) -> None:
        outcome = make_outcome(Action.SUCCESS)
        self.announce(outcome)
        assert (caplog.records[-1].task_id, caplog.records[-1].levelname) == (outcome.delivery.id, "INFO")

    @pytest.mark.parametrize(
        ("action", "level", "text"),
        [
            (Action.SUCCESS, "INFO", "ok 1000ms (waited "),
            (Action.CANCELLED, "INFO", "cancelled 1000ms (waited "),
            (Action.RETRY, "WARNING", "tries again in 5.0s, ran 1000ms (waited "),
            (Action.FAILED, "ERROR", "failed 1000ms (waited "),
        ],
    )
    def test_each_ending_is_one_record(
        self, caplog: pytest.LogCaptureFixture, action: Action, level: str, text: str
    ) -> None:
        outcome = make_outcome(action, error=ErrorText("a.E", "why"), delay=5.0)
        self.announce(outcome)
        (record,) = caplog.records
        assert record.levelname == level
        assert text in record.getMessage()
        assert record.getMessage().endswith("ms, attempt 1, queue default): E: why")
        assert outcome.delivery.name in record.getMessage()
        assert outcome.delivery.id in record.getMessage()
        assert (record.outcome, record.duration) == (action.value, 1.0)
        assert record.wait >= 0

    def test_a_snoozed_run_is_no_warning(self, caplog: pytest.LogCaptureFixture) -> None:
        self.announce(make_outcome(Action.RETRY, is_counted=False, delay=60.0))
        assert caplog.records[-1].levelname == "INFO"
        assert " runs again in 60.0s, ran 1000ms (waited " in caplog.records[-1].getMessage()

    def test_connecting_twice_logs_once(self, caplog: pytest.LogCaptureFixture) -> None:
        log.connect(in_worker=True)
        self.announce(make_outcome(Action.SUCCESS))
        assert len(caplog.records) == 1

    def test_a_failure_shows_the_traceback(self, caplog: pytest.LogCaptureFixture) -> None:
        def fails() -> None:
            raise ValueError("no")

        self.announce(execute(make_task(fails)))
        # Where any formatter finds it.
        text = logging.Formatter().format(caplog.records[-1])
        assert "Traceback (most recent call last)" in text
        assert 'raise ValueError("no")' in text

    @pytest.mark.parametrize("end", ["\n", "\r", "\r\n", "\x0b", "\x85", "\u2028", "\x1b[2K"], ids=ascii)
    def test_neither_name_nor_error_begins_a_line(self, caplog: pytest.LogCaptureFixture, end: str) -> None:
        forged = "2026-01-01 ERROR forged"

        def fails() -> None:
            raise ValueError(f"x{end}{forged}")

        self.announce(execute(make_task(fails, name=f"name{end}{forged}")))
        text = logging.Formatter().format(caplog.records[-1])
        first, *others = text.splitlines()
        assert "fail" in first
        assert not [line for line in others if line.startswith(forged)]
        assert "\x1b" not in text

    def test_a_run_that_never_started(self, caplog: pytest.LogCaptureFixture) -> None:
        outcome = make_outcome(Action.CANCELLED, error=ErrorText("a.E", "why"))
        outcome.started_at = outcome.finished_at = None
        self.announce(outcome)
        assert caplog.records[-1].getMessage().endswith("cancelled (not started, attempt 1, queue default): E: why")


@pytest.fixture
def unconfigured(monkeypatch: pytest.MonkeyPatch, settings: Any) -> Iterator[logging.Logger]:
    """As in a project without a LOGGING; the root logger is one of the test's own."""
    root = logging.RootLogger(logging.WARNING)
    ours = logging.Manager(root).getLogger("django_taskq")
    monkeypatch.setattr(log, "logger", ours)
    monkeypatch.setattr(ours, "root", root, raising=False)
    settings.LOGGING = {}
    return root


class TestTerminal:
    def test_everything_is_shown_where_nothing_is_configured(self, unconfigured: logging.Logger) -> None:
        assert log.configure_for_terminal("json")
        (handler,) = unconfigured.handlers
        assert isinstance(handler.formatter, JsonFormatter)
        assert unconfigured.level == logging.INFO
        names = [name for name in ("shop", "django_taskq", "django.db") if handler.filter(making_record(name))]
        assert names == ["shop", "django_taskq"]
        assert not log.configure_for_terminal()
        assert unconfigured.handlers == [handler]

    def test_a_project_s_logging_is_left_alone(self, unconfigured: logging.Logger, settings: Any) -> None:
        settings.LOGGING = {"version": 1}
        assert log.configure_for_terminal()
        assert not unconfigured.handlers
        (handler,) = log.logger.handlers
        assert isinstance(handler.formatter, TextFormatter)

    def test_a_handler_of_the_project_is_enough(self, unconfigured: logging.Logger) -> None:
        unconfigured.addHandler(logging.NullHandler())
        assert not log.configure_for_terminal("json")
        assert len(unconfigured.handlers) == 1


def making_record(name: str) -> logging.LogRecord:
    return logging.LogRecord(name, logging.INFO, __file__, 1, "text", (), None)


def test_without_info_nobody_listens_for_successes(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.WARNING, "django_taskq")
    try:
        log.connect(in_worker=False)
        assert not signals.task_finished.receivers
        assert signals.task_failed.receivers
    finally:
        for signal in SIGNALS.values():
            signal.disconnect(dispatch_uid="django_taskq.log")
