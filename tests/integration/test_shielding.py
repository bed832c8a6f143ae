"""An interruption of what uses the database, wherever it strikes: the connection is as the task knows it afterwards."""

from __future__ import annotations

import gc
import random
import signal
import sys
import threading
import time
from collections.abc import Iterator
from types import FrameType

import pytest
from django.db import connection, transaction

from django_taskq.exceptions import SoftTimeLimitExceeded
from django_taskq.worker import shielding
from django_taskq.worker.interrupting import as_interrupt, raise_in_thread
from django_taskq.worker.shielding import Shield
from tests.testapp.models import Effect

pytestmark = pytest.mark.django_db(transaction=True)

STRIKES = 300
AGAIN = 0.3  # seconds


class Rounds:
    """Uses the database in every way that leaves something half done when it is cut short, and keeps count."""

    def __init__(self) -> None:
        self.number = 0
        self.hooks = 0

    def go_on(self) -> None:
        while True:
            self.number += 1
            with transaction.atomic():
                transaction.on_commit(self._count_hook)
                Effect.objects.create(name=f"pair {self.number}")
                with transaction.atomic():
                    Effect.objects.create(name=f"pair {self.number}")
            list(Effect.objects.filter(name=f"pair {self.number}").iterator(chunk_size=1))
            self._roll_back()
            if self.number % 20 == 0:
                connection.close()

    def _count_hook(self) -> None:
        self.hooks += 1

    def _roll_back(self) -> None:
        try:
            with transaction.atomic():
                Effect.objects.create(name="rolled back")
                raise ZeroDivisionError
        except ZeroDivisionError:
            pass

    def check(self) -> None:
        """What a task would do to tidy up, and whether what it has done is whole."""
        blocks = (connection.in_atomic_block, connection.savepoint_ids, connection.atomic_blocks)
        assert blocks == (False, [], [])
        assert not connection.closed_in_transaction
        with transaction.atomic():
            Effect.objects.create(name="tidied")
        assert connection.get_autocommit()
        names = list(Effect.objects.values_list("name", flat=True))
        pairs = [name for name in names if name.startswith("pair")]
        assert all(pairs.count(name) == 2 for name in set(pairs))
        assert self.hooks == len(set(pairs))
        assert "rolled back" not in names
        assert names.count("tidied") == 1
        Effect.objects.all().delete()
        self.hooks = 0


@pytest.fixture(autouse=True)
def _unheard(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """What is struck while it is deleted says so, which is what these tests do to it."""
    monkeypatch.setattr(sys, "unraisablehook", lambda *args: None)
    yield
    gc.collect()


@pytest.fixture
def shield() -> Iterator[Shield]:
    made = Shield()
    shielding.cover(made)
    yield made
    shielding.cover(None)


def a_while() -> float:
    """Seconds, so that it strikes anywhere in some rounds."""
    return 0.001 + 0.01 * random.random()


class TestAnywhere:
    """An error in ``__del__`` is dropped by the interpreter, so it strikes again until one gets through."""

    def test_by_signals(self, shield: Shield) -> None:
        is_over = False

        def strike(number: int, frame: FrameType | None) -> None:
            error = as_interrupt(SoftTimeLimitExceeded("now"))
            try:
                if not is_over and not shield.hold(error, frame):
                    raise error
            finally:
                del error

        before = signal.signal(signal.SIGALRM, strike)
        rounds = Rounds()
        try:
            for _ in range(STRIKES):
                is_over = False
                try:
                    # Inside: on a busy machine it may strike before the next line.
                    signal.setitimer(signal.ITIMER_REAL, a_while(), AGAIN)
                    rounds.go_on()
                except SoftTimeLimitExceeded:
                    is_over = True
                    rounds.check()
        finally:
            signal.setitimer(signal.ITIMER_REAL, 0)
            signal.signal(signal.SIGALRM, before)

    def test_in_a_thread(self) -> None:
        shield, rounds = Shield(), Rounds()
        goes, struck = threading.Semaphore(0), threading.Semaphore(0)
        failures: list[BaseException] = []

        def run() -> None:
            shielding.cover(shield)
            try:
                for _ in range(STRIKES):
                    try:
                        goes.release()
                        rounds.go_on()
                    except SoftTimeLimitExceeded:
                        struck.release()
                        rounds.check()
            except BaseException as error:
                failures.append(error)
                goes.release()
                struck.release()
            finally:
                shielding.cover(None)
                connection.close()

        thread = threading.Thread(target=run)
        thread.start()
        assert thread.ident is not None
        for _ in range(STRIKES):
            assert goes.acquire(timeout=10)
            time.sleep(a_while())  # for nothing: the moments are what is tried
            for _ in range(20):
                raise_in_thread(thread.ident, as_interrupt(SoftTimeLimitExceeded("now")), shield)
                if struck.acquire(timeout=AGAIN):
                    break
            if failures:
                break
        thread.join(10)
        if failures:
            raise failures[0]
