"""Reading what Celery beat runs: the tables of django-celery-beat and the setting ``CELERY_BEAT_SCHEDULE``.

Neither package has to be installed any more. The tables are read through models of our own that nothing manages, the
objects in the setting by what they have and not by their classes.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any

from django.apps.registry import Apps
from django.conf import settings
from django.core.exceptions import ImproperlyConfigured
from django.db import connections, models, router
from django.utils import timezone

from django_taskq import clock, schedules
from django_taskq.contrib import celery_crontab
from django_taskq.exceptions import InvalidSchedule
from django_taskq.models.clock import aware
from django_taskq.schedules import Schedule

# A registry of their own: the real models may be installed under the same names. Routers see the label.
_registry = Apps()
LABEL = "django_celery_beat"
# Intervals from here on keep the time of day at which Celery ran them.
LONG_INTERVAL = timedelta(hours=1)
CRONTAB_FIELDS = ("minute", "hour", "day_of_month", "month_of_year", "day_of_week")
# Celery's own entry, which django-celery-beat makes by itself.
NOT_NEEDED = {"celery.backend_cleanup": "workers prune finished runs by themselves"}


class IntervalSchedule(models.Model):
    """Every so many periods."""

    every = models.IntegerField()
    period = models.CharField(max_length=24)

    class Meta:
        managed, app_label, apps, db_table = False, LABEL, _registry, "django_celery_beat_intervalschedule"

    def __str__(self) -> str:
        return f"every {self.every} {self.period}"


class CrontabSchedule(models.Model):
    """The five fields as text, and the name of a zone."""

    minute = models.CharField(max_length=240)
    hour = models.CharField(max_length=96)
    day_of_month = models.CharField(max_length=124)
    month_of_year = models.CharField(max_length=64)
    day_of_week = models.CharField(max_length=64)
    timezone = models.CharField(max_length=63)

    class Meta:
        managed, app_label, apps, db_table = False, LABEL, _registry, "django_celery_beat_crontabschedule"

    def __str__(self) -> str:
        return " ".join(getattr(self, name) for name in CRONTAB_FIELDS)


class SolarSchedule(models.Model):
    """An event of the sun at a place."""

    event = models.CharField(max_length=24)
    latitude = models.DecimalField(max_digits=9, decimal_places=6)
    longitude = models.DecimalField(max_digits=9, decimal_places=6)

    class Meta:
        managed, app_label, apps, db_table = False, LABEL, _registry, "django_celery_beat_solarschedule"

    def __str__(self) -> str:
        return f"{self.event} {self.latitude} {self.longitude}"


class ClockedSchedule(models.Model):
    """One time."""

    clocked_time = models.DateTimeField()

    class Meta:
        managed, app_label, apps, db_table = False, LABEL, _registry, "django_celery_beat_clockedschedule"

    def __str__(self) -> str:
        return str(self.clocked_time)


def _foreign_key(to: type[models.Model]) -> Any:
    return models.ForeignKey(to, on_delete=models.DO_NOTHING, null=True, related_name="+")


class BeatTask(models.Model):
    """django-celery-beat's PeriodicTask."""

    name = models.CharField(max_length=200, unique=True)
    task = models.CharField(max_length=200)
    interval = _foreign_key(IntervalSchedule)
    crontab = _foreign_key(CrontabSchedule)
    solar = _foreign_key(SolarSchedule)
    clocked = _foreign_key(ClockedSchedule)
    args = models.TextField(default="[]")
    kwargs = models.TextField(default="{}")
    queue = models.CharField(max_length=200, null=True)  # noqa: DJ001 - the tables are what they are
    exchange = models.CharField(max_length=200, null=True)  # noqa: DJ001
    routing_key = models.CharField(max_length=200, null=True)  # noqa: DJ001
    headers = models.TextField(default="{}", null=True)  # noqa: DJ001
    priority = models.PositiveIntegerField(null=True)
    expires = models.DateTimeField(null=True)
    expire_seconds = models.PositiveIntegerField(null=True)
    one_off = models.BooleanField(default=False)
    start_time = models.DateTimeField(null=True)
    enabled = models.BooleanField(default=True)
    last_run_at = models.DateTimeField(null=True)
    total_run_count = models.PositiveIntegerField(default=0)
    date_changed = models.DateTimeField(default=timezone.now)
    description = models.TextField(default="")

    class Meta:
        managed, app_label, apps, db_table = False, LABEL, _registry, "django_celery_beat_periodictask"

    def __str__(self) -> str:
        return self.name


TABLES: tuple[type[models.Model], ...] = (IntervalSchedule, CrontabSchedule, SolarSchedule, ClockedSchedule, BeatTask)


