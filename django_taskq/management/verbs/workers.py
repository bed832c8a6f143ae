"""``taskq workers``: who works, what they do, and orders to them."""

from __future__ import annotations

import getpass
import re
import socket
from argparse import ArgumentTypeError
from collections.abc import Callable, Sequence
from typing import Any

from django.core.management.base import CommandError, CommandParser

from django_taskq import control
from django_taskq.control import catalogue
from django_taskq.control.issuing import TIMEOUT, Replies
from django_taskq.exceptions import InvalidCommand, UnknownQueue
from django_taskq.management.storage import RUNTIME_EXIT, USAGE_EXIT
from django_taskq.management.text import one_line, several_lines
from django_taskq.management.verbs.base import Verb, add_json_option
from django_taskq.management.verbs.status import workers

MOST_TIMEOUT = 600.0

# What stands behind the action, as the command takes it; and the functions of control.
VALUES: dict[str, str] = {
    "processes": "N",
    "threads": "N",
    "autoscale": "MIN,MAX",
    "consume": "QUEUE",
    "unconsume": "QUEUE",
}
ORDERS: dict[str, Callable[..., Replies]] = {
    "ping": control.ping,
    "inspect": control.inspect,
    "quiet": control.quiet,
    "work": control.work,
    "restart": control.restart,
    "stop": control.shutdown,
    "stacks": control.dump_stacks,
    "processes": control.set_processes,
    "threads": control.set_threads,
    "autoscale": control.set_autoscale,
    "consume": control.add_consumer,
    "unconsume": control.cancel_consumer,
}
ACTIONS = ("list", *ORDERS)


class Workers(Verb):
    """An order is a row, so it reaches workers on every broker. Exits with 1 unless every worker has obeyed."""

    help = "Show the workers that are online, ask them what they do, or give them orders."

    def add_arguments(self, parser: CommandParser) -> None:
        actions = f"{', '.join(ACTIONS)} (default: list)."
        parser.add_argument("action", metavar="ACTION", nargs="?", default="list", choices=ACTIONS, help=actions)
        taken = ", ".join(f"{action} {value}" for action, value in VALUES.items())
        what = f"{taken}; and inspect with some of {', '.join(catalogue.INSPECTED)}."
        parser.add_argument("values", metavar="VALUE", nargs="*", help=what)
        parser.add_argument(
            "--worker",
            metavar="NAME",
            action="append",
            dest="workers",
            help="Only this one, as list names it; may be given more than once. Default: all.",
        )
        how_long = f"Seconds to wait for answers. Default: {TIMEOUT:g}."
        parser.add_argument("--timeout", type=_seconds, default=TIMEOUT, help=how_long)
        add_json_option(parser)

    def run(self, **options: Any) -> None:
        action = options["action"]
        if action == "list":
            self._list(options)
            return
        values = _values(action, options["values"])
        try:
            how = {"workers": options["workers"], "timeout": options["timeout"], "by": issuer()}
            replies = ORDERS[action](*values, **how)
        except (InvalidCommand, UnknownQueue) as error:
            raise CommandError(one_line(str(error)), returncode=USAGE_EXIT) from error
        if not replies:
            raise CommandError("no worker is online. Start one: python manage.py taskworker", returncode=RUNTIME_EXIT)
        if options["as_json"]:
            self.write_json({name: _document(reply) for name, reply in replies.items()})
        else:
            self._write(replies)
        silent = sum(not reply.is_ok for reply in replies.values())
        if silent:
            raise CommandError(f"{silent} of {len(replies)} worker(s) did not obey", returncode=RUNTIME_EXIT)

    def _list(self, options: dict[str, Any]) -> None:
        if options["values"] or options["workers"]:
            raise CommandError("list takes neither values nor --worker", returncode=USAGE_EXIT)
        found = workers()
        if options["as_json"]:
            self.write_json({"workers": found})
            return
        for worker in found:
            size = f"{worker['processes']} x {worker['threads']}"
            heartbeat = f"heartbeat {worker['heartbeat_seconds']:.1f} s ago"
            self.write(f"{one_line(worker['name'])}  {size}  {one_line(worker['queues'])}  {heartbeat}")
        if not found:
            self.say("No worker is online. Start one: python manage.py taskworker")

    def _write(self, replies: Replies) -> None:
        for name, reply in replies.items():
            text = "ok" if reply.is_ok else f"not obeyed: {one_line(reply.error)}"
            self.write(f"{self.style.MIGRATE_HEADING(one_line(name))}  {text}")
            if isinstance(reply.value, dict):
                for key, value in reply.value.items():
                    self._section(key, value)
            elif reply.value is not None:
                self.write(several_lines(str(reply.value)))

    def _section(self, key: str, value: Any) -> None:
        if isinstance(value, list) and value and isinstance(value[0], dict):
            self.write(f"  {key}:")
            for row in value:
                self.write("    " + "  ".join(one_line(f"{name}={item}") for name, item in row.items()))
        elif isinstance(value, dict):
            self.write(f"  {key}:")
            for name, item in value.items():
                self.write(one_line(f"    {name}: {item}"))
        elif isinstance(value, list):
            self.write(one_line(f"  {key}: {', '.join(map(str, value)) or '(none)'}"))
        else:
            self.write(one_line(f"  {key}: {value}"))


def issuer() -> str:
    """Who runs this command, for the record."""
    try:
        return f"{getpass.getuser()}@{socket.gethostname()}"
    except (KeyError, OSError):  # a container's user may have no name
        return f"@{socket.gethostname()}"


def _values(action: str, given: Sequence[str]) -> list[Any]:
    """What was given as the function takes it."""
    if action == "inspect":
        return list(given)
    wanted = VALUES.get(action)
    if len(given) != (wanted is not None):
        text = f"{action} takes {wanted}" if wanted else f"{action} takes no value"
        raise CommandError(text, returncode=USAGE_EXIT)
    if wanted is None or wanted == "QUEUE":
        return list(given)
    numbers = given[0].split(",")
    if len(numbers) != wanted.count(",") + 1 or not all(re.fullmatch(r"[0-9]{1,9}", number) for number in numbers):
        raise CommandError(f"{action} takes {wanted}, and {one_line(given[0])!r} is not that", returncode=USAGE_EXIT)
    return [int(number) for number in numbers]


def _document(reply: control.Reply) -> dict[str, Any]:
    return {"id": reply.worker_id, "is_ok": reply.is_ok, "reply": reply.value, "error": reply.error or None}


def _seconds(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = -1.0
    if not 0 < value <= MOST_TIMEOUT:
        raise ArgumentTypeError(f"{text!r} is not usable: it takes seconds above 0, at most {MOST_TIMEOUT:g}")
    return value
