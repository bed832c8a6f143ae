"""Other commands of this project as processes beside the running one, as a process manager would keep them."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from django.conf import settings

STOP_TIMEOUT = 40  # seconds: above the worker's own grace


def stop_on_signals() -> None:
    """Have Ctrl-C and SIGTERM alike end this process by ``KeyboardInterrupt``, so that it leaves nothing running."""
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.default_int_handler)


@contextmanager
def manage(*arguments: str, log: Path, **environment: str) -> Iterator[subprocess.Popen[bytes]]:
    """Run ``manage.py`` with ``arguments`` while the block runs, its output in ``log``; stop it politely after.

    ``environment`` comes on top of ours.
    """
    log.parent.mkdir(parents=True, exist_ok=True)
    with log.open("wb") as output:
        process = subprocess.Popen(
            [sys.executable, "-u", str(settings.BASE_DIR / "manage.py"), *arguments],
            env=os.environ | environment,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            # A session of its own: Ctrl-C goes to us alone, and we stop it in our own time.
            start_new_session=True,
        )
    try:
        yield process
    finally:
        process.terminate()
        try:
            process.wait(STOP_TIMEOUT)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def tail(log: Path, lines: int = 20) -> str:
    """The end of a log, to show when something went wrong."""
    return "\n".join(log.read_text(errors="replace").splitlines()[-lines:])
