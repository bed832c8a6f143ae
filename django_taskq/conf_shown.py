"""Settings as they may be shown: every effective value and where it comes from, with passwords masked."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import MISSING, Field, fields, is_dataclass
from inspect import isroutine
from typing import Any
from urllib.parse import quote, unquote

from django.views.debug import SafeExceptionReporterFilter

from django_taskq import conf
from django_taskq.conf_brokers import BrokerConfig

DEFAULT, PROJECT = "default", "TASKQ"
# Those that are parsed into objects of our own: shown as what was written, without what is at its default.
STRUCTURED = ("QUEUES", "BROKERS", "EXCHANGES", "ROUTES")
SECRET = ("HEALTH_TOKEN",)

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


def of_project() -> dict[str, tuple[Any, str]]:
    """Values and sources of all settings, by their names in ``TASKQ``."""
    settings, given = conf.get_settings(), conf.configured_names()
    found = {}
    for name in conf.setting_names():
        value = getattr(settings, name.lower())
        if name in STRUCTURED:
            value = _document(value)
        if name in SECRET and value is not None:
            value = MASK
        found[name] = (mask(value) if isinstance(value, str) else value, PROJECT if name in given else DEFAULT)
    return found


def _document(value: Any) -> Any:
    if isinstance(value, BrokerConfig):
        # Passwords may also stand among the options.
        options = SafeExceptionReporterFilter().cleanse_setting("OPTIONS", dict(value.options))
        found = {"URL": mask(value.url), "PREFIX": value.prefix, "OPTIONS": options}
        return {key: item for key, item in found.items() if item}
    if is_dataclass(value) and not isinstance(value, type):
        changed = [each for each in fields(value) if getattr(value, each.name) not in (_default(each), None)]
        return {each.name: _document(getattr(value, each.name)) for each in changed}
    if isinstance(value, Mapping):
        return {key: _document(item) for key, item in value.items()}
    if isinstance(value, tuple):
        return [_document(item) for item in value]
    return f"{value.__module__}.{value.__qualname__}" if isroutine(value) else value


def _default(of: Field[Any]) -> Any:
    return of.default if of.default_factory is MISSING else of.default_factory()
