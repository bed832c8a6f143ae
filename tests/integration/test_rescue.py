"""What a rescue touches, and what it must not."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path

import pytest
from django.utils import timezone

from django_taskq import maintenance
from django_taskq.models import TaskRecord, Worker, WorkerProcess
from django_taskq.status import Status
from django_taskq.worker import identity
from django_taskq.worker.keeper import Keeper
from tests.testapp.tasks import add

pytestmark = [pytest.mark.django_db(transaction=True), pytest.mark.database]


def dead_neighbour(table_path: Path) -> WorkerProcess:
    """A worker of this host whose process is gone, with one child."""
    me = identity.current()
    worker = Worker.objects.create(
        hostname="here",
        boot_id=me.boot_id,
        pid_namespace=me.pid_namespace,
        pid=2**22 + 1,
        pid_started=1,
        table_path=str(table_path),
        processes=1,
        threads=1,
        version="0",
        lease_expires_at=timezone.now() + timedelta(minutes=1),
    )
    return WorkerProcess.objects.create(worker=worker)


def test_a_directory_with_other_things_in_it_is_left_alone(tmp_path: Path) -> None:
    kept = tmp_path / "somebody's file"
    kept.touch()
    dead_neighbour(tmp_path)
    assert maintenance.rescue_dead_workers(0, lambda path: None) == 1
    assert kept.exists()


def test_its_own_directory_goes(tmp_path: Path) -> None:
    own = tmp_path / "taskq-x"
    own.mkdir()
    process = dead_neighbour(own)
    (own / f"{process.pk}.slots").touch()
    assert maintenance.rescue_dead_workers(0, lambda path: None) == 1
    assert not own.exists()


def test_only_revoked_claims_of_a_stalled_process_are_given_back(tmp_path: Path) -> None:
    process = dead_neighbour(tmp_path)
    for claim, result in enumerate(add.enqueue_many([((1, 2), {})] * 5), 1):
        TaskRecord.objects.filter(pk=result.id).update(status=Status.RUNNING, worker=process, claim=claim)
    keeper = Keeper(process.worker_id, lambda: True)
    keeper.give_back(process.pk, 2, 4)
    keeper.settle_now()
    still_held = TaskRecord.objects.filter(status=Status.RUNNING).order_by("claim").values_list("claim", flat=True)
    assert list(still_held) == [1, 2, 5]
    assert TaskRecord.objects.filter(status=Status.READY).count() == 2
