"""Random canvases of steps that fail, retry and kill, and what has to become of them, worked out by the oracle."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from random import Random
from typing import Any

from django_taskq.canvas import chain, chord, group
from django_taskq.composing import Canvas
from tests.testapp.fault_canvas_tasks import (
    ALERT,
    DIE,
    FAIL,
    PLAIN,
    REPLACE,
    STEP,
    WRITE,
    made,
    plain,
    replacement,
    value_of,
)
from tests.unit import canvas_oracle

HOW = (PLAIN,) * 12 + (REPLACE, REPLACE, FAIL, FAIL, DIE)


def call_of(name: str, args: Sequence[Any]) -> str:
    """One call, to be counted: an error callback is told of any of several failures."""
    shown = plain(args) if name != ALERT else ["told"] * (len(args) > 1)
    return f"{name} {args[-1]['key']} {value_of(shown)}"


class Maker:
    """Makes canvases from one source of chance; each step has a key of its own."""

    def __init__(self, random: Random, prefix: str) -> None:
        self._random = random
        self._prefix = prefix
        self._count = 0

    def workflow(self) -> Canvas:
        """A canvas that is more than one step, half of them with somebody to be told of a failure."""
        canvas = self._composed(self._random.choice((1, 1, 2, 2, 3)))
        if self._random.random() < 0.5:
            canvas.link_error(self._alert())
        return canvas

    def _key(self) -> str:
        self._count += 1
        return f"{self._prefix}.{self._count}"

    def _step(self) -> Canvas:
        how, good = self._random.choice(HOW), self._random.choice((1, 1, 1, 2, 3))
        task = WRITE if how == PLAIN and self._random.random() < 0.3 else STEP
        step = made(task, self._key(), good=good, how=how)
        step.immutable = self._random.random() < 0.15
        return self._furnished(step)

    def _alert(self) -> Canvas:
        alert = made(ALERT, self._key(), good=self._random.choice((1, 1, 2)))
        return alert | made(STEP, self._key()) if self._random.random() < 0.2 else alert

    def _canvas(self, depth: int) -> Canvas:
        is_step = depth <= 0 or self._count > 25 or self._random.random() < 0.3
        return self._step() if is_step else self._furnished(self._composed(depth))

    def _composed(self, depth: int) -> Canvas:
        kind = self._random.choice(("chain", "chain", "group", "chord", "chord", "chain of chords"))
        parts = [self._canvas(depth - 1) for _ in range(self._random.randint(2, 4))]
        if kind == "chain":
            return chain(*parts)
        if kind == "group":
            return group(*parts)
        if kind == "chord":
            return chord(parts, self._step())
        return chord(parts[:1], self._step()) | chord(parts[1:], self._step())

    def _furnished(self, canvas: Canvas) -> Canvas:
        if self._random.random() < 0.15:
            canvas.set(on_failure="continue")
        if self._random.random() < 0.1:
            canvas.link(made(STEP, self._key(), good=self._random.choice((1, 2))))
        if self._random.random() < 0.12:
            canvas.link_error(self._alert())
        return canvas


@dataclass
class Expected:
    """What has to become of a canvas: ``value``, unless it ``fails``; each call made, and each effect left."""

    value: Any
    fails: bool
    calls: Counter[str] = field(default_factory=Counter)
    effects: Counter[str] = field(default_factory=Counter)


def expect(canvas: Canvas) -> Expected:
    """Worked out without an engine. A step that kills fails, in the end; one that retries does not."""
    calls, effects = Counter[str](), Counter[str]()

    def call(name: str, args: tuple[Any, ...]) -> Any:
        spec = args[-1]
        calls[call_of(name, args)] += 1
        if spec["how"] in (FAIL, DIE):
            raise ValueError(spec["key"])
        if name == WRITE:
            effects[spec["key"]] += 1
        if spec["how"] == REPLACE:
            return canvas_oracle.expect(replacement(spec), functions).value
        return value_of(list(args[-1:] if name == ALERT else args))

    functions = {name: lambda *args, name=name: call(name, args) for name in (STEP, WRITE, ALERT)}
    found = canvas_oracle.expect(canvas, functions)
    return Expected(plain(found.value), bool(found.errors), calls, effects)
