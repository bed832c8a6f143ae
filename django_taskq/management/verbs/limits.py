"""``taskq limits``: time limits of tasks that hold instead of those in the code, set while workers run."""

from __future__ import annotations

from argparse import ArgumentTypeError
from typing import Any

from django.core.management.base import CommandError, CommandParser

from django_taskq import conf, control
from django_taskq.exceptions import InvalidCommand
from django_taskq.management.storage import USAGE_EXIT
from django_taskq.management.text import one_line
from django_taskq.management.verbs.base import Verb, add_json_option
from django_taskq.management.verbs.lookup import find_task
from django_taskq.management.verbs.workers import issuer
from django_taskq.models import TaskLimits

ACTIONS = ("list", "set", "clear")


class Limits(Verb):
    """They are stored, and hold for runs that start from then on. What a call sets itself goes before."""

    help = "Show, set or clear time limits that hold instead of those in the code."

    def add_arguments(self, parser: CommandParser) -> None:
        actions = f"{', '.join(ACTIONS)} (default: list)."
        parser.add_argument("action", metavar="ACTION", nargs="?", default="list", choices=ACTIONS, help=actions)
        parser.add_argument("task", metavar="TASK", nargs="?", help="With set and clear: the name of a task.")
        parser.add_argument("--soft", type=_seconds, help="With set: the soft limit, in seconds.")
        parser.add_argument("--hard", type=_seconds, help="With set: the hard limit, in seconds.")
        add_json_option(parser)

    def run(self, **options: Any) -> None:
        action, name, soft, hard = (options[key] for key in ("action", "task", "soft", "hard"))
        problem = ""
        if (action == "list") != (name is None):
            problem = "list takes no task" if action == "list" else f"{action} takes the name of a task"
        elif (action == "set") != (soft is not None or hard is not None):
            problem = "set takes --soft or --hard, or both" if action == "set" else "--soft and --hard go with set"
        elif options["as_json"] and action != "list":
            problem = "argument --json: it goes with list"
        if problem:
            raise CommandError(problem, returncode=USAGE_EXIT)
        if action == "list":
            self._list(options["as_json"])
            return
        is_left_over = action == "clear" and TaskLimits.objects.using(_database()).filter(task_name=name).exists()
        try:
            # Those of a task that is no more can be cleared all the same.
            control.set_time_limits(
                name if is_left_over else find_task(name).name, soft=soft, hard=hard, timeout=0, by=issuer()
            )
        except InvalidCommand as error:
            raise CommandError(one_line(str(error)), returncode=USAGE_EXIT) from error
        self.write(f"limits of {one_line(name)} {'set' if action == 'set' else 'cleared'}")

    def _list(self, as_json: bool) -> None:
        rows = TaskLimits.objects.using(_database()).order_by("task_name")
        found = [
            {
                "task": row.task_name,
                "soft_time_limit": row.soft_time_limit,
                "time_limit": row.time_limit,
                "set_by": row.set_by,
                "set_at": row.set_at,
            }
            for row in rows
        ]
        if as_json:
            self.write_json({"limits": found})
            return
        for each in found:
            limits = [
                f"{word} {each[key]:g} s"
                for word, key in (("soft", "soft_time_limit"), ("hard", "time_limit"))
                if each[key] is not None
            ]
            who = f", set by {each['set_by']}" if each["set_by"] else ""
            self.write(one_line(f"{each['task']}  {', '.join(limits)}{who} at {each['set_at']:%Y-%m-%d %H:%M:%S}"))
        if not found:
            self.say("No limits are set: those in the code hold.")


def _database() -> str:
    return conf.get_settings().database


def _seconds(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = -1.0
    if not 0 < value <= conf.MOST_SECONDS:
        raise ArgumentTypeError(f"{text!r} is not usable: it takes a number of seconds above 0")
    return value
