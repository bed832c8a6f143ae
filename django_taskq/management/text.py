"""Text on its way to a terminal or log: passwords out, control characters harmless."""

from __future__ import annotations

import re
from collections.abc import Iterable
from urllib.parse import quote, unquote

MASK = "***"
# As much as may be a password, up to the last "@" of the URL: some hold a "/" that nobody has quoted. Several URLs are
# joined by ";". What only looks like a password (http://host:80/?mail=a@b) is hidden as well, which harms nobody.
_URL_PASSWORD = re.compile(r"(?<=://)([^\s/?#@:;]*):([^\s;]*)@")
_QUERY_PASSWORD = re.compile(r"([?&](?:password|passwd|pwd)=)[^\s&;#]+", re.IGNORECASE)


def mask(text: str, passwords: Iterable[str] = ()) -> str:
    """``text`` without passwords: those of any URL in it, and the given ones in plain or quoted form."""
    masked = _URL_PASSWORD.sub(lambda found: f"{found[1]}:{MASK}@", text)
    masked = _QUERY_PASSWORD.sub(lambda found: f"{found[1]}{MASK}", masked)
    for password in passwords:
        for form in {password, quote(password, safe=""), quote(password), unquote(password)} - {""}:
            masked = masked.replace(form, MASK)
    return masked


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
