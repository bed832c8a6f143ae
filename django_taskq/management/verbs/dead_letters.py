"""``taskq dead-letters``: messages that brokers refused for good; have them tried again, or throw them away."""

from __future__ import annotations

from argparse import ArgumentTypeError
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime
from functools import partial
from typing import Any

from django.core.management.base import CommandError, CommandParser

from django_taskq import brokers, conf
from django_taskq.brokers.depot import DeadLetter, Depot
from django_taskq.management.asking import Inquiry
from django_taskq.management.storage import RUNTIME_EXIT, USAGE_EXIT
from django_taskq.management.text import one_line, shortened
from django_taskq.management.verbs.base import Verb, add_json_option

ACTIONS = {"list": "", "replay": "put back into their queues", "discard": "thrown away"}
SHOWN, LARGEST, AT_ONCE = 50, 10_000, 1000
TEXT_WIDTH = 300


class DeadLetters(Verb):
    """By broker. What cannot be reached is said at the end, with the exit code 1."""

    help = "Show messages that brokers refused for good, put them back into their queues, or throw them away."

    def add_arguments(self, parser: CommandParser) -> None:
        actions = f"{', '.join(ACTIONS)} (default: list)."
        parser.add_argument("action", metavar="ACTION", nargs="?", default="list", choices=[*ACTIONS], help=actions)
        parser.add_argument("ids", metavar="ID", nargs="*", help="With replay and discard: ids of dead letters.")
        parser.add_argument("--all", action="store_true", help="With replay and discard: all there are.")
        parser.add_argument("--broker", metavar="ALIAS", help="Only those of this broker.")
        limit = f"With list: so many, the newest. Default: {SHOWN}."
        parser.add_argument("--limit", type=_limit, metavar="N", help=limit)
        parser.add_argument("--yes", action="store_true", help="With discard: do it. Nothing can bring them back.")
        add_json_option(parser)

    def run(self, **options: Any) -> None:
        action = options["action"]
        _check_use(action, options)
        depots, inquiry = _depots(options["broker"]), Inquiry()
        if action == "list":
            self._list(depots, inquiry, options["limit"] or SHOWN, options["as_json"])
        elif options["all"]:
            self._act_on_all(action, depots, inquiry)
        else:
            self._act_on(action, depots, inquiry, list(dict.fromkeys(options["ids"])))
        inquiry.fail()

    def _list(self, depots: Mapping[str, Depot], inquiry: Inquiry, limit: int, as_json: bool) -> None:
        found = [
            describe(alias, letter)
            for alias, depot in depots.items()
            for letter in inquiry.ask(alias, partial(depot.dead_letters, limit)) or []
        ]
        # Newest first over all brokers; those without a time last.
        found.sort(key=lambda row: row["refused_at"] or datetime.min.replace(tzinfo=UTC), reverse=True)
        found = found[:limit]
        if as_json:
            self.write_json({"dead_letters": found, "errors": inquiry.errors})
            return
        for row in found:
            age = "" if row["age_seconds"] is None else f"  {row['age_seconds']:,.0f} s ago"
            heading = one_line(f"{row['broker']}  {row['queue_name']}  {row['id']}")
            self.write(self.style.MIGRATE_HEADING(f"{heading}{age}"))
            self.write(f"  {one_line(row['reason'])}")
            self.write(f"  {shortened(one_line(row['text']), TEXT_WIDTH)}")
        if not depots:
            self.say("Every queue is in the database, which has no dead letters.")
        elif not found and not inquiry.errors:
            self.say("There are no dead letters.")

    def _act_on(self, action: str, depots: Mapping[str, Depot], inquiry: Inquiry, ids: Sequence[str]) -> None:
        count = 0
        for alias, depot in depots.items():
            count += inquiry.ask(alias, partial(_verb(depot, action), ids)) or 0
        self.write(f"{count} dead letter(s) {ACTIONS[action]}")
        if count < len(ids) and not inquiry.errors:
            why = "no broker has such an id" + (", or it still cannot be read" if action == "replay" else "")
            raise CommandError(f"{len(ids) - count} dead letter(s) not changed: {why}", returncode=RUNTIME_EXIT)

    def _act_on_all(self, action: str, depots: Mapping[str, Depot], inquiry: Inquiry) -> None:
        kept = 0
        for alias, depot in depots.items():
            done = inquiry.ask(alias, partial(_on_all, depot, action))
            if done is not None:
                self.write(f"{done[0]:,} dead letter(s) of broker {one_line(alias)} {ACTIONS[action]}")
                kept += done[1]
        if kept and not inquiry.errors:
            raise CommandError(
                f"{kept:,} dead letter(s) not changed: they still cannot be read", returncode=RUNTIME_EXIT
            )


def describe(alias: str, letter: DeadLetter) -> dict[str, Any]:
    """A dead letter as a document. Its text is as bounded as the broker made it."""
    age = None if letter.refused_at is None else (datetime.now(UTC) - letter.refused_at).total_seconds()
    return {
        "broker": alias,
        "queue_name": letter.queue_name,
        "id": letter.id,
        "reason": letter.reason,
        "refused_at": letter.refused_at,
        "age_seconds": None if age is None else max(0.0, age),
        "text": letter.text,
    }


def _verb(depot: Depot, action: str) -> Callable[[Sequence[str]], int]:
    return depot.replay if action == "replay" else depot.discard


def _on_all(depot: Depot, action: str) -> tuple[int, int]:
    """How many it was done to, and how many of those that were tried stay.

    Each is tried once, also when workers refuse it again meanwhile.
    """
    count, tried = 0, set[str]()
    while True:
        ids = [id for id in dict.fromkeys(letter.id for letter in depot.dead_letters(LARGEST)) if id not in tried]
        if not ids:
            return count, max(0, len(tried) - count)
        for start in range(0, len(ids), AT_ONCE):
            count += _verb(depot, action)(ids[start : start + AT_ONCE])
        tried.update(ids)


def _depots(alias: str | None) -> Mapping[str, Depot]:
    depots = brokers.get_depots()
    if alias is None:
        return depots
    if alias not in depots:
        known = conf.get_settings().broker_aliases()
        text = f"no broker has the alias {alias!r}.{conf.suggest(alias, depots)}"
        if alias in known:
            text = f"broker {alias!r} is the database, which has no dead letters"
        raise CommandError(f"argument --broker: {text}", returncode=USAGE_EXIT)
    return {alias: depots[alias]}


def _check_use(action: str, options: dict[str, Any]) -> None:
    problem = ""
    if action == "list":
        wrong = next((name for name in ("ids", "all", "yes") if options[name]), "")
        problem = {"": "", "ids": "ids go with replay and discard"}.get(wrong, f"argument --{wrong}: not with list")
    elif bool(options["ids"]) == options["all"]:
        problem = "give either ids or --all"
    elif options["as_json"] or options["limit"]:
        problem = f"argument --{'json' if options['as_json'] else 'limit'}: it goes with list"
    elif options["yes"] and action == "replay":
        problem = "argument --yes: it goes with discard"
    elif action == "discard" and not options["yes"]:
        problem = "nothing was thrown away: add --yes to do it"
    if problem:
        raise CommandError(problem, returncode=USAGE_EXIT)


def _limit(text: str) -> int:
    if not (text.isascii() and text.isdecimal() and 0 < int(text) <= LARGEST):
        raise ArgumentTypeError(f"{text!r} is not usable: it takes a whole number from 1 to {LARGEST:,}")
    return int(text)
