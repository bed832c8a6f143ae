"""Starting workflows, and adding to those that run: a :class:`~django_taskq.plan.Plan` becomes rows.

What stands in the rows is the whole truth about a workflow. No message knows more than its own step, so a step of a
large workflow is no larger than one of a small.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from datetime import datetime, timedelta
from itertools import islice
from typing import TYPE_CHECKING, Any

from django.apps import apps
from django.db import transaction
from django.utils.module_loading import import_string

from django_taskq import client, clock, conf, flow, registry
from django_taskq.brokers import get_broker
from django_taskq.compiling import GATES
from django_taskq.exceptions import UnknownTask
from django_taskq.gates import written
from django_taskq.message import Feed, Growth, Headers, Message, Tracking, new_ids
from django_taskq.plan import Running
from django_taskq.result import open_transaction
from django_taskq.steps import ADOPTED, Link, LinkKind
from django_taskq.workflow_result import GroupResult, WorkflowResult

if TYPE_CHECKING:
    from django_taskq.plan import Input, Node, Plan
    from django_taskq.task import Task

# Steps built and written in one go: enough for the database, and little in memory.
AT_ONCE = 2000


def start(plan: Plan, *, expires: float | datetime | None = None, as_group: bool = False) -> WorkflowResult:
    """Write a plan's rows, all or none, and let its first steps go.

    ``expires`` (seconds from now, or a time) is when what of it has not ended is cancelled. Inside
    ``transaction.atomic()`` the workflow exists once that commits. Raises what ``enqueue`` raises, before anything is
    stored.
    """
    settings = conf.get_settings()
    marker = open_transaction(settings.database)
    workflow_id = new_ids(1)[0]
    writer = _Writer(workflow_id)
    with transaction.atomic(using=settings.database):
        _create(workflow_id, plan, expires)
        for messages, links in writer.portions(plan.nodes):
            client.enqueue(messages)
            get_broker().link(links)
        get_broker().link(writer.links_to(workflow_id, plan.sinks))
    if settings.eager and plan.nodes:
        run: Callable[[str], None] = import_string("django_taskq.worker.eager.run_workflow")
        run(workflow_id)
    handle = GroupResult if as_group else WorkflowResult
    return handle(workflow_id, name=plan.name, size=len(plan.nodes), open=marker)


def grow(plan: Plan, workflow_id: str, *, adopter: str | None = None, name: str | None = None) -> Growth:
    """The rows of a plan that becomes part of a workflow, to be written by whoever makes it so.

    Its results are that of the run ``adopter``, where one is given. With ``name`` the workflow is yet to be made.
    """
    writer = _Writer(workflow_id)
    messages, links = list[Message](), list[Link]()
    for some, theirs in writer.portions(plan.nodes):
        for message in some:
            client.check(message)
        messages += flow.gated([replace(message, is_waiting=True, headers=_grown(message.headers)) for message in some])
        links += theirs
    if adopter is not None:
        links += writer.links_to(adopter, plan.sinks, first=ADOPTED)
        return Growth(workflow_id, tuple(messages), tuple(links), name=name)
    ends = [sink._replace(opens=0, closes=0, carries=False) for sink in plan.sinks]
    return Growth(workflow_id, tuple(messages), tuple(links), tuple(writer.links_to(workflow_id, ends)))


def add(growth: Growth) -> None:
    """Write what is added to a workflow. Raises :exc:`InvalidWorkflow` where that has ended or is being cancelled."""
    import_string("django_taskq.brokers.database.workflow_verbs.add")(conf.get_settings().database, growth)


def _grown(headers: str | None) -> str | None:
    return Headers.loads(headers)._replace(grown=True).dumps()


def _create(workflow_id: str, plan: Plan, expires: float | datetime | None) -> None:
    now = clock.now()
    expires_at = now + timedelta(seconds=expires) if isinstance(expires, (int, float)) else expires
    is_over = not plan.nodes
    apps.get_model("django_taskq", "Workflow").objects.using(conf.get_settings().database).create(
        id=workflow_id,
        name=plan.name[:255],
        size=len(plan.nodes),
        constant=plan.constant,
        status="SUCCESSFUL" if is_over else "RUNNING",
        enqueued_at=_stored(now),
        finished_at=_stored(now) if is_over else None,
        expires_at=expires_at and _stored(expires_at),
    )


def _stored(moment: datetime) -> datetime:
    stored: Callable[[datetime], datetime] = import_string("django_taskq.models.clock.stored")
    return stored(moment)


class _Writer:
    """Turns nodes into messages and links, some at a time."""

    def __init__(self, workflow_id: str) -> None:
        self._workflow_id = workflow_id
        self._ids: list[str] = []
        self._needed: set[int] = set()

    def portions(self, nodes: Sequence[Node]) -> Iterator[tuple[list[Message], list[Link]]]:
        """Messages with the links of their steps; parents come before their children."""
        self._needed = _needed(nodes)
        rest = iter(nodes)
        while some := list(islice(rest, AT_ONCE)):
            ids = new_ids(len(some))
            self._ids += ids
            links = [link for node, id in zip(some, ids, strict=True) for link in self.links_to(id, node.inputs)]
            yield self._messages(some, ids), links

    def links_to(self, child_id: str, inputs: Sequence[Input], first: int = 0) -> list[Link]:
        """One step, or the workflow, waits for these."""
        return [
            Link(self._id(parent), child_id, position, kind, opens, closes, carries)
            for position, (parent, kind, opens, closes, carries) in enumerate(inputs, first)
        ]

    def _id(self, parent: Node | Running) -> str:
        return parent.id if isinstance(parent, Running) else self._ids[parent.number]

    def _messages(self, nodes: Sequence[Node], ids: Sequence[str]) -> list[Message]:
        """Their messages, those that are alike one after the other: they take few statements."""
        alike: dict[tuple[Any, ...], list[tuple[Node, str]]] = defaultdict(list)
        for node, id in zip(nodes, ids, strict=True):
            alike[_kind(node, node.number in self._needed)].append((node, id))
        return [message for some in alike.values() for message in self._messages_of_kind(some)]

    def _messages_of_kind(self, some: list[tuple[Node, str]]) -> Iterator[Message]:
        first = some[0][0]
        task, changes = _called(first, first.number in self._needed)
        made = task.messages([(node.signature.args, node.signature.kwargs) for node, _ in some], first.front)
        headers = Headers.loads(made[0].headers)._replace(workflow=self._workflow_id, **changes).dumps()
        follows_one = len(first.inputs) == 1 and first.inputs[0].kind is not LinkKind.FAILURE and not changes["gates"]
        has_own_time = changes.get("expires") is not None or changes.get("countdown") is not None
        for message, (_, id) in zip(made, some, strict=True):
            yield replace(
                message,
                id=id,
                headers=headers,
                workflow_id=self._workflow_id,
                tracking=Tracking.ROW,
                is_waiting=bool(first.inputs),
                follows_one=follows_one and not has_own_time,
                expires_at=None if changes.get("expires") is not None else message.expires_at,
            )


def _kind(node: Node, is_needed: bool) -> tuple[Any, ...]:
    """What nodes whose messages are alike have in common."""
    signature = node.signature
    options = tuple(sorted(signature.options.items())) if signature.options else ()
    return (
        signature.task,
        options,
        node.front,
        node.refers,
        _feed(node),
        min(len(node.inputs), 2),
        node.label,
        is_needed,
    )


def _feed(node: Node) -> str | None:
    if node.refers:
        return Feed.REFERENCES.value
    if not node.front or not node.inputs:
        return None
    is_callback = node.inputs[0].kind is LinkKind.FAILURE
    return (Feed.FAILURE if is_callback else Feed.FRONT).value


def _called(node: Node, is_needed: bool) -> tuple[Task[Any, Any], dict[str, Any]]:
    """The task with the options of this call, and what the headers say besides."""
    task = registry.find(node.signature.task)
    if task is None:
        raise UnknownTask(f"no task is named {node.signature.task!r}, so no workflow can have it as a step")
    options = {name: value for name, value in node.signature.options.items() if name not in ("on_failure", GATES)}
    task = task.using(**options) if options else task
    gates = written(node.signature.options.get(GATES, ()))
    changes: dict[str, Any] = {"feed": _feed(node), "label": node.label, "gates": gates}
    if node.inputs:
        # Counted from when the step becomes ready.
        call = task.call_options
        changes |= {"countdown": call.countdown, "expires": _relative(call.expires or task.options.expires)}
        task = task.using(countdown=None)
    if is_needed and _ignores_result(task):
        changes["ignore_result"] = False
    return task, changes


def _relative(expires: float | datetime | None) -> float | None:
    return expires if isinstance(expires, (int, float)) else None


def _ignores_result(task: Task[Any, Any]) -> bool:
    called = task.call_options.ignore_result
    return task.options.ignore_result if called is None else called


def _needed(nodes: Sequence[Node]) -> set[int]:
    """The numbers of the nodes whose values other nodes get: they must be kept, whatever their task says."""
    needed, seen = set[int](), set[int]()
    for node in nodes:
        if id(node.inputs) not in seen:
            seen.add(id(node.inputs))
            needed.update(parent.number for parent, _, _, _, carries in node.inputs if carries)
    return needed
