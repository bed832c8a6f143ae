"""A database of the benchmark's own, next to the project's and with the same settings, gone when the ``with`` ends."""

from __future__ import annotations

import os
import shutil
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from django.conf import settings
from django.core.management.base import CommandError
from django.db import connections
from django.db.backends.base.base import BaseDatabaseWrapper
from django.db.utils import Error

from django_taskq import conf
from django_taskq.bench.depots.targets import Target

SETTINGS_MODULE = "taskq_bench_settings"
# How long the server may take to notice that killed workers' connections are gone, in seconds.
DROP_PATIENCE = 20.0

# Every setting of the project, but another database, the broker that is measured and nothing that sends the
# benchmark's tasks to another one, no debugging, and no log line for each run in its log files.
_SETTINGS = """\
from importlib import import_module

_project = import_module({project!r})
globals().update({{name: getattr(_project, name) for name in dir(_project) if name.isupper()}})
DATABASES = {{**_project.DATABASES, {alias!r}: {{**_project.DATABASES[{alias!r}], "NAME": {name!r}}}}}
INSTALLED_APPS = [*_project.INSTALLED_APPS, "django_taskq.bench"]
_taskq = dict(getattr(_project, "TASKQ", {{}}))
_brokers = _taskq.get("BROKERS", {{}})
for _name in ("BROKER_URL", "BROKERS", "EXCHANGES", "ROUTES", "ENQUEUE_FALLBACK"):
    _taskq.pop(_name, None)
TASKQ = {{**_taskq, "QUEUES": list(_taskq.get("QUEUES", ())), "EAGER": False, {broker}}}
DEBUG = False
LOGGING = {{
    "version": 1,
    "disable_existing_loggers": False,
    "handlers": {{"stderr": {{"class": "logging.StreamHandler"}}}},
    "root": {{"handlers": ["stderr"], "level": "WARNING"}},
    "loggers": {{"django_taskq": {{"level": "WARNING"}}}},
}}
"""


@dataclass(frozen=True, slots=True)
class Scratch:
    """Where the scratch database is: its name there under the project's alias, and a directory for files."""

    project: str
    alias: str
    name: str
    directory: Path

    def environment(self, target: Target | None = None) -> dict[str, str]:
        """That of processes that use it, with the queues kept in it, or by the broker of ``target``."""
        # Each has settings of its own, in a file that only we can read: the URL may hold a password.
        module = SETTINGS_MODULE if target is None else f"{SETTINGS_MODULE}_{target.config.prefix}"
        text = _SETTINGS.format(project=self.project, alias=self.alias, name=self.name, broker=_broker(target))
        (self.directory / f"{module}.py").write_text(text)
        return _environment(self.directory, module)


@contextmanager
def scratch_database() -> Iterator[Scratch]:
    """Make an empty database and the settings for it. Raises ``CommandError`` when that is not possible here."""
    project = getattr(settings, "SETTINGS_MODULE", None)
    if not isinstance(project, str):
        raise CommandError("taskq bench starts workers, and they need a settings module: set DJANGO_SETTINGS_MODULE.")
    alias = conf.get_settings().database
    connection = connections[alias].copy()
    directory = Path(tempfile.mkdtemp(prefix="taskq-bench-"))
    try:
        with _database(connection) as name:
            yield Scratch(project, alias, name, directory)
    finally:
        shutil.rmtree(directory, ignore_errors=True)


@contextmanager
def _database(connection: BaseDatabaseWrapper) -> Iterator[str]:
    beside: Path | None = None
    name = f"taskq_bench_{os.getpid()}_{int(time.time())}"
    if connection.vendor == "sqlite":
        # On the project's own disk: how long a commit takes is a property of that.
        beside = Path(tempfile.mkdtemp(prefix=".taskq_bench_", dir=_directory_of(connection)))
        name = str(beside / "bench.sqlite3")
    connection.settings_dict["TEST"] = {**connection.settings_dict["TEST"], "NAME": name}
    try:
        _create(connection)
        connection.settings_dict["NAME"] = name
        yield name
    finally:
        if connection.settings_dict["NAME"] == name:
            _drop(connection)
        if beside is not None:
            shutil.rmtree(beside, ignore_errors=True)


def _create(connection: BaseDatabaseWrapper) -> None:
    try:
        # The half of create_test_db that makes the database; the other half would migrate the whole project.
        connection.creation._create_test_db(verbosity=0, autoclobber=True, keepdb=False)  # type: ignore[attr-defined]
    except SystemExit:  # it has said why
        raise CommandError(
            f"no scratch database could be made: let the user of {connection.alias!r} create databases, or run the "
            "benchmark with settings whose user may."
        ) from None


def _drop(connection: BaseDatabaseWrapper) -> None:
    deadline = time.monotonic() + DROP_PATIENCE
    while True:
        try:
            connection.creation.destroy_test_db(verbosity=0)
            return
        except FileNotFoundError:
            return
        except Error:
            if time.monotonic() > deadline:
                raise
            time.sleep(0.2)


def _directory_of(connection: BaseDatabaseWrapper) -> Path | None:
    name = str(connection.settings_dict["NAME"])
    path = Path(name.removeprefix("file:").partition("?")[0])
    return path.absolute().parent if "memory" not in name and path.parent.is_dir() else None


def _broker(target: Target | None) -> str:
    """The part of ``TASKQ`` that names the broker, as Python."""
    if target is None:
        return '"BROKER_URL": "database://"'
    options = "{}" if target.alias is None else f'_brokers.get({target.alias!r}, {{}}).get("OPTIONS", {{}})'
    config = target.config
    broker = f'{{"URL": {config.url!r}, "PREFIX": {config.prefix!r}, "OPTIONS": {options}}}'
    # A batch of 5,000 on a busy machine is no reason to give up.
    return f'"BROKERS": {{{config.alias!r}: {broker}}}, "ENQUEUE_TIMEOUT": 60'


def _environment(directory: Path, module: str) -> dict[str, str]:
    import_path = [str(directory), *(os.path.abspath(entry) for entry in sys.path)]
    return {
        **os.environ,
        "DJANGO_SETTINGS_MODULE": module,
        "PYTHONPATH": os.pathsep.join(import_path),
        "TMPDIR": str(directory),
    }
