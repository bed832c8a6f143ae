"""Workflows in the admin: the list, one workflow with its steps, and the buttons to cancel and resume it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, cast
from uuid import UUID

from django.contrib import admin, messages
from django.contrib.admin.models import CHANGE, LogEntry
from django.contrib.contenttypes.models import ContentType
from django.core.exceptions import BadRequest, PermissionDenied
from django.http import Http404, HttpRequest, HttpResponse, HttpResponseNotAllowed, HttpResponseRedirect
from django.template.response import TemplateResponse
from django.urls import path, reverse
from django.utils.html import format_html
from django.utils.translation import gettext as _
from django.utils.translation import gettext_lazy

from django_taskq import conf
from django_taskq.admin import words, workflow_words
from django_taskq.admin.actions import CONFIRMED
from django_taskq.admin.looking import OnlyLookedAt
from django_taskq.admin.workflow_detail import TABS, workflow_context
from django_taskq.admin.workflow_list import WorkflowChangeList, WorkflowStatusFilter, search
from django_taskq.admin.workflow_verbs import FROM_STEP, WORKFLOW_VERBS, WorkflowVerb
from django_taskq.exceptions import ResultNotFound
from django_taskq.models import TaskRecord, Workflow
from django_taskq.models.workflow_steps import Counts, count_steps
from django_taskq.workflow_result import WorkflowResult

if TYPE_CHECKING:
    WorkflowModelAdmin = admin.ModelAdmin[Workflow]
else:
    WorkflowModelAdmin = admin.ModelAdmin


class WorkflowAdmin(OnlyLookedAt, WorkflowModelAdmin):
    """The workflows. Nothing can be added or edited."""

    list_display = ["status_shown", "workflow", "progress", "started", "finished", "took"]
    list_display_links = ["workflow"]
    list_filter = [WorkflowStatusFilter]
    list_per_page = 100
    sortable_by = ()
    search_fields = ["id", "name"]
    search_help_text = gettext_lazy(
        "The id of a workflow, or at least its first eight digits; or a part of the name of one."
    )
    show_full_result_count = False
    show_facets = admin.ShowFacets.NEVER
    actions = None
    change_list_template = "admin/django_taskq/workflow/change_list.html"

    def get_queryset(self, request: HttpRequest) -> Any:
        return Workflow.objects.using(conf.get_settings().database)

    def get_changelist(self, request: HttpRequest, **kwargs: Any) -> type[WorkflowChangeList]:
        return WorkflowChangeList

    def get_changelist_instance(self, request: HttpRequest) -> WorkflowChangeList:
        found = super().get_changelist_instance(request)
        assert isinstance(found, WorkflowChangeList)
        found.title = str(self.opts.verbose_name_plural).capitalize()
        return found

    def lookup_allowed(self, lookup: str, value: Any, request: HttpRequest | None = None) -> bool:
        return lookup == "status"

    def to_field_allowed(self, request: HttpRequest, to_field: str) -> bool:
        return to_field == "id"

    def get_search_results(self, request: HttpRequest, queryset: Any, search_term: str) -> tuple[Any, bool]:
        term = search_term.strip()
        return (search(queryset, term) if term else queryset), False

    def may(self, request: HttpRequest, verb: WorkflowVerb) -> bool:
        """Whether this user may use the verb on workflows that they may see."""
        return request.user.has_perm(f"{self.opts.app_label}.{verb.permission}") and self.has_view_permission(request)

    def get_urls(self) -> list[Any]:
        view = self.admin_site.admin_view(self.verb_view)
        return [path("<uuid:object_id>/do/<slug:name>/", view, name="django_taskq_workflow_do"), *super().get_urls()]

    def change_view(
        self, request: HttpRequest, object_id: str, form_url: str = "", extra_context: Any = None
    ) -> HttpResponse:
        """One workflow. Only to look at: what changes it are the verbs."""
        if request.method not in ("GET", "HEAD"):
            return HttpResponseNotAllowed(["GET", "HEAD"])
        if not self.has_view_permission(request):
            raise PermissionDenied
        workflow = self._find(object_id)
        if workflow is None:
            return self._gone(request, object_id)
        tab, after = request.GET.get("steps", ""), request.GET.get("after")
        if tab and tab not in TABS:
            raise BadRequest("no such status of steps")
        counts = _counts(workflow)
        may_see_tasks = request.user.has_perm("django_taskq.view_taskrecord")
        context = workflow_context(
            workflow,
            counts,
            tab=tab,
            after=_id(after) if after else None,
            sees_payload=request.user.has_perm("django_taskq.view_payload"),
            url_of=self._run_url if may_see_tasks else None,
        )
        from_step = WORKFLOW_VERBS[FROM_STEP]
        verbs = [verb for verb in WORKFLOW_VERBS.values() if verb is not from_step]
        context["verbs"] = [verb for verb in verbs if self.may(request, verb) and verb.allows(workflow, counts)]
        context["from_step"] = from_step if self.may(request, from_step) else None
        context["may_see_tasks"] = may_see_tasks
        title = _("Workflow %(name)s") % {"name": workflow_words.title(workflow)}
        return self._page(request, "detail.html", title, {**context, **(extra_context or {})})

    def verb_view(self, request: HttpRequest, object_id: UUID, name: str) -> HttpResponse:
        """A button of the page: asks first, then does it."""
        verb = WORKFLOW_VERBS.get(name)
        if verb is None:
            raise Http404
        if request.method != "POST":
            return HttpResponseNotAllowed(["POST"])
        if not self.may(request, verb):
            raise PermissionDenied
        workflow = self._find(str(object_id))
        if workflow is None:
            return self._gone(request, str(object_id))
        step = _step(workflow, request.POST.get("step", "")) if name == FROM_STEP else None
        if CONFIRMED not in request.POST:
            return self._confirmation(request, workflow, verb, step)
        try:
            self._perform(request, workflow, verb, step)
        except ResultNotFound:
            return self._gone(request, str(object_id))
        return HttpResponseRedirect(self._url("change", object_id))

    def _confirmation(
        self, request: HttpRequest, workflow: Workflow, verb: WorkflowVerb, step: TaskRecord | None
    ) -> HttpResponse:
        context = {
            "verb": verb,
            "original": workflow,
            "workflow_name": workflow_words.title(workflow),
            "look": workflow_words.workflow_look(workflow),
            "bar": workflow_words.bar(workflow, _counts(workflow)),
            "step": step,
            "step_name": workflow_words.step_name(step) if step else "",
        }
        return self._page(request, "confirm.html", verb.label, context)

    def _perform(self, request: HttpRequest, workflow: Workflow, verb: WorkflowVerb, step: TaskRecord | None) -> None:
        """Do it, write the log and tell the user."""
        count = 0
        if verb.allows(workflow, _counts(workflow)):
            count = verb.perform(WorkflowResult(workflow.pk), str(step.pk) if step else "")
        if not count:
            self.message_user(request, _("Nothing was there to do: the workflow has moved on."), messages.WARNING)
            return
        said = _("%(verb)s: %(done)s") % {"verb": verb.label, "done": verb.done(count)}
        if step is not None:
            said += " " + _("From the step %(step)s.") % {"step": f"{workflow_words.step_name(step)} {step.pk}"}
        LogEntry.objects.create(
            user_id=cast(int, request.user.pk),
            content_type=ContentType.objects.get_for_model(self.model),
            object_id=str(workflow.pk),
            object_repr=words.one_line(str(workflow))[:200],
            action_flag=CHANGE,
            change_message=said,
        )
        self.message_user(request, verb.done(count), messages.SUCCESS)

    def _page(self, request: HttpRequest, template: str, title: Any, context: dict[str, Any]) -> TemplateResponse:
        request.current_app = self.admin_site.name
        site = self.admin_site.each_context(request)
        full = {**site, "opts": self.opts, "title": title, "media": self.media, **context}
        return TemplateResponse(request, f"admin/django_taskq/workflow/{template}", full)

    def _find(self, object_id: str) -> Workflow | None:
        try:
            pk = UUID(object_id)
        except ValueError:
            return None
        found: Workflow | None = Workflow.objects.using(conf.get_settings().database).filter(pk=pk).first()
        return found

    def _gone(self, request: HttpRequest, object_id: str) -> HttpResponse:
        text = _("No workflow has the id %(id)s: it never started, its transaction was rolled back, or it was removed.")
        self.message_user(request, text % {"id": words.one_line(object_id)[:100]}, messages.WARNING)
        return HttpResponseRedirect(self._url("changelist"))

    def _run_url(self, id: UUID) -> str:
        return reverse("admin:django_taskq_taskrecord_change", args=[id], current_app=self.admin_site.name)

    def _url(self, page: str, *args: Any) -> str:
        return reverse(f"admin:django_taskq_workflow_{page}", args=args, current_app=self.admin_site.name)

    @admin.display(description=gettext_lazy("status"))
    def status_shown(self, workflow: Workflow) -> str:
        return words.badge(workflow_words.workflow_look(workflow))

    @admin.display(description=gettext_lazy("workflow"))
    def workflow(self, workflow: Workflow) -> str:
        why = words.reason_class(workflow.reason)
        shown = format_html('<span class="tq-why">{}</span>', why) if why else ""
        return format_html('<bdi class="tq-name">{}</bdi>{}', workflow_words.title(workflow), shown)

    @admin.display(description=gettext_lazy("progress"))
    def progress(self, workflow: Workflow) -> str:
        counts: Counts = getattr(workflow, "counts", {})
        return words.cell(_("Progress"), workflow_words.bar(workflow, counts))

    @admin.display(description=gettext_lazy("started"))
    def started(self, workflow: Workflow) -> str:
        return words.cell(_("Started"), words.moment(workflow.enqueued_at))

    @admin.display(description=gettext_lazy("finished"))
    def finished(self, workflow: Workflow) -> str:
        return words.cell(_("Finished"), words.moment(workflow.finished_at))

    @admin.display(description=gettext_lazy("took"))
    def took(self, workflow: Workflow) -> str:
        return words.cell(_("Took"), words.duration(workflow_words.took(workflow)))


def _counts(workflow: Workflow) -> Counts:
    return count_steps(conf.get_settings().database, [workflow])[workflow.pk]


def _id(text: str) -> UUID:
    try:
        return UUID(text)
    except ValueError as error:
        raise BadRequest("what the page begins after is not an id") from error


def _step(workflow: Workflow, id: str) -> TaskRecord:
    steps = TaskRecord.objects.using(conf.get_settings().database).filter(workflow_id=workflow.pk, pk=_id(id))
    found: TaskRecord | None = steps.defer("payload", "result").first()
    if found is None:
        raise BadRequest("the workflow has no step with this id")
    return found
