"""``manage.py refresh_feeds``: one round of reading feeds, spread over its window, with a worker of its own."""

from __future__ import annotations

from argparse import ArgumentParser
from pathlib import Path
from typing import Any

from django.conf import settings
from django.core.management import BaseCommand, CommandError, call_command
from election.processes import stop_on_signals
from polling.watching import Watch

from django_taskq.workflow_result import GroupResult
from feeds.tasks import SHARE, WINDOW, refresh_feeds

START_TIMEOUT = 60  # seconds


class Command(BaseCommand):
    help = "Read the feeds from --start up to --stop once, spread over 80 % of --window."

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument("--start", type=int, default=0, help="the number of the first feed")
        parser.add_argument("--stop", type=int, default=30, help="the number behind the last one")
        parser.add_argument("--window", type=float, default=30.0, help=f"seconds; a schedule would say {WINDOW:.0f}")

    def handle(self, *, start: int, stop: int, window: float, **options: Any) -> None:
        if not 0 <= start < stop or window <= 0:
            raise CommandError("--start is at least 0, --stop above it, and --window above 0.")
        call_command("migrate", verbosity=0)
        write_samples(stop)
        stop_on_signals()
        self.stdout.write(f"{stop - start} feeds, {window * SHARE / (stop - start):.2f} s apart")
        try:
            with Watch(self.stdout, ["taskworker", "--verbosity", "0"]) as watch:
                result = GroupResult(refresh_feeds.enqueue(start, stop, window).get(START_TIMEOUT))

                def is_over() -> bool:
                    result.refresh()
                    return result.is_finished

                watch.wait("Reading", stop - start, "feeds", result.completed_count, is_over)
        except KeyboardInterrupt:
            raise CommandError("\nInterrupted; the worker has stopped.", returncode=130) from None
        times = sorted(result.steps().values_list("started_at", flat=True))
        self.stdout.write(f"{sum(result.get()):,} new entries; the first feed was read at {times[0]:%H:%M:%S}, "
                          f"the last {(times[-1] - times[0]).total_seconds():.1f} s later.")  # fmt: skip


def write_samples(stop: int) -> None:
    """Stand in for the servers: a file for each feed, where ``FEEDS_URL`` says nothing else."""
    folder = Path(settings.OUTPUT_DIR) / "feeds" / "servers"
    folder.mkdir(parents=True, exist_ok=True)
    for number in range(stop):
        entries = "".join(f"<entry><id>urn:{number}:{entry}</id></entry>" for entry in range(10))
        (folder / f"{number}.xml").write_text(f"<feed>{entries}</feed>")
