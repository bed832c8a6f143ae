"""Probes, metrics and the health file of real workers, asked over real sockets."""

from __future__ import annotations

import json
import os
import re
import signal
import socket
import time
from collections.abc import Callable
from contextlib import ExitStack
from datetime import timedelta
from http.client import HTTPConnection
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from django.db import connection, transaction
from django.utils import timezone

from django_taskq.models import TaskRecord
from django_taskq.status import Status
from tests.faults.history import History, wait_until_finished
from tests.testapp.tasks import add, fail, nap, note, note_with_hard_limit
from tests.waiting import wait_for
from tests.workers import WorkerProcess

pytestmark = [pytest.mark.django_db(transaction=True), pytest.mark.one_database]

Start = Callable[..., WorkerProcess]
# Judged within seconds, and by heartbeats that are steady as soon.
HASTY = {"HEALTH_TIMEOUT": 2, "HEARTBEAT_INTERVAL": 0.5}
TOKEN = "a-token-of-the-tests"


class Answer(NamedTuple):
    status: int
    text: str
    headers: dict[str, str]


class Port:
    """The health port of a worker."""

    def __init__(self, worker: WorkerProcess) -> None:
        found = wait_for(
            lambda: re.search(r"health and metrics on http://([\d.]+):(\d+)", worker.log()), 20, worker.log
        )
        self.address = (found[1], int(found[2]))

    def ask(self, path: str, method: str = "GET", **headers: str) -> Answer:
        asked = HTTPConnection(*self.address, timeout=15)
        try:
            asked.request(method, path, headers=headers)
            got = asked.getresponse()
            return Answer(got.status, got.read().decode(), dict(got.getheaders()))
        finally:
            asked.close()

    def status(self, path: str) -> int:
        return self.ask(path).status

    def metric(self, name: str, **labels: str) -> float:
        return metric(self.ask("/metrics").text, name, **labels)

    def send(self, data: bytes) -> bytes:
        """What comes back for these bytes, until the end."""
        with socket.create_connection(self.address, 15) as sock:
            sock.sendall(data)
            return b"".join(iter(lambda: sock.recv(65536), b""))


def metric(text: str, name: str, **labels: str) -> float:
    """The value of one sample; 0 where there is none."""
    for line in text.splitlines():
        found = re.fullmatch(r"(\w+)(?:\{(.*)\})? (\S+)", line)
        if found and found[1] == name and dict(re.findall(r'(\w+)="([^"]*)"', found[2] or "")) == labels:
            return float(found[3])
    return 0.0


@pytest.fixture
def history(tmp_path: Path) -> History:
    return History(tmp_path / "history")


def start(worker: Start, *arguments: str, **taskq: Any) -> tuple[WorkerProcess, Port]:
    process = worker("--processes", "1", "--health-port", "0", *arguments, taskq=taskq)
    return process, Port(process)


