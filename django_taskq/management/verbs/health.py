"""``taskq health``: whether the work is being done, for people and for cron."""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from dataclasses import asdict
from typing import Any

from django.core.management.base import CommandError, CommandParser

from django_taskq import conf
from django_taskq.management.text import one_line
from django_taskq.management.verbs.base import Verb, add_json_option
from django_taskq.models import Worker
from django_taskq.worker.health import backlog
from django_taskq.worker.health.backlog import Backlog

UNHEALTHY_EXIT = 5
# A schedule this late has no scheduler: a change of the lease takes less.
LATE_SCHEDULE = 60.0


class Health(Verb):
    """Looks at the database and the brokers, as every worker sees them; not at a single worker."""

    help = f"Say whether the work is being done. Exits with {UNHEALTHY_EXIT} when it is not."

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument(
            "--max-latency",
            type=_seconds,
            metavar="SECONDS",
            help="It is not when a run has been due for longer. Default: that is no matter.",
        )
        add_json_option(parser)

    def run(self, **options: Any) -> None:
        found = backlog.look()
        workers = Worker.objects.using(conf.get_settings().database).online().count()
        problems = list(_problems(found, workers, options["max_latency"]))
        if options["as_json"]:
            queues = {name: asdict(queue) for name, queue in found.queues.items()}
            document = {
                "is_healthy": not problems,
                "problems": problems,
                "workers": workers,
                "queues": queues,
                "brokers": found.brokers,
                "outbox": found.outbox,
                "schedule_lag": found.schedule_lag,
            }
            self.write_json(document)
        else:
            self._describe(found, workers)
        if problems:
            raise CommandError("\n".join(problems), returncode=UNHEALTHY_EXIT)

    def _describe(self, found: Backlog, workers: int) -> None:
        self.write(f"{workers} worker(s) online")
        for name, queue in sorted(found.queues.items()):
            waits = f", the oldest for {queue.latency:.1f} s" if queue.due else ""
            served = f"{queue.workers} worker(s), {queue.slots} slot(s)"
            self.write(f"  {one_line(name):<20}{queue.due:>9,} due{waits}; {queue.running:,} running; {served}")


def _problems(found: Backlog, workers: int, max_latency: float | None) -> Iterator[str]:
    if not workers:
        yield "no worker is online"
    for name, queue in sorted(found.queues.items()):
        shown = one_line(name)
        if workers and queue.due and not queue.workers:
            yield f"no worker serves queue {shown}, where {queue.due:,} run(s) are due"
        if max_latency is not None and queue.latency > max_latency:
            yield f"in queue {shown} a run has been due for {queue.latency:.1f} s"
    for alias, has_answered in sorted(found.brokers.items()):
        if not has_answered:
            yield f"broker {one_line(alias)} does not answer"
    if found.schedule_lag > LATE_SCHEDULE:
        yield f"nobody runs the schedules: one has been due for {found.schedule_lag:.0f} s"


def _seconds(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = -1.0
    if not 0 <= value < float("inf"):
        raise argparse.ArgumentTypeError(f"{text!r} is not usable: it takes a number of seconds of at least 0")
    return value
