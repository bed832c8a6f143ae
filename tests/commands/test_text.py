"""Passwords stay out, and nothing printed can drive a terminal."""

from __future__ import annotations

import pytest

from django_taskq.management.text import mask, one_line, several_lines, shortened


@pytest.mark.parametrize(
    ("text", "masked"),
    [
        ("redis://:hunter2%40@cache:6379/0", "redis://:***@cache:6379/0"),
        ("at amqp://ann:hunter2%40@mq// and redis://bob:x@y", "at amqp://ann:***@mq// and redis://bob:***@y"),
        ("database://", "database://"),
        ("no password in 12:30@home", "no password in 12:30@home"),
    ],
)
def test_urls(text: str, masked: str) -> None:
    assert mask(text) == masked


@pytest.mark.parametrize("password", ["hunter2%40", "hunter2@"])
def test_passwords_in_either_form(password: str) -> None:
    assert mask(f"refused for {password}, {password}", [password, ""]) == "refused for ***, ***"
    assert "hunter2" not in mask("refused for hunter2%40", [password])


def test_control_characters() -> None:
    forged = "ok\n2026-01-01 CRITICAL \x1b[31mfake\u202e"
    assert one_line(forged) == "ok\\x0a2026-01-01 CRITICAL \\x1b[31mfake\\u202e"
    assert several_lines(forged).count("\n") == 1
    assert one_line("zażółć ほげ") == "zażółć ほげ"


def test_shortened() -> None:
    assert shortened("abcdef", 6) == "abcdef"
    assert shortened("abcdefg", 6) == "abcde…"
