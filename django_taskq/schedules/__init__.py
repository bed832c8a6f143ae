"""When something runs: crontabs, intervals, single times and the sun, all as values that name instants."""

from __future__ import annotations

from django_taskq.schedules.base import CatchUp, Overlap, Schedule
from django_taskq.schedules.crontab import Crontab, crontab
from django_taskq.schedules.every import Every, every
from django_taskq.schedules.once import Once, once
from django_taskq.schedules.solar import Solar, solar
from django_taskq.schedules.text import parse
from django_taskq.schedules.zones import clock_changes

__all__ = [
    "CatchUp",
    "Crontab",
    "Every",
    "Once",
    "Overlap",
    "Schedule",
    "Solar",
    "clock_changes",
    "crontab",
    "every",
    "once",
    "parse",
    "solar",
]
