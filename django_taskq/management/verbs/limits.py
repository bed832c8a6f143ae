"""``taskq limits``: what holds runs back, and how to change it; and time limits instead of those in the code."""

from __future__ import annotations

from argparse import ArgumentTypeError
from contextlib import suppress
from typing import Any

from django.core.management.base import CommandError, CommandParser

from django_taskq import conf, control, registry
from django_taskq.brokers.database.limit_counts import COUNTED
from django_taskq.control.limits import gate_of, keys_of
from django_taskq.exceptions import InvalidCommand
from django_taskq.flow_options import MOST_AT_ONCE, parse_rate
from django_taskq.management.storage import RUNTIME_EXIT, USAGE_EXIT
from django_taskq.management.text import one_line
from django_taskq.management.verbs import limits_shown
from django_taskq.management.verbs.base import Verb, add_json_option
from django_taskq.management.verbs.lookup import find_task, parse_id
from django_taskq.management.verbs.workers import issuer
from django_taskq.models import TaskLimits

ACTIONS = ("list", "show", "set", "clear", "release", "reset")
# Which actions each option goes with.
_OPTIONS = {
    "soft": ("set",),
    "hard": ("set",),
    "most": ("set",),
    "rate": ("set",),
    "burst": ("set",),
    "key": ("list",),
    "limit": ("list", "show"),
    "as_json": ("list", "show"),
}
SHOWN = 100


class Limits(Verb):
    """What is set is stored. Time limits hold for runs that start from then on, the others at once."""

    help = "Show what holds runs back, change and release it; show, set or clear time limits of tasks."

    def add_arguments(self, parser: CommandParser) -> None:
        actions = f"{', '.join(ACTIONS)} (default: list)."
        parser.add_argument("action", metavar="ACTION", nargs="?", default="list", choices=ACTIONS, help=actions)
        name = "With all but list: the name of a task, or the key of a limit as list shows it."
        parser.add_argument("name", metavar="NAME", nargs="?", help=name)
        parser.add_argument("run", metavar="RUN", nargs="?", help="With release: the run; it is not stopped.")
        parser.add_argument("--most", type=_whole, help="With set: so many at once; 0 lets nothing pass.")
        rate = 'With set: so many in a time, such as "100/m"; 0 lets nothing pass.'
        parser.add_argument("--rate", type=_rate, help=rate)
        parser.add_argument("--burst", type=_whole, help="With set: so many of a rate at once.")
        parser.add_argument("--soft", type=_seconds, help="With set: the soft time limit of a task, in seconds.")
        parser.add_argument("--hard", type=_seconds, help="With set: the hard time limit of a task, in seconds.")
        parser.add_argument("--key", help="With list: only those with this text in their keys.")
        shown = f"With list and show: at most so many limits, holders and waiters; {SHOWN} by default."
        parser.add_argument("--limit", type=_whole, help=shown)
        add_json_option(parser)

    def run(self, **options: Any) -> None:
        action, name = options["action"], options["name"]
        problem = _problem(action, options)
        if problem:
            raise CommandError(problem, returncode=USAGE_EXIT)
        most = SHOWN if options["limit"] is None else options["limit"]
        try:
            if action == "list":
                self._list(options["key"] or "", most, as_json=options["as_json"])
            elif action == "show":
                self._show(name, most, as_json=options["as_json"])
            elif action == "set" and options["soft"] is None and options["hard"] is None:
                values = {key: options[key] for key in ("most", "rate", "burst")}
                control.set_limit(_named(name), **values, by=issuer())
                self.write(f"limit {one_line(name)} set")
            elif action == "set" or (action == "clear" and not _is_key(name)):
                self._set_time_limits(action, name, options["soft"], options["hard"])
            elif action == "clear":
                control.clear_limit(name, by=issuer())
                self.write(f"limit {one_line(name)} is as in the code")
            elif action == "reset":
                self._reset(name)
            else:
                self._release(name, options["run"])
        except InvalidCommand as error:
            raise CommandError(one_line(str(error)), returncode=USAGE_EXIT) from error

    def _set_time_limits(self, action: str, name: str, soft: float | None, hard: float | None) -> None:
        is_left_over = action == "clear" and TaskLimits.objects.using(_database()).filter(task_name=name).exists()
        # Those of a task that is no more can be cleared all the same.
        task_name = name if is_left_over else find_task(name).name
        control.set_time_limits(task_name, soft=soft, hard=hard, timeout=0, by=issuer())
        if action == "clear" and keys_of(name):
            control.clear_limit(name, by=issuer())
        self.write(f"limits of {one_line(name)} {'set' if action == 'set' else 'cleared'}")

    def _reset(self, name: str) -> None:
        if control.reset_breaker(name, by=issuer()):
            self.write(f"the breaker {one_line(name)} is closed: runs may pass")
        else:
            self.say(f"the breaker {one_line(name)} was closed already, and had counted no failures")

    def _release(self, name: str, run: str) -> None:
        id = parse_id(run)
        if not control.release_permit(name, id, by=issuer()):
            raise CommandError(f"run {id} does not hold {one_line(name)}", returncode=RUNTIME_EXIT)
        self.write(f"run {id} holds {one_line(name)} no more; it was not stopped")

    def _show(self, name: str, most: int, *, as_json: bool) -> None:
        keys = keys_of(name) or [gate_of(name).key]
        found = [limit for key in keys if (limit := limits_shown.detailed(key, most)) is not None]
        if as_json:
            self.write_json({"counted_up_to": COUNTED, "limits": found})
            return
        for limit in found:
            for line in limits_shown.lines(limit):
                self.write(line)
        if not found:
            self.say(f"Nothing has come to {one_line(', '.join(keys))} yet.")

    def _list(self, text: str, most: int, *, as_json: bool) -> None:
        found, times = limits_shown.limits(text, most + 1), [] if text else _time_limits()
        if as_json:
            document = {"limits": times, "flow": found[:most], "counted_up_to": COUNTED}
            self.write_json(document)
            return
        if found:
            for index, line in enumerate(limits_shown.table(found[:most])):
                self.write(self.style.MIGRATE_HEADING(line) if index == 0 else line)
            if len(found) > most:
                self.say(f"There are more: see --limit and --key ({most} shown).")
            if times:
                self.write("")
        for each in times:
            self.write(_line(each))
        if not times and not found and not text:
            self.say("No time limits are set: those in the code hold.")
        if text and not found:
            self.say(f"No limit has {text!r} in its key.")


