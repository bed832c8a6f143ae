"""Schedules that code and settings declare, written into rows: what they say, unless the admin says otherwise."""

from __future__ import annotations

import json
import logging
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

from django.db.models import Q

from django_taskq import client, clock, conf, registry, schedules, serializers
from django_taskq.conf_brokers import parse_queue_name
from django_taskq.exceptions import EnqueueError, InvalidSchedule
from django_taskq.models import PeriodicTask
from django_taskq.models.schedule import Source, call_of, timing_of
from django_taskq.options import parse_priority, parse_seconds
from django_taskq.schedules import Schedule

logger = logging.getLogger("django_taskq")


def declared() -> dict[str, PeriodicTask]:
    """What ``@task(schedule=...)`` and ``TASKQ["SCHEDULE"]`` declare, by name; not saved.

    Raises :exc:`InvalidSchedule` naming the entry that cannot work.
    """
    tasks = registry.all_tasks()
    found = {task.name: _from_code(task.name, task.options.schedule) for task in tasks if task.options.schedule}
    for name, entry in conf.get_settings().schedule.items():
        found[name] = from_entry(name, entry)
    return found


def _from_code(name: str, schedule: Schedule) -> PeriodicTask:
    return _described(PeriodicTask(name=name, task_name=name, source=Source.CODE, **timing_of(schedule)))


def from_entry(name: str, entry: Mapping[str, Any]) -> PeriodicTask:
    """One entry of ``TASKQ["SCHEDULE"]``. Raises as :func:`declared` does."""
    where = f"TASKQ['SCHEDULE'][{name!r}]"
    task = registry.find(entry["task"])
    if task is None:
        known = [task.name for task in registry.all_tasks()]
        raise InvalidSchedule(f"{where}: no task is named {entry['task']!r}.{conf.suggest(str(entry['task']), known)}")
    args, kwargs = entry.get("args", ()), entry.get("kwargs", {})
    try:
        task.check_arguments(args, kwargs)
        payload = serializers.dumps([list(args), dict(kwargs)])
        timing = timing_of(_schedule_of(entry))
        call = {key: parse(entry[key]) for key, parse in _CALL_PARSERS.items() if key in entry}
        client.check_queue(call.get("queue_name") or task.options.queue_name)
    except (EnqueueError, ValueError) as error:
        raise InvalidSchedule(f"{where}: {error}") from error
    return _described(
        PeriodicTask(name=name, task_name=task.name, payload=payload, source=Source.SETTINGS, **call, **timing)
    )


_CALL_PARSERS: dict[str, Callable[[Any], Any]] = {
    "queue_name": parse_queue_name,
    "priority": parse_priority,
    "expires": parse_seconds,
}


def _schedule_of(entry: Mapping[str, Any]) -> Schedule:
    """Text or object; what else the entry says of the timing goes on top."""
    given = entry["schedule"]
    timing = {key: entry[key] for key in conf.SCHEDULE_TIMING if key in entry}
    if isinstance(given, str):
        return schedules.parse(given, **timing)
    if not isinstance(given, Schedule):
        raise InvalidSchedule(
            f"'schedule' is {given!r}; it takes crontab(...), every(...) or a text such as '0 3 * * *'"
        )
    return replace(given, **timing)


def _described(row: PeriodicTask) -> PeriodicTask:
    row.declared = json.dumps(call_of(row), sort_keys=True)
    return row


def sync() -> None:
    """Bring the rows in line with what is declared; several workers may do so at once.

    New ones are created, changed ones changed (their timing only where the admin has not overridden it), and what is
    declared no more is retired: it stops and keeps its history.
    """
    using = conf.get_settings().database
    wanted = declared()
    ours = Q(name__in=wanted) | Q(declared__isnull=False, is_retired=False)
    rows = {row.name: row for row in PeriodicTask.objects.using(using).filter(ours)}
    for name, new in wanted.items():
        row = rows.pop(name, None)
        if row is None:
            _create(new, using)
        elif not row.is_declared:
            logger.error("the schedule %r is declared in code, and another of this name was made in the admin", name)
        elif row.declared != new.declared or row.is_retired or row.source != new.source:
            _adopt(row, new, using)
    for row in rows.values():
        if row.is_declared and not row.is_retired:
            row.is_retired = True
            row.save(using=using)
            logger.info("schedule %s is no longer declared: it is retired", row.name)


def _create(new: PeriodicTask, using: str) -> None:
    new.plan_next(clock.now())
    # Not save(): another worker may be doing the same at this moment.
    PeriodicTask.objects.using(using).bulk_create([new], ignore_conflicts=True)


def _adopt(row: PeriodicTask, new: PeriodicTask, using: str) -> None:
    is_overridden = row.is_overridden
    row.declared, row.source, row.is_retired = new.declared, new.source, False
    row.restore_declared(timing=not is_overridden)
    row.save(using=using)