@dataclass(slots=True)
class Found:
    """One entry in this package's terms. ``refusal`` says why there is no ``schedule``, ``notes`` what differs."""

    name: str
    task_name: str
    schedule: Schedule | None = None
    args: list[Any] = field(default_factory=list)
    kwargs: dict[str, Any] = field(default_factory=dict)
    queue: str = ""
    expires: float | None = None
    is_one_off: bool = False
    is_enabled: bool = True
    notes: list[str] = field(default_factory=list)
    refusal: str = ""

    def disable(self, why: str) -> None:
        """Take it over, but not let it run before somebody has looked."""
        self.is_enabled = False
        self.notes.append(f"disabled: {why}")


def read_tables() -> list[Found] | None:
    """What the tables hold, by name; None where there are no such tables."""
    alias = router.db_for_read(BeatTask)
    connection = connections[alias]
    with connection.cursor() as cursor:
        existing = set(connection.introspection.table_names(cursor))
        if BeatTask._meta.db_table not in existing:
            return None
        for model in TABLES:
            table = model._meta.db_table
            known = connection.introspection.get_table_description(cursor, table) if table in existing else []
            missing = {str(each.column) for each in model._meta.concrete_fields} - {each.name for each in known}
            if missing:
                raise ImproperlyConfigured(
                    f"the table {table} on the database {alias!r} lacks {', '.join(sorted(missing))}: it is of an old "
                    f"django-celery-beat. Install version 2.1 or newer once, and run its migrations."
                )
    rows = BeatTask._base_manager.using(alias).select_related("interval", "crontab", "solar", "clocked")
    return [_from_row(row) for row in rows.order_by("name")]


def read_setting() -> list[Found]:
    """What ``CELERY_BEAT_SCHEDULE`` says, in its order."""
    entries = getattr(settings, "CELERY_BEAT_SCHEDULE", None) or {}
    if not isinstance(entries, Mapping):
        raise ImproperlyConfigured(f"CELERY_BEAT_SCHEDULE is {type(entries).__name__}; it takes a dict.")
    return [_from_entry(str(name), entry) for name, entry in entries.items()]


def celery_zone() -> str:
    """The zone of crontabs that name none, by Celery's rules."""
    given = getattr(settings, "CELERY_TIMEZONE", None)
    return str(given or ("UTC" if getattr(settings, "CELERY_ENABLE_UTC", True) else settings.TIME_ZONE))


def _from_row(row: BeatTask) -> Found:
    found = Found(row.name, row.task, queue=row.queue or "", expires=row.expire_seconds or None)
    found.is_one_off, found.is_enabled = row.one_off, row.enabled
    try:
        found.args, found.kwargs = _json("args", row.args, list), _json("kwargs", row.kwargs, dict)
        found.schedule = _schedule_of_row(row, found)
    except ValueError as error:  # InvalidSchedule is one
        found.refusal = str(error)
        return found
    has_run = row.total_run_count > 0 or (row.clocked is not None and row.last_run_at is not None)
    if row.enabled and row.one_off and has_run:
        found.disable("it is one-off and has run")
    elif row.enabled and found.schedule.next_run(clock.now()) is None:
        found.notes.append("it has no run any more: its time is over")
    _note_options(found, {name: getattr(row, name) for name in ("exchange", "routing_key", "priority")})
    if (row.headers or "").strip() not in ("", "{}", "null"):
        found.notes.append("headers were left out: runs have none here")
    return found


def _schedule_of_row(row: BeatTask, found: Found) -> Schedule:
    start, end = row.start_time and aware(row.start_time), row.expires and aware(row.expires)
    given = [name for name in ("interval", "crontab", "solar", "clocked") if getattr(row, name) is not None]
    if len(given) != 1:
        raise InvalidSchedule(f"it has {' and '.join(given) or 'no schedule'} where Celery takes exactly one.")
    common = {"start": start, "end": end}
    if row.crontab is not None:
        zone = row.crontab.timezone if getattr(settings, "DJANGO_CELERY_BEAT_TZ_AWARE", True) else celery_zone()
        return _crontab(found, [getattr(row.crontab, name) or "*" for name in CRONTAB_FIELDS], zone, common)
    if row.interval is not None:
        last = row.last_run_at and aware(row.last_run_at)
        return _interval(_timedelta(row.interval), last, common)
    if row.solar is not None:
        return schedules.solar(row.solar.event, float(row.solar.latitude), float(row.solar.longitude), **common)
    found.is_one_off = True
    return schedules.once(aware(row.clocked.clocked_time), **common)


