"""What all tests share: the database of the session, real workers, a browser, and no silence about what is missing."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable, Iterator
from json import dumps
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pytest
from django.conf import settings
from django.db import connections
from django.utils import timezone, translation
from xdist.scheduler import LoadScopeScheduling

from tests import emptying
from tests.servers import Chromium, PostgresServer, RedisServer, Server, ServerMissing
from tests.workers import WorkerProcess

ROOT = Path(__file__).resolve().parent.parent
DATABASE_DIRECTORIES = ("backend", "conformance", "faults", "integration")
# What these words in a test's id stand for is slow to start and large: one process of a run does all of it.
HEAVY = ("browser", "rabbit")
# They take as long as all others together: `make test-whole` and `make soak` run them.
LONG = {
    "bench/test_bench",
    "bench/test_brokers",
    "browser/test_dead_letters",
    "browser/test_flow_limits",
    "browser/test_queues",
    "browser/test_schedules",
    "browser/test_workflows",
    "commands/test_development",
    "conformance/test_limit_plans",
    "conformance/test_step_plans",
    "depots/test_shutter",
    "example/test_inside",
    "example/test_samples",
    "faults/test_connections",
    "faults/test_control_flood",
    "faults/test_crash_points",
    "faults/test_fairness",
    "faults/test_full_disk",
    "faults/test_hosts",
    "faults/test_isolation",
    "faults/test_leftovers",
    "faults/test_progress",
    "faults/test_purge",
    "faults/test_schedulers",
    "faults/test_signals",
    "faults/test_sizes",
    "faults/test_slope",
    "faults/test_versions",
    "faults/test_workflow_kills",
    "integration/test_opentelemetry",
    "integration/test_pools",
    "integration/test_shielding",
    "integration/test_spawn",
    "integration/test_worker_limits",
    "integration/test_worker_scaling",
    "integration/test_workflow_places",
}
# What a worker does that no database has a part in: on PostgreSQL `make test-whole` runs them, too.
WORKER_ALONE = {
    "faults/test_limits",
    "integration/test_control",
    "integration/test_eager",
    "integration/test_health",
    "integration/test_prometheus",
    "integration/test_resources",
    "integration/test_worker_coroutines",
    "integration/test_worker_signals",
    "integration/test_worker_stopping",
    "integration/test_worker_tasks",
    "integration/test_worker_times",
}
MISSING = pytest.StashKey[dict[str, str]]()
WORKERS = pytest.StashKey[list[WorkerProcess]]()


def pytest_configure(config: pytest.Config) -> None:
    config.stash[MISSING] = {}
    emptying.install()
    # So that fixtures are torn down, and workers with them, when a CI job is stopped.
    main = os.getpid()

    def stop(*args: object) -> None:
        if os.getpid() != main:  # a process that a test has forked
            os._exit(128 + signal.SIGTERM)
        pytest.exit("stopped by SIGTERM", returncode=128 + signal.SIGTERM)

    signal.signal(signal.SIGTERM, stop)
    # A shell ignores these for what it starts in the background, and every worker would inherit that.
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)
    signal.signal(signal.SIGQUIT, signal.SIG_DFL)


class ByServer(LoadScopeScheduling):  # type: ignore[misc]  # xdist ships no types for it
    """Hands tests out one by one, but all that want the same heavy server to the same process."""

    def _split_scope(self, nodeid: str) -> str:
        return next((word for word in HEAVY if word in nodeid), nodeid)


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> ByServer:
    return ByServer(config, log)


def is_for_later(item: pytest.Item) -> bool:
    name = f"{item.path.parent.name}/{item.path.stem}"
    is_elsewhere = os.environ.get("TASKQ_TEST_DB") == "postgresql" and name in WORKER_ALONE
    return name in LONG or is_elsewhere or item.get_closest_marker("whole") is not None


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    here = Path(__file__).parent
    if not os.environ.get("TASKQ_TEST_WHOLE"):
        later = [item for item in items if is_for_later(item)]
        config.hook.pytest_deselected(items=later)
        items[:] = [item for item in items if item not in set(later)]
    for item in items:
        if item.get_closest_marker("one_database"):
            continue
        if item.path.is_relative_to(here) and item.path.relative_to(here).parts[0] in DATABASE_DIRECTORIES:
            item.add_marker(pytest.mark.database)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Iterator[None]:
    report = yield
    if report.failed:
        for worker in item.stash.get(WORKERS, []):
            report.sections.append((f"worker {worker.pid}", worker.log()[-20_000:]))
    return report


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    if config.stash[MISSING]:
        terminalreporter.section("SERVERS NOT FOUND: their tests did not run", sep="!", red=True, bold=True)
        for text in config.stash[MISSING].values():
            terminalreporter.line(text)


def find(kind: type[Server] | type[Chromium], config: pytest.Config) -> Path:
    """Where its programs are. Missing: the test is skipped, loudly, and fails under CI."""
    try:
        return kind.locate()
    except ServerMissing as error:
        config.stash[MISSING][kind.name] = str(error)
        (pytest.fail if os.environ.get("CI") else pytest.skip)(str(error))


@pytest.fixture(scope="session")
def _private_postgres(pytestconfig: pytest.Config) -> Iterator[PostgresServer | None]:
    """The session's own PostgreSQL; None on SQLite, or when TASKQ_TEST_DB_HOST names one that runs."""
    if os.environ.get("TASKQ_TEST_DB", "sqlite") != "postgresql" or os.environ.get("TASKQ_TEST_DB_HOST"):
        yield None
        return
    find(PostgresServer, pytestconfig)
    with PostgresServer() as server:
        yield server


