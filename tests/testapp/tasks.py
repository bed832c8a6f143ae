"""Tasks for the tests, found by autodiscovery as those of any project are. Add yours where they are used by several."""

from __future__ import annotations

import asyncio
import contextlib
import ctypes
import importlib
import logging
import multiprocessing
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

from asgiref.sync import sync_to_async
from django.db import OperationalError, connection, transaction
from django.utils import timezone, translation

from django_taskq import Call, current_task, task
from django_taskq.exceptions import SoftTimeLimitExceeded
from django_taskq.models import TaskRecord
from tests.testapp.models import Effect


@task
def add(x: int, y: int) -> int:
    return x + y


@task
def fail(text: str) -> None:
    raise ValueError(text)


@task
def debug(number: int) -> int:
    breakpoint()  # noqa: T100 - it is the point
    return number


@task
def sleep_in_database(seconds: float) -> None:
    """A query that takes so long; PostgreSQL alone."""
    with connection.cursor() as cursor:
        cursor.execute("SELECT pg_sleep(%s)", [seconds])


@task
def nap(seconds: float) -> None:
    time.sleep(seconds)


@task
def leave_effect(name: str, seconds: float = 0) -> None:
    """Take this long, then write an Effect."""
    time.sleep(seconds)
    Effect.objects.create(name=name)


# For tests of faults and of the worker: what they do is written to a file that survives everything but the disk.


def write_line(path: str, *words: object) -> None:
    """Append one line at once: O_APPEND keeps writers of many processes apart, and a kill cannot cut it in two."""
    line = " ".join(str(word) for word in (*words, os.getpid(), time.monotonic())) + "\n"
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
    try:
        os.write(descriptor, line.encode())
    finally:
        os.close(descriptor)


def spend(seconds: float, how: str) -> None:
    """``sleep`` gives others the interpreter, ``gil`` keeps it in one C call, ``signals`` ignores soft limits."""
    if how == "gil":
        # No signal may interrupt it either: a computation would not notice one.
        everything = signal.pthread_sigmask(signal.SIG_BLOCK, signal.valid_signals())
        ctypes.PyDLL(None).usleep(int(seconds * 1_000_000))
        signal.pthread_sigmask(signal.SIG_SETMASK, everything)
    elif how == "signals":
        with contextlib.suppress(Exception):
            time.sleep(seconds)
        time.sleep(seconds)
    elif seconds:
        time.sleep(seconds)


def gate(path: str, pid: int) -> Path:
    return Path(f"{path}.{pid}")


def let_go(path: str, pid: int) -> None:
    """End what a process does ``until-told``."""
    gate(path, pid).touch()


def wait_at_gate(path: str, seconds: float) -> None:
    deadline = time.monotonic() + seconds
    while not gate(path, os.getpid()).exists() and time.monotonic() < deadline:
        time.sleep(0.01)


@task
def note(path: str, key: str, seconds: float = 0, how: str = "sleep") -> None:
    """Write a line at the start and one at the end. ``until-told`` lasts until :func:`let_go` for this process.

    ``burn`` does so too, and computes meanwhile.
    """
    write_line(path, "start", key)
    if how == "until-told":
        wait_at_gate(path, seconds)
    elif how == "burn":
        deadline = time.monotonic() + seconds
        while not gate(path, os.getpid()).exists() and time.monotonic() < deadline:
            sum(range(10_000))
    else:
        spend(seconds, how)
    write_line(path, "end", key)


@task(acks_late=False)
def note_at_most_once(path: str, key: str, seconds: float = 0, how: str = "sleep") -> None:
    note.function(path, key, seconds, how)


@task(transactional=True)
def note_exactly_once(path: str, key: str, seconds: float = 0) -> None:
    write_line(path, "start", key)
    Effect.objects.create(name=key)
    time.sleep(seconds)
    write_line(path, "end", key)


@task(transactional=True, autoretry_for=(OperationalError,), max_retries=50, default_retry_delay=0.05)
def note_exactly_once_at_last(path: str, key: str) -> None:
    """With a conflict for every other run of it where the database knows such."""
    write_line(path, "start", key)
    Effect.objects.create(name=f"{key} of {Effect.objects.count()}")
    write_line(path, "end", key)


@task(soft_time_limit=0.5)
def note_with_soft_limit(path: str, key: str, seconds: float) -> str:
    write_line(path, "start", key)
    try:
        time.sleep(seconds)
    except SoftTimeLimitExceeded:
        write_line(path, "tidied", key)
        raise
    return "in time"


@task(soft_time_limit=0.3, time_limit=1)
def note_with_hard_limit(path: str, key: str, seconds: float, how: str) -> None:
    note.function(path, key, seconds, how)


@task(autoretry_for=(OSError,), max_retries=3, retry_backoff=0.2, retry_jitter=False)
def note_until_attempt(path: str, key: str, good: int) -> int:
    """Fail until this attempt."""
    write_line(path, "start", key)
    if current_task.attempt < good:
        raise OSError(f"attempt {current_task.attempt}")
    return int(current_task.attempt)


