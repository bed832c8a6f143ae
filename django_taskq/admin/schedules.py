"""Periodic tasks in the admin. Who may put a task on a schedule runs code: that has a permission of its own."""

from __future__ import annotations

import json
from typing import Any

from django.contrib import admin
from django.http import HttpRequest, HttpResponse
from django.urls import reverse
from django.utils.html import format_html
from django.utils.translation import gettext as _
from django.utils.translation import gettext_lazy

from django_taskq import conf, registry, serializers
from django_taskq.admin import payload, schedule_preview, words
from django_taskq.admin.schedule_actions import DELETABLE, PeriodicVerbActions, is_id
from django_taskq.admin.schedule_arguments import Stored
from django_taskq.admin.schedule_form import CATCH_UP, OVERLAP, PeriodicTaskForm, zone_names
from django_taskq.admin.schedule_list import (
    LOOKUPS,
    EnabledFilter,
    PeriodicChangeList,
    ScheduledTaskFilter,
    SourceFilter,
)
from django_taskq.admin.schedule_verbs import VERBS
from django_taskq.exceptions import InvalidSchedule, SerializationError
from django_taskq.models import PeriodicTask, SchedulerLease
from django_taskq.models.schedule import TIMING, Source
from django_taskq.schedules import CatchUp, Overlap

_SHOWN_CHOICES = {"catch_up": "catch_up_shown", "overlap": "overlap_shown"}


