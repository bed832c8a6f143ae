"""``manage.py demo``: from a register of 10,000 voters to printed lists, through background tasks."""

from __future__ import annotations

import time
from argparse import ArgumentParser
from collections import Counter
from pathlib import Path
from typing import Any

from django.conf import settings
from django.core.management import BaseCommand, CommandError, call_command
from django.db import connection
from django.db.models import QuerySet
from election.processes import stop_on_signals

from django_taskq.models import TaskRecord
from polling import checking, generator
from polling.clearing import clear
from polling.models import Centre, PrintedList, Voter
from polling.sizes import split
from polling.tasks import assign_centre, load_voters
from polling.watching import Watch


class Command(BaseCommand):
    help = "Load voters, assign them to stations and print one list for each station, through background tasks."

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument("--centres", type=int, default=16, help="polling centres; 2000 make a national register")
        parser.add_argument("--voters", type=int, help=f"default: {generator.VOTERS_PER_CENTRE} for each centre")
        parser.add_argument("--seed", type=int, default=2026, help="the same seed makes the same register")
        parser.add_argument("--processes", type=int, help="of the worker; default: the worker's own")

    def handle(self, *, centres: int, voters: int | None, seed: int, processes: int | None, **options: Any) -> None:
        began_at = time.monotonic()
        voters = centres * generator.VOTERS_PER_CENTRE if voters is None else voters
        register = settings.OUTPUT_DIR / "voters.csv"

        call_command("migrate", verbosity=0)
        clear()
        self.say("Database", f"{connection.vendor}, migrated and cleared")
        try:
            generator.generate(register, voters=voters, centres=centres, seed=seed)
        except ValueError as error:
            raise CommandError(str(error)) from error
        self.say("Register", f"{voters:,} voters of {centres:,} centres in {register}")

        arguments = ["taskworker", *(["--processes", str(processes)] if processes else [])]
        self.say("Worker", f"manage.py {' '.join(arguments)}")
        stop_on_signals()
        try:
            with Watch(self.stdout, arguments) as watch:
                load(register, voters, watch)
                assign_and_print(watch)
        except KeyboardInterrupt:
            raise CommandError("\nInterrupted; the worker has stopped.", returncode=130) from None
        # The worker has stopped: what is recorded now is what was done.
        self.report(register, voters, watch.runs())
        self.say("Took", f"{time.monotonic() - began_at:.1f} s")

    def report(self, register: Path, voters: int, runs: QuerySet[TaskRecord]) -> None:
        """Say what was made, or fail saying what is wrong with it."""
        tasks = Counter(runs.values_list("name", "status"))
        wrong = [f"{n} runs of {name} are {status}." for (name, status), n in tasks.items() if status != "SUCCESSFUL"]
        wrong += checking.problems(register)
        if wrong:
            raise CommandError("\n".join(["The lists are wrong:", *wrong]))
        self.say("Checked", f"each of {voters:,} voters stands on exactly one list, as read back from the PDFs")
        self.say("Tasks", ", ".join(f"{n:,} {name.rpartition('.')[2]}" for (name, _), n in sorted(tasks.items())))
        lists = list(PrintedList.objects.all())
        sizes = [printed.voters for printed in lists]
        size = sum((settings.OUTPUT_DIR / printed.file).stat().st_size for printed in lists)
        self.say("Printed", f"{len(lists):,} lists of {min(sizes)} to {max(sizes)} voters")
        self.say("", f"{sum(printed.pages for printed in lists):,} pages, {size / 1e6:.1f} MB")
        self.say("", f"in {settings.OUTPUT_DIR / 'lists'}")

    def say(self, label: str, text: str) -> None:
        """One line of the report."""
        self.stdout.write(f"{label:<10}{text}")


def load(register: Path, voters: int, watch: Watch) -> None:
    """One task for the whole file; its return value says how many voters it found."""
    result = load_voters.enqueue(register)

    def is_loaded() -> bool:
        result.refresh()
        return result.is_finished

    watch.wait("Loading", voters, "voters", Voter.objects.count, is_loaded)
    if result.return_value != voters:
        raise CommandError(f"The register has {voters} voters, and {result.return_value} were loaded.")


def assign_and_print(watch: Watch) -> None:
    """One task for each centre. These enqueue the printing themselves, so what is awaited is what that leaves."""
    lists = sum(len(split(centre.voters.count())) for centre in Centre.objects.all())
    assign_centre.enqueue_many(((pk,), {}) for pk in Centre.objects.values_list("pk", flat=True))
    count = PrintedList.objects.count
    watch.wait("Printing", lists, "lists", count, lambda: count() == lists)