@task
def die(path: str, key: str, how: str) -> None:
    """Take the worker process down: by ``kill``, ``exit`` or ``segfault``."""
    write_line(path, "start", key)
    if how == "kill":
        os.kill(os.getpid(), signal.SIGKILL)
    elif how == "exit":
        os._exit(0)
    else:
        ctypes.string_at(0)


@task
def leave(how: str) -> None:
    """Raise what ends a program."""
    raise {"SystemExit": SystemExit(3), "KeyboardInterrupt": KeyboardInterrupt(), "GeneratorExit": GeneratorExit()}[how]


@task
def leave_block_open(name: str) -> None:
    """Return with a transaction open."""
    transaction.atomic().__enter__()
    Effect.objects.create(name=name)


@task
def start_processes() -> list[int]:
    """A program and a pool of processes, as tasks do."""
    printed = subprocess.run(["echo", "40"], capture_output=True, check=True).stdout
    with multiprocessing.Pool(2) as pool:
        return [int(printed), *pool.map(abs, [-1, -2])]


@task
def count_queries() -> int:
    """How many queries this connection remembers, after making one."""
    Effect.objects.count()
    return len(connection.queries)


@task
def say_hello(text: str) -> str:
    logging.getLogger("tests.testapp").warning("hello %s", text)
    return str(current_task.id)


@task
def look_around() -> list[str]:
    """The language and time zone that are active."""
    return [str(translation.get_language()), timezone.get_current_timezone_name()]


@task
def see_own_start() -> bool:
    """Whether the row says already that this run has started."""
    return TaskRecord.objects.filter(pk=current_task.id, started_at__isnull=False).exists()


@task(track_pending=False, ignore_result=True)
def add_untracked(x: int, y: int) -> int:
    return x + y


@task(track_pending=False)
def add_late(x: int, y: int) -> int:
    return x + y


@task
def allocate(megabytes: int, seconds: float = 0) -> int:
    """Take so much memory, every page of it, for so long."""
    taken = bytearray(megabytes << 20)
    time.sleep(seconds)
    return len(taken) >> 20


@task
def length_of(text: str) -> int:
    return len(text)


@task(autoretry_for=(OSError,))
def text_of(length: int) -> str:
    return "x" * length


@task
def hoard(megabytes: int) -> int:
    """Leak so much memory; returns the pid."""
    _hoarded.append(bytearray(megabytes << 20))
    return os.getpid()


_hoarded: list[bytearray] = []


@task
def recurse() -> None:
    recurse.function()


# It takes 100 MB, and says so.
PROGRAM = """
import os, sys, time
taken = bytearray(100 << 20)
with open(sys.argv[1], "a") as file:
    file.write(f"left {sys.argv[2]} {os.getpid()} {time.monotonic()}\\n")
time.sleep(60)
"""


@task
def leave_processes(path: str, how: str, seconds: float = 0) -> None:
    """Start one that would last, in one of several ways, and go on for so long. It writes a line ``left``."""
    if how in ("subprocess", "own session"):
        subprocess.Popen([sys.executable, "-c", PROGRAM, path, how], start_new_session=how == "own session")
    elif how == "multiprocessing":
        multiprocessing.get_context("fork").Process(target=_last, args=(path, how)).start()
    elif how == "thread":
        threading.Thread(target=time.sleep, args=(60,), daemon=False).start()
        _note_left(path, how)
    elif how == "joblib":
        joblib = importlib.import_module("joblib")
        joblib.Parallel(n_jobs=2)(joblib.delayed(_note_left)(path, how) for _ in range(2))
    elif (pid := os.fork()) == 0:
        # A daemon is the child of nobody; a proper one also has a session of its own.
        if how == "daemon":
            os.setsid()
        if os.fork() == 0:
            _last(path, how)
        os._exit(0)
    else:
        os.waitpid(pid, 0)
    time.sleep(seconds)


def _note_left(path: str, how: str) -> None:
    write_line(path, "left", how)


def _last(path: str, how: str) -> None:
    _note_left(path, how)
    time.sleep(60)
    os._exit(0)


@task
def heedless(path: str, key: str, seconds: float) -> None:
    """Go on whatever is raised in it."""
    write_line(path, "start", key)
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        with contextlib.suppress(BaseException):
            time.sleep(0.05)
    write_line(path, "end", key)


@task
async def heedless_on_loop(path: str, key: str, seconds: float) -> None:
    write_line(path, "start", key)
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        with contextlib.suppress(BaseException):
            await asyncio.sleep(0.05)
    write_line(path, "end", key)


@task
def query_until_told(path: str, key: str, seconds: float) -> str:
    """Have the database work for so long; when that is cut short, tidy up there, and say when it was."""
    write_line(path, "start", key)
    try:
        with transaction.atomic():
            Effect.objects.create(name=f"half {key}")
            with connection.cursor() as cursor:
                cursor.execute("SELECT pg_sleep(%s)", [seconds])
    except SoftTimeLimitExceeded as error:
        write_line(path, "struck", key)
        with transaction.atomic():
            Effect.objects.create(name=f"tidied {key}")
        return str(error)
    return "never"


