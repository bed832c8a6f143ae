"""For development: ``taskworker --reload`` and ``--runserver``.

This process only watches the code. The worker, and the web server beside it, are processes of their own (the same
command line once more, see ``leash``), stopped and started again when a file has changed. So code that does not even
import ends them and not the command, and a worker keeps its main thread and its signals.
"""

from __future__ import annotations

import io
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Mapping
from contextlib import suppress
from select import select
from typing import IO, Any

from django.conf import settings
from django.core.management import call_command
from django.core.management.base import CommandError, CommandParser
from django.core.management.commands.runserver import naiveip_re
from django.utils import autoreload

from django_taskq.management import first_start, leash
from django_taskq.management.storage import USAGE_EXIT
from django_taskq.management.watching import Watch

GRACE = 2.0  # seconds: whoever has changed the code does not want to wait for what the old code runs
STOP_SECONDS = 10.0  # beyond the grace period, until a process is killed
PROMPT_AFTER = 0.1  # seconds after which what has no line end yet is shown: a debugger's prompt


def add_to(parser: CommandParser) -> None:
    """Declare the options."""
    group = parser.add_argument_group("development")
    group.add_argument(
        "--reload",
        action="store_true",
        help=f"Start the worker again when code has changed; what runs has {GRACE:g} seconds to finish, unless --grace "
        "says otherwise. Default: it keeps the code it has loaded.",
    )
    group.add_argument(
        "--runserver",
        nargs="?",
        const="",
        metavar="ADDRPORT",
        help="Have Django's development server run beside the worker, in one terminal, and both load changed code. "
        "Default: the worker alone.",
    )


def is_asked_for(given: Mapping[str, Any]) -> bool:
    """Whether the command line wants any of it. Raises ``CommandError`` for what cannot be."""
    option = "--runserver" if given.get("runserver") is not None else "--reload" if given.get("reload") else ""
    if not option:
        return False
    for other in ("burst", "max_tasks"):
        if given.get(other):
            raise _refusal(option, f"not together with --{other.replace('_', '-')}: it goes on until Ctrl+C")
    if option == "--runserver":
        if not settings.DEBUG:
            raise _refusal(option, "it is for development, and DEBUG is off: run taskworker beside a real web server")
        if given["runserver"] and not (naiveip_re.match(given["runserver"]) or given["runserver"].isdigit()):
            raise _refusal(option, f"{given['runserver']!r} is no port and no address:port")
    return True


def serve(given: Mapping[str, Any]) -> int:
    """The web server's part."""
    address = [given["runserver"]] if given["runserver"] else []
    shared = {name: given[name] for name in ("verbosity", "no_color", "force_color") if name in given}
    call_command("runserver", *address, use_reloader=False, skip_checks=False, **shared)
    return 0


def run(given: Mapping[str, Any]) -> int:
    """The watching part, until Ctrl+C or SIGTERM: returns the exit code."""
    first_start.uninstall()
    has_server = given["runserver"] is not None
    grace = GRACE if given["grace"] is None else given["grace"]
    terminal = Terminal()
    roles = [leash.SERVER, leash.WORKER] if has_server else [leash.WORKER]
    parts = [Part(role, grace, terminal if has_server else None) for role in roles]
    say = terminal.say if given["verbosity"] else lambda text: None
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        for part in parts:
            part.start()
        watch = Watch()
        say("for development: changed code is loaded at once, and Ctrl+C ends everything")
        while True:
            changed = watch.wait()
            for part in parts:
                if part.has_ended():
                    say(f"{part.role} has ended with {part.code}; it starts again when a file has changed")
            if changed:
                say(f"{', '.join(sorted({path.name for path in changed}))} changed: starting again")
                stop(parts)
                for part in parts:
                    part.start()
    except KeyboardInterrupt:
        return end(parts)


def stop(parts: list[Part]) -> None:
    """Have all stop at once, and wait for them."""
    for part in parts:
        part.terminate()
    for part in parts:
        part.wait()


