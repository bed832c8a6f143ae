"""Tasks of steps that fail, replace themselves and add others as a test says; and short ways to what became of them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from typing import Any

from django.utils import timezone, translation

from django_taskq import current_task, registry, task
from django_taskq.composing import Canvas
from django_taskq.models import Workflow
from django_taskq.workflow_result import WorkflowResult

broken: set[Any] = set()
"""The keys with which ``work`` fails."""
calls: list[Any] = []
"""What ran, in order."""
canvases: dict[str, Callable[[], Canvas]] = {}
"""What ``become`` puts in its place, by name."""


@task(name="steps.work")
def work(*args: Any) -> Any:
    """Returns its last argument, or fails where that is broken."""
    calls.append(args[-1])
    if args[-1] in broken:
        raise ValueError(f"{args[-1]} is broken")
    return args[-1]


@task(name="steps.show")
def show(*args: Any) -> list[Any]:
    calls.append("show")
    return list(args)


@task(name="steps.told")
def told(run: Any, error: Any, *more: Any) -> list[Any]:
    """An error callback."""
    calls.append(("told", run.name, error.message))
    return [run, error, *more]


@task(name="steps.become")
def become(*args: Any) -> Any:
    calls.append(f"become {args[-1]}")
    return current_task.replace(canvases[args[-1]]())


@task(name="steps.become_exactly_once", transactional=True)
def become_exactly_once(name: str) -> Any:
    Workflow.objects.filter(name="before").update(name="written before replace()")
    return current_task.replace(canvases[name]())


@task(name="steps.become_async")
async def become_async(name: str) -> Any:
    return current_task.replace(canvases[name]())


@task(name="steps.extend")
def extend(*args: Any) -> str:
    """Adds two steps to its workflow."""
    first = current_task.workflow.add(work.si("added first"))
    current_task.workflow.add(work.si("added second"), after=[first])
    return "extended"


@task(name="steps.patient", autoretry_for=(ValueError,), max_retries=3, default_retry_delay=0)
def patient(good: int) -> int:
    """Successful in this attempt."""
    calls.append(f"patient {current_task.attempt}")
    if current_task.attempt < good:
        raise ValueError("not yet")
    return int(current_task.attempt)


@task(name="steps.surroundings")
def surroundings(*args: Any) -> list[str]:
    return [translation.get_language(), timezone.get_current_timezone_name()]


@task(name="steps.untracked", track_pending=False)
def untracked(*args: Any) -> Any:
    return args[-1]


TASKS = {name: found for name, found in registry._tasks.items() if name.startswith("steps.")}


def begin() -> None:
    """Register the tasks; other modules' tests look at all that there are."""
    registry._tasks.update(TASKS)
    for each in (broken, calls, canvases):
        each.clear()


def end() -> None:
    for name in TASKS:
        registry._tasks.pop(name, None)


def became(result: WorkflowResult) -> list[str]:
    """How the steps ended, in the order of the plan; why, where that is worth a word."""
    rows = result.steps().values_list("status", "reason")
    return [f"{status} {reason.partition(':')[0]}".strip() for status, reason in rows]


def counts(result: WorkflowResult) -> Counter[str]:
    return Counter(result.steps().values_list("status", flat=True))


def status_of(result: WorkflowResult) -> str:
    result.refresh()
    return result.status
