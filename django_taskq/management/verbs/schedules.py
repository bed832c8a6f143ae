"""``taskq schedules``: what runs periodically, when it runs next, and what may be done to it."""

from __future__ import annotations

from argparse import ArgumentTypeError
from collections.abc import Iterator, Sequence
from datetime import datetime, timedelta
from itertools import islice
from typing import Any

from django.core.management.base import CommandError, CommandParser

from django_taskq import clock, conf, scheduler
from django_taskq.exceptions import EnqueueError, InvalidSchedule
from django_taskq.management.storage import RUNTIME_EXIT, USAGE_EXIT
from django_taskq.management.text import one_line
from django_taskq.management.verbs.base import Verb, add_json_option
from django_taskq.management.verbs.schedule_documents import (
    columns,
    coming_runs,
    describe,
    in_zone,
    local,
    schedule_of,
    summary,
)
from django_taskq.models import PeriodicTask
from django_taskq.schedules import Schedule

# What they take: no names, exactly one, at least one.
ACTIONS = {
    "list": "none",
    "next": "none",
    "show": "one",
    "run": "one",
    "enable": "some",
    "disable": "some",
    "skip": "one",
}
READING = ("list", "next", "show")
COUNT = 20


class Schedules(Verb):
    """Times are in the zone of each schedule as text, in UTC as JSON."""

    help = "Show periodic tasks and their next runs; run, enable, disable or skip them."

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument(
            "action",
            metavar="ACTION",
            nargs="?",
            default="list",
            type=_action,
            help=f"{', '.join(ACTIONS)} (default: list).",
        )
        parser.add_argument("names", metavar="NAME", nargs="*", help="Names of periodic tasks.")
        parser.add_argument("--count", type=_count, metavar="N", help=f"With next: so many runs. Default: {COUNT}.")
        parser.add_argument("--hours", type=_hours, metavar="H", help="With next: all runs of the next H hours.")
        add_json_option(parser)

    def run(self, **options: Any) -> None:
        action, names = options["action"], options["names"]
        _check_use(action, options)
        if action == "list":
            self._list(options["as_json"])
        elif action == "next":
            self._next(options["count"], options["hours"], options["as_json"])
        elif action == "show":
            self._show(find_rows(names)[0], options["as_json"])
        elif action in ("enable", "disable"):
            self._switch(find_rows(names), is_enabled=action == "enable")
        elif action == "run":
            self._run_now(find_rows(names)[0])
        else:
            self._skip(find_rows(names)[0])

    # Reading.

    def _list(self, as_json: bool) -> None:
        rows = list(scheduler.periodic_tasks().order_by("name"))
        holder = scheduler.lease().holder()
        if as_json:
            self.write_json({"scheduler": holder, "schedules": [summary(row) for row in rows]})
        else:
            heading = ("NAME", "TASK", "SCHEDULE", "ZONE", "NEXT RUN", "LAST RUN", "")
            table = [heading, *(columns(row) for row in rows)]
            widths = [max(map(len, column)) for column in zip(*table, strict=True)]
            for index, line in enumerate(table):
                text = "  ".join(text.ljust(width) for text, width in zip(line, widths, strict=True)).rstrip()
                self.write(self.style.MIGRATE_HEADING(text) if index == 0 else text)
            self.write(f"scheduler: {one_line(holder) if holder else 'none'}")
        self._hint(holder)

    def _next(self, count: int | None, hours: float | None, as_json: bool) -> None:
        until = None if hours is None else clock.now() + timedelta(hours=hours)
        runs = coming_runs(self._readable(scheduler.periodic_tasks().active().order_by("name")), until)
        if count is not None or until is None:
            runs = islice(runs, count or COUNT)
        if as_json:
            keys = ("due_at", "name", "task")
            self.write_json([dict(zip(keys, (due, row.name, row.task_name), strict=True)) for due, row, _ in runs])
        else:
            for due, row, schedule in runs:
                self.write(one_line(f"{in_zone(due, schedule)}  {row.name}  {row.task_name}"))
        self._hint(scheduler.lease().holder())

    def _readable(self, rows: Any) -> Iterator[tuple[PeriodicTask, Schedule]]:
        for row in rows:
            try:
                yield row, row.get_schedule()
            except InvalidSchedule as error:
                self.say(one_line(f"{row.name} is left out, as its schedule cannot be read: {error}"))

    def _show(self, row: PeriodicTask, as_json: bool) -> None:
        document = describe(row)
        if as_json:
            self.write_json(document)
            return
        runs, ticks = document.pop("next_runs"), document.pop("due_times")
        for key, value in document.items():
            if value not in (None, "", False) or key in ("is_enabled", "args", "kwargs"):
                shown = (
                    local(value) if isinstance(value, datetime) else repr(value) if key in ("args", "kwargs") else value
                )
                self.write(f"{key:<16}{one_line(str(shown))}")
        schedule = schedule_of(row)
        self.write("\n" + self.style.MIGRATE_HEADING("Next runs"))
        for due in runs:
            self.write(f"  {in_zone(due, schedule)}   {due:%Y-%m-%d %H:%M:%S} UTC")
        if not runs:
            self.write("  none")
        self.write("\n" + self.style.MIGRATE_HEADING("Recent due times"))
        for tick in ticks:
            more = f", {tick['count']} since {in_zone(tick['first_due_at'], schedule)}" if tick["first_due_at"] else ""
            run = f"  run {tick['run_id']}" if tick["run_id"] else ""
            reason = f"  {tick['reason']}" if tick["reason"] else ""
            self.write(one_line(f"  {in_zone(tick['due_at'], schedule)}  {tick['decision_text']}{more}{run}{reason}"))
        if not ticks:
            self.write("  none")
        self._hint(scheduler.lease().holder())

    def _hint(self, holder: str | None) -> None:
        if holder is None:
            self.say("Nobody runs the schedules. Start one of: python manage.py taskworker, python manage.py taskbeat")

    # Acting.

    def _run_now(self, row: PeriodicTask) -> None:
        try:
            self.write(scheduler.run_now(row))
        except EnqueueError as error:
            raise CommandError(one_line(f"{row.name}: {error}"), returncode=USAGE_EXIT) from error

    def _switch(self, rows: Sequence[PeriodicTask], *, is_enabled: bool) -> None:
        word = "enabled" if is_enabled else "disabled"
        refused = 0
        for row in rows:
            try:
                changed = scheduler.set_enabled(scheduler.periodic_tasks().filter(pk=row.pk), is_enabled)
            except InvalidSchedule as error:
                refused += 1
                self.say(one_line(f"{row.name} cannot be {word}: {error}"))
                continue
            if changed:
                self.write(one_line(f"{row.name} {word}"))
            else:
                self.say(one_line(f"{row.name} is {word} already"))
            if row.is_retired and is_enabled:
                self.say(one_line(f"{row.name} is declared no more, so it does not run"))
        if refused:
            raise CommandError(f"{refused} schedule(s) not changed", returncode=RUNTIME_EXIT)

    def _skip(self, row: PeriodicTask) -> None:
        try:
            due = scheduler.skip_next(row)
        except InvalidSchedule as error:
            raise CommandError(one_line(f"{row.name}: {error}"), returncode=RUNTIME_EXIT) from error
        if due is None:
            why = (
                "it is disabled" if not row.is_enabled else "it is declared no more" if row.is_retired else "it is over"
            )
            raise CommandError(one_line(f"{row.name} has no next run to skip: {why}"), returncode=RUNTIME_EXIT)
        self.write(one_line(f"{row.name}: {in_zone(due, schedule_of(row))} skipped"))


