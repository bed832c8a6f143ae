"""The formatters: what they show, and that nothing that is logged can pass for something else."""

from __future__ import annotations

import json
import logging
import sys
from typing import Any

import pytest

from django_taskq.logging import JsonFormatter, TextFormatter, one_line

BREAKS = ["\n", "\r", "\r\n", "\x0b", "\x0c", "\x85", "\u2028", "\u2029"]
OTHERS = ["\x1b[2K", "\x9b2K", "\x00", "\ud800", "\x08", "\u202e"]


def record(message: str = "hello", name: str = "django_taskq", **fields: Any) -> logging.LogRecord:
    found = logging.LogRecord(name, logging.INFO, __file__, 1, "%s", (message,), None)
    vars(found).update(fields)
    return found


def failed(text: str) -> logging.LogRecord:
    try:
        raise ValueError(text)
    except ValueError:
        return record(exc_info=sys.exc_info())


class TestText:
    def format(self, of: logging.LogRecord) -> str:
        return TextFormatter().format(of)

    def test_ours_and_others(self) -> None:
        assert self.format(record()).endswith(" INFO hello")
        assert self.format(record(name="shop.mail")).endswith(" INFO shop.mail: hello")

    def test_further_lines_are_indented(self) -> None:
        first, *others = self.format(record("one\ntwo\tand\nthree")).splitlines()
        assert first.endswith(" INFO one")
        assert others == ["  two     and", "  three"]

    def test_an_exception(self) -> None:
        text = self.format(failed("no"))
        assert "  Traceback (most recent call last):" in text
        assert text.endswith("  ValueError: no")

    @pytest.mark.parametrize("text", BREAKS + OTHERS, ids=ascii)
    @pytest.mark.parametrize("make", [record, failed, lambda text: record(name=text)], ids=["message", "error", "name"])
    def test_nothing_is_forged(self, make: Any, text: str) -> None:
        forged = "12:00:00 INFO forged"
        found = self.format(make(f"x{text}{forged}"))
        assert found.splitlines() == found.split("\n")
        assert not [line for line in found.split("\n")[1:] if not line.startswith("  ")]
        assert one_line(found.replace("\n", "")) == found.replace("\n", "")
        found.encode()


class TestJson:
    def format(self, of: logging.LogRecord) -> dict[str, Any]:
        line = JsonFormatter().format(of)
        assert line.isascii()
        assert line.isprintable()
        found: dict[str, Any] = json.loads(line)
        return found

    def test_outside_of_tasks(self) -> None:
        found = self.format(record(created=0.5, task_id="", task_name="", queue_name="", attempt=0, worker="box:1"))
        assert found == {
            "time": "1970-01-01T00:00:00.500Z", "level": "INFO", "logger": "django_taskq", "message": "hello",
            "worker": "box:1", "process": found["process"],
        }  # fmt: skip

    def test_a_run(self) -> None:
        run = {"task_id": "1", "task_name": "a.b", "queue_name": "mail", "attempt": 2, "outcome": "success"}
        found = self.format(record(**run, duration=0.0, wait=1.23456789))
        assert run.items() <= found.items()
        assert (found["duration"], found["wait"]) == (0.0, 1.234568)

    def test_a_run_that_did_not_start(self) -> None:
        assert not {"duration", "wait"} & set(self.format(record(duration=None, wait=None)))

    def test_an_exception(self) -> None:
        found = self.format(failed("no"))
        assert found["exception"].endswith("ValueError: no")
        assert found["message"] == "hello"

    @pytest.mark.parametrize("text", BREAKS + OTHERS, ids=ascii)
    def test_it_is_one_line_that_any_reader_takes(self, text: str) -> None:
        for found in (self.format(record(f"x{text}y")), self.format(failed(f"x{text}y"))):
            everything = "".join(map(str, found.values()))
            assert "\x00" not in everything
            everything.encode()  # no lone surrogates
