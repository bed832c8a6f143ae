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
        ("redis://:p1@a:1/0;redis://:p2@b/0", "redis://:***@a:1/0;redis://:***@b/0"),
        ("sentinel://:pw@h:26379;sentinel://h2:1", "sentinel://:***@h:26379;sentinel://h2:1"),
        ("amqp://ann:hun%2Fter%40%3a@mq:5671//v", "amqp://ann:***@mq:5671//v"),
        ("rediss://u:p@q:r@h/0", "rediss://u:***@h/0"),
        ("azureservicebus://Root:ab/c+d=@ns", "azureservicebus://Root:***@ns"),
        ("redis://h/0?db=1&password=ab%40c&x=1", "redis://h/0?db=1&password=***&x=1"),
        ("unix://:pw@/run/redis.sock?db=1", "unix://:***@/run/redis.sock?db=1"),
        ("redis://[::1]:6379/0", "redis://[::1]:6379/0"),
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