class TestProbes:
    """What they say of a worker through its life."""

    def test_from_the_start_to_the_end(self, worker: Start) -> None:
        process = worker("--processes", "1", "--health-port", "0", "--grace", "20", ready=False)
        port = Port(process)
        wait_for(lambda: port.status("/readyz") == 200, 20, process.log)
        assert [port.status(path) for path in ("/livez", "/startupz")] == [200, 200]
        nap.enqueue(3)
        wait_for(lambda: port.metric("taskq_worker_busy") == 1, 10, process.log)
        process.terminate()
        wait_for(lambda: port.status("/readyz") == 503, 3, process.log)
        assert "stopping" in port.ask("/readyz").text
        # It is given the time that it was promised.
        assert [port.status(path) for path in ("/livez", "/startupz")] == [200, 200]
        assert process.wait() == 0
        with pytest.raises(OSError, match="refused"):
            port.status("/livez")

    def test_quiet_is_not_ready_and_alive(self, worker: Start) -> None:
        process, port = start(worker)
        wait_for(lambda: port.status("/readyz") == 200, 10, process.log)
        os.kill(process.pid, signal.SIGUSR1)
        wait_for(lambda: port.status("/readyz") == 503, 5, process.log)
        assert port.ask("/readyz").text == "the worker is quiet\n"
        assert port.status("/livez") == 200
        os.kill(process.pid, signal.SIGCONT)
        wait_for(lambda: port.status("/readyz") == 200, 5, process.log)

    def test_a_process_that_stands_still(self, worker: Start) -> None:
        process, port = start(worker, **HASTY)
        wait_for(lambda: port.status("/readyz") == 200, 10, process.log)
        (child,) = process.children()
        os.kill(child, signal.SIGSTOP)
        wait_for(lambda: port.status("/livez") == 503, 15, process.log)
        assert "no process that serves default has got on" in port.ask("/livez").text
        assert port.metric("taskq_worker_healthy", probe="livez") == 0
        os.kill(child, signal.SIGCONT)
        wait_for(lambda: port.status("/livez") == 200, 5, process.log)

    def test_a_long_run_that_keeps_the_interpreter_is_healthy(self, worker: Start, history: History) -> None:
        _process, port = start(worker, **HASTY | {"HEALTH_TIMEOUT": 5})
        note.enqueue(history.path, "long", 9, "gil")
        history.wait_for("start", "long")
        while not history.count("end", "long"):
            assert port.ask("/livez").text == "ok\n"
            time.sleep(0.2)

    def test_one_of_two_is_enough(self, worker: Start) -> None:
        process, port = start(worker, "--processes", "2", **HASTY)
        wait_for(lambda: port.metric("taskq_worker_processes") == 2, 10, process.log)
        child = process.children()[0]
        os.kill(child, signal.SIGSTOP)
        until = time.monotonic() + 6
        while time.monotonic() < until:
            # Not "ok": on a machine this busy the main loop may stand still for so long.
            assert "has got on" not in port.ask("/livez").text
            time.sleep(0.2)
        os.kill(child, signal.SIGCONT)

    def test_a_claim_that_is_blocked(self, worker: Start) -> None:
        if connection.vendor != "postgresql":
            pytest.skip("elsewhere a lock holds up the heartbeats, too")
        process, port = start(worker, **HASTY)
        wait_for(lambda: port.status("/readyz") == 200, 10, process.log)
        with transaction.atomic(), connection.cursor() as cursor:
            cursor.execute("LOCK TABLE taskq_task IN ACCESS EXCLUSIVE MODE")
            wait_for(lambda: port.status("/livez") == 503, 15, process.log)
        wait_for(lambda: port.status("/livez") == 200, 5, process.log)

    def test_work_that_idle_processes_do_not_take(self, worker: Start) -> None:
        if connection.vendor != "postgresql":
            pytest.skip("no other database lets a single row be locked")
        process, port = start(worker, "--queues", "default", **HASTY)
        wait_for(lambda: port.status("/readyz") == 200, 10, process.log)
        os.kill(process.pid, signal.SIGUSR1)
        wait_for(lambda: port.status("/readyz") == 503, 5, process.log)
        result = add.enqueue(1, 2)
        with transaction.atomic():
            # Whoever claims passes over a locked row; whoever looks sees it.
            assert TaskRecord.objects.select_for_update().get(pk=result.id).status == Status.READY
            until = time.monotonic() + 4
            while time.monotonic() < until:
                assert port.status("/livez") == 200  # it is quiet
                time.sleep(0.2)
            os.kill(process.pid, signal.SIGCONT)
            assert port.status("/livez") == 200
            wait_for(lambda: port.status("/livez") == 503, 15, process.log)
            assert "idle processes do not take it" in port.ask("/livez").text
        assert result.get(10) == 3
        wait_for(lambda: port.status("/livez") == 200, 5, process.log)

    def test_an_outage_is_no_reason_to_start_anew(self, worker: Start, postgres_server: Any) -> None:
        process, port = start(worker, **HASTY)
        wait_for(lambda: port.status("/readyz") == 200, 10, process.log)
        assert port.status("/metrics.json") == 200
        postgres_server.stop()
        wait_for(lambda: "the database does not answer" in port.ask("/readyz").text, 10, process.log)
        until = time.monotonic() + 5
        while time.monotonic() < until:
            assert port.ask("/livez").text == "ok\n"
            time.sleep(0.2)
        postgres_server.start()
        wait_for(lambda: port.status("/readyz") == 200, 20, process.log)
        assert port.status("/livez") == 200