def end(parts: list[Part]) -> int:
    """Stop for good; another Ctrl+C is passed on, so that the worker cuts short what runs. Returns the exit code."""

    def hurry(*args: object) -> None:
        for part in parts:
            part.terminate()

    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, hurry)
    was_running = parts[-1].code is None
    stop(parts)
    return max(0, parts[-1].code or 0) if was_running else 0


class Part:
    """The worker, or the web server. With ``terminal`` its output goes there, each line with a mark."""

    def __init__(self, role: str, grace: float, terminal: Terminal | None) -> None:
        self.role = role
        self._seconds = grace + STOP_SECONDS
        self._terminal = terminal
        self._process: subprocess.Popen[bytes] | None = None
        self._leash = -1
        self._has_ended = False

    @property
    def code(self) -> int | None:
        """Its exit code; None while it runs."""
        return None if self._process is None else self._process.poll()

    def start(self) -> None:
        """Start it anew."""
        autoreload.ensure_echo_on()  # which a debugger that was ended may have left off
        theirs, ours = os.pipe()
        environment = {**os.environ, leash.VARIABLE: str(leash.Leash(self.role, theirs))}
        output = None
        if self._terminal is not None:
            output, environment["PYTHONUNBUFFERED"] = subprocess.PIPE, "1"
        # A terminal's Ctrl+C goes to every process in it. That is for us alone to hear, and what is ignored stays so.
        before = signal.signal(signal.SIGINT, signal.SIG_IGN)
        try:
            self._process = subprocess.Popen(
                autoreload.get_child_arguments(),
                env=environment,
                pass_fds=(theirs,),
                stdout=output,
                stderr=subprocess.STDOUT if output else None,
            )
        finally:
            os.close(theirs)
            signal.signal(signal.SIGINT, before)
        self._leash, self._has_ended = ours, False
        if self._terminal is not None and self._process.stdout is not None:
            passing = (self._terminal, f"[{self.role}] ", self._process.stdout)
            threading.Thread(target=pass_on, args=passing, name=f"taskq-{self.role}", daemon=True).start()

    def terminate(self) -> None:
        """Ask it to stop; to a worker a second time means at once."""
        if self._process is not None and self._process.poll() is None:
            self._process.terminate()

    def wait(self) -> None:
        """Until it is gone. It may be called again."""
        if self._process is None:
            return
        try:
            self._process.wait(self._seconds)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        if self._leash >= 0:
            os.close(self._leash)
            self._leash = -1

    def has_ended(self) -> bool:
        """Whether it has ended by itself: True once."""
        had_ended, self._has_ended = self._has_ended, self.code is not None
        return self._has_ended and not had_ended


class Terminal:
    """Where the outputs of several processes come together, in whole lines."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._begun = ""

    def say(self, text: str) -> None:
        """A line of our own."""
        self.write("taskworker: ", f"{text}\n".encode())

    def write(self, mark: str, data: bytes) -> None:
        """Lines, each with a mark before it; what has no line end may go on with the next call."""
        with self._lock, suppress(OSError):  # nobody reads it any more
            for line in io.BytesIO(data):
                new_line = "\n" if self._begun and self._begun != mark else ""
                start = "" if self._begun == mark else f"{new_line}{mark}"
                _write_all(sys.stdout.fileno(), start.encode() + line)
                self._begun = "" if line.endswith(b"\n") else mark


def pass_on(terminal: Terminal, mark: str, source: IO[bytes]) -> None:
    """All that comes from there, to the end."""
    with source:
        rest = b""
        while True:
            if rest and not select([source], [], [], PROMPT_AFTER)[0]:
                terminal.write(mark, rest)
                rest = b""
                continue
            data = os.read(source.fileno(), 1 << 16)
            whole, newline, rest = (rest + data).rpartition(b"\n")
            if whole or newline:
                terminal.write(mark, whole + newline)
            if not data:
                break
        if rest:
            terminal.write(mark, rest + b"\n")


def _write_all(fileno: int, data: bytes) -> None:
    while data:
        data = data[os.write(fileno, data) :]


def _refusal(option: str, why: str) -> CommandError:
    return CommandError(f"argument {option}: {why}", returncode=USAGE_EXIT)
