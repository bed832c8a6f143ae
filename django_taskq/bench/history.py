"""A table as it looks after months: finished and waiting rows beside the measured ones, made by the database itself."""

from __future__ import annotations

from django.db import connections, transaction

from django_taskq import conf

# Nobody serves it.
OTHER_QUEUE = "taskq-bench-unserved"

# Ids of version 7 from the past, rising as those of real rows do: %(base)s is in milliseconds.
_POSTGRESQL_ID = """(lpad(to_hex(%(base)s + i / 4), 12, '0') || '7' || lpad(to_hex(i %% 4), 3, '0') || '9'
    || substr(md5(i::text), 1, 15))::uuid"""
_SQLITE_ID = "printf('%%012x7%%03x9%%s', %(base)s + i / 4, i %% 4, substr(lower(hex(randomblob(8))), 1, 15))"

_COLUMNS = """id, name, queue_name, priority, status, payload, enqueued_at, run_after, started_at, finished_at,
    worker_id, claim, result"""

_POSTGRESQL_FINISHED = f"""
    INSERT INTO taskq_task ({_COLUMNS})
    SELECT {_POSTGRESQL_ID}, 'django_taskq.bench.history', 'default', 0, 'SUCCESSFUL', '[[' || i || '],{{}}]',
        at, NULL, at + interval '1 ms', at + interval '2 ms', 1, i, i::text
    FROM (SELECT i, clock_timestamp() - interval '2 days' + i * interval '0.25 ms' AS at
        FROM generate_series(0, %(count)s - 1) i) made
"""
_POSTGRESQL_WAITING = f"""
    INSERT INTO taskq_task ({_COLUMNS})
    SELECT {_POSTGRESQL_ID}, 'django_taskq.bench.waiting', CASE WHEN i %% 2 = 0 THEN %(queue)s ELSE 'default' END, 0,
        CASE WHEN i %% 2 = 0 THEN 'READY' ELSE 'SCHEDULED' END, '[[' || i || '],{{}}]', at,
        CASE WHEN i %% 2 = 1 THEN at + interval '90 days' END, NULL, NULL, NULL, NULL, NULL
    FROM (SELECT i, clock_timestamp() - interval '1 day' + i * interval '0.25 ms' AS at
        FROM generate_series(0, %(count)s - 1) i) made
"""

_SERIES = "WITH RECURSIVE made(i) AS (SELECT 0 UNION ALL SELECT i + 1 FROM made WHERE i < %(count)s - 1)"
# Times as Django writes them, spread over an hour by the millisecond.
_SQLITE_TIME = "strftime('%%Y-%%m-%%d %%H:%%M:%%f000', 'now', {shift}, printf('+%%.3f seconds', i * 0.00025))"
_SQLITE_FINISHED = f"""
    {_SERIES} INSERT INTO taskq_task ({_COLUMNS})
    SELECT {_SQLITE_ID}, 'django_taskq.bench.history', 'default', 0, 'SUCCESSFUL', '[[' || i || '],{{}}]',
        {_SQLITE_TIME.format(shift="'-2 days'")}, NULL, {_SQLITE_TIME.format(shift="'-2 days'")},
        {_SQLITE_TIME.format(shift="'-2 days'")}, 1, i, CAST(i AS text)
    FROM made
"""
_SQLITE_WAITING = f"""
    {_SERIES} INSERT INTO taskq_task ({_COLUMNS})
    SELECT {_SQLITE_ID}, 'django_taskq.bench.waiting', CASE WHEN i %% 2 = 0 THEN %(queue)s ELSE 'default' END, 0,
        CASE WHEN i %% 2 = 0 THEN 'READY' ELSE 'SCHEDULED' END, '[[' || i || '],{{}}]',
        {_SQLITE_TIME.format(shift="'-1 days'")},
        CASE WHEN i %% 2 = 1 THEN {_SQLITE_TIME.format(shift="'+90 days'")} END, NULL, NULL, NULL, NULL, NULL
    FROM made
"""
_STATEMENTS = {
    "postgresql": (_POSTGRESQL_FINISHED, _POSTGRESQL_WAITING),
    "sqlite": (_SQLITE_FINISHED, _SQLITE_WAITING),
}


def rest() -> None:
    """Do now what PostgreSQL would otherwise do in the background, in the middle of what is measured next."""
    connection = connections[conf.get_settings().database]
    if connection.vendor != "postgresql":
        return
    with connection.cursor() as cursor:
        cursor.execute("VACUUM ANALYZE")
        cursor.execute("SELECT rolsuper FROM pg_roles WHERE rolname = current_user")
        if cursor.fetchone() == (True,):
            cursor.execute("CHECKPOINT")


def make(finished: int, waiting: int, now: float) -> None:
    """Add that many rows; half of the waiting ones are due in 90 days, the others in a queue that nobody serves."""
    alias = conf.get_settings().database
    connection = connections[alias]
    plans = zip(_STATEMENTS[connection.vendor], (finished, waiting), (2, 1), strict=True)
    with transaction.atomic(using=alias), connection.cursor() as cursor:
        for statement, count, days in plans:
            if count:
                base = int((now - days * 86_400) * 1000)
                values: dict[str, int | str] = {"count": count, "base": base, "queue": OTHER_QUEUE}
                cursor.execute(statement, values)