def find_rows(names: Sequence[str]) -> list[PeriodicTask]:
    """The periodic tasks of these names, before anything is done to any. Raises ``CommandError``."""
    found = {row.name: row for row in scheduler.periodic_tasks().filter(name__in=names)}
    for name in names:
        if name not in found:
            known = scheduler.periodic_tasks().values_list("name", flat=True)
            raise CommandError(f"no schedule is named {name!r}.{conf.suggest(name, known)}", returncode=USAGE_EXIT)
    return [found[name] for name in dict.fromkeys(names)]


def _check_use(action: str, options: dict[str, Any]) -> None:
    takes, names = ACTIONS[action], options["names"]
    error = ""
    if takes == "none" and names:
        error = f"{action} takes no NAME, and got {names[0]!r}; {', '.join(_taking_names())} do"
    elif takes != "none" and not names:
        error = f"{action} takes the NAME of a schedule: python manage.py taskq schedules {action} NAME"
    elif takes == "one" and len(names) > 1:
        error = f"{action} takes one NAME, and got {len(names)}; quote a name that has blanks"
    elif action != "next" and (options["count"] is not None or options["hours"] is not None):
        error = f"argument --{'count' if options['count'] is not None else 'hours'}: it goes with next"
    elif action not in READING and options["as_json"]:
        error = f"argument --json: it goes with {', '.join(READING)}"
    if error:
        raise CommandError(error, returncode=USAGE_EXIT)


def _taking_names() -> list[str]:
    return [action for action, takes in ACTIONS.items() if takes != "none"]


def _action(text: str) -> str:
    if text not in ACTIONS:
        raise ArgumentTypeError(f"{text!r} is none of {', '.join(ACTIONS)}.{conf.suggest(text, ACTIONS)}")
    return text


def _count(text: str) -> int:
    if not text.isdecimal() or int(text) < 1:
        raise ArgumentTypeError(f"{text!r} is not usable: it takes a whole number of at least 1")
    return int(text)


def _hours(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = 0.0
    # More than ten years is beyond what a schedule can be sure of, and beyond what dates can hold.
    if not 0 < value <= conf.MOST_SECONDS / 3600:
        raise ArgumentTypeError(f"{text!r} is not usable: it takes a number of hours above 0, of at most ten years")
    return value
