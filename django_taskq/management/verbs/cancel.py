"""``taskq cancel ID...``: have runs not happen."""

from __future__ import annotations

from typing import Any

from django.core.management.base import CommandError, CommandParser

from django_taskq.cancelling import cancel_records
from django_taskq.maintenance import records
from django_taskq.management.storage import RUNTIME_EXIT
from django_taskq.management.verbs.base import Verb
from django_taskq.management.verbs.lookup import find_records
from django_taskq.status import FINAL, Status


class Cancel(Verb):
    """What has been claimed is asked to stop; what has ended stays as it is."""

    help = "Cancel runs: what has not started will not, and what runs is stopped."

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("ids", metavar="ID", nargs="+", help="Ids of runs.")

    def run(self, **options: Any) -> None:
        refused = 0
        for record in find_records(options["ids"]):
            was_final = record.is_final
            cancel_records(records().filter(pk=record.pk))
            record.refresh_from_db(using=record._state.db)
            if was_final or record.status in FINAL - {Status.CANCELLED}:
                refused += 1
                self.say(f"{record.pk} is {record.status} already")
            elif record.status == Status.CANCELLED:
                self.write(f"{record.pk} cancelled")
            else:
                self.write(f"{record.pk} is with a worker, which is told to stop it")
        if refused:
            raise CommandError(f"{refused} run(s) not changed", returncode=RUNTIME_EXIT)
