"""``taskq status``: how much there is, where it waits, who works."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from functools import partial
from typing import Any

from django.core.management.base import CommandParser
from django.utils import timezone

from django_taskq import brokers, client, conf
from django_taskq.maintenance import records
from django_taskq.management.asking import Inquiry
from django_taskq.management.text import one_line
from django_taskq.management.verbs.base import Verb, add_json_option
from django_taskq.models import Worker
from django_taskq.models.task import TaskQuerySet
from django_taskq.status import Status

# Counting stops here: a look at a queue must not cost the database a scan of millions of rows.
COUNTED = 10_000


class ShowStatus(Verb):
    """Bounded counts only; ``+`` after a number means that there are more."""

    help = "Show counts by status, queues and workers."

    def add_arguments(self, parser: CommandParser) -> None:
        add_json_option(parser)

    def run(self, **options: Any) -> None:
        inquiry = Inquiry()
        document = {"counts": counts(), "counted_up_to": COUNTED, "queues": queues(inquiry), "workers": workers()}
        if options["as_json"]:
            self.write_json(document)
            return
        for lines in (self._counts(document["counts"]), self._queues(document["queues"])):
            for line in lines:
                self.write(line)
        for line in self._workers(document["workers"]):
            self.write(line)
        if not document["workers"]:
            self.say("No worker is online. Start one: python manage.py taskworker")
        for alias, text in inquiry.errors.items():
            self.say(f"broker {alias!r} is unreachable: {text}")

    def _counts(self, found: Any) -> Iterator[str]:
        yield self.style.MIGRATE_HEADING("Runs")
        for status, count in found.items():
            yield f"  {status:<12}{number(count):>9}"

    def _queues(self, found: Any) -> Iterator[str]:
        yield self.style.MIGRATE_HEADING("Queues")
        for queue in found:
            age = "" if queue["oldest_seconds"] is None else f"  oldest waits {queue['oldest_seconds']:.1f} s"
            unknown = "" if queue["is_known"] else self.style.WARNING("  (no worker serves it by default)")
            yield f"  {one_line(queue['name']):<20}{number(queue['ready']):>9} ready{age}{unknown}"

    def _workers(self, found: Any) -> Iterator[str]:
        yield self.style.MIGRATE_HEADING("Workers online")
        for worker in found:
            size = f"{worker['processes']} x {worker['threads']}"
            heartbeat = f"heartbeat {worker['heartbeat_seconds']:.1f} s ago"
            yield f"  {one_line(worker['name'])}  {size}  {one_line(worker['queues'])}  {heartbeat}"


def counts() -> dict[str, int]:
    """Runs by status, each counted to the bound and one more.

    Finished runs have no index by status, so the newest are counted: exact below the bound, a lower bound beyond.
    """
    claimed = records().filter(status=Status.RUNNING)
    ready = bounded(records().filter(status=Status.READY)) + bounded(claimed.filter(started_at=None))
    newest = records().finished().order_by("-finished_at").values_list("status", flat=True)[: COUNTED + 1]
    finished = Counter(newest)
    found = {
        Status.SCHEDULED: bounded(records().filter(status=Status.SCHEDULED)),
        Status.READY: min(ready, COUNTED + 1),
        Status.RUNNING: bounded(claimed.filter(started_at__isnull=False)),
        Status.SUCCESSFUL: finished[Status.SUCCESSFUL],
        Status.FAILED: bounded(records().filter(status=Status.FAILED)),
        Status.CANCELLED: finished[Status.CANCELLED],
    }
    if finished.total() > COUNTED:
        found[Status.SUCCESSFUL] = found[Status.SUCCESSFUL] and COUNTED + 1
        found[Status.CANCELLED] = found[Status.CANCELLED] and COUNTED + 1
    return {str(status): count for status, count in found.items()}


def queues(inquiry: Inquiry) -> list[dict[str, Any]]:
    """Every queue that is known or has something waiting, by name. Of a depot that is down the age is not known."""
    known, broker = client.known_queues(), brokers.get_broker()
    return [
        {
            "name": name,
            "ready": bounded(records().filter(status=Status.READY, queue_name=name)),
            "oldest_seconds": inquiry.ask(brokers.alias_of(name), partial(broker.oldest_age, name)),
            "is_known": name in known,
        }
        for name in sorted(known | set(names_with_work()))
    ]


def workers() -> list[dict[str, Any]]:
    """Workers that hold a lease, oldest first."""
    now = timezone.now()
    return [
        {
            "name": str(worker),
            "queues": worker.queues,
            "processes": worker.processes,
            "threads": worker.threads,
            "version": worker.version,
            "started_at": worker.started_at,
            "heartbeat_seconds": max(0.0, (now - worker.heartbeat_at).total_seconds()),
        }
        for worker in Worker.objects.using(conf.get_settings().database).online().order_by("pk")
    ]


def names_with_work() -> Iterator[str]:
    """The queues of READY rows: one step through the index for each name, however many rows a name has."""
    ready = records().filter(status=Status.READY).order_by("queue_name").values_list("queue_name", flat=True)
    name = ready.first()
    while name is not None:
        yield name
        name = ready.filter(queue_name__gt=name).first()


def bounded(found: TaskQuerySet) -> int:
    """How many, up to :data:`COUNTED` and one more."""
    return found.order_by()[: COUNTED + 1].count()


def number(count: int) -> str:
    """A bounded count in words."""
    return f"{COUNTED:,}+" if count > COUNTED else f"{count:,}"