class TestMetrics:
    """Numbers that are true."""

    def test_runs_are_counted(self, worker: Start) -> None:
        process, port = start(worker, "--processes", "2")
        add.enqueue_many([((1, 2), {}) for _ in range(300)])
        for _ in range(3):
            fail.enqueue("on purpose")
        nap.enqueue(0.3)
        wait_until_finished()
        labels = {"task": add.name, "queue": "default"}
        wait_for(lambda: port.metric("taskq_tasks_total", **labels, state="successful") == 300, 5, process.log)
        wait_for(lambda: port.metric("taskq_tasks_total", task=fail.name, queue="default", state="failed") == 3, 5)
        assert port.metric("taskq_task_wait_seconds_count", **labels) == 300
        assert port.metric("taskq_task_wait_seconds_sum", **labels) > 0
        napped = {"task": nap.name, "queue": "default"}
        wait_for(lambda: port.metric("taskq_task_runtime_seconds_count", **napped) == 1, 5, process.log)
        text = port.ask("/metrics").text
        assert metric(text, "taskq_task_runtime_seconds_bucket", **napped, le="0.25") == 0
        assert metric(text, "taskq_task_runtime_seconds_bucket", **napped, le="+Inf") == 1
        assert 0.3 <= metric(text, "taskq_task_runtime_seconds_sum", **napped) < 5

    def test_what_a_dead_process_had_counted_stays(self, worker: Start) -> None:
        process, port = start(worker)
        add.enqueue(1, 2).get(10)
        done = {"task": add.name, "queue": "default", "state": "successful"}
        wait_for(lambda: port.metric("taskq_tasks_total", **done) == 1, 5, process.log)
        (child,) = process.children()
        os.kill(child, signal.SIGKILL)
        wait_for(lambda: process.children() not in ([], [child]), 10, process.log)
        add.enqueue(1, 2).get(10)
        wait_for(lambda: port.metric("taskq_tasks_total", **done) == 2, 5, process.log)

    def test_what_the_supervisor_ends_is_counted(self, worker: Start, history: History) -> None:
        process, port = start(worker)
        note_with_hard_limit.enqueue(history.path, "a", 30, "signals")
        labels = {"task": note_with_hard_limit.name, "queue": "default", "state": "failed"}
        wait_for(lambda: port.metric("taskq_tasks_total", **labels) == 1, 20, process.log)

    def test_the_last_counts_of_a_process_arrive(self, worker: Start) -> None:
        """It ends right after its last run, before its second is over."""
        process, port = start(worker, "--max-tasks-per-child", "5")
        add.enqueue_many([((1, 2), {}) for _ in range(50)])
        wait_until_finished()
        labels = {"task": add.name, "queue": "default", "state": "successful"}
        wait_for(lambda: port.metric("taskq_tasks_total", **labels) == 50, 10, process.log)

    def test_latency_is_the_age_of_the_oldest_due_run(self, worker: Start, settings: Any) -> None:
        settings.TASKQ = queues = {"QUEUES": ["lonely", "default"]}
        lonely = add.using(queue_name="lonely")
        oldest = lonely.enqueue(1, 2)
        TaskRecord.objects.filter(pk=oldest.id).update(enqueued_at=timezone.now() - timedelta(seconds=90))
        lonely.enqueue(1, 2)
        later = add.using(queue_name="lonely", run_after=timezone.now() + timedelta(hours=1)).enqueue(1, 2)
        _process, port = start(worker, "--queues", "default", **queues)
        found = json.loads(port.ask("/metrics.json").text)["queues"]["lonely"]
        assert (found["due"], found["running"], found["load"], found["workers"]) == (2, 0, 2, 0)
        assert 90 <= found["latency"] < 150
        assert port.metric("taskq_queue_length", queue="lonely", state="due") == 2
        assert later.id

    def test_what_runs_is_no_longer_due(self, worker: Start) -> None:
        process, port = start(worker)
        nap.enqueue(20)
        nap.enqueue(20)
        wait_for(lambda: port.metric("taskq_queue_length", queue="default", state="running") == 1, 10, process.log)
        assert port.metric("taskq_queue_length", queue="default", state="due") == 1
        assert json.loads(port.ask("/metrics.json").text)["total"]["load"] == 2

    def test_without_the_database_nothing_is_made_up(self, worker: Start, postgres_server: Any) -> None:
        process, port = start(worker)
        postgres_server.stop()
        wait_for(lambda: port.status("/metrics.json") == 503 or None, 90, process.log, interval=1)
        text = port.ask("/metrics").text
        assert "taskq_queues_up 0" in text
        assert "taskq_queue_length" not in text
        assert metric(text, "taskq_worker_slots") == 1


