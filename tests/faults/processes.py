"""Finding one's way among the processes of a worker."""

from __future__ import annotations

from pathlib import Path

from tests.workers import WorkerProcess


def fork_server(worker: WorkerProcess) -> int:
    """The pid of multiprocessing's fork server."""
    others = set(worker.tree()) - {worker.pid} - set(worker.children())
    (pid,) = [pid for pid in others if b"forkserver" in Path(f"/proc/{pid}/cmdline").read_bytes()]
    return pid


def waited_for_processor(worker: WorkerProcess) -> float:
    """Seconds that its living processes have spent ready to run while others had the processors (schedstat, proc(5)).

    What a busy machine adds to a time is not the worker's fault; it is taken off before a time is compared.
    """
    nanoseconds = 0
    for pid in worker.tree():
        for file in Path(f"/proc/{pid}/task").glob("*/schedstat"):
            try:
                nanoseconds += int(file.read_text().split()[1])
            except OSError:  # it has ended since
                continue
    return nanoseconds / 1e9
