"""Signatures, and what starting them returns."""

from __future__ import annotations

from typing import Any, assert_type

from django_taskq import Signature, TaskResult, Workflow, chain, chord, group, signature, task
from django_taskq.composing import Canvas
from django_taskq.graph import Step
from django_taskq.workflow_result import GroupResult, WorkflowResult


@task
def add(x: int, y: int) -> int:
    return x + y


assert_type(add.s(1), Signature)
assert_type(add.si(1), Signature)
assert_type(signature("add"), Signature)
assert_type(signature(add), Signature)
assert_type(signature(add.s(1)), Canvas)
assert_type(add.s(1).set(priority=1), Signature)
assert_type(add.s(1).clone((2,)), Signature)
assert_type(add.s(1).enqueue(2), TaskResult[Any])
assert_type(add.s(1).link(add.s(2)), Canvas)
assert_type((add.s(1, 1) | add.s(2)).enqueue(), WorkflowResult)
assert_type(chain(add.s(1, 1), add.s(2)).named("sums").delay(), WorkflowResult)
assert_type(chord([add.s(1, 1)], add.s(2))(), WorkflowResult)
assert_type(group(add.s(1, 1), spread=5).enqueue(), GroupResult)
assert_type(add.chunks([(1, 1)], 2), group)
assert_type(add.map([1]), Signature)
group(add.s(1, 1), spreads=5)  # E: call-arg
add.s(1) | add.s(2) | 3  # E: operator


async def start() -> None:
    assert_type(await group(add.s(1, 1)).aenqueue(), GroupResult)
    workflow = Workflow("sums")
    assert_type(workflow.add(add.s(1, 1)), Step)
    assert_type(await workflow.astart(), WorkflowResult)
    workflow.add(add)  # E: arg-type
