"""``python -m tests.peers``: what ``make bench-peers`` runs. ``--help`` lists the options."""

from __future__ import annotations

import argparse
import os
import platform
import re
import shutil
import signal
import sys
import tempfile
from pathlib import Path

from tests.peers import environments
from tests.peers.cases import AMQP, CASES, POSTGRES, REDIS, Case
from tests.peers.harness import INTERVAL, Plan, measure
from tests.peers.records import Figures
from tests.peers.report import Measured, as_text
from tests.peers.stores import Stores


def parse(arguments: list[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m tests.peers", description=sys.modules["tests.peers"].__doc__)
    parser.add_argument("--tasks", type=int, default=20_000, help="tasks of a drain; slow peers get fewer (20000)")
    parser.add_argument("--repeat", type=int, default=3, help="repeats, of which the median counts (3)")
    parser.add_argument("--latencies", type=int, default=100, help="tasks of a latency measurement; 0: none (100)")
    parser.add_argument("--only", action="append", metavar="REGEX", help="cases whose name matches; may be repeated")
    parser.add_argument("--list", action="store_true", help="list the cases and end")
    stores = parser.add_argument_group("servers", "Without a URL a private server is started where it is installed.")
    stores.add_argument(
        "--postgres-dsn", metavar="URL", help="postgresql://user@host:port/database, to connect to first"
    )
    stores.add_argument("--redis-url", metavar="URL", help="redis://host:port/number; that number is emptied")
    stores.add_argument("--amqp-url", metavar="URL", help="amqp://user:password@host:port//")
    options = parser.parse_args(arguments)
    if options.tasks < 2 or options.repeat < 1 or options.latencies < 0:
        parser.error("--tasks takes at least 2, --repeat at least 1, --latencies at least 0")
    return options


def chosen(patterns: list[str] | None) -> list[Case]:
    return [case for case in CASES if not patterns or any(re.search(pattern, case.name) for pattern in patterns)]


def settings(plan: Plan, stores: Stores, measured: list[Measured]) -> dict[str, str]:
    """What the figures were measured on and with."""
    scratch = tempfile.gettempdir()
    described = {
        "machine": f"{platform.system()} {platform.release()} {platform.machine()}, {os.cpu_count()} processors, "
        "shared by producer, worker and servers",
        "measured": f"{plan.tasks:,} tasks or fewer, median of {plan.repeat}; "
        f"latency: {plan.latencies} tasks, one each {INTERVAL * 1000:.0f} ms, in each repeat",
        "files": f"servers and SQLite below {scratch}",
        **stores.describe(),
    }
    for name in dict.fromkeys(one.case.environment for one in measured if not one.figures.problem):
        pairs = environments.versions(name).items()
        described[f"environment {name}"] = ", ".join(f"{package} {version}" for package, version in pairs)
    return described


def main(arguments: list[str]) -> int:
    options = parse(arguments)
    cases = chosen(options.only)
    if options.list or not cases:
        print("\n".join(case.name for case in cases or CASES))
        return 0 if cases else 2
    # Ended in whatever way: the workers and servers go, and what was measured until then is shown.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    plan = Plan(options.tasks, options.repeat, options.latencies)
    given = {POSTGRES: options.postgres_dsn, REDIS: options.redis_url, AMQP: options.amqp_url}
    scratch = Path(tempfile.mkdtemp(prefix="taskq-peers-"))
    measured: list[Measured] = []
    try:
        with Stores(given, scratch) as stores:
            try:
                for case in cases:
                    figures = measure(case, stores, scratch, plan, say)
                    say(f"    {figures.problem or outcome(figures)}")
                    measured.append(Measured(case, figures))
            except KeyboardInterrupt:
                say("stopped; this is what was measured until then")
            if measured:
                print(as_text(settings(plan, stores, measured), measured))
    finally:
        shutil.rmtree(scratch, ignore_errors=True)
    return 0


def outcome(figures: Figures) -> str:
    return f"{figures.value('drain') or 0:,.0f} a second of {figures.tasks:,}"


def say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
