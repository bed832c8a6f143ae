"""Outcomes become signals, and signals log lines; nothing a task writes can forge one."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from typing import Any

import pytest

from django_taskq import signals
from django_taskq.brokers.memory import MemoryBroker
from django_taskq.message import Action, ErrorText, Outcome
from django_taskq.worker import log
from django_taskq.worker.recorder import Recorder
from tests.unit.making import execute, make_message, make_outcome, make_task

SIGNALS = {"finished": signals.task_finished, "failed": signals.task_failed, "retried": signals.task_retried}


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
        ],
    )
    def test_what_is_told(self, told: list[str], action: Action, signals_sent: list[str]) -> None:
        Recorder(MemoryBroker(), 1).announce([make_outcome(action)], [])
        assert told == signals_sent

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
            (Action.SUCCESS, "INFO", "ok 1000ms"),
            (Action.CANCELLED, "INFO", "cancelled: E: why"),
            (Action.RETRY, "WARNING", "tries again in 5.0s: E: why"),
            (Action.FAILED, "ERROR", "failed 1000ms"),
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
        assert outcome.delivery.name in record.getMessage()
        assert outcome.delivery.id in record.getMessage()

    def test_connecting_twice_logs_once(self, caplog: pytest.LogCaptureFixture) -> None:
        log.connect(in_worker=True)
        self.announce(make_outcome(Action.SUCCESS))
        assert len(caplog.records) == 1

    def test_a_failure_shows_the_traceback(self, caplog: pytest.LogCaptureFixture) -> None:
        def fails() -> None:
            raise ValueError("no")

        self.announce(execute(make_task(fails)))
        assert "Traceback (most recent call last)" in caplog.records[-1].getMessage()
        assert 'raise ValueError("no")' in caplog.records[-1].getMessage()

    @pytest.mark.parametrize("end", ["\n", "\r", "\r\n", "\x0b", "\x85", "\u2028", "\x1b[2K"], ids=ascii)
    def test_neither_name_nor_error_begins_a_line(self, caplog: pytest.LogCaptureFixture, end: str) -> None:
        forged = "2026-01-01 ERROR forged"

        def fails() -> None:
            raise ValueError(f"x{end}{forged}")

        self.announce(execute(make_task(fails, name=f"name{end}{forged}")))
        first, *others = caplog.records[-1].getMessage().splitlines()
        assert "fail" in first
        assert not [line for line in others if line.startswith(forged)]
        assert "\x1b" not in caplog.records[-1].getMessage()
