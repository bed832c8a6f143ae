"""Task records in the admin: the list, and one run with everything known about it. Nothing can be added or edited."""

from __future__ import annotations

from typing import Any
from uuid import UUID

from django.contrib import admin, messages
from django.core.exceptions import PermissionDenied
from django.http import Http404, HttpRequest, HttpResponse, HttpResponseNotAllowed, HttpResponseRedirect
from django.urls import path, reverse
from django.utils.html import format_html
from django.utils.translation import gettext as _
from django.utils.translation import gettext_lazy

from django_taskq import conf
from django_taskq.admin import words
from django_taskq.admin.actions import CONFIRMED
from django_taskq.admin.dead_letters import DeadLetterPages
from django_taskq.admin.detail import detail_context
from django_taskq.admin.listing import LOOKUPS, QueueFilter, StatusFilter, TaskChangeList, TaskFilter, search
from django_taskq.admin.looking import OnlyLookedAt
from django_taskq.admin.verbs import VERBS
from django_taskq.models import TaskRecord
from django_taskq.models.task import TaskQuerySet

# The texts of a run are up to a megabyte each, and no list shows them.
_LISTED = (
    "name", "queue_name", "priority", "status", "run_after", "enqueued_at", "started_at", "finished_at", "attempt",
    "crashes", "reason", "worker__pid", "worker__worker__hostname",
)  # fmt: skip


