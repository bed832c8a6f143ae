"""Takers that are killed: forks one after the other that take and drop, and kills each at a random moment.

Run as a program: url, prefix, rounds, a file for effects. A taker writes the id of each message it has "done" to the
file before it drops it; once it is dead, what it held is rescued. Prints how many were killed holding something.
"""

from __future__ import annotations

import os
import random
import signal
import sys
import time

from django_taskq.brokers.redis import RedisDepot
from django_taskq.conf_brokers import BrokerConfig


def take_and_drop(depot: RedisDepot, process: int, effects: int, begun: int) -> None:
    claim, rng = 1, random.Random(process)
    while True:
        limit = rng.choice([1, 2, 5, 20])
        parcels = depot.take("default", limit, process, claim)
        claim += limit
        os.write(effects, b"".join(b"\n%s\n" % parcel.delivery.id.encode() for parcel in parcels))
        os.write(begun, b".")
        depot.drop(process, parcels)


def main(url: str, prefix: str, rounds: int, path: str) -> None:
    depot = RedisDepot(BrokerConfig("default", url, prefix), 2)
    effects = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    rng, held = random.Random(7), 0
    for process in range(1, rounds + 1):
        source, begun = os.pipe()
        pid = os.fork()
        if pid == 0:
            try:
                take_and_drop(depot, process, effects, begun)
            finally:
                os._exit(1)
        os.close(begun)
        # From here on, so that none dies before it has connected, however long that takes.
        os.read(source, 1)
        time.sleep(rng.uniform(0.0, 0.005))
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)
        os.close(source)
        held += depot.rescue(process) > 0
    print(held)


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], int(sys.argv[3]), sys.argv[4])
