"""The producer, run by the Python of a peer's own environment: ``produce.py ADAPTER WHAT [ARGUMENTS]``.

An adapter has ``send(number)`` and may have ``setup()`` (its tables) and ``stored()`` (how many results its database
holds). When ``send`` and ``setup`` are coroutine functions it has the ``loop`` they run on, too. The answer is one line
of JSON on standard output.
"""

import importlib
import inspect
import json
import os
import sys
import time
from typing import Any


def timed(adapter: Any, numbers: range) -> float:
    """Send them one by one and return the seconds that took."""
    send = adapter.send

    async def send_all() -> float:
        began = time.perf_counter()
        for number in numbers:
            await send(number)
        return time.perf_counter() - began

    if inspect.iscoroutinefunction(send):
        return adapter.loop.run_until_complete(send_all())
    began = time.perf_counter()
    for number in numbers:
        send(number)
    return time.perf_counter() - began


def enqueue(adapter: Any, count: str) -> dict[str, float]:
    timed(adapter, range(1))  # connects; not measured
    return {"rate": (int(count) - 1) / timed(adapter, range(1, int(count)))}


def spaced(adapter: Any, first: str, count: str, interval: str) -> dict[str, dict[int, int]]:
    """Send one each ``interval`` seconds and say when the call for each began, in nanoseconds."""
    sent = {}
    timed(adapter, range(int(first) - 1, int(first)))  # connects, which alone takes longer than all that is measured
    time.sleep(1)
    began = time.monotonic()
    for index in range(int(count)):
        time.sleep(max(0.0, began + index * float(interval) - time.monotonic()))
        number = int(first) + index
        sent[number] = time.time_ns()
        timed(adapter, range(number, number + 1))
    return {"sent": sent}


def setup(adapter: Any) -> dict[str, str]:
    if hasattr(adapter, "setup"):
        adapter.loop.run_until_complete(adapter.setup())
    return {}


def stored(adapter: Any) -> dict[str, int | None]:
    return {"stored": adapter.stored() if hasattr(adapter, "stored") else None}


def main(name: str, what: str, *arguments: str) -> None:
    if "DJANGO_SETTINGS_MODULE" in os.environ:
        import django
        from django.core.management import call_command

        django.setup()
        if what == "setup":
            call_command("migrate", verbosity=0)
    verbs = {"enqueue": enqueue, "spaced": spaced, "setup": setup, "stored": stored}
    print(json.dumps(verbs[what](importlib.import_module(name), *arguments)))


if __name__ == "__main__":
    main(*sys.argv[1:])