class PeriodicTaskAdmin(PeriodicVerbActions):
    """The schedules."""

    form = PeriodicTaskForm
    list_display = ["enabled", "name_shown", "timing", "next_run", "last_run", "origin"]
    list_display_links = ["name_shown"]
    list_filter = [EnabledFilter, SourceFilter, ScheduledTaskFilter]
    list_per_page = 100
    search_fields = ["name", "task_name"]
    search_help_text = gettext_lazy("A part of the name, or of the name of the task.")
    show_facets = admin.ShowFacets.NEVER
    actions_on_bottom = False
    ordering = ["name"]
    change_list_template = "admin/django_taskq/periodictask/change_list.html"
    change_form_template = "admin/django_taskq/periodictask/change_form.html"

    def get_changelist(self, request: HttpRequest, **kwargs: Any) -> type[PeriodicChangeList]:
        return PeriodicChangeList

    def get_changelist_instance(self, request: HttpRequest) -> Any:
        found = super().get_changelist_instance(request)
        found.title = str(self.opts.verbose_name_plural).capitalize()
        return found

    def lookup_allowed(self, lookup: str, value: Any, request: HttpRequest | None = None) -> bool:
        return lookup in LOOKUPS

    def to_field_allowed(self, request: HttpRequest, to_field: str) -> bool:
        return to_field == "id"

    # Who may do what.

    def has_add_permission(self, request: HttpRequest) -> bool:
        return super().has_add_permission(request) and self._may_schedule(request)

    def has_change_permission(self, request: HttpRequest, obj: PeriodicTask | None = None) -> bool:
        return super().has_change_permission(request, obj) and self._may_schedule(request)

    def has_delete_permission(self, request: HttpRequest, obj: PeriodicTask | None = None) -> bool:
        """A declared one would come back."""
        is_free = obj is None or not obj.is_declared or obj.is_retired
        return super().has_delete_permission(request, obj) and is_free

    def has_payload_permission(self, request: HttpRequest) -> bool:
        """Whether this user may see arguments."""
        return request.user.has_perm(f"{self.opts.app_label}.view_payload")

    def _may_schedule(self, request: HttpRequest) -> bool:
        return request.user.has_perm(f"{self.opts.app_label}.schedule_task")

    # The form.

    def get_fieldsets(self, request: HttpRequest, obj: PeriodicTask | None = None) -> Any:
        is_editable = obj is None or self.has_change_permission(request, obj)
        arguments = ("args", "kwargs") if self._edits_arguments(request, obj) else ("arguments",)
        timing = tuple(name if is_editable else _SHOWN_CHOICES.get(name, name) for name in TIMING)
        is_checked = is_editable and not (obj and obj.is_retired)
        when = (timing[0], *(("save_although_never",) if is_checked else ()), *timing[1:])
        state = ("is_enabled",) if obj is not None and obj.is_declared else ("is_enabled", "is_one_off")
        what = ("name", "task_name", *arguments, "queue_name", "priority", "expires")
        return [
            (None, {"fields": (what[0], *state)}),
            (_("When it runs"), {"fields": when}),
            (_("What it runs"), {"fields": what[1:]}),
        ]

    def get_readonly_fields(self, request: HttpRequest, obj: PeriodicTask | None = None) -> list[str]:
        found = ["arguments", *_SHOWN_CHOICES.values()]
        if not self._edits_arguments(request, obj):
            found += ["args", "kwargs"]
        if obj is not None and obj.is_declared:
            found += ["name", "task_name", "queue_name", "priority", "expires"]
        elif obj is not None and not self.has_payload_permission(request):
            # Another task could tell the arguments to somebody who may not see them.
            found.append("task_name")
        return [*found, *TIMING, "is_enabled", "save_although_never"] if obj is not None and obj.is_retired else found

    def _edits_arguments(self, request: HttpRequest, obj: PeriodicTask | None) -> bool:
        if not self.has_payload_permission(request):
            return False
        if obj is None:
            return True
        is_free = not obj.is_declared and self.has_change_permission(request, obj)
        return is_free and Stored.read(obj.task_name, obj.payload) is not None

    def get_object(self, request: HttpRequest, object_id: str, from_field: str | None = None) -> PeriodicTask | None:
        found = self.get_queryset(request).filter(pk=int(object_id)).first() if is_id(object_id) else None
        if found is not None:
            # For "arguments", which Django calls without the request.
            found.is_payload_shown = self.has_payload_permission(request)  # type: ignore[attr-defined]
        return found

    def save_model(self, request: HttpRequest, obj: PeriodicTask, form: Any, change: bool) -> None:
        obj.save(using=conf.get_settings().database)

    def delete_queryset(self, request: HttpRequest, queryset: Any) -> None:
        queryset.filter(DELETABLE).delete()

    def get_deleted_objects(self, objs: Any, request: HttpRequest) -> Any:
        """Without the due times, of which there may be hundreds of thousands."""
        names = [words.one_line(str(obj)) for obj in objs]
        counts = {self.opts.verbose_name_plural: len(names)}
        refused = {str(self.opts.verbose_name) for obj in objs if not self.has_delete_permission(request, obj)}
        return [*names, _("the history of their due times; runs stay")], counts, refused, []

    def changelist_view(self, request: HttpRequest, extra_context: dict[str, Any] | None = None) -> HttpResponse:
        return super().changelist_view(request, {"is_scheduled": _is_scheduled(), **(extra_context or {})})

    def render_change_form(
        self,
        request: HttpRequest,
        context: Any,
        add: bool = False,
        change: bool = False,
        form_url: str = "",
        obj: Any = None,
    ) -> Any:
        form = context["adminform"].form
        context["zone_names"] = zone_names()
        read = getattr(form, "schedule_read", None)
        if read is not None:
            context["preview"] = schedule_preview.of_schedule(read)
            context["is_unsaved"] = True
        elif obj is not None and not form.is_bound:
            context["preview"] = schedule_preview.of_row(obj)
        if obj is not None:
            # The form has put what was typed into its own.
            row = self.get_object(request, str(obj.pk)) if form.is_bound else obj
            context |= self._head(request, row or obj)
        return super().render_change_form(request, context, add, change, form_url, obj)

    def _head(self, request: HttpRequest, row: PeriodicTask) -> dict[str, Any]:
        """What the page shows besides the form."""
        sees_payload = self.has_payload_permission(request)
        return {
            "row": row,
            "badges": [badge(row), origin_badge(row)],
            "is_overridden": row.is_overridden,
            "overrides": overrides(row),
            "is_registered": registry.find(row.task_name) is not None,
            "task_name_shown": words.one_line(row.task_name),
            "next_run": schedule_preview.relative(row.next_due_at if is_active(row) else None),
            "verbs": [verb for verb in VERBS.values() if self.may(request, verb) and verb.allows(row)],
            "ticks": schedule_preview.ticks(row, sees_payload=sees_payload),
            "may_see_tasks": request.user.has_perm("django_taskq.view_taskrecord"),
            "is_scheduled": _is_scheduled(),
        }

    @admin.display(description=gettext_lazy("arguments"))
    def arguments(self, row: PeriodicTask) -> str:
        if not getattr(row, "is_payload_shown", False):
            return _(
                "You may not see arguments: that needs the permission “Can view arguments, results and tracebacks”."
            )
        shown = payload.arguments(row.task_name, row.payload)
        lines = [f"{value.name} = {value.text}" if value.name else f"{value.note}\n{value.text}" for value in shown]
        return format_html('<pre class="tq-pre" dir="ltr">{}</pre>', "\n".join(lines)) if lines else _("None.")

    @admin.display(description=gettext_lazy("due times that were missed"))
    def catch_up_shown(self, row: PeriodicTask) -> str:
        return str(CATCH_UP[CatchUp(row.catch_up)]) if row.catch_up in list(CatchUp) else row.catch_up

    @admin.display(description=gettext_lazy("while the last run goes on"))
    def overlap_shown(self, row: PeriodicTask) -> str:
        return str(OVERLAP[Overlap(row.overlap)]) if row.overlap in list(Overlap) else row.overlap

    # The columns.

    @admin.display(description=gettext_lazy("name"), ordering="name")
    def name_shown(self, row: PeriodicTask) -> str:
        name, task = words.one_line(row.name), words.one_line(row.task_name)
        what = format_html('<bdi class="tq-why">{}</bdi>', task) if task != name else ""
        return format_html('<bdi class="tq-name">{}</bdi>{}', name, what)

    @admin.display(description=gettext_lazy("schedule"))
    def timing(self, row: PeriodicTask) -> str:
        text, zone = words.one_line(row.schedule), words.one_line(row.timezone) or _("the project's zone")
        try:
            said = schedule_preview.describe(row.get_schedule())
        except InvalidSchedule as error:
            why = format_html('<span class="tq-failed">{}</span>', words.one_line(str(error)))
            return words.cell(_("Schedule"), format_html("<bdi>{}</bdi> {}", text, why))
        said = format_html('<span title="{}">{}</span><span class="tq-why">{}</span>', text, said, zone)
        return words.cell(_("Schedule"), said)

    @admin.display(description=gettext_lazy("next run"), ordering="next_due_at")
    def next_run(self, row: PeriodicTask) -> str:
        return words.cell(_("Next run"), schedule_preview.relative(row.next_due_at if is_active(row) else None))

    @admin.display(description=gettext_lazy("last due time"))
    def last_run(self, row: Any) -> str:
        if row.tick_due_at is None:
            return words.cell(_("Last due time"), words.NONE)
        look = schedule_preview.decision_badge(row.tick_decision)
        if row.has_tick_run:
            url = reverse(
                "admin:django_taskq_taskrecord_change", args=[row.tick_run_id], current_app=self.admin_site.name
            )
            look = format_html('<a href="{}">{}</a>', url, look)
        return words.cell(
            _("Last due time"), format_html('{}<span class="tq-why">{}</span>', look, words.moment(row.tick_due_at))
        )

    @admin.display(description=gettext_lazy("enabled"), ordering="is_enabled")
    def enabled(self, row: PeriodicTask) -> str:
        return words.cell(_("Enabled"), badge(row))

    @admin.display(description=gettext_lazy("comes from"), ordering="source")
    def origin(self, row: PeriodicTask) -> str:
        return words.cell(_("Comes from"), origin_badge(row))


