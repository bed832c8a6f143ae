"""``python -m tests.measure.kombu_redis [KILLS]``: what kill -9 of consumers loses on kombu's own Redis transport.

The control for ``tests/faults``: consumers of ``kombu+redis://`` that write each message they are given to a file and
acknowledge it, one killed after the other at a random moment. Prints how many of the messages nobody was ever given,
though nothing is left on the server: kombu pops a message (BRPOP) before it notes that it has it. Our own transport
takes and notes in one step.
"""

from __future__ import annotations

import os
import random
import signal
import sys
import tempfile
import time
from pathlib import Path

from kombu import Connection

from tests.servers import RedisServer

BATCH = 200
QUEUE = "measured"
# What was popped and noted, and not acknowledged, comes back after so many seconds.
OPTIONS = {"visibility_timeout": 5}


def consume(url: str, path: str) -> None:
    """Write and acknowledge until killed."""
    effects = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND)

    def on_message(body: str, message: object) -> None:
        os.write(effects, f"{body}\n".encode())
        message.ack()  # type: ignore[attr-defined]

    with Connection(url, transport_options=OPTIONS) as connection:
        consumer = connection.Consumer([connection.SimpleQueue(QUEUE).queue], callbacks=[on_message])
        consumer.qos(prefetch_count=10)
        with consumer:
            while True:
                try:
                    connection.drain_events(timeout=1)
                except TimeoutError:
                    continue


def fork_consumer(url: str, path: str) -> int:
    pid = os.fork()
    if pid == 0:
        try:
            consume(url, path)
        finally:
            os._exit(1)
    return pid


def kill(pid: int) -> None:
    os.kill(pid, signal.SIGKILL)
    os.waitpid(pid, 0)


def seen(path: Path) -> list[str]:
    return path.read_text().split() if path.exists() else []


def main(kills: int) -> None:
    rng, sent = random.Random(7), 0
    with RedisServer() as server, tempfile.TemporaryDirectory() as directory:
        path = Path(directory) / "effects"
        for _ in range(kills):
            pid = fork_consumer(server.url, str(path))
            with Connection(server.url, transport_options=OPTIONS) as connection:
                queue = connection.SimpleQueue(QUEUE)
                for number in range(sent, sent + BATCH):
                    queue.put(str(number))
                queue.close()
            sent += BATCH
            time.sleep(rng.uniform(0, 0.05))
            kill(pid)
        # One more, for long enough that whatever comes back has come.
        pid = fork_consumer(server.url, str(path))
        count, since = -1, time.monotonic()
        while time.monotonic() - since < 3 * OPTIONS["visibility_timeout"]:
            if len(seen(path)) != count:
                count, since = len(seen(path)), time.monotonic()
            time.sleep(0.1)
        kill(pid)
        found = seen(path)
        print(f"{kills} kills, {sent} messages: {sent - len(set(found))} lost, {len(found) - len(set(found))} twice")


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 100)