def _problem(action: str, options: dict[str, Any]) -> str:
    """What does not fit together, or ""."""
    name, given = options["name"], [key for key in _OPTIONS if options[key] is not None and options[key] is not False]
    if (action == "list") != (name is None):
        return "list takes no name" if action == "list" else f"{action} takes the name of a task, or the key of a limit"
    if (action == "release") != (options["run"] is not None):
        return "release takes the key of a limit, and the id of the run that holds it"
    for key in given:
        if action not in _OPTIONS[key]:
            option = "json" if key == "as_json" else key
            return f"argument --{option}: it goes with {' and '.join(_OPTIONS[key])}"
    times, flow = {"soft", "hard"} & set(given), {"most", "rate", "burst"} & set(given)
    if action == "set" and bool(times) == bool(flow):
        return "set takes --most or --rate for a limit, or --soft or --hard for time limits"
    return ""


def _is_key(name: str) -> bool:
    """Whether this is the key of a limit, and not the name of a task."""
    return ":" in name and registry.find(name) is None


def _named(name: str) -> str:
    """A key as it is; a task's name checked, for the nearest one to be suggested."""
    return name if _is_key(name) else find_task(name).name


def _time_limits() -> list[dict[str, Any]]:
    return [
        {
            "task": row.task_name,
            "soft_time_limit": row.soft_time_limit,
            "time_limit": row.time_limit,
            "set_by": row.set_by,
            "set_at": row.set_at,
        }
        for row in TaskLimits.objects.using(_database()).order_by("task_name")
    ]


def _line(each: dict[str, Any]) -> str:
    found = [
        f"{word} {each[key]:g} s"
        for word, key in (("soft", "soft_time_limit"), ("hard", "time_limit"))
        if each[key] is not None
    ]
    who = f", set by {each['set_by']}" if each["set_by"] else ""
    return one_line(f"{each['task']}  {', '.join(found)}{who} at {each['set_at']:%Y-%m-%d %H:%M:%S}")


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


def _whole(text: str) -> int:
    try:
        value = int(text)
    except ValueError:
        value = -1
    if not 0 <= value <= MOST_AT_ONCE:
        raise ArgumentTypeError(f"{text!r} is not usable: it takes a whole number from 0 to {MOST_AT_ONCE:,}")
    return value


def _rate(text: str) -> float | str:
    value: float | str = text
    with suppress(ValueError):
        value = float(text)
    try:
        return value if value == 0 else parse_rate(value).per_second
    except ValueError as error:
        raise ArgumentTypeError(f"{text!r} is not usable: it takes {error}") from None
