"""Adding steps to a workflow that runs already, from inside a run or from anywhere else."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any
from uuid import UUID

from django_taskq import workflows
from django_taskq.compiling import Flow
from django_taskq.exceptions import InvalidWorkflow
from django_taskq.graph import Step, Workflow
from django_taskq.plan import Input, Running
from django_taskq.result import TaskResult
from django_taskq.signatures import Signature
from django_taskq.steps import LinkKind

if TYPE_CHECKING:
    from typing import NoReturn

    from django_taskq.message import Growth


class Addition(Workflow):
    """Steps to be added to a workflow, together. They are put together as in :class:`Workflow`.

    ``after`` takes the handles or ids of runs of that workflow as well, and :meth:`step` makes a step of one, whose
    ``result`` can be named. New steps yield nothing to the workflow's result, but it is FAILED when one of them is.
    """

    def __init__(self, workflow_id: str) -> None:
        super().__init__()
        self.workflow_id = workflow_id
        self._running: dict[str, Step] = {}

    def step(self, run: TaskResult[Any] | UUID | str) -> Step:
        """A run that is a step of the workflow already. Raises :exc:`InvalidWorkflow` for what is no run."""
        try:
            id = str(UUID(run.id if isinstance(run, TaskResult) else str(run)))
        except ValueError:
            raise InvalidWorkflow(f"{run!r} is no run: give a handle, or the id of one") from None
        if id not in self._running:
            step = Step(self, len(self.steps), Signature(id), None)
            step.made = Flow([Input(Running(id, -1 - len(self.steps)), LinkKind.SUCCESS, 0, 0, True)])
            self.steps.append(step)
            self._running[id] = step
        return self._running[id]

    def _known(self, step: Any) -> Step:
        return super()._known(self.step(step) if isinstance(step, (TaskResult, UUID, str)) else step)

    def start(self) -> NoReturn:
        """Not for additions: their workflow runs."""
        raise InvalidWorkflow("these steps are added to a workflow that runs: there is nothing to start")

    def growth(self) -> Growth | None:
        """The rows to be written; None where nothing was added. Raises as :meth:`Workflow.start` does."""
        plan = self.plan()
        return workflows.grow(plan, self.workflow_id) if plan.nodes else None
