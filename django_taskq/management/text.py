"""Text on its way to a terminal or log: passwords out, control characters harmless."""

from __future__ import annotations

from django_taskq.conf_shown import MASK, mask

__all__ = ["MASK", "mask", "one_line", "several_lines", "shortened"]


def one_line(text: str) -> str:
    """Printable characters only: a name or an error must not be able to forge a line or drive the terminal."""
    return "".join(char if char.isprintable() else _escaped(char) for char in text)


def several_lines(text: str) -> str:
    """As :func:`one_line`, but line breaks stay."""
    return "\n".join(one_line(line.expandtabs()) for line in text.split("\n"))


def shortened(text: str, width: int) -> str:
    """At most ``width`` characters, the last one an ellipsis where something was cut."""
    return text if len(text) <= width else text[: width - 1] + "…"


def _escaped(char: str) -> str:
    return f"\\x{ord(char):02x}" if ord(char) < 256 else f"\\u{ord(char):04x}"
