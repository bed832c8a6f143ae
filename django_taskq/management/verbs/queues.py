"""``taskq queues``: what waits where, at the brokers and in the rows; how to pause a queue, and how to empty one."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Any

from django.core.management.base import CommandError, CommandParser
from django.db.models import Q

from django_taskq import brokers, client, conf, control
from django_taskq.brokers.depot import Depot
from django_taskq.exceptions import DepotError, UnknownQueue
from django_taskq.gates import AT_GATE
from django_taskq.maintenance import records
from django_taskq.management import asking
from django_taskq.management.asking import Inquiry
from django_taskq.management.storage import RUNTIME_EXIT, USAGE_EXIT
from django_taskq.management.text import mask, one_line
from django_taskq.management.verbs.base import Verb, add_json_option
from django_taskq.management.verbs.status import COUNTED, bounded, names_with_work, number
from django_taskq.management.verbs.workers import issuer
from django_taskq.message import EXCHANGE
from django_taskq.models import Queue
from django_taskq.status import Status

ACTIONS = ("list", "pause", "resume", "purge")
# Dead letters have no counter; each that is counted is read.
COUNTED_LETTERS = 100


class Queues(Verb):
    """A depot that is down is one line of the list, and the exit code 1."""

    help = "Show, pause, resume or purge queues; with their brokers and what waits there. Exits with 1 if one is down."

    def add_arguments(self, parser: CommandParser) -> None:
        actions = f"{', '.join(ACTIONS)} (default: list)."
        parser.add_argument("action", metavar="ACTION", nargs="?", default="list", choices=ACTIONS, help=actions)
        parser.add_argument("names", metavar="NAME", nargs="*", help="With all but list: names of queues.")
        parser.add_argument("--reason", help="With pause: why, for others to read.")
        parser.add_argument("--yes", action="store_true", help="With purge: do it. Otherwise it is only counted.")
        add_json_option(parser)

    def run(self, **options: Any) -> None:
        action, names = options["action"], list(dict.fromkeys(options["names"]))
        problem = ""
        if (action == "list") == bool(names):
            problem = f"{action} takes the names of queues" if action != "list" else "list takes no names of queues"
        elif options["as_json"] and action != "list":
            problem = "argument --json: it goes with list"
        elif options["yes"] and action != "purge":
            problem = "argument --yes: it goes with purge"
        elif options["reason"] is not None and action != "pause":
            problem = "argument --reason: it goes with pause"
        if problem:
            raise CommandError(problem, returncode=USAGE_EXIT)
        if action == "list":
            self._list(options["as_json"])
        elif action == "purge":
            self._purge(names, is_sure=options["yes"])
        else:
            self._pause_or_resume(action, names, options["reason"] or "")

    def _pause_or_resume(self, action: str, names: Sequence[str], reason: str) -> None:
        for name in names:
            try:
                if action == "pause":
                    control.pause_queue(name, reason=reason, by=issuer(), timeout=0)
                else:
                    control.resume_queue(name, by=issuer(), timeout=0)
            except UnknownQueue as error:
                raise CommandError(one_line(str(error)), returncode=USAGE_EXIT) from error
            self.write(f"queue {one_line(name)} {action}d")

    def _list(self, as_json: bool) -> None:
        inquiry = Inquiry()
        document = {"counted_up_to": COUNTED, "queues": queues(inquiry), "brokers": keepers(inquiry)}
        if as_json:
            self.write_json(document)
        else:
            self._table(("QUEUE", "BROKER", "AVAILABLE", "OLDEST", "READY", "OUTBOX", ""), document["queues"], _queue)
            self.write("")
            self._table(("BROKER", "URL", "DEAD LETTERS"), document["brokers"], _keeper)
        inquiry.fail()

    def _table(self, heading: tuple[str, ...], rows: Any, columns: Any) -> None:
        table = [heading, *(columns(row) for row in rows)]
        widths = [max(map(len, column)) for column in zip(*table, strict=True)][:-1]
        for index, line in enumerate(table):
            # The last column is free: it says what is wrong, however long that is.
            cells = [*(text.ljust(width) for text, width in zip(line, widths, strict=False)), line[-1]]
            text = "  ".join(cells).rstrip()
            self.write(self.style.MIGRATE_HEADING(text) if index == 0 else text)

    def _purge(self, names: Sequence[str], *, is_sure: bool) -> None:
        known = client.known_queues() | set(names_with_work())
        for name in names:
            waits = name in known or records().filter(queue_name=name, status=Status.SCHEDULED).exists()
            if not waits:
                hint = conf.suggest(name, known)
                raise CommandError(f"no queue is named {one_line(name)!r}.{hint}", returncode=USAGE_EXIT)
        for name in names:
            try:
                self._purge_one(name, is_sure=is_sure)
            except DepotError as error:
                raise CommandError(
                    f"queue {name!r} could not be purged: broker {brokers.alias_of(name)!r} is unreachable: "
                    f"{asking.shown(error)}",
                    returncode=RUNTIME_EXIT,
                ) from error
        if not is_sure:
            raise CommandError("nothing was thrown away: add --yes to do it", returncode=USAGE_EXIT)

    def _purge_one(self, name: str, *, is_sure: bool) -> None:
        if is_sure:
            count = brokers.get_broker().purge(name)
            self.write(f"{count:,} run(s) of queue {one_line(name)} thrown away")
            return
        depot = brokers.get_depots().get(brokers.alias_of(name))
        messages = depot.size(name) if depot else 0
        # A run with a row has a message as well, so these are no sum.
        waits = Q(status__in=(Status.READY, Status.SCHEDULED)) | Q(status=Status.WAITING, waits_at=AT_GATE)
        waiting = bounded(records().filter(waits, queue_name=name))
        self.write(f"{number(max(messages, waiting))} run(s) of queue {one_line(name)} would be thrown away")


def queues(inquiry: Inquiry) -> list[dict[str, Any]]:
    """Every queue that is known or has something waiting, by name; exchanges that wait to be sent to among them."""
    known, paused = client.known_queues(), pauses()
    return [
        _described(name, inquiry) | {"is_known": name in known, "paused": paused.get(name)}
        for name in sorted(known | set(names_with_work()) | set(paused))
    ]


def pauses() -> dict[str, dict[str, Any]]:
    """Since when, by whom and why queues are paused, by their names."""
    rows = Queue.objects.using(conf.get_settings().database).paused()
    return {row.name: {"since": row.paused_at, "by": row.paused_by, "reason": row.reason} for row in rows}


def _described(name: str, inquiry: Inquiry) -> dict[str, Any]:
    alias, ready = brokers.alias_of(name), records().filter(status=Status.READY, queue_name=name)
    rows = bounded(ready)
    available: int | None = rows
    depot = brokers.get_depots().get(alias)
    if name.startswith(EXCHANGE):
        available = 0  # nothing is taken from an exchange
    elif depot is not None:
        available = inquiry.ask(alias, partial(depot.size, name))
    return {
        "name": name,
        "broker": alias,
        "available": available,
        "oldest_seconds": oldest_age(name, depot, inquiry),
        "ready": rows,
        "outbox": bounded(ready.filter(publish_after__isnull=False)),
        **_bound(name),
        "error": inquiry.errors.get(alias),
    }


def _bound(name: str) -> dict[str, Any]:
    queue = conf.get_settings().queues.get(name)
    if queue is None or queue.max_length is None:
        return {"max_length": None, "when_full": None}
    return {"max_length": queue.max_length, "when_full": queue.when_full.value}


def oldest_age(name: str, depot: Depot | None, inquiry: Inquiry) -> float | None:
    """By the depot where it knows, by the rows otherwise."""
    age = inquiry.ask(depot.config.alias, partial(depot.oldest_age, name)) if depot else None
    return brokers.get_rows().oldest_age(name) if age is None else age


def keepers(inquiry: Inquiry) -> list[dict[str, Any]]:
    """Every broker, the default one first. The database has no dead letters: what cannot be read is a FAILED run."""
    settings, depots = conf.get_settings(), brokers.get_depots()
    found = []
    for alias in settings.broker_aliases():
        depot = depots.get(alias)
        letters: int | None = 0
        if depot is not None:
            listed = inquiry.ask(alias, partial(depot.dead_letters, COUNTED_LETTERS + 1))
            letters = None if listed is None else len(listed)
        url = mask(settings.broker(alias).url)
        found.append({"alias": alias, "url": url, "dead_letters": letters, "error": inquiry.errors.get(alias)})
    return found


def _queue(row: dict[str, Any]) -> tuple[str, ...]:
    note = "" if row["is_known"] else "(no worker serves it by default)"
    if row["paused"] is not None:
        by, reason = one_line(row["paused"]["by"]), one_line(row["paused"]["reason"])
        note = f"PAUSED{f' by {by}' if by else ''}{f': {reason}' if reason else ''}"
    if row["max_length"] is not None:
        note = f"{note}{'; ' if note else ''}at most {row['max_length']:,} ({row['when_full']})"
    if row["error"] is not None:
        note = f"unreachable: {row['error']}"
    available = "?" if row["available"] is None else number(row["available"])
    age = "" if row["oldest_seconds"] is None else f"{row['oldest_seconds']:,.1f} s"
    counts = (available, age, number(row["ready"]), number(row["outbox"]))
    return (one_line(row["name"]), one_line(row["broker"]), *counts, note)


def _keeper(row: dict[str, Any]) -> tuple[str, ...]:
    count = row["dead_letters"]
    letters = f"unreachable: {row['error']}" if count is None else f"{count:,}"
    if count is not None and count > COUNTED_LETTERS:
        letters = f"{COUNTED_LETTERS}+"
    return (one_line(row["alias"]), one_line(row["url"]), letters)