class TaskRecordAdmin(OnlyLookedAt, DeadLetterPages):
    """The runs."""

    list_display = [
        "status_shown",
        "task",
        "queue",
        "enqueued",
        "started",
        "finished",
        "waited",
        "ran",
        "tries",
        "process",
    ]
    list_display_links = ["task"]
    list_filter = [StatusFilter, QueueFilter, TaskFilter]
    list_select_related = ["worker__worker"]
    list_per_page = 100
    sortable_by = ()
    search_fields = ["id", "name"]
    search_help_text = gettext_lazy(
        "The id of a run, or at least its first eight digits; or a part of the name of a task."
    )
    show_full_result_count = False
    show_facets = admin.ShowFacets.NEVER
    actions_on_bottom = False
    change_list_template = "admin/django_taskq/taskrecord/change_list.html"

    def get_queryset(self, request: HttpRequest) -> TaskQuerySet:
        records: TaskQuerySet = TaskRecord.objects.using(conf.get_settings().database)
        return records

    def get_changelist(self, request: HttpRequest, **kwargs: Any) -> type[TaskChangeList]:
        return TaskChangeList

    def get_changelist_instance(self, request: HttpRequest) -> TaskChangeList:
        found = super().get_changelist_instance(request)
        assert isinstance(found, TaskChangeList)
        found.title = str(self.opts.verbose_name_plural).capitalize()
        return found

    def lookup_allowed(self, lookup: str, value: Any, request: HttpRequest | None = None) -> bool:
        return lookup in LOOKUPS

    def to_field_allowed(self, request: HttpRequest, to_field: str) -> bool:
        return to_field == "id"

    def get_search_results(self, request: HttpRequest, queryset: Any, search_term: str) -> tuple[Any, bool]:
        listed = queryset.only(*_LISTED)
        term = search_term.strip()
        return (search(listed, term) if term else listed), False

    def has_delete_permission(self, request: HttpRequest, obj: TaskRecord | None = None) -> bool:
        return self.may(request, VERBS["delete"]) and (obj is None or VERBS["delete"].allows(obj))

    def get_urls(self) -> list[Any]:
        view = self.admin_site.admin_view(self.verb_view)
        return [path("<uuid:object_id>/do/<slug:name>/", view, name="django_taskq_taskrecord_do"), *super().get_urls()]

    def change_view(
        self, request: HttpRequest, object_id: str, form_url: str = "", extra_context: Any = None
    ) -> HttpResponse:
        """One run. Only to look at: what changes it are the verbs."""
        if request.method not in ("GET", "HEAD"):
            return HttpResponseNotAllowed(["GET", "HEAD"])
        if not self.has_view_permission(request):
            raise PermissionDenied
        record = self._find(object_id)
        if record is None:
            return self._gone(request, object_id)
        sees_limits = request.user.has_perm("django_taskq.view_limit")
        context = detail_context(record, sees_payload=self.has_payload_permission(request), sees_limits=sees_limits)
        context["verbs"] = [verb for verb in VERBS.values() if self.may(request, verb) and verb.allows(record)]
        context["may_see_workers"] = request.user.has_perm("django_taskq.view_worker")
        context["may_see_workflows"] = request.user.has_perm("django_taskq.view_workflow")
        title = _("Run of %(task)s") % {"task": words.one_line(record.name)}
        return self.page(request, "detail.html", title, {**context, **(extra_context or {})})

    def verb_view(self, request: HttpRequest, object_id: UUID, name: str) -> HttpResponse:
        """A button of the detail page."""
        verb = VERBS.get(name)
        if verb is None:
            raise Http404
        if request.method != "POST":
            return HttpResponseNotAllowed(["POST"])
        if not self.may(request, verb):
            raise PermissionDenied
        record = self._find(str(object_id))
        if record is None:
            return self._gone(request, str(object_id))
        if name == "delete" and CONFIRMED not in request.POST:
            context = {"examples": [(record, words.status_look(record))], "count": 1, "rest": 0, "verb": verb}
            return self.page(request, "confirm.html", verb.label, context)
        records = self.get_queryset(request).filter(pk=object_id)
        tally = self.perform(request, records, verb, is_bulk=False)
        if name == "delete" and tally.done:
            return HttpResponseRedirect(self._url("changelist"))
        return HttpResponseRedirect(self._url("change", tally.made[0] if tally.made else object_id))

    def delete_view(self, request: HttpRequest, object_id: str, extra_context: Any = None) -> HttpResponse:
        """Django's own address for it leads to the same verb, which refuses what a worker holds."""
        record = self._find(object_id)
        if not self.may(request, VERBS["delete"]):
            raise PermissionDenied
        if record is None:
            return self._gone(request, object_id)
        if request.method == "POST":
            return self.verb_view(request, record.pk, "delete")
        context = {"examples": [(record, words.status_look(record))], "count": 1, "rest": 0, "verb": VERBS["delete"]}
        return self.page(request, "confirm.html", VERBS["delete"].label, context)

    def _find(self, object_id: str) -> TaskRecord | None:
        try:
            pk = UUID(object_id)
        except ValueError:
            return None
        records: TaskQuerySet = TaskRecord.objects.using(conf.get_settings().database)
        return records.select_related("worker__worker").filter(pk=pk).first()

    def _gone(self, request: HttpRequest, object_id: str) -> HttpResponse:
        days = conf.get_settings().result_expires
        text = _("No run has the id %(id)s: it was never enqueued, its transaction was rolled back, or it was removed.")
        if days is not None:
            text += " " + _("Ended runs are kept for %(time)s.") % {"time": words.duration(days.total_seconds())}
        self.message_user(request, text % {"id": words.one_line(object_id)[:100]}, messages.WARNING)
        return HttpResponseRedirect(self._url("changelist"))

    def _url(self, page: str, *args: Any) -> str:
        return reverse(f"admin:django_taskq_taskrecord_{page}", args=args, current_app=self.admin_site.name)

    @admin.display(description=gettext_lazy("status"))
    def status_shown(self, record: TaskRecord) -> str:
        return words.badge(words.status_look(record))

    @admin.display(description=gettext_lazy("task"))
    def task(self, record: TaskRecord) -> str:
        reason = words.reason_class(record.reason)
        why = format_html('<span class="tq-why">{}</span>', reason) if reason else ""
        return format_html('<bdi class="tq-name">{}</bdi>{}', words.one_line(record.name), why)

    @admin.display(description=gettext_lazy("queue"))
    def queue(self, record: TaskRecord) -> str:
        return words.cell(_("Queue"), words.one_line(record.queue_name))

    @admin.display(description=gettext_lazy("enqueued"))
    def enqueued(self, record: TaskRecord) -> str:
        return words.cell(_("Enqueued"), words.moment(record.enqueued_at))

    @admin.display(description=gettext_lazy("started"))
    def started(self, record: TaskRecord) -> str:
        return words.cell(_("Started"), words.moment(record.started_at))

    @admin.display(description=gettext_lazy("finished"))
    def finished(self, record: TaskRecord) -> str:
        return words.cell(_("Finished"), words.moment(record.finished_at))

    @admin.display(description=gettext_lazy("waited"))
    def waited(self, record: TaskRecord) -> str:
        return words.cell(_("Waited"), words.duration(words.waited(record)))

    @admin.display(description=gettext_lazy("ran"))
    def ran(self, record: TaskRecord) -> str:
        return words.cell(_("Ran"), words.duration(words.ran(record)))

    @admin.display(description=gettext_lazy("attempt"))
    def tries(self, record: TaskRecord) -> str:
        return words.cell(_("Attempt"), record.attempt)

    @admin.display(description=gettext_lazy("worker"))
    def process(self, record: TaskRecord) -> str:
        return words.cell(_("Worker"), words.one_line(words.process_name(record)))
