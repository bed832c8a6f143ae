"""The health of one worker as others see it: probes, metrics and the file that is touched.

One thread serves HTTP, reads what the processes have counted and judges their progress. It never waits: what has to
be asked of the database is asked in another (:mod:`.asking`), and the main loop is only looked at.
"""

from __future__ import annotations

import hmac
import logging
import os
import time
from pathlib import Path
from typing import Any, NamedTuple, Protocol

from django_taskq.conf_health import HealthOptions
from django_taskq.worker.crew import Crew
from django_taskq.worker.health import exposition, families
from django_taskq.worker.health.asking import Asking
from django_taskq.worker.health.http import HttpServer, Request, Response, listen
from django_taskq.worker.health.progress import Progress
from django_taskq.worker.health.totals import Totals
from django_taskq.worker.service import Service
from django_taskq.worker.shutter import Shutter
from django_taskq.worker.state import snapshot

logger = logging.getLogger("django_taskq")

LOOK_INTERVAL = 1.0  # seconds between judgements, and between touches of the file
PROBES = ("livez", "readyz", "startupz")


class CannotListen(Exception):
    """The health port or file that was asked for cannot be had."""


class Condition(NamedTuple):
    """How a supervisor is. ``has_heartbeat``: the last ones got through, ``is_steady``: and have for a while.

    ``looked_at`` is when its main loop last went round (monotonic seconds).
    """

    name: str
    is_stopping: bool
    has_heartbeat: bool
    is_steady: bool
    looked_at: float
    leases_lost: int


class Watched(Protocol):
    """What is looked at: a supervisor, from another thread."""

    crew: Crew
    shutter: Shutter

    @property
    def condition(self) -> Condition:
        """As it is now."""