def _timedelta(interval: IntervalSchedule) -> timedelta:
    if interval.period == "microseconds":
        raise InvalidSchedule(f"an interval of {interval.every} microseconds; the shortest one here is a second.")
    if interval.period not in ("days", "hours", "minutes", "seconds") or interval.every < 1:
        raise InvalidSchedule(f"an interval of {interval.every} {interval.period}, which Celery does not run either.")
    try:
        return timedelta(**{interval.period: interval.every})
    except OverflowError:
        raise InvalidSchedule(f"an interval of {interval.every} {interval.period}; the longest is ten years.") from None


def _interval(every: timedelta, last_run_at: datetime | None, common: dict[str, Any]) -> Schedule:
    """Celery counts from the last run. A daily one goes on at its hour; of every minute nobody minds the second."""
    keeps_phase = last_run_at is not None and every >= LONG_INTERVAL and common.get("start") is None
    anchor = last_run_at.astimezone(UTC).replace(microsecond=0) if last_run_at is not None and keeps_phase else None
    return schedules.every(every, anchor=anchor, **common)


def _crontab(found: Found, specs: list[Any], zone: str, common: dict[str, Any]) -> Schedule:
    try:
        text, notes = celery_crontab.expression(specs)
    except InvalidSchedule:
        raise
    except (TypeError, ValueError) as error:
        # Some of it may be sound here, as 7 for Sunday is; but it never ran, and so it does not begin by itself.
        schedule = schedules.crontab(" ".join(str(spec).replace(" ", "") for spec in specs), timezone=zone, **common)
        found.disable(f"{error}, so it never ran")
        return schedule
    found.notes += notes
    return schedules.crontab(text, timezone=zone, **common)


def _json(name: str, text: str | None, kind: type[Any]) -> Any:
    try:
        value = json.loads(text or ("[]" if kind is list else "{}"))
    except ValueError as error:
        raise ValueError(f"its {name} are not JSON: {text!r} ({error})") from None
    if not isinstance(value, kind):
        raise ValueError(f"its {name} are {text!r}; a JSON {'array' if kind is list else 'object'} belongs there")
    return value


def _from_entry(name: str, entry: Any) -> Found:
    if not isinstance(entry, Mapping) or not isinstance(entry.get("task"), str):
        return Found(name, "", refusal="its entry in CELERY_BEAT_SCHEDULE names no task")
    found = Found(name, entry["task"])
    options = dict(entry.get("options") or {})
    found.queue = str(options.pop("queue", None) or "")
    expires = options.pop("expires", None)
    common = {"end": aware(expires)} if isinstance(expires, datetime) else {}
    try:
        found.args, found.kwargs = list(entry.get("args") or ()), dict(entry.get("kwargs") or {})
        if expires is not None and not common:
            found.expires = expires.total_seconds() if isinstance(expires, timedelta) else float(expires)
        found.schedule = _schedule_of_object(found, entry.get("schedule"), common)
    except (TypeError, ValueError) as error:
        found.refusal = str(error)
        return found
    if entry.get("relative"):
        found.notes.append("relative was left out: intervals count from a fixed time here, whenever it was started")
    _note_options(found, options)
    return found


def _schedule_of_object(found: Found, given: Any, common: dict[str, Any]) -> Schedule:
    if getattr(given, "nowfun", None) is not None and not hasattr(given, "nowfunc"):
        found.notes.append("nowfun was left out: due times are compared by the clock of the database")
    if hasattr(given, "_orig_minute"):
        # Celery's own takes the app's zone and may or may not have looked it up; django-celery-beat's has its own.
        zone = str(vars(given).get("tz") or celery_zone())
        return _crontab(found, [getattr(given, f"_orig_{name}") for name in CRONTAB_FIELDS], zone, common)
    if hasattr(given, "run_every"):
        given = given.run_every
    if isinstance(given, timedelta) or (isinstance(given, (int, float)) and not isinstance(given, bool)):
        return _interval(given if isinstance(given, timedelta) else timedelta(seconds=given), None, common)
    if hasattr(given, "event") and hasattr(given, "lat") and hasattr(given, "lon"):
        return schedules.solar(given.event, float(given.lat), float(given.lon), **common)
    if hasattr(given, "clocked_time"):
        found.is_one_off = True
        return schedules.once(aware(given.clocked_time), **common)
    raise InvalidSchedule(
        f"its schedule is {given!r}; this reads Celery's crontab, schedule and solar, timedeltas and seconds."
    )


def _note_options(found: Found, options: Mapping[str, Any]) -> None:
    for name in _given(options):
        if name == "priority":
            found.notes.append(
                f"priority {options[name]} was left out: what Celery's number means depends on its broker. Here higher "
                f"comes first, from -100 to 100"
            )
        else:
            found.notes.append(f"{name} {options[name]!r} was left out: there is no such thing here")


def _given(options: Mapping[str, Any]) -> Iterator[str]:
    return (name for name, value in options.items() if value not in (None, "", {}))
