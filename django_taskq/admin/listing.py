"""The list of runs: its filters, its search, and Django's change list taught to page by key.

Every filter and the search use columns that an index or the bounded window of :mod:`~django_taskq.admin.paging`
serves. No other lookup is accepted: ``?payload__startswith=`` would let those guess who may not see.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any, cast
from uuid import UUID

from django.contrib.admin import SimpleListFilter
from django.contrib.admin.options import IncorrectLookupParameters
from django.contrib.admin.views.main import ChangeList
from django.core.paginator import Paginator
from django.db import connections
from django.db.models import Q
from django.http import HttpRequest
from django.utils.translation import gettext_lazy as _

from django_taskq import client, registry
from django_taskq.admin.paging import Arm, Cursor, read_page
from django_taskq.admin.words import one_line
from django_taskq.models.task import TaskQuerySet
from django_taskq.status import Status

if TYPE_CHECKING:
    from django.contrib.admin import ModelAdmin


BEFORE, AFTER = "before", "after"
LOOKUPS = ("status", "task", "queue")

_UNBEGUN = Q(status=Status.RUNNING, started_at=None)
# The tabs: key, word, condition. A claimed run that has not begun is waiting, to those who look.
TABS: dict[str, tuple[Any, Q]] = {
    "waiting": (_("Waiting"), Q(status__in=(Status.READY, Status.WAITING)) | _UNBEGUN),
    "scheduled": (_("Scheduled"), Q(status=Status.SCHEDULED, attempt__lte=1)),
    "running": (_("Running"), Q(status=Status.RUNNING, started_at__isnull=False)),
    "retrying": (_("Retrying"), Q(status=Status.SCHEDULED, attempt__gt=1)),
    "successful": (_("Successful"), Q(status=Status.SUCCESSFUL)),
    "failed": (_("Failed"), Q(status=Status.FAILED)),
    "cancelled": (_("Cancelled"), Q(status=Status.CANCELLED)),
}
# Those whose rows a partial index finds, on its own or together with a queue.
_INDEXED = {"scheduled", "running", "retrying", "failed"}


class StatusFilter(SimpleListFilter):
    """The tabs above the list; it takes no room among the filters."""

    title = _("status")
    parameter_name = "status"
    template = "admin/django_taskq/taskrecord/no_filter.html"

    def lookups(self, request: HttpRequest, model_admin: ModelAdmin[Any]) -> list[tuple[str, Any]]:
        return [(key, word) for key, (word, _condition) in TABS.items()]

    def queryset(self, request: HttpRequest, queryset: Any) -> Any:
        value = self.value()
        if value is None:
            return queryset
        if value not in TABS:
            raise IncorrectLookupParameters(f"no status is named {value!r}")
        return queryset.filter(TABS[value][1])


class _ChoiceFilter(SimpleListFilter):
    """A column, with choices that are known without asking the table; a value of old is kept as a choice."""

    template = "admin/django_taskq/filter.html"

    column: str

    def names(self) -> Iterable[str]:
        raise NotImplementedError

    def lookups(self, request: HttpRequest, model_admin: ModelAdmin[Any]) -> list[tuple[str, str]]:
        given = request.GET.get(cast(str, self.parameter_name))
        return [(name, one_line(name)) for name in sorted({*self.names(), *([given] if given else [])})]

    def queryset(self, request: HttpRequest, queryset: Any) -> Any:
        return queryset.filter(**{self.column: self.value()}) if self.value() else queryset


class QueueFilter(_ChoiceFilter):
    """Runs of one queue."""

    title, parameter_name, column = _("queue"), "queue", "queue_name"

    def names(self) -> Iterable[str]:
        return client.known_queues()


class TaskFilter(_ChoiceFilter):
    """Runs of one task."""

    title, parameter_name, column = _("task"), "task", "name"

    def names(self) -> Iterable[str]:
        return [task.name for task in registry.all_tasks()]


def id_range(term: str) -> tuple[UUID, UUID] | None:
    """The ids that begin with ``term``, which is an id or at least eight digits of one; None for anything else."""
    digits = term.replace("-", "").lower()
    if re.fullmatch(r"[0-9a-f]{8,32}", digits) is None:
        return None
    return UUID(digits.ljust(32, "0")), UUID(digits.ljust(32, "f"))


def search(records: TaskQuerySet, term: str) -> TaskQuerySet:
    """Runs by id, beginning of an id, part of a registered task's name, or beginning of any task's name."""
    ids = id_range(term)
    if ids is not None:
        return records.filter(pk__gte=ids[0], pk__lte=ids[1])
    known = [task.name for task in registry.all_tasks() if term.lower() in task.name.lower()]
    return records.filter(Q(name__in=known) | Q(name__startswith=term))


class TaskChangeList(ChangeList):
    """Django's change list, read by key: it counts nothing, and ids are its only order."""

    def get_filters_params(self, params: Any = None) -> Any:
        given = super().get_filters_params(params)
        return {key: value for key, value in given.items() if key not in (BEFORE, AFTER)}

    def get_query_string(self, new_params: Any = None, remove: Any = None) -> str:
        # Another filter begins at the newest row again.
        return super().get_query_string(new_params, [*(remove or []), BEFORE, AFTER])

    def get_ordering(self, request: HttpRequest, queryset: Any) -> list[Any]:
        return ["-pk"]

    def get_results(self, request: HttpRequest) -> None:
        cursor = Cursor(self._cursor_id(BEFORE), self._cursor_id(AFTER))
        self.params.pop(BEFORE, None)
        self.params.pop(AFTER, None)
        self.page = read_page(self._arms(), cast(TaskQuerySet, self.root_queryset), cursor, self.list_per_page)
        self.result_list = self.page.rows
        self.has_more = self.page.older is not None or self.page.newer is not None
        # What templates of Django and of themes ask for; one more than shown means "there are more".
        self.result_count = self.full_result_count = len(self.page.rows) + self.has_more
        self.show_full_result_count = False
        self.show_admin_actions = bool(self.page.rows)
        self.can_show_all, self.multi_page = True, False
        self.paginator = Paginator(self.page.rows, self.list_per_page)

    @property
    def newest_url(self) -> str:
        """The first page."""
        return self.get_query_string()

    @property
    def older_url(self) -> str:
        """The page after this one."""
        return self.get_query_string({BEFORE: str(self.page.older)}) if self.page.older else ""

    @property
    def newer_url(self) -> str:
        """The page before this one."""
        return self.get_query_string({AFTER: str(self.page.newer)}) if self.page.newer else ""

    def tabs(self) -> list[dict[str, Any]]:
        """Links of the status tabs."""
        now = self.params.get("status")
        every = {"word": _("All"), "url": self.get_query_string(remove=["status"]), "is_current": not now}
        return [every] + [
            {"word": word, "url": self.get_query_string({"status": key}), "is_current": now == key}
            for key, (word, _condition) in TABS.items()
        ]

    def _arms(self) -> list[Arm]:
        records, status = cast(TaskQuerySet, self.queryset), self.params.get("status")
        is_narrowed = bool(self.query and id_range(self.query.strip()) is None) or "task" in self.params
        if self.query and id_range(self.query.strip()) is not None:
            return [Arm(records, True)]
        # SQLite walks the primary key rather than a partial index, for an ORDER BY it then gets for free.
        finds = connections[records.db].vendor != "sqlite"
        if status == "waiting":
            # One by one, so that each can use its own partial index.
            ready, waiting = records.filter(status=Status.READY), records.filter(status=Status.WAITING)
            return [Arm(ready, finds and not is_narrowed), Arm(records.filter(_UNBEGUN), finds), Arm(waiting, False)]
        if status in _INDEXED:
            return [Arm(records, finds and (status == "failed" or not is_narrowed))]
        return [Arm(records, not (status or is_narrowed or "queue" in self.params))]

    def _cursor_id(self, name: str) -> UUID | None:
        given = self.params.get(name)
        try:
            return UUID(given) if given else None
        except ValueError as error:
            raise IncorrectLookupParameters(error) from error
