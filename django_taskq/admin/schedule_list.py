"""The list of periodic tasks: its filters, and what a page needs besides its rows, in few queries."""

from __future__ import annotations

from typing import Any, cast

from django.contrib.admin import SimpleListFilter
from django.contrib.admin.options import IncorrectLookupParameters
from django.contrib.admin.views.main import ChangeList
from django.db.models import OuterRef, Q, Subquery
from django.http import HttpRequest
from django.utils.translation import gettext_lazy

from django_taskq.admin.schedule_preview import existing_runs
from django_taskq.admin.words import one_line
from django_taskq.models import ScheduleTick
from django_taskq.models.schedule import Source

# Nothing else may be looked up: ?payload__startswith= would let those guess who may not see.
LOOKUPS = ("enabled", "source", "task")


class _Choices(SimpleListFilter):
    template = "admin/django_taskq/filter.html"

    conditions: dict[str, tuple[Any, Q]]

    def lookups(self, request: HttpRequest, model_admin: Any) -> list[tuple[str, Any]]:
        return [(key, word) for key, (word, _condition) in self.conditions.items()]

    def queryset(self, request: HttpRequest, queryset: Any) -> Any:
        value = self.value()
        if value is None:
            return queryset
        if value not in self.conditions:
            raise IncorrectLookupParameters(f"no choice is named {value!r}")
        return queryset.filter(self.conditions[value][1])


class EnabledFilter(_Choices):
    """Those that run, and those that do not."""

    title, parameter_name = gettext_lazy("enabled"), "enabled"
    conditions = {
        "yes": (gettext_lazy("Yes"), Q(is_enabled=True, is_retired=False)),
        "no": (gettext_lazy("No"), Q(is_enabled=False) | Q(is_retired=True)),
    }


class SourceFilter(_Choices):
    """Where they come from."""

    title, parameter_name = gettext_lazy("comes from"), "source"
    conditions = {
        "database": (gettext_lazy("the database"), Q(source=Source.DATABASE)),
        "code": (gettext_lazy("code"), Q(source=Source.CODE, is_retired=False)),
        "settings": (gettext_lazy("settings"), Q(source=Source.SETTINGS, is_retired=False)),
        "retired": (gettext_lazy("no longer in the code"), Q(is_retired=True)),
    }


class ScheduledTaskFilter(SimpleListFilter):
    """By what they run."""

    title, parameter_name = gettext_lazy("task"), "task"
    template = "admin/django_taskq/filter.html"

    def lookups(self, request: HttpRequest, model_admin: Any) -> list[tuple[str, str]]:
        names = set(model_admin.get_queryset(request).order_by().values_list("task_name", flat=True).distinct())
        given = request.GET.get("task")
        return [(name, one_line(name)) for name in sorted(names | ({given} if given else set()))]

    def queryset(self, request: HttpRequest, queryset: Any) -> Any:
        return queryset.filter(task_name=self.value()) if self.value() else queryset


class PeriodicChangeList(ChangeList):
    """Django's, with each row's newest due time, found by the index of due times."""

    def get_queryset(self, request: HttpRequest, exclude_parameters: Any = None) -> Any:
        newest = ScheduleTick.objects.filter(periodic_task=OuterRef("pk")).order_by("-due_at")
        found = super().get_queryset(request, exclude_parameters)
        return found.annotate(
            tick_due_at=Subquery(newest.values("due_at")[:1]),
            tick_decision=Subquery(newest.values("decision")[:1]),
            tick_run_id=Subquery(newest.values("run_id")[:1]),
        )

    def get_results(self, request: HttpRequest) -> None:
        super().get_results(request)
        self.result_list = cast(Any, list(self.result_list))
        rows = cast(list[Any], self.result_list)
        existing = existing_runs(row.tick_run_id for row in rows)
        for row in rows:
            row.has_tick_run = row.tick_run_id in existing
