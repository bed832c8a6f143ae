"""The smallest possible worker: one process, one connection, one run at a time, nothing imported but the driver.

Run as a script. It reads one line of JSON (see ``worker.py`` beside it), runs what is there, storing the
time at which it did as the result, and waits for more until it is killed.
"""

from __future__ import annotations

import json
import sys
import time
from typing import Any

# A process that only watches a file's version has to look; this is a compromise between latency and idle CPU.
SQLITE_INTERVAL = 0.001
PROCESS = 1


def main() -> None:
    """Serve until killed."""
    plan = json.loads(sys.stdin.readline())
    if plan["vendor"] == "postgresql":
        serve_postgresql(plan)
    else:
        serve_sqlite(plan)


def serve_postgresql(plan: dict[str, Any]) -> None:
    """Waits for notifications."""
    import psycopg

    connection: Any = psycopg.connect(**plan["parameters"], autocommit=True)
    connection.execute("LISTEN " + plan["channel"])
    claim = 0
    while True:
        rows = connection.execute(plan["claim"], (plan["queue"], 1, PROCESS, claim + 1)).fetchall()
        for id, claim, _payload in rows:
            now = time.time()
            connection.execute(plan["finish"], (json.dumps([(id, claim, repr(now), now, time.time())]), PROCESS))
        if not rows:
            for _ in connection.notifies(timeout=60, stop_after=1):
                pass


def serve_sqlite(plan: dict[str, Any]) -> None:
    """Watches the data version."""
    import sqlite3

    connection = sqlite3.connect(**plan["parameters"], isolation_level=None)
    for pragma in plan["pragmas"]:
        connection.execute(pragma)
    claim, seen = 0, None
    while True:
        (version,) = connection.execute("PRAGMA data_version").fetchone()
        if version == seen:
            time.sleep(SQLITE_INTERVAL)
            continue
        seen = version
        while rows := connection.execute(plan["claim"], (PROCESS, claim + 1, plan["queue"], 1)).fetchall():
            for id, claim, _payload in rows:
                now = time.time()
                text = time.strftime("%Y-%m-%d %H:%M:%S", time.gmtime(now)) + f".{int(now % 1 * 1e6):06d}"
                connection.execute(plan["finish"], (repr(now), text, text, id, PROCESS, claim))


if __name__ == "__main__":
    main()