def is_active(row: PeriodicTask) -> bool:
    """Whether it runs."""
    return row.is_enabled and not row.is_retired


def badge(row: PeriodicTask) -> str:
    """Whether it runs, as icon and word."""
    if row.is_retired:
        return words.badge(words.Look("stopped", _("No longer in the code")))
    look = ("online", _("Enabled")) if row.is_enabled else ("cancelled", _("Disabled"))
    return words.badge(words.Look(*look))


def origin_badge(row: PeriodicTask) -> str:
    """Where it comes from, and whether its timing was changed here."""
    said = {Source.CODE: _("from code"), Source.SETTINGS: _("from settings")}.get(Source(row.source), _("database"))
    mark = format_html(' <span class="tq-chip tq-retrying">{}</span>', _("overridden")) if row.is_overridden else ""
    return format_html('<span class="tq-chip">{}</span>{}', said, mark)


def overrides(row: PeriodicTask) -> list[dict[str, str]]:
    """What of its timing differs from the code, each with both values."""
    if row.declared is None:
        return []
    declared = json.loads(row.declared)
    found = []
    for name in TIMING:
        try:
            theirs = serializers.loads(declared[name])
        except (SerializationError, KeyError):
            continue
        if theirs != getattr(row, name):
            field = PeriodicTask._meta.get_field(name)
            label = str(getattr(field, "verbose_name", name)).capitalize()
            found.append({"label": label, "code": _shown(theirs), "here": _shown(getattr(row, name))})
    return found


def _shown(value: Any) -> str:
    return words.NONE if value in (None, "") else words.one_line(str(value))


def _is_scheduled() -> bool:
    return SchedulerLease.objects.using(conf.get_settings().database).holder() is not None