class Station(Service):
    """Serves what :class:`HealthOptions` ask for, from :meth:`start` to :meth:`stop`."""

    name = "health port"

    def __init__(self, options: HealthOptions, watched: Watched) -> None:
        """Take the port and make the file. Raises :exc:`CannotListen`."""
        super().__init__()
        self._options = options
        self._watched = watched
        self._progress = Progress(options.timeout)
        self._look_at = 0.0
        self._was_up = False
        self._is_touching = True
        self.totals: Totals | None = None
        self._server: HttpServer | None = None
        self._asking = Asking(self._state, self._is_fetched, self.wake)
        if options.port is not None:
            self._server = HttpServer(_listener(options.host, options.port), self._answer)
            self.totals = Totals()

    def start(self) -> None:
        if self._thread is not None:
            return
        if self.totals is not None and self._server is not None:
            self.totals.listen()
            logger.info("health and metrics on http://%s", self._server.address)
        self._asking.start()
        super().start()

    def stop(self, deadline: float) -> bool:
        self._asking.stop(time.monotonic())
        has_ended = super().stop(deadline)
        if has_ended and self._server is not None:
            self._server.close()
        if self.totals is not None:
            self.totals.forget()
        if self._options.file is not None:
            self._options.file.unlink(missing_ok=True)
        return has_ended

    def wake(self) -> None:
        super().wake()
        if self._server is not None:
            self._server.wake()

    def work(self) -> float:
        if time.monotonic() >= self._look_at:
            self._look_at = time.monotonic() + LOOK_INTERVAL
            self._look()
        pause = max(0.0, self._look_at - time.monotonic())
        if self._server is None:
            return pause
        self._server.step(pause)
        return 0.0

    def _look(self) -> None:
        state, now = self._state(), time.monotonic()
        condition = self._watched.condition
        # The main loop waits for the fork server to load the project before it has its first process.
        loop_age = now - condition.looked_at if self._was_up else 0.0
        self._progress.look(state, now, loop_age=loop_age, is_steady=condition.is_steady)
        self._was_up = self._was_up or any(each["up"] for each in state["processes"])
        if self.totals is not None:
            with self.totals.counts():
                pass  # so that the pipes do not fill while nobody asks
        if self._options.file is not None and self._was_up and not self._against("livez"):
            self._touch(self._options.file)

    def _touch(self, path: Path) -> None:
        try:
            touch(path)
            self._is_touching = True
        except OSError as error:
            if self._is_touching:
                logger.warning("the health file cannot be touched: %s", error)
            self._is_touching = False

    def _state(self) -> dict[str, Any]:
        return snapshot(self._watched.crew)

    # What the probes say.

    def _against(self, probe: str) -> list[str]:
        """What speaks against a probe's success; nothing when all is well."""
        if probe == "livez":
            # Who ends is given the time that it has been promised.
            return [] if self._watched.condition.is_stopping else [*self._progress.complaints, *self._stalls()]
        if not self._was_up:
            return ["no worker process has finished starting"]
        return [] if probe == "startupz" else self._unready()

    def _is_fetched(self, queue_name: str) -> bool:
        shutter = self._watched.shutter
        return not shutter.is_quiet and queue_name not in shutter.closed

    def _stalls(self) -> list[str]:
        if not self._watched.condition.is_steady:
            return []
        return self._asking.stalls.complaints(time.monotonic(), self._options.timeout)

    def _unready(self) -> list[str]:
        condition, state = self._watched.condition, self._state()
        found = [f"resource {name} is degraded: {why}" for name, why in sorted(state["degraded"].items())]
        found += [f"broker {alias} does not answer: {why}" for alias, why in sorted(self._asking.down.items())]
        if condition.is_stopping:
            found.append("the worker is stopping")
        if self._watched.shutter.is_quiet:
            found.append("the worker is quiet")
        if not condition.has_heartbeat:
            found.append("the database does not answer")
        if not any(each["up"] and each["sound"] for each in state["processes"]):
            found.append("no worker process can record and fetch")
        return [*found, *self._against("livez")]

    # HTTP.

    def _answer(self, request: Request, may_wait: bool) -> Response | None:
        name = request.path.removeprefix("/")
        if name not in (*PROBES, "metrics", "metrics.json"):
            return Response(404, b"there are /livez, /readyz, /startupz, /metrics and /metrics.json\n")
        if request.method not in ("GET", "HEAD"):
            return Response(405, b"GET or HEAD\n", more=("Allow: GET, HEAD",))
        is_trusted = self._is_trusted(request.token)
        if name in PROBES:
            reasons = self._against(name)
            # The reasons name queues and resources, which are no more everybody's business than the metrics are.
            text = "\n".join(reasons if is_trusted else ["unhealthy"]) if reasons else "ok"
            return Response(503 if reasons else 200, f"{_printable(text)}\n".encode())
        if not is_trusted:
            return Response(401, b"a token is needed\n", more=('WWW-Authenticate: Bearer realm="taskq"',))
        return self._measured(may_wait, is_json=name == "metrics.json")

    def _is_trusted(self, token: bytes | None) -> bool:
        expected = self._options.token
        return expected is None or (token is not None and hmac.compare_digest(token, expected.encode()))

    def _measured(self, may_wait: bool, *, is_json: bool) -> Response | None:
        backlog, is_fresh = self._asking.backlog()
        if not is_fresh and may_wait:
            return None
        condition, state = self._watched.condition, self._state()
        if is_json:
            if backlog is None:
                # An autoscaler must not take what is not known for nothing to do.
                return Response(503, b'{"error": "the numbers of queues cannot be read"}\n', exposition.JSON_TYPE)
            return Response(200, exposition.as_json(condition.name, state, backlog), exposition.JSON_TYPE)
        verdicts = {probe: not self._against(probe) for probe in PROBES}
        found = [*families.of_worker(state, verdicts, condition.leases_lost), *families.of_backlog(backlog)]
        assert self.totals is not None
        with self.totals.counts() as counts:
            found += families.of_counts(counts)
        return Response(200, exposition.as_text(found), exposition.TEXT_TYPE)


def touch(path: Path) -> None:
    """Make the file or give it the time of now; no link is followed, and nobody else may write to it."""
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | getattr(os, "O_NOFOLLOW", 0), 0o644)
    try:
        os.utime(descriptor)
    finally:
        os.close(descriptor)


def open_station(options: HealthOptions, watched: Watched) -> Station | None:
    """The station that was asked for, if any. Raises :exc:`CannotListen`."""
    if not options.is_on:
        return None
    if options.file is not None:
        try:
            touch(options.file)
            if options.file.stat().st_size:
                raise CannotListen(f"the health file {str(options.file)!r} is somebody else's: it is not empty")
            # One that a killed worker has left behind must not speak for this one.
            options.file.unlink()
        except OSError as error:
            raise CannotListen(f"the health file {str(options.file)!r} cannot be written: {error.strerror}") from error
    return Station(options, watched)


def _listener(host: str, port: int) -> Any:
    try:
        return listen(host, port)
    except OSError as error:
        raise CannotListen(f"the health port {port} of {host} cannot be had: {error.strerror or error}") from error


def _printable(text: str) -> str:
    return "".join(char if char.isprintable() or char == "\n" else "?" for char in text)