class TestStrangers:
    """Who may ask, and what comes of asking badly."""

    def test_a_token(self, worker: Start) -> None:
        process, port = start(worker, HEALTH_TOKEN=TOKEN)
        for path in ("/metrics", "/metrics.json"):
            refused = port.ask(path)
            assert (refused.status, refused.headers["WWW-Authenticate"]) == (401, 'Bearer realm="taskq"')
            assert port.ask(path, Authorization="Bearer wrong-token-of-tests").status == 401
            assert port.ask(path, Authorization=f"Bearer {TOKEN}").status == 200
        wait_for(lambda: port.status("/readyz") == 200, 10, process.log)
        os.kill(process.pid, signal.SIGUSR1)
        wait_for(lambda: port.status("/readyz") == 503, 5, process.log)
        assert port.ask("/readyz").text == "unhealthy\n"
        assert "quiet" in port.ask("/readyz", Authorization=f"Bearer {TOKEN}").text
        assert TOKEN not in process.log()

    def test_bad_requests(self, worker: Start) -> None:
        _process, port = start(worker)
        assert port.status("/") == 404
        assert port.status("/livez/../metrics") == 404
        for method in ("POST", "PUT", "DELETE", "OPTIONS"):
            refused = port.ask("/metrics", method)
            assert (refused.status, refused.headers["Allow"]) == (405, "GET, HEAD")
        assert port.ask("/metrics", "HEAD").text == ""
        assert port.send(b"GET /livez\r\n\r\n").startswith(b"HTTP/1.1 400 ")
        assert port.send(b"GET /livez HTTP/1.1\r\n" + b"X: y\r\n" * 5000).startswith(b"HTTP/1.1 431 ")
        assert port.status("/livez") == 200

    def test_slow_clients_hold_up_nobody(self, worker: Start) -> None:
        _process, port = start(worker)
        with ExitStack() as stack:
            for number in range(200):
                sock = stack.enter_context(socket.create_connection(port.address, 10))
                sock.sendall(b"GET /livez HTTP/1.1\r\nX: "[: number % 20])
            began = time.monotonic()
            for _ in range(10):
                assert port.status("/livez") == 200
            assert port.status("/metrics") == 200
            assert time.monotonic() - began < 5
        result = add.enqueue(1, 2)
        assert result.get(10) == 3

    def test_a_port_that_is_taken(self, worker: Start) -> None:
        with socket.create_server(("127.0.0.1", 0)) as taken:
            number = taken.getsockname()[1]
            process = worker("--health-port", str(number), ready=False)
            assert process.wait() == 1
        assert f"the health port {number} of 127.0.0.1 cannot be had: Address already in use" in process.log()

    def test_it_warns_when_anybody_may_read(self, worker: Start) -> None:
        process = worker("--processes", "1", "--health-port", "0", "--health-host", "0.0.0.0")
        assert "set TASKQ['HEALTH_TOKEN']" in process.log()

    def test_nothing_listens_unless_asked(self, worker: Start) -> None:
        process = worker("--processes", "1")
        inodes = {link.stat().st_ino for pid in process.tree() for link in Path(f"/proc/{pid}/fd").iterdir()}
        listening = {
            int(line.split()[9])
            for name in ("tcp", "tcp6")
            for line in Path(f"/proc/net/{name}").read_text().splitlines()[1:]
            if line.split()[3] == "0A"
        }
        assert not inodes & listening


class TestFile:
    """For probes that start no Python."""

    def test_it_is_touched_while_healthy(self, worker: Start, tmp_path: Path) -> None:
        path = tmp_path / "healthy"
        path.touch()
        os.utime(path, (1, 1))
        process = worker("--processes", "1", "--health-file", str(path), taskq=HASTY)
        wait_for(path.exists, 10, process.log)
        before = path.stat().st_mtime_ns
        assert before > 10**9
        wait_for(lambda: path.stat().st_mtime_ns > before, 5, process.log)
        # Steady, so that what comes now is somebody's fault.
        wait_for(lambda: time.time() - path.stat().st_ctime < 2, 5)
        (child,) = process.children()
        os.kill(child, signal.SIGSTOP)

        def is_stale() -> bool:
            return time.time() - path.stat().st_mtime > 3

        wait_for(is_stale, 20, process.log)
        os.kill(child, signal.SIGCONT)
        wait_for(lambda: not is_stale(), 5, process.log)
        process.terminate()
        assert process.wait() == 0
        assert not path.exists()

    def test_one_that_cannot_be_written(self, worker: Start, tmp_path: Path) -> None:
        process = worker("--health-file", str(tmp_path / "none" / "x"), ready=False)
        assert process.wait() == 1
        assert "cannot be written: No such file or directory" in process.log()
