"""What a run adds to its workflow, or puts in its own place, as rows for the recorder."""

from __future__ import annotations

from django_taskq import workflows
from django_taskq.composing import expect
from django_taskq.context import TaskContext
from django_taskq.graph import Workflow
from django_taskq.message import Growth, new_ids


def replacing(run: TaskContext, canvas: object) -> tuple[Growth | None, str | None]:
    """The rows that take a run's place; or none, and its result, where there is nothing to run.

    Raises what starting the canvas would raise.
    """
    plan = canvas.plan() if isinstance(canvas, Workflow) else expect(canvas).plan()
    if not plan.sinks:
        return None, plan.constant
    workflow_id = run.headers.workflow
    if workflow_id is not None:
        return workflows.grow(plan, workflow_id, adopter=run.id), None
    return workflows.grow(plan, new_ids(1)[0], adopter=run.id, name=plan.name or run.name), None


def added(run: TaskContext) -> Growth | None:
    """The rows of what a run has added to its workflow, if anything. Raises what starting them would raise."""
    return None if run.additions is None else run.additions.growth()
