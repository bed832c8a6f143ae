"""An engine for plans in a screenful, for tests of plans: everything runs here and now, in the order of the nodes."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from django_taskq import serializers
from django_taskq.compiling import find_task
from django_taskq.plan import Input, Node, Plan
from django_taskq.steps import LinkKind, StepError, Value, filled, joined
from tests.unit.canvas_oracle import UPSTREAM, call_of, plain


@dataclass
class Ran:
    """What became of a plan: the value or the errors of which ``get()`` would raise one, and the calls."""

    value: Any = None
    errors: frozenset[str] = frozenset()
    calls: Counter[str] = field(default_factory=Counter)


def run(plan: Plan, functions: Mapping[str, Callable[..., Any]] | None = None) -> Ran:
    """Run a plan; tasks that are not in ``functions`` are looked up."""
    texts: list[str] = []
    failed: dict[int, str] = {}
    cancelled: set[int] = set()
    ran = Ran()
    for node in plan.nodes:
        values = _values(node.inputs, texts)
        if not _may_run(node, failed, cancelled):
            cancelled.add(node.number)
            texts.append(serializers.dumps(StepError(UPSTREAM, "a step before it did not succeed", "", "")))
            continue
        if node.front == 2:
            values = [Value(0, 0, True, '"run"'), Value(0, 0, True, '"error"')]
        try:
            texts.append(serializers.dumps(_call(node, values, functions or {}, ran)))
        except ValueError as error:
            failed[node.number] = str(error)
            texts.append(serializers.dumps(StepError("builtins.ValueError", str(error), "", "")))
    for sink in plan.sinks:
        if sink.kind is LinkKind.SUCCESS and sink.parent.number in failed:
            ran.errors = frozenset([failed[sink.parent.number]])
            return ran
        if sink.kind is LinkKind.SUCCESS and sink.parent.number in cancelled:
            ran.errors = frozenset(failed.values())
            return ran
    ran.value = plain(serializers.loads(plan.constant or joined(_values(plan.sinks, texts))))
    return ran


def _values(inputs: Sequence[Input], texts: Sequence[str]) -> list[Value]:
    return [Value(each.opens, each.closes, each.carries, texts[each.parent.number]) for each in inputs]


def _may_run(node: Node, failed: Mapping[int, str], cancelled: set[int]) -> bool:
    if node.inputs and node.inputs[0].kind is LinkKind.FAILURE:
        return any(each.parent.number in failed for each in node.inputs)
    needed = [each.parent.number for each in node.inputs if each.kind is LinkKind.SUCCESS]
    return not any(number in failed or number in cancelled for number in needed)


def _call(node: Node, values: list[Value], functions: Mapping[str, Callable[..., Any]], ran: Ran) -> Any:
    signature = node.signature
    payload = serializers.dumps([list(signature.args), dict(signature.kwargs)])
    if node.front or node.refers:
        payload = filled(payload, values, refers=node.refers)
    args, kwargs = serializers.loads(payload)
    function = functions.get(signature.task) or find_task(signature.task)
    if signature.task != "django_taskq.gather":
        ran.calls[call_of(signature.task, args)] += 1
    return function(*args, **kwargs)