@task
def interrupted(where: str, number: int) -> str:
    """Use the database, in rounds, until the soft limit strikes; ``where`` is what is around it then."""
    try:
        if where == "finally":
            try:
                use_database(number)
            finally:
                Effect.objects.count()
        elif where == "transaction":
            with transaction.atomic():
                Effect.objects.create(name=f"half {number}")
                use_database(number)
        else:
            use_database(number)
    except Exception:
        if where != "except":
            raise
        with transaction.atomic():
            Effect.objects.create(name=f"tidied {number}")
        return "tidied"
    return "in time"


def use_database(number: int) -> None:
    deadline = time.monotonic() + 10
    while time.monotonic() < deadline:
        with transaction.atomic():
            Effect.objects.filter(name=f"none {number}").count()
        time.sleep(0.001)


@task
async def interrupted_coroutine(where: str, number: int) -> str:
    """The same, but its sync calls are let finish."""
    use = sync_to_async(Effect.objects.filter(name=f"none {number}").count)
    try:
        try:
            while True:
                await (Effect.objects.acount() if where == "query" else use())
                await asyncio.sleep(0.001)
        finally:
            if where == "finally":
                await Effect.objects.acount()
    except SoftTimeLimitExceeded:
        if where != "except":
            raise
        return "tidied"


@task
async def leave_effect_on_loop(name: str) -> None:
    await Effect.objects.acreate(name=name)


@task
def save_place(path: str, key: str) -> str:
    """Write down how far it got once it is asked to stop, and go on from there in another worker."""
    write_line(path, "start", key)
    if Path(f"{path}.place").exists():
        return "went on from there"
    deadline = time.monotonic() + 20
    while time.monotonic() < deadline:
        if current_task.stop_requested():
            Path(f"{path}.place").touch()
            write_line(path, "saved", key)
            current_task.give_back()
        time.sleep(0.01)
    return "was never asked"


@task
async def nap_on_loop(seconds: float) -> None:
    await asyncio.sleep(seconds)


@task
async def look_around_on_loop(number: int) -> list[str]:
    """Who and where it is, and what it has enqueued."""
    await Effect.objects.acreate(name=f"on the loop {number}")
    enqueued = await add.aenqueue(number, number)
    return [current_task.id, str(translation.get_language()), timezone.get_current_timezone_name(), enqueued.id]


_meeting: set[int] = set()
_has_met = threading.Event()


@task
async def meet_in_queries(wanted: int) -> int:
    """How many threads have made sync calls, once so many were in one at the same time."""

    def query() -> int:
        Effect.objects.count()
        _meeting.add(threading.get_ident())
        if len(_meeting) >= wanted:
            _has_met.set()
        _has_met.wait(20)
        return len(_meeting)

    return await sync_to_async(query)()


@task
def snooze_once(seconds: float) -> float:
    """How long ago it was enqueued, when it has snoozed as long."""
    age = (timezone.now() - current_task.enqueued_at).total_seconds()
    if age < seconds:
        current_task.snooze(seconds)
    return age


@task
async def snooze_on_loop(seconds: float) -> float:
    return snooze_once.function(seconds)


@task(batch_size=100, batch_wait=0.5)
def double_together(calls: list[Call[[str, int]]]) -> list[int]:
    """Write how many there are at once."""
    write_line(calls[0].args[0], "batch", len(calls))
    return [2 * call.args[1] for call in calls]


@task(batch_size=4, batch_wait=0.3, max_retries=1)
def do_together(calls: list[Call[[str, str]]]) -> None:
    """Do with each call what its second argument says; write all of them first."""
    path, words = calls[0].args[0], [call.args[1] for call in calls]
    write_line(path, "batch", *words)
    for call, word in zip(calls, words, strict=True):
        if word == "fail":
            call.fail(ValueError("on purpose"))
        elif word == "retry" or (word == "retry once" and call.attempt == 1):
            call.retry(countdown=0.05)
        elif word == "die":
            os.kill(os.getpid(), signal.SIGKILL)
        elif word == "last":
            wait_at_gate(path, 60)
        elif word == "raise":
            raise OSError("for all that are left")
        else:
            call.done(word)


@task(batch_size=4, batch_wait=60)
def gather_for_long(calls: list[Call[[str]]]) -> None:
    write_line(calls[0].args[0], "batch", len(calls))


@task(batch_size=3, batch_wait=0.1, time_limit=0.5)
def overrun_together(calls: list[Call[[str]]]) -> None:
    write_line(calls[0].args[0], "batch", len(calls))
    time.sleep(60)


@task(batch_size=3, batch_wait=0.1, acks_late=False)
def die_together_at_most_once(calls: list[Call[[str]]]) -> None:
    write_line(calls[0].args[0], "batch", len(calls))
    os.kill(os.getpid(), signal.SIGKILL)
