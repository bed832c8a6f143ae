"""What is measured, with which settings, and which of our own cases each peer is held against.

Every worker command stands for a total concurrency of two: two processes with one slot each. ``-default`` is what a
project gets that follows the manual, logging quiet; ``-tuned`` is the best setting that was found for that peer.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

RESULTS = "results stored in the Django database"
NO_RESULTS = "no results"
GROUPS = (RESULTS, NO_RESULTS)

POSTGRES, SQLITE, REDIS, AMQP = "postgres", "sqlite", "redis", "amqp"


@dataclass(frozen=True)
class Case:
    """One system with one set of settings.

    ``broker`` and ``database`` name the stores it uses ("" for none). ``rival`` is the name of the case of ours that
    uses the same store, "" for our own. Each of ``workers`` is a command line in the environment.
    """

    name: str
    group: str
    environment: str
    adapter: str
    workers: tuple[str, ...]
    settings_text: str
    broker: str = ""
    database: str = ""
    rival: str = ""
    django: Mapping[str, Any] = field(default_factory=dict)
    environ: Mapping[str, str] = field(default_factory=dict)

    @property
    def is_ours(self) -> bool:
        return not self.rival

    @property
    def stores(self) -> set[str]:
        return {self.broker, self.database} - {"", SQLITE}


def _ours(name: str, group: str, broker: str, database: str, has_rows: bool = True) -> Case:
    return Case(
        name,
        group,
        "taskq",
        "taskq_peer.tasks",
        ("python -m django taskworker --processes 2 --threads 1 -v 0",),
        "defaults" if has_rows else "defaults; @task(track_pending=False, ignore_result=True)",
        broker,
        database,
        django={"INSTALLED_APPS": ["django_taskq", "taskq_peer"]},
        environ={"PEER_ROWS": "1" if has_rows else "0"},
    )


OURS = [
    _ours("ours-postgresql", RESULTS, "", POSTGRES),
    _ours("ours-sqlite", RESULTS, "", SQLITE),
    _ours("ours-redis-rows", RESULTS, REDIS, POSTGRES),
    _ours("ours-rabbitmq-rows", RESULTS, AMQP, POSTGRES),
    _ours("ours-redis-no-rows", NO_RESULTS, REDIS, POSTGRES, has_rows=False),
    _ours("ours-rabbitmq-no-rows", NO_RESULTS, AMQP, POSTGRES, has_rows=False),
]

CELERY_WORKER = "celery -A celery_peer worker -l ERROR"
# Prefork never got quicker than two processes that run the tasks themselves.
CELERY_SOLO = f"{CELERY_WORKER} -P solo --without-gossip --without-mingle --without-heartbeat"


def _celery(transport: str, broker: str, has_results: bool, is_tuned: bool) -> Case:
    django: dict[str, Any] = {"CELERY_TASK_IGNORE_RESULT": not has_results}
    text = "prefork, concurrency 2"
    if has_results:
        django |= {"INSTALLED_APPS": ["django_celery_results"], "CELERY_RESULT_BACKEND": "django-db"}
        text += ", django-celery-results"
    if is_tuned:
        # Without the second Celery closes the database connections around each task, whatever CONN_MAX_AGE says.
        django |= {"CELERY_WORKER_PREFETCH_MULTIPLIER": 100, "CELERY_DB_REUSE_MAX": 1000}
        django["CELERY_WORKER_ENABLE_REMOTE_CONTROL"] = False
        text = "two solo processes, prefetch 100, DB_REUSE_MAX 1000, no gossip, mingle, heartbeat or remote control"
    # Two workers of one host may not share a name.
    solo = tuple(f"{CELERY_SOLO} -n peer{number}" for number in (1, 2))
    return Case(
        f"celery-{transport}-{'results-' if has_results else ''}{'tuned' if is_tuned else 'default'}",
        RESULTS if has_results else NO_RESULTS,
        "celery",
        "celery_peer",
        solo if is_tuned else (f"{CELERY_WORKER} -P prefork -c 2",),
        text,
        broker,
        POSTGRES,
        f"ours-{transport}-{'rows' if has_results else 'no-rows'}",
        django,
    )


def _dramatiq(transport: str, broker: str, prefetch: int = 0, confirms: bool = False) -> Case:
    said = "" if broker == REDIS else f", publisher confirms {'on' if confirms else 'off'}"
    return Case(
        f"dramatiq-{transport}-{'confirms' if confirms else 'tuned' if prefetch else 'default'}",
        NO_RESULTS,
        "dramatiq",
        "dramatiq_peer",
        ("dramatiq dramatiq_peer -p 2 -t 1",),
        f"-p 2 -t 1{f', dramatiq_queue_prefetch={prefetch}' if prefetch else ''}{said}",
        broker,
        rival=f"ours-{transport}-no-rows",
        environ={"PEER_CONFIRMS": str(int(confirms))}
        | ({"dramatiq_queue_prefetch": str(prefetch)} if prefetch else {}),
    )


def _djtasks(store: str, database: str, interval: str = "") -> Case:
    option = f" --interval {interval}" if interval else ""
    return Case(
        f"django-tasks-db-{store}-{'tuned' if interval else 'default'}",
        RESULTS,
        "djtasks",
        "djtasks_peer",
        (f"python -m django db_worker{option} -v 0",) * 2,
        f"two db_worker, interval {interval or 1} s",
        database=database,
        rival=f"ours-{store}",
        django={"INSTALLED_APPS": ["django_tasks", "django_tasks_db"]},
    )


def _procrastinate(is_tuned: bool) -> Case:
    options = "--concurrency 20 --delete-jobs always" if is_tuned else "--concurrency 1"
    return Case(
        f"procrastinate-{'tuned' if is_tuned else 'default'}",
        NO_RESULTS if is_tuned else RESULTS,
        "procrastinate",
        "procrastinate_peer",
        (f"python -m django procrastinate worker {options}",) * 2,
        f"two workers, {options}; {'async task' if is_tuned else 'the row stays with its status (no results exist)'}",
        database=POSTGRES,
        rival="ours-postgresql",
        django={
            "INSTALLED_APPS": ["procrastinate.contrib.django"],
            "PROCRASTINATE_IMPORT_PATHS": ["procrastinate_peer"],
        },
        environ={"PEER_ASYNC": "1"} if is_tuned else {"PEER_KEEPS_ROWS": "1"},
    )


def _pgqueuer(batch: int) -> Case:
    return Case(
        f"pgqueuer-{'default' if batch == 10 else 'tuned'}",
        NO_RESULTS,
        "pgqueuer",
        "pgqueuer_peer",
        (f"python -m pgqueuer_peer {batch}",) * 2,
        f"two processes, batch {batch}, asyncpg, uvloop, no limit on jobs at once; its job log, no results",
        database=POSTGRES,
        rival="ours-postgresql",
    )


HUEY = Case(
    "huey-redis-default",
    NO_RESULTS,
    "huey",
    "huey_peer",
    ("huey_consumer huey_peer.huey -w 2 -k process -q",),
    "-w 2 -k process, results=False",
    REDIS,
    rival="ours-redis-no-rows",
)

TRANSPORTS = {"redis": REDIS, "rabbitmq": AMQP}
CASES: list[Case] = [
    *OURS,
    *(_celery(*of, has, tuned) for has in (True, False) for of in TRANSPORTS.items() for tuned in (False, True)),
    *(_dramatiq(*of, prefetch) for of in TRANSPORTS.items() for prefetch in (0, 500)),
    # Ours waits until RabbitMQ has confirmed each message; dramatiq can be told to.
    _dramatiq("rabbitmq", AMQP, 500, confirms=True),
    HUEY,
    *(_djtasks("postgresql", POSTGRES, interval) for interval in ("", "0.05")),
    *(_djtasks("sqlite", SQLITE, interval) for interval in ("", "0.05")),
    *(_procrastinate(is_tuned) for is_tuned in (False, True)),
    *(_pgqueuer(batch) for batch in (10, 1000)),
]
