"""``taskq workflow``: which workflows there are, how far one is; how to cancel it, go on with it, and wait for it."""

from __future__ import annotations

from argparse import ArgumentTypeError
from typing import Any

from django.core.management.base import CommandError, CommandParser

from django_taskq import conf
from django_taskq.exceptions import ResultNotFound
from django_taskq.management.storage import RUNTIME_EXIT, USAGE_EXIT
from django_taskq.management.text import one_line, shortened
from django_taskq.management.verbs import workflow_shown as shown
from django_taskq.management.verbs.base import Verb, add_json_option
from django_taskq.management.verbs.workflow_waiting import wait
from django_taskq.models import Worker, Workflow
from django_taskq.models.workflow import WorkflowStatus
from django_taskq.workflow_result import WorkflowResult

ACTIONS = ("list", "show", "cancel", "resume", "wait")
SHOWN = 20
MOST_SHOWN = 10_000
# The actions that each option goes with, by its name among the parsed ones.
OPTIONS: dict[str, tuple[str, ...]] = {
    "status": ("list",),
    "name": ("list",),
    "limit": ("list", "show"),
    "as_json": ("list", "show"),
    "reason": ("cancel",),
    "failed": ("resume",),
    "from_step": ("resume",),
    "timeout": ("wait",),
}
_WRITTEN = {"as_json": "json", "from_step": "from"}
NAME_WIDTH, REASON_WIDTH = 40, 100


