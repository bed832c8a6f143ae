"""A virtual environment for each peer, below ``.peers/``: made once, kept until the pins below change."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent.parent
HOME = ROOT / ".peers"

# The newest on PyPI when they were last looked at, so that a run can be repeated; ours is the checkout itself. Everyone
# gets the C parser for Redis and the compiled PostgreSQL driver.
DJANGO = ("Django==5.2.19", "psycopg[binary]==3.3.9")
REDIS = ("redis==8.1.0", "hiredis==3.5.0")
REQUIREMENTS: dict[str, tuple[str, ...]] = {
    "celery": ("celery[redis]==5.7.0", "django-celery-results==2.6.0", "kombu==5.7.0", "amqp==5.4.2", *REDIS, *DJANGO),
    "dramatiq": ("dramatiq==2.2.1", "pika==1.4.4", *REDIS),
    "huey": ("huey==3.5.4", *REDIS),
    "djtasks": ("django-tasks==0.12.0", "django-tasks-db==0.13.0", *DJANGO),
    "procrastinate": ("procrastinate==3.10.0", *DJANGO),
    "pgqueuer": ("pgqueuer==1.6.0", "asyncpg==0.32.0", "uvloop==0.23.0"),
    "taskq": (f"{ROOT}[postgres,redis]", "kombu==5.7.0", "amqp==5.4.2", *REDIS, *DJANGO),
}

VERSIONS = """
import importlib.metadata, json, platform, sys
print(json.dumps({"Python": platform.python_version()} | {n: importlib.metadata.version(n) for n in sys.argv[1:]}))
"""


class EnvironmentFailed(Exception):
    """An environment could not be made; the text is the end of what pip said."""


def program(environment: str, name: str) -> str:
    return str(HOME / environment / "bin" / name)


def ensure(environment: str) -> None:
    """Make it, unless it was made already from the same pins."""
    folder, pins = HOME / environment, REQUIREMENTS[environment]
    stamp = folder / "pins.json"
    if stamp.exists() and stamp.read_text() == json.dumps([sys.version, *pins]):
        return
    print(f"Installing {environment} into {folder.relative_to(ROOT)} ...", file=sys.stderr, flush=True)
    # Without pip: some Pythons cannot put it into a new environment, and the one that runs this can install for it.
    _run(sys.executable, "-m", "venv", "--clear", "--without-pip", str(folder))
    first = ["--editable"] if environment == "taskq" else []
    install = ["install", "--quiet", "--disable-pip-version-check", *first, *pins]
    _run(sys.executable, "-m", "pip", "--python", program(environment, "python"), *install)
    stamp.write_text(json.dumps([sys.version, *pins]))


def versions(environment: str) -> dict[str, str]:
    """What is really installed there, of what was asked for."""
    names = [pin.partition("==")[0].partition("[")[0] for pin in REQUIREMENTS[environment] if "==" in pin]
    names += ["django-kombu-taskq"] if environment == "taskq" else []
    command = [program(environment, "python"), "-c", VERSIONS, *names]
    installed: dict[str, str] = json.loads(subprocess.check_output(command, text=True))
    return installed


def _run(*command: str) -> None:
    env = {name: value for name, value in os.environ.items() if not name.startswith("PYTHON")}
    done = subprocess.run(command, env=env, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False)
    if done.returncode:
        raise EnvironmentFailed(f"{' '.join(command[:4])} ...: {done.stdout.strip()[-2000:]}")
