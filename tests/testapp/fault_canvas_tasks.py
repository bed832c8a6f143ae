"""Steps for the fault tests of workflows: each is told by its last argument what becomes of it.

That argument is a dict: ``key`` names the step, in the attempt ``good`` it gets to its end, and ``how`` that is. With
``path`` it writes into the history there, where later attempts have a number behind the key.
"""

from __future__ import annotations

import os
import signal
import time
from pathlib import Path
from typing import Any
from zlib import crc32

from django_taskq import current_task, task
from django_taskq.canvas import chord, group
from django_taskq.composing import Canvas
from django_taskq.signatures import Signature
from django_taskq.steps import FailedStep, StepError
from tests.testapp.models import Effect
from tests.testapp.tasks import write_line

STEP, WRITE, ALERT, START = "faults.step", "faults.write", "faults.alert", "faults.start"
GROW, GROW_AND_WRITE = "faults.grow", "faults.grow_and_write"
PLAIN, FAIL, DIE, DIE_ONCE, REPLACE = "plain", "fail", "die", "die once", "replace"


def made(name: str, key: str, *, good: int = 1, how: str = PLAIN, **more: Any) -> Signature:
    """One of these steps."""
    return Signature(name, ({"key": key, "good": good, "how": how, **more},))


def replacement(spec: dict[str, Any]) -> Canvas:
    """What a step puts in its place; its own arguments do not matter to it."""
    key, more = spec["key"], {"path": spec["path"]} if "path" in spec else {}
    first = made(STEP, f"{key}/1", good=2, **more)
    if crc32(key.encode()) % 2:
        return first | made(WRITE, f"{key}/2", **more)
    return chord(group(first, made(STEP, f"{key}/2", **more)), made(STEP, f"{key}/3", **more))


def plain(value: Any) -> Any:
    """``value`` without what differs from run to run: how a step failed, and its id."""
    if isinstance(value, (StepError, FailedStep)) or (isinstance(value, tuple) and value[:1] == ("error",)):
        return "error"
    return [plain(item) for item in value] if isinstance(value, (list, tuple)) else value


def value_of(args: list[Any]) -> int:
    """A number that depends on every argument and on their order."""
    return crc32(repr(plain(args)).encode())


def _act(args: tuple[Any, ...]) -> int:
    spec = args[-1]
    if "path" in spec:
        number = f"#{current_task.attempt}" if current_task.attempt > 1 else ""
        write_line(spec["path"], "start", f"{spec['key']}{number}")
        time.sleep(spec.get("seconds", 0))
    if current_task.attempt < spec["good"]:
        current_task.retry(countdown=0)
    if spec["how"] == FAIL:
        raise ValueError(spec["key"])
    if spec["how"] == DIE:
        assert "path" in spec, "a simulated process would take this one with it"
        os.kill(os.getpid(), signal.SIGKILL)
    if spec["how"] == REPLACE:
        current_task.replace(replacement(spec))
    if "path" in spec:
        write_line(spec["path"], "end", spec["key"])
    if spec["how"] == DIE_ONCE:
        _die_once(Path(f"{spec['path']}.{spec['key']}"))
    return value_of(list(args))


def _die_once(mark: Path) -> None:
    """After the effect, and before anybody hears of it."""
    try:
        mark.touch(exist_ok=False)
    except FileExistsError:
        return
    os.kill(os.getpid(), signal.SIGKILL)


@task(name=STEP, max_retries=5)
def step(*args: Any) -> int:
    """A number that tells its arguments."""
    return _act(args)


@task(name=WRITE, max_retries=5, transactional=True)
def write(*args: Any) -> int:
    """The same, with an effect that is to be there exactly once."""
    Effect.objects.create(name=args[-1]["key"])
    return _act(args)


@task(name=ALERT, max_retries=5)
def alert(*args: Any) -> int:
    """An error callback: its value must not depend on which of several failures called it."""
    return _act(args[-1:])


@task(name=START)
def start(path: str, key: str) -> None:
    """Start a workflow, as any task may."""
    write_line(path, "start", key)
    chord(
        [made(STEP, f"{key}/{number}", path=path) for number in range(3)], made(STEP, f"{key}/end", path=path)
    ).enqueue()


@task(name=GROW)
def grow(*args: Any) -> None:
    """Add a step to the workflow."""
    current_task.workflow.add(made(STEP, f"{args[-1]['key']}/added"))


@task(name=GROW_AND_WRITE, transactional=True)
def grow_and_write(*args: Any) -> None:
    """Add it in the task's own transaction."""
    grow.function(*args)
