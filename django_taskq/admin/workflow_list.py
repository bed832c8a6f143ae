"""The list of workflows: paged by key like the list of runs, with the progress of a page's rows in one query."""

from __future__ import annotations

from typing import Any, cast

from django.contrib.admin import SimpleListFilter
from django.contrib.admin.options import IncorrectLookupParameters
from django.db import connections
from django.http import HttpRequest
from django.utils.translation import gettext_lazy as _

from django_taskq.admin.listing import TaskChangeList, id_range
from django_taskq.admin.paging import Arm
from django_taskq.models.workflow import WorkflowStatus
from django_taskq.models.workflow_steps import count_steps

TABS: dict[str, Any] = {
    "running": _("Running"),
    "successful": _("Successful"),
    "failed": _("Failed"),
    "cancelled": _("Cancelled"),
}


class WorkflowStatusFilter(SimpleListFilter):
    """The tabs above the list; it takes no room among the filters."""

    title = _("status")
    parameter_name = "status"
    template = "admin/django_taskq/taskrecord/no_filter.html"

    def lookups(self, request: HttpRequest, model_admin: Any) -> list[tuple[str, Any]]:
        return list(TABS.items())

    def queryset(self, request: HttpRequest, queryset: Any) -> Any:
        value = self.value()
        if value is None:
            return queryset
        if value not in TABS:
            raise IncorrectLookupParameters(f"no status is named {value!r}")
        # The condition of the index of those that run.
        return queryset.unfinished() if value == "running" else queryset.filter(status=WorkflowStatus[value.upper()])


def search(workflows: Any, term: str) -> Any:
    """Workflows by id, beginning of an id, or part of their name."""
    ids = id_range(term)
    return workflows.filter(name__icontains=term) if ids is None else workflows.filter(pk__gte=ids[0], pk__lte=ids[1])


class WorkflowChangeList(TaskChangeList):
    """The newest first; each row with ``counts``, its steps by status."""

    def get_results(self, request: HttpRequest) -> None:
        super().get_results(request)
        rows = cast(list[Any], self.page.rows)
        counts = count_steps(self.root_queryset.db, rows) if rows else {}
        for row in rows:
            row.counts = counts[row.pk]

    def tabs(self) -> list[dict[str, Any]]:
        """Links of the status tabs."""
        now = self.params.get("status")
        every = {"word": _("All"), "url": self.get_query_string(remove=["status"]), "is_current": not now}
        return [every] + [
            {"word": word, "url": self.get_query_string({"status": key}), "is_current": now == key}
            for key, word in TABS.items()
        ]

    def _arms(self) -> list[Arm]:
        workflows, status = cast(Any, self.queryset), self.params.get("status")
        if self.query:
            return [Arm(workflows, id_range(self.query.strip()) is not None)]
        # SQLite walks the primary key rather than a partial index, for an ORDER BY it then gets for free.
        has_index = status == "running" and connections[workflows.db].vendor != "sqlite"
        return [Arm(workflows, not status or has_index)]