@pytest.fixture(scope="session")
def django_db_modify_db_settings(
    _private_postgres: PostgresServer | None, tmp_path_factory: pytest.TempPathFactory
) -> None:
    """pytest-django asks this before it creates the test databases with our real migrations."""
    if _private_postgres:
        settings.DATABASES["default"].update(_private_postgres.params)
    directory = tmp_path_factory.mktemp("databases")
    for alias in connections:
        database = connections[alias].settings_dict
        if "sqlite" in database["ENGINE"]:
            database["TEST"]["NAME"] = str(directory / f"{alias}.sqlite3")


@pytest.fixture
def postgres_server(_private_postgres: PostgresServer | None) -> Iterator[PostgresServer]:
    """The server behind ``default``, for tests that stop, restart or kill it. It runs again after the test."""
    if _private_postgres is None:
        pytest.skip("needs a PostgreSQL that the tests may restart")
    yield _private_postgres
    _private_postgres.start()
    connections.close_all()  # theirs may have died with the server, and pytest-django empties the tables next


@pytest.fixture(scope="session")
def redis_server(pytestconfig: pytest.Config) -> Iterator[RedisServer]:
    """The session's own Redis, which keeps nothing on disk. Tests that kill or change a server start one for that."""
    find(RedisServer, pytestconfig)
    with RedisServer() as server:
        yield server


@pytest.fixture(scope="session")
def worker_env(django_db_setup: None) -> dict[str, str]:
    """The environment in which another Python process finds these settings and the test databases."""
    default = connections["default"].settings_dict
    names = {f"TASKQ_TEST_DB_{key}": str(default[key]) for key in ("NAME", "HOST", "PORT", "USER", "PASSWORD")}
    return {
        **os.environ,
        **names,
        "TASKQ_TEST_OTHER_DB_NAME": str(connections["other"].settings_dict["NAME"]),
        "DJANGO_SETTINGS_MODULE": "tests.settings",
        "PYTHONPATH": str(ROOT),
        "PYTHONUNBUFFERED": "1",
    }


@pytest.fixture
def worker(
    request: pytest.FixtureRequest, worker_env: dict[str, str], tmp_path: Path
) -> Iterator[Callable[..., WorkerProcess]]:
    """Start real workers: ``worker("--processes", "2")``, ready on return, with nothing of them left after the test.

    ``taskq`` are settings for the worker's TASKQ dict, ``env`` further environment variables; ``ready=False`` returns
    at once. Use it with ``@pytest.mark.django_db(transaction=True)``: a worker sees only what is committed.
    """
    started = request.node.stash.setdefault(WORKERS, [])
    # What killed processes leave in the temporary directory goes with the test. Not below tmp_path: the path of a
    # Unix socket may have 107 characters.
    temporary = TemporaryDirectory(prefix="taskq-test-")

    def start(
        *arguments: str, taskq: dict[str, Any] | None = None, env: dict[str, str] | None = None, ready: bool = True
    ) -> WorkerProcess:
        own = {"TMPDIR": temporary.name, "TASKQ_TEST_SETTINGS": dumps(taskq or {})}
        environment = worker_env | own | (env or {})
        process = WorkerProcess(arguments, environment, tmp_path / f"worker-{len(started)}.log")
        started.append(process)
        if ready:
            process.wait_ready()
        return process

    yield start
    for process in started:
        process.kill_tree()
    temporary.cleanup()


@pytest.fixture(scope="module")  # it costs a good part of a processor for as long as it is open
def browser(pytestconfig: pytest.Config, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    """A headless Chromium under Selenium; use it with ``live_server`` and ``@pytest.mark.browser``."""
    from selenium import webdriver  # slow to import, and only these tests want it

    programs = find(Chromium, pytestconfig)
    options = webdriver.ChromeOptions()
    options.binary_location = str(programs / "chromium")
    profile = tmp_path_factory.mktemp("chromium")
    # No sandbox: as root, and in most containers, Chromium cannot have one; it opens nothing but our own pages.
    for argument in ("--headless=new", "--no-sandbox", "--disable-dev-shm-usage", f"--user-data-dir={profile}"):
        options.add_argument(argument)
    # The path is given so that Selenium does not go and download a driver.
    driver = webdriver.Chrome(options=options, service=webdriver.ChromeService(str(programs / "chromedriver")))
    yield driver
    driver.quit()


@pytest.fixture(autouse=True)
def _project_s_own_language_and_zone() -> Iterator[None]:
    """What a test activates travels with the runs it enqueues; the next test shall not find it."""
    yield
    translation.deactivate()
    timezone.deactivate()
