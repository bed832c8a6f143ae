from __future__ import annotations

import logging
import sys
from types import ModuleType

import pytest

from django_taskq import hooks, registry, resources, serializers, signals

# What pages call their own module: the tasks they define are ``shop.tasks.add`` and so on.
MODULE = "shop.tasks"


@pytest.fixture
def module(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """A module for the code of one page. Tasks, types and receivers that it makes known are forgotten afterwards."""
    made = ModuleType(MODULE)
    monkeypatch.setitem(sys.modules, "shop", ModuleType("shop"))
    monkeypatch.setitem(sys.modules, MODULE, made)
    monkeypatch.setattr(registry, "_tasks", dict(registry._tasks))
    monkeypatch.setattr(resources, "_resources", dict(resources._resources))
    monkeypatch.setattr(hooks, "_hooks", {moment: list(declared) for moment, declared in hooks._hooks.items()})
    monkeypatch.setattr(serializers, "_encoders", dict(serializers._encoders))
    monkeypatch.setattr(serializers, "_decoders", dict(serializers._decoders))
    for signal in vars(signals).values():
        if isinstance(signal, signals.Signal):
            monkeypatch.setattr(signal, "receivers", list(signal.receivers))
    logging.getLogger("django_taskq").setLevel(logging.CRITICAL)  # pages fail on purpose
    yield made
    logging.getLogger("django_taskq").setLevel(logging.INFO)
