"""``python -m tests.conformance.claimant PROCESS``: one of several processes that claim from the same queue.

It says ``ready``, waits for a line, claims until nothing is left and prints what it got as JSON.
"""

from __future__ import annotations

import json
import random
import select
import sys

import django

QUEUE = "contested"


def claim_all(process_id: int) -> list[str]:
    from django_taskq.brokers import get_broker

    broker, taken, rng = get_broker(), [], random.Random(process_id)

    def has_work() -> bool:
        # Where a server sends by itself, a moment may pass before it shows.
        return bool(broker.queues_with_work([QUEUE]) or select.select(broker.filenos(), [], [], 0.05)[0])

    while has_work() or has_work():
        deliveries = broker.claim(QUEUE, rng.choice([1, 7, 40]), process_id, len(taken) + 1)
        taken += [delivery.id for delivery in deliveries]
    return taken


if __name__ == "__main__":
    django.setup()
    print("ready", flush=True)
    sys.stdin.readline()
    print(json.dumps(claim_all(int(sys.argv[1]))), flush=True)
