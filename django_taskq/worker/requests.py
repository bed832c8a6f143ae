"""What the supervisor's main loop is asked for from outside of it: by the system's signals, and by other threads."""

from __future__ import annotations

import atexit
import logging
import os
import signal
import socket
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from queue import Empty, SimpleQueue
from types import FrameType

logger = logging.getLogger("django_taskq")

# By name, because not every system has all of them.
HEARD = ("SIGTERM", "SIGINT", "SIGQUIT", "SIGHUP", "SIGUSR1", "SIGCONT")
MOST_HEARD = 100


def ignore_signals() -> None:
    """In a process that ends: one signal more would replace its exit code, since by then Python hears none."""
    for name in HEARD:
        if hasattr(signal, name) and name != "SIGCONT":
            signal.signal(getattr(signal, name), signal.SIG_IGN)


class Requests:
    """Collected at any time, and handed to the main loop when it asks; :attr:`bell` is readable once there are some."""

    def __init__(self) -> None:
        self._calls: SimpleQueue[Callable[[], object]] = SimpleQueue()
        # Bounded: nobody asks a hundredth time for something else.
        self._signals: deque[int] = deque(maxlen=MOST_HEARD)
        self._waker: socket.socket | None = None
        self._had_terminal = has_terminal()
        self.bell: socket.socket

    @contextmanager
    def listening(self) -> Iterator[None]:
        """Hear signals, in the main thread, and wake whoever waits for :attr:`bell`."""
        self._waker, self.bell = socket.socketpair()
        atexit.register(ignore_signals)
        with self._waker, self.bell:
            self._waker.setblocking(False)
            signal.set_wakeup_fd(self._waker.fileno(), warn_on_full_buffer=False)
            for name in HEARD:
                number = getattr(signal, name, None)
                # Ignored by nohup, it was meant to be. (A shell ignores others, for whatever it starts with "&".)
                is_meant = name == "SIGHUP" and signal.getsignal(signal.SIGHUP) is signal.SIG_IGN
                if number is not None and not is_meant:
                    signal.signal(number, self._on_signal)
            try:
                yield
            finally:
                signal.set_wakeup_fd(-1)
                self._waker = None

    def call(self, function: Callable[[], object]) -> None:
        """Have the main loop call this soon; from any thread."""
        self._calls.put(function)
        waker = self._waker
        if waker is not None:
            # Full: it is awake already. Closed: the main loop has ended.
            with suppress(OSError):
                waker.send(b"\0")

    def obey_calls(self) -> None:
        """Call what is to be called. What fails is logged, and stops nothing."""
        with suppress(Empty):
            while True:
                function = self._calls.get_nowait()
                try:
                    function()
                except Exception:
                    logger.exception("a request to the supervisor failed")

    def heard(self) -> Iterator[int]:
        """The signals that have come since they were last asked for, in their order."""
        with suppress(IndexError):
            while True:
                yield self._signals.popleft()

    @property
    def has_hung_up(self) -> bool:
        """Whether there was a terminal, and is none any more: then SIGHUP says so, and asks for nothing else."""
        return self._had_terminal and not has_terminal()

    def _on_signal(self, number: int, frame: FrameType | None) -> None:
        self._signals.append(number)


def has_terminal() -> bool:
    """Whether this process is controlled by a terminal that is open."""
    try:
        os.close(os.open("/dev/tty", os.O_RDWR | getattr(os, "O_NOCTTY", 0)))
    except OSError:
        return False
    return True
