"""``manage.py taskq bench``: measure this installation, beside what its database and brokers could do."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
from argparse import ArgumentTypeError
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import Any

from django.core.management.base import CommandError, CommandParser

from django_taskq.bench import report
from django_taskq.bench.depots.targets import Target, kept_apart, targets
from django_taskq.bench.plan import PARTS, Plan
from django_taskq.bench.scratch import Scratch, scratch_database
from django_taskq.conf_brokers import DATABASE, parse_url
from django_taskq.management.verbs.base import Verb, add_json_option

INTERRUPTED_EXIT = 130


class Bench(Verb):
    """Starts the measuring processes on a scratch database, and removes both: one for it, one for each broker."""

    help = "Measure speed, latency and cost on the configured database and brokers, in a scratch database of its own."

    def add_arguments(self, parser: CommandParser) -> None:
        default = Plan()
        for name, help in (
            ("runs", "no-op tasks for each measurement"),
            ("repeat", "how often each is repeated; the median counts"),
            ("processes", "worker processes"),
            ("threads", "threads for each"),
        ):
            text = f"{help} (default: {getattr(default, name)})"
            parser.add_argument(f"--{name}", type=_positive, default=getattr(default, name), metavar="N", help=text)
        parser.add_argument(
            "--broker",
            type=_broker_url,
            action="append",
            default=[],
            metavar="URL",
            help="also measure this broker; may be given several times (default: those the project keeps queues on)",
        )
        parser.add_argument(
            "--only", type=_parts, default=PARTS, metavar="PART,...", help=f"which parts, of {', '.join(PARTS)}"
        )
        parser.add_argument("--history", type=_count, default=0, metavar="N", help="drain again beside N finished rows")
        parser.add_argument(
            "--waiting", type=_count, default=0, metavar="N", help="and N rows that wait, scheduled or in another queue"
        )
        parser.add_argument(
            "--idle-seconds", type=float, default=default.idle_seconds, metavar="S", help="how long idling is watched"
        )
        add_json_option(parser)

    def run(self, **options: Any) -> None:
        names = ("runs", "repeat", "processes", "threads", "only", "history", "waiting", "idle_seconds")
        plan = Plan(**{name: options[name] for name in names}, is_quiet=options["as_json"] or not self.verbosity)
        try:
            brokers = targets(options["broker"])
            with _stopping_in_order(), kept_apart(brokers), scratch_database() as scratch:
                found = _measure(plan, scratch)
                if brokers:
                    found["brokers"] = [_measure(plan, scratch, target) for target in brokers]
        except KeyboardInterrupt:
            raise CommandError("interrupted; the scratch database is gone", returncode=INTERRUPTED_EXIT) from None
        if options["as_json"]:
            self.write_json(found)
        else:
            self.write(report.as_text(found))


def _measure(plan: Plan, scratch: Scratch, target: Target | None = None) -> dict[str, Any]:
    if target is not None and not plan.is_quiet:
        print(f"on {target.name}:", file=sys.stderr)
    result = scratch.directory / "report.json"
    process = subprocess.Popen(
        [sys.executable, "-m", "django_taskq.bench", json.dumps(plan.to_json()), str(result)],
        env=scratch.environment(target),
        stdin=subprocess.DEVNULL,
        stdout=sys.stderr,
        # A group of its own: Ctrl-C comes here alone, and what it started can be ended as a whole.
        start_new_session=True,
    )
    try:
        code = process.wait()
    finally:
        _end_group(process)
    if code != 0:
        raise CommandError(f"the measuring process ended with {code}; what it said stands above")
    found: dict[str, Any] = json.loads(Path(result).read_text())
    return found


def _end_group(process: subprocess.Popen[bytes]) -> None:
    try:
        os.killpg(process.pid, signal.SIGKILL)
    except ProcessLookupError:
        pass  # nothing of it lives
    process.wait()


@contextmanager
def _stopping_in_order() -> Iterator[None]:
    """SIGTERM and SIGHUP as Ctrl-C: once, and not again while the scratch database is being removed."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    numbers = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)

    def interrupt(number: int, frame: FrameType | None) -> None:
        for other in numbers:
            signal.signal(other, signal.SIG_IGN)
        raise KeyboardInterrupt

    before = [signal.signal(number, interrupt) for number in numbers]
    try:
        yield
    finally:
        for number, handler in zip(numbers, before, strict=True):
            signal.signal(number, handler)


def _broker_url(text: str) -> str:
    try:
        url = parse_url(text)
    except ValueError as error:
        raise ArgumentTypeError(f"it takes {error}") from None
    if url.startswith(f"{DATABASE}://"):
        raise ArgumentTypeError("the database is measured anyway")
    return url


def _positive(text: str) -> int:
    if _count(text) < 1:
        raise ArgumentTypeError("it takes a whole number of at least 1")
    return int(text)


def _count(text: str) -> int:
    if not text.isdecimal():
        raise ArgumentTypeError(f"{text!r} is not a whole number of at least 0")
    return int(text)


def _parts(text: str) -> tuple[str, ...]:
    found = tuple(part.strip() for part in text.split(",") if part.strip())
    for part in found:
        if part not in PARTS:
            raise ArgumentTypeError(f"there is no part {part!r}; there are {', '.join(PARTS)}")
    return found or PARTS
