"""What a worker is doing, as plain values that may be printed, stored or sent. Read from memory alone, from any thread.

No database and no broker is asked, and no process: the slot tables tell.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

from django_taskq.worker import memory, table

if TYPE_CHECKING:
    from django_taskq.worker.child import Child
    from django_taskq.worker.crew import Crew


def snapshot(crew: Crew, now: float | None = None) -> dict[str, Any]:
    """All processes of a worker and their totals. ``now`` is on the monotonic clock.

    ``processes`` is a list of dicts, see :func:`process_state`. The totals are ``slots``, ``busy`` (slots with a run),
    ``lost_slots``, ``degraded`` (of all processes together), ``done`` (runs, of the processes that live) and ``rss``
    (bytes; pages that processes share count in each).
    """
    now = time.monotonic() if now is None else now
    found = []
    for child in list(crew.children):
        try:
            found.append(process_state(child, now))
        except ValueError:
            continue  # buried at this moment: its table is closed
    return {
        "processes": found,
        "slots": sum(each["slots"] for each in found),
        "busy": sum(len(each["running"]) for each in found),
        "lost_slots": sum(each["lost_slots"] for each in found),
        "degraded": {name: why for each in found for name, why in each["degraded"].items()},
        "done": sum(each["done"] for each in found),
        "rss": sum(each["rss"] or 0 for each in found),
    }


def process_state(child: Child, now: float) -> dict[str, Any]:
    """One worker process. Raises ``ValueError`` when it has been buried meanwhile.

    ``up``: it has finished starting. ``sound``: its bookkeeping works. ``queues`` is its order as text, ``names`` the
    queues alone. ``running`` are dicts of ``claim``, ``seconds`` so far and ``overdue``: seconds since its hard limit
    passed, or None. ``tick_age`` and ``pulse_age`` are the seconds since its bookkeeping last went round, and since
    any other thread got the interpreter; None before the first time. ``held``: runs it has claimed. ``worn``: it asks
    to be replaced (1 after its number of runs, 2 for its memory). ``degraded``: the resources it lacks, and why.
    ``rss`` is in bytes, None where unknown.
    """
    words, times = child.table.words, child.table.times
    running = [
        {
            "claim": entry.claim,
            "seconds": max(0.0, now - entry.started),
            "overdue": now - entry.deadline if entry.deadline is not None and now > entry.deadline else None,
        }
        for entry in child.table.running()
    ]
    return {
        "process_id": child.process_id,
        "pid": child.pid,
        "up": child.is_up,
        "sound": bool(words[table.SOUND]),
        "age": now - child.born_at,
        "idle": child.is_idle,
        "leaving": child.is_leaving,
        "queues": str(child.post.order),
        "names": list(child.post.order.names),
        "slots": child.table.slots,
        "running": running,
        "tick_age": _age(times[table.TICK], now),
        "pulse_age": _age(times[table.PULSE], now),
        "held": words[table.HELD],
        "done": words[table.DONE],
        "lost_slots": words[table.LOST],
        "worn": words[table.WORN],
        "degraded": child.table.degraded(),
        "rss": memory.resident(child.pid),
    }


def _age(at: float, now: float) -> float | None:
    return max(0.0, now - at) if at else None