class WorkflowVerb(Verb):
    """What it shows is bounded: of a large workflow numbers, and some of its steps."""

    help = "Show, cancel, resume or wait for workflows."

    def add_arguments(self, parser: CommandParser) -> None:
        actions = f"{', '.join(ACTIONS)} (default: list)."
        parser.add_argument("action", metavar="ACTION", nargs="?", default="list", choices=ACTIONS, help=actions)
        parser.add_argument("id", metavar="ID", nargs="?", help="With all but list: the id of a workflow.")
        statuses = [status.lower() for status in WorkflowStatus.values]
        parser.add_argument("--status", choices=statuses, help=f"With list: only those that are {', '.join(statuses)}.")
        parser.add_argument("--name", metavar="TEXT", help="With list: only those with this in their name.")
        how_many = f"With list and show: at most so many workflows, or steps. Default: {SHOWN}."
        parser.add_argument("--limit", type=_number, metavar="N", help=how_many)
        parser.add_argument("--reason", help="With cancel: why, for others to read.")
        which = parser.add_mutually_exclusive_group()
        which.add_argument("--failed", action="store_true", help="With resume: what failed, and what waits for that.")
        which.add_argument(
            "--from", metavar="STEP", dest="from_step", help="With resume: this step, by name or id, and all after it."
        )
        parser.add_argument("--timeout", type=_seconds, help="With wait: seconds; then the exit code is 124.")
        add_json_option(parser)

    def run(self, **options: Any) -> None:
        action, id = options["action"], options["id"]
        problem = ""
        if (action == "list") != (id is None):
            problem = "list takes no id" if action == "list" else f"{action} takes the id of a workflow"
        for name, actions in OPTIONS.items():
            if options[name] not in (None, False) and action not in actions:
                problem = problem or f"argument --{_WRITTEN.get(name, name)}: it goes with {' and '.join(actions)}"
        if problem:
            raise CommandError(problem, returncode=USAGE_EXIT)
        if action == "list":
            self._list(options)
        else:
            getattr(self, f"_{action}")(find_workflow(id), options)

    def _list(self, options: dict[str, Any]) -> None:
        found = shown.listed(options["status"], options["name"], options["limit"] or SHOWN)
        if options["as_json"]:
            self.write_json({"workflows": found})
            return
        for each in found:
            name = shortened(one_line(each["name"]) or "(without a name)", NAME_WIDTH)
            when = shown.moment(each["enqueued_at"])
            self.write(f"{each['id']}  {each['status']:<10}  {shown.how_far(each):<24}  {when}  {name}")
        if not found:
            self.say("No workflow is there, or none that matches.")

    def _show(self, workflow: Workflow, options: dict[str, Any]) -> None:
        document = shown.described(workflow, options["limit"] or SHOWN)
        if options["as_json"]:
            self.write_json(document)
            return
        for key in ("id", "name", "status", "size", "enqueued_at", "finished_at", "expires_at", "reason"):
            if document[key] not in (None, ""):
                self.write(f"{key:<14}{one_line(shown.text(document[key]))}")
        self.write(f"{'progress':<14}{shown.how_far(document)}")
        if len(document["steps"]) < document["size"]:
            for each in document["tasks"]:
                self.write(f"  {each['count']:>9,}  {each['status']:<10}  {one_line(each['name'])}")
        self.write("")
        for step in document["steps"]:
            self._write_step(step)
        if len(document["steps"]) < document["size"]:
            self.say(f"{len(document['steps'])} of {document['size']:,} steps, failed ones first; more with --limit.")

    def _write_step(self, step: dict[str, Any]) -> None:
        name = one_line(step["label"] or step["name"]) + (f" ({one_line(step['name'])})" if step["label"] else "")
        times = shown.times(step)
        self.write(f"{step['id']}  {step['status']:<10}  {name}  attempt {step['attempt']}, {one_line(times)}")
        if step["waits_for"]:
            self.write(f"    waits for {step['waits_for']}")
        why = step["error"] or step["reason"]
        if why:
            line = f"    {shortened(one_line(why), REASON_WIDTH)}"
            self.write(self.style.ERROR(line) if step["status"] == "FAILED" else line)

    def _cancel(self, workflow: Workflow, options: dict[str, Any]) -> None:
        if workflow.finished_at is not None:
            raise CommandError(f"{workflow.pk} is {workflow.status} already", returncode=RUNTIME_EXIT)
        reason = " ".join((options["reason"] or "").split())
        count = WorkflowResult(workflow.pk).cancel(f"TaskCancelled: {reason}" if reason else "TaskCancelled")
        self.write(f"{workflow.pk}: {count:,} step(s) cancelled, or told to stop where they run")

    def _resume(self, workflow: Workflow, options: dict[str, Any]) -> None:
        result = WorkflowResult(workflow.pk)
        try:
            if options["from_step"] is not None:
                count, nothing = result.resume_from(options["from_step"]), "this step has not ended"
            elif options["failed"]:
                count, nothing = result.retry_failed(), "no step of it is FAILED"
            else:
                count, nothing = result.resume(), "no step of it is FAILED or CANCELLED"
        except ResultNotFound as error:
            raise CommandError(one_line(str(error)), returncode=USAGE_EXIT) from error
        if not count:
            raise CommandError(f"{workflow.pk} not changed: {nothing}", returncode=RUNTIME_EXIT)
        self.write(f"{workflow.pk}: {count:,} step(s) will run again")

    def _wait(self, workflow: Workflow, options: dict[str, Any]) -> None:
        workers: Any = Worker.objects.using(conf.get_settings().database)
        if workflow.finished_at is None and not workers.online().exists():
            self.say("No worker is online, so this waits for one: python manage.py taskworker (Ctrl+C: stop waiting)")
        try:
            status = wait(self, workflow, options["timeout"])
        except KeyboardInterrupt:
            raise CommandError(f"stopped waiting; workflow {workflow.pk} goes on") from None
        self.write(status)
        if status != WorkflowStatus.SUCCESSFUL:
            raise CommandError(
                f"it ended as {status} (see python manage.py taskq workflow show {workflow.pk})",
                returncode=RUNTIME_EXIT,
            )


def find_workflow(text: str) -> Workflow:
    """The workflow with this id. Raises ``CommandError``."""
    result = WorkflowResult(text)
    try:
        result.refresh()
    except ResultNotFound as error:
        raise CommandError(one_line(str(error)), returncode=USAGE_EXIT) from error
    found: Workflow = Workflow.objects.using(conf.get_settings().database).get(pk=text)
    return found


def _number(text: str) -> int:
    if not text.isascii() or not text.isdecimal() or not 0 < int(text[:9]) <= MOST_SHOWN or len(text) > 9:
        raise ArgumentTypeError(f"{text!r} is not usable: it takes a number from 1 to {MOST_SHOWN}")
    return int(text)


def _seconds(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = -1.0
    if not 0 < value <= conf.MOST_SECONDS:
        raise ArgumentTypeError(f"{text!r} is not usable: it takes a number of seconds above 0")
    return value
