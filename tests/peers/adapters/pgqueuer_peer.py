"""pgqueuer on asyncpg and uvloop, without Django. Its own command line failed with newer typers, so this is its worker.

``pgqueuer_peer.py BATCH`` serves the queue, everything else being pgqueuer's default. Limiting it to two jobs at once,
as the others are, made it many times slower: that would be no comparison.
"""

import asyncio
import os
import signal
import sys

import asyncpg
import uvloop
from peer_recorder import record
from pgqueuer import AsyncpgDriver, Job, QueueManager
from pgqueuer.queries import Queries

loop = uvloop.new_event_loop()
_queries: Queries | None = None


async def queries() -> Queries:
    global _queries
    if _queries is None:
        _queries = Queries(AsyncpgDriver(await asyncpg.connect(os.environ["PEER_DATABASE"])))
    return _queries


async def setup() -> None:
    await (await queries()).install()


async def send(number: int) -> None:
    await (await queries()).enqueue("work", str(number).encode())


async def serve(batch: int) -> None:
    manager = QueueManager(await queries())

    @manager.entrypoint("work")
    async def work(job: Job) -> None:
        record(int(job.payload or b"0"))

    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, manager.shutdown.set)
    await manager.run(batch_size=batch)


if __name__ == "__main__":
    loop.run_until_complete(serve(int(sys.argv[1])))
