"""What tasks may do without harm to the worker, and what surrounds them there."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from django.utils import timezone, translation

from django_taskq.exceptions import TaskFailed
from django_taskq.models import TaskRecord
from django_taskq.status import Status
from tests.conftest import ROOT
from tests.testapp.models import Effect
from tests.testapp.tasks import (
    add,
    count_queries,
    leave,
    leave_block_open,
    leave_effect,
    look_around,
    say_hello,
    start_processes,
)
from tests.waiting import wait_for
from tests.workers import WorkerProcess

pytestmark = pytest.mark.django_db(transaction=True)

Start = Callable[..., WorkerProcess]
KINDS = [("--processes", "1"), ("--processes", "1", "--threads", "2")]


@pytest.mark.parametrize("options", KINDS)
def test_a_block_left_open_is_rolled_back_and_reported(worker: Start, options: tuple[str, ...]) -> None:
    process = worker(*options)
    assert leave_block_open.enqueue("half done").get(10) is None
    leave_effect.enqueue("afterwards").get(10)
    assert list(Effect.objects.values_list("name", flat=True)) == ["afterwards"]
    assert "left a transaction open on 'default'" in process.log()


@pytest.mark.parametrize(
    "how",
    [
        "SystemExit",
        pytest.param("KeyboardInterrupt", marks=pytest.mark.whole),
        pytest.param("GeneratorExit", marks=pytest.mark.whole),
    ],
)
@pytest.mark.one_database
def test_what_ends_a_program_does_not_end_the_worker(worker: Start, how: str) -> None:
    process = worker("--processes", "1")
    children = wait_for(process.children)
    result = leave.enqueue(how)
    with pytest.raises(TaskFailed):
        result.get(10)
    assert TaskRecord.objects.get(pk=result.id).status == Status.FAILED
    assert result.errors[-1].exception_class_path == f"builtins.{how}"
    assert add.enqueue(1, 1).get(10) == 2
    assert process.children() == children


@pytest.mark.parametrize("options", KINDS)
def test_programs_and_multiprocessing(worker: Start, options: tuple[str, ...]) -> None:
    process = worker(*options)
    assert start_processes.enqueue().get(15) == [40, 1, 2]
    process.terminate()
    assert process.wait() == 0
    wait_for(lambda: not process.tree(), 10, "the end of what the task started")


def settings_module(directory: Path, text: str) -> dict[str, str]:
    """The environment of a worker whose settings differ in this."""
    (directory / "own_settings.py").write_text(f"from tests.settings import *\n{text}\n")
    return {"PYTHONPATH": f"{directory}:{ROOT}", "DJANGO_SETTINGS_MODULE": "own_settings"}


@pytest.mark.one_database
def test_debug_does_not_collect_queries(worker: Start, tmp_path: Path) -> None:
    worker("--processes", "1", env=settings_module(tmp_path, "DEBUG = True"))
    counts = [count_queries.enqueue().get(10) for _ in range(5)]
    assert len(set(counts[1:])) == 1
    assert max(counts) <= 10


FORMAT = (
    "LOGGING['formatters']['plain']['format'] = '<%(task_id)s|%(task_name)s|%(queue_name)s|%(attempt)s> %(message)s'"
)


@pytest.mark.parametrize("options", KINDS)
@pytest.mark.one_database
def test_log_records_carry_the_run(worker: Start, tmp_path: Path, options: tuple[str, ...]) -> None:
    own = f"{FORMAT}\nLOGGING['root'] = {{'handlers': ['stderr'], 'level': 'INFO'}}"
    process = worker(*options, env=settings_module(tmp_path, own))
    result = say_hello.enqueue("there")
    assert result.get(10) == result.id
    subject = f"<{result.id}|tests.testapp.tasks.say_hello|default|1>"
    wait_for(lambda: f"{subject} hello there" in process.log(), 5, process.log)
    wait_for(lambda: f"{subject} tests.testapp.tasks.say_hello {result.id} ok" in process.log(), 5, process.log)
    process.terminate()
    assert process.wait() == 0
    assert "<||" in process.log() or process.log().count(subject) >= 2


@pytest.mark.one_database
def test_language_and_time_zone_travel(worker: Start) -> None:
    worker("--processes", "1")
    with translation.override("de"), timezone.override("America/New_York"):
        away = look_around.enqueue()
    home = look_around.enqueue()
    assert away.get(10) == ["de", "America/New_York"]
    assert home.get(10) == ["en-us", "Europe/Riga"]
