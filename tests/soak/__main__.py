"""``python -m tests.soak``: what ``make soak`` runs.

Every fault case in full, on SQLite and then on PostgreSQL, each with its brokers; one table at the end. Some tests
compare times, so they run one after the other: this takes hours, of which ``--minutes`` belong to the slope of memory
for each broker. The exit code is 1 when a case failed or was not tried.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from xml.etree import ElementTree

from tests.soak.cases import CASES, Case
from tests.soak.table import Result, read, show

ROOT = Path(__file__).resolve().parents[2]
DATABASES = ("sqlite", "postgresql")


def main(arguments: list[str]) -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.soak", description=__doc__)
    parser.add_argument("--minutes", type=float, default=60.0, help="for the slope of memory, on each broker")
    parser.add_argument("--rounds", type=int, default=20, help="of each random kill")
    parser.add_argument("--history", type=int, default=5_000_000, help="finished runs that are pruned")
    parser.add_argument("--only", help="cases, such as F08,F57; default: all")
    parser.add_argument("--database", choices=DATABASES, action="append", help="default: both")
    options = parser.parse_args(arguments)
    wanted = options.only.split(",") if options.only else [case.number for case in CASES]
    unknown = set(wanted) - {case.number for case in CASES}
    if unknown:
        parser.error(f"no such case: {', '.join(sorted(unknown))}")
    cases = [case for case in CASES if case.number in wanted]
    results: dict[str, list[Result]] = {}
    for database in options.database or DATABASES:
        results[database] = run(database, cases, options.rounds, options.minutes, options.history)
    text, is_good = show(cases, results)
    print(text)
    return 0 if is_good else 1


def run(database: str, cases: list[Case], rounds: int, minutes: float, history: int) -> list[Result]:
    """The tests of these cases on one database; what they printed is part of the results."""
    names = sorted({test for case in cases for test in case.tests})
    files = sorted({f"tests/{name.partition('::')[0]}.py" for name in names})
    functions = sorted({name.partition("::")[2] for name in names})
    environment = os.environ | {
        "TASKQ_TEST_WHOLE": "1",
        "TASKQ_TEST_DB": database,
        "TASKQ_FAULT_ROUNDS": str(rounds),
        "TASKQ_SCHEDULE_SECONDS": str(30 * rounds),
        "TASKQ_SOAK_MINUTES": str(minutes),
        "TASKQ_FAULT_HISTORY": str(history),
        "PYTHONPATH": str(ROOT),
    }
    with tempfile.TemporaryDirectory() as directory:
        report = Path(directory) / "report.xml"
        command = [
            *(sys.executable, "-m", "pytest", "-q", "-n", "0", "-k", " or ".join(functions)),
            *(f"--junitxml={report}", "-o", "junit_logging=system-out", "-o", "faulthandler_timeout=0"),
            *files,
        ]  # fmt: skip
        print(f"\n*** {len(cases)} cases on {database}", flush=True)
        subprocess.call(command, cwd=ROOT, env=environment)
        return read(ElementTree.parse(report).getroot()) if report.exists() else []


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
