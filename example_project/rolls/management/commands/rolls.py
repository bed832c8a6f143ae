"""``manage.py rolls --way 3``: print a country's rolls, and say what that way of cutting the work costs."""

from __future__ import annotations

import os
import signal
import time
from argparse import ArgumentParser
from collections import defaultdict
from contextlib import suppress
from datetime import datetime
from pathlib import Path
from subprocess import Popen
from typing import Any, NamedTuple

from django.core.management import BaseCommand, CommandError, call_command
from django.utils import timezone
from election.processes import stop_on_signals
from polling.sizes import split
from polling.watching import Watch

from django_taskq.models import TaskRecord, Workflow
from django_taskq.workflow_result import WorkflowResult
from rolls import country, pdf, tasks
from rolls.ways import WAYS, start

START_TIMEOUT = 60  # seconds
ENOUGH_RUNS = 100  # to tell their cost from the noise


class Measured(NamedTuple):
    """One way, measured. Times are in seconds."""

    way: int
    runs: int
    finished_in: float
    processor: float
    longest_run: float
    printed_again: int


class Command(BaseCommand):
    help = "Print the rolls of a country, the work cut into runs in one of five ways; without --way, in all of them."

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument("--way", type=int, choices=sorted(WAYS), help=_ways())
        parser.add_argument("--centres", type=int, default=2000, help="polling centres of the country")
        parser.add_argument("--seed", type=int, default=2026, help="the same seed makes the same country")
        parser.add_argument("--processes", type=int, default=2, help="of the worker")
        parser.add_argument("--kill", action="store_true", help="kill the worker's processes when half is printed")

    def handle(self, *, way: int | None, centres: int, seed: int, processes: int, kill: bool, **options: Any) -> None:
        if not Path("/proc/self/stat").exists():
            raise CommandError("This needs Linux: it reads from /proc what the processes of the worker take.")
        if centres < 1 or processes < 1:
            raise CommandError("--centres and --processes are at least 1.")
        call_command("migrate", verbosity=0)
        stop_on_signals()
        cancel_earlier()
        rolls = sum(len(split(centre.voters)) for centre in country.centres(centres, seed))
        self.stdout.write(f"{rolls:,} rolls of {centres:,} centres, {processes} processes, in {country.folder()}")
        measured: list[Measured] = []
        try:
            ways = sorted(WAYS) if way is None else [way]
            measured.extend(self.measure(each, centres, seed, processes, rolls, kill) for each in ways)
        except KeyboardInterrupt:
            raise CommandError("\nInterrupted; the worker has stopped.", returncode=130) from None
        head = f"{'way':<45} {'runs':>6} {'time':>8} {'processor':>10} {'longest run':>12} {'printed again':>14}"
        self.stdout.write(head + ("" if kill else f" {'cost of a run':>14}"))
        for found in measured:
            self.stdout.write(_row(found) + ("" if kill else f" {_cost(found, measured[0]):>14}"))

    def measure(self, way: int, centres: int, seed: int, processes: int, rolls: int, kill: bool) -> Measured:
        """Print all of it with a worker of its own, and look whether all is there."""
        # Quiet: a line in the log for each run would be a part of what is measured.
        arguments = ["taskworker", "--processes", str(processes), "--verbosity", "0"]
        with Watch(self.stdout, arguments) as watch:
            tasks.prepare.enqueue(1, seed).get(START_TIMEOUT)  # the worker is up
            began_at, spent = timezone.now(), -_processor(watch.process) - time.process_time()
            result = start(way, centres, seed)
            spent += time.process_time()
            victim = _Victim(watch.process, rolls // 2) if kill else None

            def is_over() -> bool:
                if victim is not None:
                    victim.kill_when_due()
                result.refresh()
                return result.is_finished

            watch.wait(f"Way {way}", rolls, "rolls", lambda: len({note.roll for note in country.printed()}), is_over)
            spent += _processor(watch.process)
        found = result.get()
        wrong = list(problems(centres, seed, found))
        if wrong:
            raise CommandError("\n".join(["The rolls are wrong:", *wrong]))
        return _measured(way, result, began_at, spent)


def cancel_earlier() -> None:
    """Take away what an interrupted command left; the new worker would go on with it."""
    for unfinished in Workflow.objects.unfinished().filter(name__startswith="rolls, way"):
        WorkflowResult(unfinished.pk).cancel()
    TaskRecord.objects.filter(name__startswith="rolls.").cancel()


class _Victim:
    """The processes of a worker, to be killed once."""

    def __init__(self, worker: Popen[bytes], when: int) -> None:
        self._worker, self._when = worker, when

    def kill_when_due(self) -> None:
        """Kill them when so many rolls are printed."""
        if self._when and len(country.printed()) >= self._when:
            self._when = 0
            for pid in tree(self._worker.pid):
                if not children(pid):  # what others have come from stays: the supervisor and its fork server
                    with suppress(ProcessLookupError):
                        os.kill(pid, signal.SIGKILL)


def problems(centres: int, seed: int, found: list[int]) -> list[str]:
    """What is wrong with what was printed, one sentence each; ``found`` is what the workflow returned."""
    wrong, rolls, pages = [], 0, 0
    for centre in country.centres(centres, seed):
        numbers: list[str] = []
        for station in range(1, len(split(centre.voters)) + 1):
            path = country.folder() / country.roll_file(centre.number, station)
            if not path.exists():
                wrong.append(f"{path.name} is missing.")
                continue
            sheets = pdf.read(path)
            rolls, pages = rolls + 1, pages + len(sheets)
            numbers += [line.split()[1] for sheet in sheets for line in sheet if line.endswith("_")]
        if numbers != [str(centre.first_voter + place) for place in range(centre.voters)]:
            wrong.append(f"The rolls of centre {centre.number} do not have each of its voters once.")
    if list(found) != [rolls, pages]:
        wrong.append(f"There are {rolls} rolls of {pages} pages, and the index was told of {found}.")
    index = country.folder() / "index.pdf"
    if not index.exists() or pdf.read(index)[-1][-1].split()[2:] != [f"{rolls:,}", f"{pages:,}"]:
        wrong.append("The index says something else than the rolls.")
    return wrong


def _measured(way: int, result: WorkflowResult, began_at: datetime, spent: float) -> Measured:
    assert result.finished_at is not None
    times = result.steps().filter(started_at__isnull=False).values_list("started_at", "finished_at")
    lasted = [(end - start).total_seconds() for start, end in times]
    # A run that others have replaced ends with them; how long it printed itself stands in the log alone.
    notes: dict[str, list[float]] = defaultdict(list)
    for note in country.printed():
        notes[note.attempt].append(note.at)
    longest = max(*lasted, *(at[-1] - at[0] for at in notes.values()))
    rolls = [note.roll for note in country.printed()]
    seconds = (result.finished_at - began_at).total_seconds()
    return Measured(way, result.size, seconds, spent, longest, len(rolls) - len(set(rolls)))


def _processor(worker: Popen[bytes]) -> float:
    """Seconds of processor time that a worker has taken, with its processes."""
    fields = [_read(Path(f"/proc/{pid}/stat")).rpartition(")")[2].split() for pid in tree(worker.pid)]
    return sum(int(field[11]) + int(field[12]) for field in fields if field) / os.sysconf("SC_CLK_TCK")


def tree(pid: int) -> list[int]:
    """A process and all that have come from it."""
    found = [pid]
    for each in found:  # grows as it goes
        found += children(each)
    return found


def children(pid: int) -> list[int]:
    """The processes that came from one, by any of its threads."""
    threads = Path(f"/proc/{pid}/task").glob("*/children")
    return [int(child) for thread in threads for child in _read(thread).split()]


def _read(path: Path) -> str:
    """What the system says of a process; nothing of one that has ended."""
    try:
        return path.read_text()
    except OSError:
        return ""


def _row(found: Measured) -> str:
    title = f"{found.way} {WAYS[found.way].title}"
    times = f"{found.finished_in:6.1f} s {found.processor:8.1f} s {found.longest_run:10.2f} s"
    return f"{title:<45} {found.runs:6,} {times} {found.printed_again:14,}"


def _cost(found: Measured, first: Measured) -> str:
    """What each run more than those of the first way takes of a processor; nothing where they are too few to tell."""
    more = found.runs - first.runs
    return f"{(found.processor - first.processor) / more * 1000:.2f} ms" if more >= ENOUGH_RUNS else "-"


def _ways() -> str:
    return "; ".join(f"{number}: {way.title}" for number, way in WAYS.items())
