"""One case, measured: fill the queue, start the worker, read what the bodies wrote; then again, idle."""

from __future__ import annotations

import json
import os
import shlex
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.peers import environments, records
from tests.peers.cases import Case
from tests.peers.records import Figures
from tests.peers.stores import Stores

ADAPTERS = Path(__file__).resolve().parent / "adapters"
PROBE = 400
WARM_UP = 20  # runs before the latency is measured, so that both processes have run some
INTERVAL = 0.05
PATIENCE = 45.0  # seconds without a single new record; the slowest start seen took 3
SETTLE = 15.0  # seconds in which a worker that was told to stop may record what it has finished
FIRST_SPACED = 1_000_000


class CaseFailed(Exception):
    """A case did not do what it should; the text becomes its row in the report."""


@dataclass(frozen=True)
class Plan:
    tasks: int
    repeat: int
    latencies: int


class Bench:
    """Measures one case in a scratch directory, whose environment and stores exist."""

    def __init__(self, case: Case, stores: Stores, scratch: Path) -> None:
        self.case = case
        self.stores = stores
        self.scratch = scratch
        self._rounds = 0
        self._records = scratch

    def measure(self, plan: Plan) -> Figures:
        figures = Figures()
        try:
            _, probed = self.drain(min(PROBE, plan.tasks))
            figures.tasks = records.sensible_count(probed, plan.tasks)
            for _ in range(plan.repeat):
                enqueued, drained = self.drain(figures.tasks)
                figures.enqueues.append(enqueued)
                figures.drains.append(drained)
                figures.latencies += self.latency(plan.latencies) if plan.latencies else []
        finally:
            self.stores.clean(self.case, remake=False)
        return figures

    def drain(self, count: int) -> tuple[float, float]:
        """Tasks per second put into an empty queue, and out of it by a worker started afterwards."""
        self._prepare()
        enqueued = self._produce("enqueue", str(count))["rate"]
        with self._worker():
            self._wait_for(count)
        stored = self._produce("stored")["stored"]
        if stored is not None and stored < count:
            raise CaseFailed(f"failed: {count:,} tasks ran and {stored:,} results are in the database")
        return enqueued, records.drain_rate(records.read(self._records))

    def latency(self, count: int) -> list[float]:
        """Milliseconds from the call that enqueued to the body, in a worker that has nothing else to do."""
        self._prepare()
        with self._worker():
            self._produce("enqueue", str(WARM_UP))
            self._wait_for(WARM_UP)
            time.sleep(2)  # until every process of it is up and has gone idle
            answer = self._produce("spaced", str(FIRST_SPACED), str(count), str(INTERVAL))
            self._wait_for(WARM_UP + 1 + count)  # one more connected the producer
        sent = {int(number): moment for number, moment in answer["sent"].items()}
        return records.latencies(sent, records.read(self._records))

    def _prepare(self) -> None:
        self._rounds += 1
        self._records = self.scratch / f"{self.case.name}-{self._rounds}"
        self._records.mkdir()
        self.stores.clean(self.case)
        self._produce("setup")

    def _environ(self) -> dict[str, str]:
        inherited = {name: value for name, value in os.environ.items() if not name.startswith(("PYTHON", "DJANGO"))}
        environ = inherited | {"PYTHONPATH": str(ADAPTERS), "PEER_RECORDS": str(self._records)}
        environ["PATH"] = f"{environments.HOME / self.case.environment / 'bin'}{os.pathsep}{os.environ['PATH']}"
        if self.case.django:
            environ |= {"DJANGO_SETTINGS_MODULE": "peer_settings", "PEER_SETTINGS": json.dumps(self.case.django)}
        return environ | self.stores.environ(self.case) | dict(self.case.environ)

    def _produce(self, *arguments: str) -> dict[str, Any]:
        python = environments.program(self.case.environment, "python")
        command = [python, str(ADAPTERS / "produce.py"), self.case.adapter, *arguments]
        done = subprocess.run(
            command, env=self._environ(), cwd=self.scratch, capture_output=True, text=True, check=False, timeout=600
        )
        if done.returncode:
            last = (done.stderr.strip().splitlines() or [f"exit code {done.returncode}"])[-1]
            raise CaseFailed(f"{'skipped' if arguments[0] == 'setup' else 'failed'}: {last}")
        answer: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
        return answer

    @contextmanager
    def _worker(self) -> Iterator[None]:
        """The worker processes; on leaving they are asked to stop, then made to, with everything they started."""
        self._log = self.scratch / f"{self.case.name}.log"
        self._processes = []
        try:
            for command in self.case.workers:
                name, *arguments = shlex.split(command)
                with self._log.open("ab") as log:
                    process = subprocess.Popen(
                        [environments.program(self.case.environment, name), *arguments],
                        env=self._environ(),
                        cwd=self.scratch,
                        stdin=subprocess.DEVNULL,
                        stdout=log,
                        stderr=subprocess.STDOUT,
                        start_new_session=True,  # so that a signal to the group reaches all of it and nothing else
                    )
                self._processes.append(process)
            yield
        finally:
            _stop(self._processes)

    def _wait_for(self, count: int) -> None:
        """Return when so many bodies have run; raise when a worker ends or nothing happens any more."""
        seen, changed = -1, time.monotonic()
        while (found := records.count(self._records)) < count:
            ended = [process.returncode for process in self._processes if process.poll() is not None]
            if found != seen:
                seen, changed = found, time.monotonic()
            if ended or time.monotonic() - changed > PATIENCE:
                why = f"its worker ended with {ended[0]}" if ended else f"nothing ran for {PATIENCE:.0f} s"
                raise CaseFailed(f"failed: {found:,} of {count:,} tasks ran, then {why}{self._last_words()}")
            time.sleep(0.05)

    def _last_words(self) -> str:
        lines = self._log.read_text(errors="replace").strip().splitlines()
        return f" ({lines[-1][:200]})" if lines else ""


def _stop(processes: list[subprocess.Popen[bytes]]) -> None:
    for process in processes:
        if process.poll() is None:
            process.terminate()
    deadline = time.monotonic() + SETTLE
    for process in processes:
        try:
            process.wait(max(0.1, deadline - time.monotonic()))
        except subprocess.TimeoutExpired:
            pass
        try:
            os.killpg(process.pid, signal.SIGKILL)
        except ProcessLookupError:  # nothing of it was left
            pass
        process.wait()


def measure(case: Case, stores: Stores, scratch: Path, plan: Plan, say: Callable[[str], None]) -> Figures:
    """The figures of a case; whatever goes wrong with it becomes its ``problem``."""
    say(f"{case.name} ...")
    try:
        for store in sorted(case.stores):
            stores.url(store)
        environments.ensure(case.environment)
        return Bench(case, stores, scratch).measure(plan)
    except CaseFailed as error:
        return Figures(problem=str(error))
    except Exception as error:  # one peer that cannot be measured must not cost the hour of all the others
        return Figures(problem=f"skipped: {(str(error).strip().splitlines() or [repr(error)])[0]}")
