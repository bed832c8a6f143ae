"""What a worker learns of its brokers before it begins: settings of a server that would lose work, or that it is down.

Only the depots that keep one of the worker's queues are asked, each in a thread of its own and on connections of its
own: a host that swallows packets, or a resolver that hangs, holds up no worker for longer than :data:`SECONDS`.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field

from django.core.management.base import CommandError

from django_taskq import brokers, conf
from django_taskq.brokers.depot import Depot, Finding
from django_taskq.exceptions import DepotError
from django_taskq.management.asking import shown
from django_taskq.management.storage import RUNTIME_EXIT, USAGE_EXIT
from django_taskq.management.text import mask, one_line

# For all of them together. Longer than the time that each gives its own round trips by default.
SECONDS = 10.0


@dataclass(slots=True)
class Report:
    """One broker, as it may be shown, and what it said. ``error``: it could not be asked."""

    alias: str
    url: str
    findings: list[Finding] = field(default_factory=list)
    error: str = ""

    def texts(self, level: str) -> list[str]:
        """What it said at this level, each with its hint where something is to be done."""
        found = [finding for finding in self.findings if finding.level == level]
        return [_sentence(each.text, "" if level == "info" else each.hint) for each in found]


def check(queue_names: Iterable[str], warn: Callable[[str], None]) -> list[Report]:
    """Ask the depots that keep these queues. Raises ``CommandError`` for what would lose work or cannot work at all.

    A depot that does not answer is a warning: it may be back before there is anything to do.
    """
    settings = conf.get_settings()
    aliases = {brokers.alias_of(name) for name in queue_names}
    configs = [settings.broker(alias) for alias in settings.broker_aliases() if alias in aliases]
    depots = [brokers.make_depot(config) for config in configs if not config.is_database]
    reports = _ask(depots, SECONDS)
    errors = [f"broker {report.alias!r} ({report.url}): {text}" for report in reports for text in report.texts("error")]
    if errors:
        raise CommandError("\n".join(errors), returncode=USAGE_EXIT)
    for report in reports:
        if report.error:
            warn(f"broker {report.alias!r} ({report.url}) does not answer; connecting to it later: {report.error}")
        for text in report.texts("warning"):
            warn(f"broker {report.alias!r} ({report.url}): {text}")
    return reports


def _ask(depots: Sequence[Depot], seconds: float) -> list[Report]:
    reports, threads = [], []
    for depot in depots:
        report = Report(depot.config.alias, one_line(mask(depot.config.url)), error=f"no answer in {seconds:g} s")
        thread = threading.Thread(target=_fill, args=(report, depot), name="taskq-check-broker", daemon=True)
        thread.start()
        reports.append(report)
        threads.append(thread)
    deadline = time.monotonic() + seconds
    try:
        for thread in threads:
            thread.join(max(0.0, deadline - time.monotonic()))
    except KeyboardInterrupt:
        raise CommandError("stopped while asking the brokers", returncode=RUNTIME_EXIT) from None
    # A thread that comes back late must not change what has been reported.
    return [Report(each.alias, each.url, list(each.findings), each.error) for each in reports]


def _fill(report: Report, depot: Depot) -> None:
    try:
        report.findings = depot.check()
        report.error = ""
    except DepotError as error:
        report.error = shown(error)
    except Exception as error:
        # No reason not to start either: the worker itself will say more, with a traceback.
        report.error = one_line(mask(f"{type(error).__name__}: {error}"))
    finally:
        try:
            depot.close()
        except DepotError:
            pass  # then there is nothing open


def _sentence(text: str, hint: str) -> str:
    text, hint = one_line(mask(text)).rstrip("."), one_line(mask(hint)).rstrip(".")
    return f"{text}. {hint[:1].upper()}{hint[1:]}." if hint else f"{text}."
