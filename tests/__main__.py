"""``python -m tests``: what ``make test`` runs.

Everything on SQLite, then on PostgreSQL what talks to the database, each in a few processes (most tests wait for
some worker most of the time; ``-n 0`` for one). Servers that are not there are installed when
that is possible (root on Debian) and otherwise named at the end; under ``CI`` a missing server is a failure.
Arguments go to pytest, both times.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys

from tests import servers


def install_missing() -> None:
    """As root on a Debian machine, get from apt what the tests want; failing that, go on without it."""
    wanted = [kind for kind in servers.KINDS if kind.name in servers.missing()]
    if not wanted or os.geteuid() != 0 or not os.path.exists("/etc/debian_version") or not shutil.which("apt-get"):
        return
    print(f"Installing {', '.join(kind.name for kind in wanted)} ...", flush=True)
    environment = os.environ | {"DEBIAN_FRONTEND": "noninteractive"}
    packages = [package for kind in wanted for package in kind.packages]
    install = ["apt-get", "install", "-q", "-y", "--no-install-recommends", *packages]
    for command in (["apt-get", "update", "-q"], install):
        done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
        if done.returncode != 0:
            print(f"{' '.join(command)} failed:\n{done.stdout[-1000:]}{done.stderr[-2000:]}", file=sys.stderr)


# More than one for each processor, as most tests wait most of the time, but not many: some compare times.
PROCESSES = (os.cpu_count() or 1) + 3


def run_pytest(database: str, *arguments: str) -> int:
    print(f"\n*** The tests on {database}", flush=True)
    command = [sys.executable, "-m", "pytest", "-n", str(PROCESSES), *arguments]
    environment = os.environ | {"TASKQ_TEST_DB": database}
    # The tests start hundreds of processes, and compiling the package in each of them doubles the time it all takes.
    environment.pop("PYTHONDONTWRITEBYTECODE", None)
    return subprocess.call(command, env=environment)


def main(arguments: list[str]) -> int:
    install_missing()
    missing = servers.missing()
    codes = [run_pytest("sqlite", *arguments)]
    # An external server may be named in TASKQ_TEST_DB_HOST.
    if servers.PostgresServer.name not in missing or os.environ.get("TASKQ_TEST_DB_HOST"):
        codes.append(run_pytest("postgresql", "-m", "database", *arguments))
    elif os.environ.get("CI"):
        codes.append(1)
    for text in missing.values():
        print(f"\n*** NOT TESTED, server not found: {text}", flush=True)
    return max(codes)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
