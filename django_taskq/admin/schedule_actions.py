"""The verbs of periodic tasks as the admin offers them: permission, confirmation, a message, and the log."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING, Any

from django.contrib import admin, messages
from django.contrib.admin.actions import delete_selected
from django.contrib.admin.helpers import ACTION_CHECKBOX_NAME
from django.core.exceptions import BadRequest, PermissionDenied
from django.db.models import Q
from django.http import Http404, HttpRequest, HttpResponse, HttpResponseNotAllowed, HttpResponseRedirect
from django.template.response import TemplateResponse
from django.urls import path, reverse
from django.utils.html import format_html
from django.utils.translation import gettext as _
from django.utils.translation import gettext_lazy, ngettext

from django_taskq import conf
from django_taskq.admin import words
from django_taskq.admin.actions import CONFIRMED, EXAMPLES
from django_taskq.admin.schedule_verbs import VERBS, Refused, Verb
from django_taskq.models import PeriodicTask
from django_taskq.models.schedule import PeriodicTaskQuerySet, Source

if TYPE_CHECKING:
    PeriodicModelAdmin = admin.ModelAdmin[PeriodicTask]
else:
    PeriodicModelAdmin = admin.ModelAdmin

# A declared one would come back with the next worker.
DELETABLE = Q(source=Source.DATABASE) | Q(is_retired=True)


class PeriodicVerbActions(PeriodicModelAdmin):
    """Actions of the list, and the buttons of the page of one."""

    actions = ["enable_selected", "disable_selected", "run_selected", "skip_selected", "restore_selected",
               "delete_selected"]  # fmt: skip

    def get_queryset(self, request: HttpRequest) -> PeriodicTaskQuerySet:
        rows: PeriodicTaskQuerySet = PeriodicTask.objects.using(conf.get_settings().database).order_by("name")
        return rows

    def may(self, request: HttpRequest, verb: Verb) -> bool:
        """Whether this user may use the verb on periodic tasks that they may see."""
        allowed = all(request.user.has_perm(f"{self.opts.app_label}.{name}") for name in verb.permissions)
        return allowed and self.has_view_permission(request)

    def has_schedule_permission(self, request: HttpRequest) -> bool:
        return self.may(request, VERBS["enable"])

    def has_run_permission(self, request: HttpRequest) -> bool:
        return self.may(request, VERBS["run"])

    @admin.action(permissions=["schedule"], description=VERBS["enable"].label_many)
    def enable_selected(self, request: HttpRequest, rows: PeriodicTaskQuerySet) -> HttpResponse | None:
        return self._selected(request, rows, VERBS["enable"], "enable_selected")

    @admin.action(permissions=["schedule"], description=VERBS["disable"].label_many)
    def disable_selected(self, request: HttpRequest, rows: PeriodicTaskQuerySet) -> HttpResponse | None:
        return self._selected(request, rows, VERBS["disable"], "disable_selected")

    @admin.action(permissions=["run"], description=VERBS["run"].label_many)
    def run_selected(self, request: HttpRequest, rows: PeriodicTaskQuerySet) -> HttpResponse | None:
        return self._selected(request, rows, VERBS["run"], "run_selected")

    @admin.action(permissions=["schedule"], description=VERBS["skip"].label_many)
    def skip_selected(self, request: HttpRequest, rows: PeriodicTaskQuerySet) -> HttpResponse | None:
        return self._selected(request, rows, VERBS["skip"], "skip_selected")

    @admin.action(permissions=["schedule"], description=VERBS["restore"].label_many)
    def restore_selected(self, request: HttpRequest, rows: PeriodicTaskQuerySet) -> HttpResponse | None:
        return self._selected(request, rows, VERBS["restore"], "restore_selected")

    @admin.action(permissions=["delete"], description=gettext_lazy("Delete: with the history of due times"))
    def delete_selected(self, request: HttpRequest, rows: PeriodicTaskQuerySet) -> HttpResponse | None:
        kept = rows.exclude(DELETABLE).count()
        found = rows.filter(DELETABLE)
        is_done = request.POST.get("post") is not None
        response: HttpResponse | None = delete_selected(self, request, found) if is_done or found.exists() else None
        if kept and response is None:
            text = ngettext(
                "%(n)d was passed over: code declares it, so it would come back. Disable it instead.",
                "%(n)d were passed over: code declares them, so they would come back. Disable them instead.",
                kept,
            )
            self.message_user(request, text % {"n": kept}, messages.WARNING)
        return response

    def response_action(self, request: HttpRequest, *args: Any, **kwargs: Any) -> HttpResponse | None:
        for chosen in request.POST.getlist(ACTION_CHECKBOX_NAME):
            if not is_id(chosen):
                raise BadRequest("a selected id is not the id of a periodic task")
        return super().response_action(request, *args, **kwargs)

    def get_urls(self) -> list[Any]:
        view = self.admin_site.admin_view(self.verb_view)
        return [path("<int:object_id>/do/<slug:name>/", view, name="django_taskq_periodictask_do"), *super().get_urls()]

    def verb_view(self, request: HttpRequest, object_id: int, name: str) -> HttpResponse:
        """A button of the page of one."""
        verb = VERBS.get(name)
        if verb is None:
            raise Http404
        if request.method != "POST":
            return HttpResponseNotAllowed(["POST"])
        if not self.may(request, verb):
            raise PermissionDenied
        rows = self.get_queryset(request).filter(pk=object_id) if is_id(str(object_id)) else None
        if rows is None or not rows.exists():
            self.message_user(request, _("No periodic task has this id: it was deleted."), messages.WARNING)
            return HttpResponseRedirect(self.url("changelist"))
        self.perform(request, rows, verb)
        return HttpResponseRedirect(self.url("change", object_id))

    def perform(self, request: HttpRequest, rows: PeriodicTaskQuerySet, verb: Verb) -> None:
        """Do it to each, write the log and tell the user."""
        runs: list[str] = []
        done = 0
        passed_over: Counter[str] = Counter()
        for row in rows:
            try:
                if not verb.allows(row):
                    raise Refused(_("it has no use there"))
                runs.append(verb.perform(row))
            except Refused as refused:
                passed_over[str(refused)] += 1
            else:
                done += 1
                self.log_change(request, row, _("%(verb)s, by the buttons of the admin.") % {"verb": verb.label})
        if done:
            self.message_user(request, self._said(request, verb, done, runs), messages.SUCCESS)
        if passed_over:
            reasons = "; ".join(f"{reason}: {n}" for reason, n in passed_over.most_common(10))
            text = _("Passed over: %(reasons)s. %(help)s") % {"reasons": reasons, "help": verb.help}
            self.message_user(request, text, messages.WARNING)

    def page(self, request: HttpRequest, template: str, title: Any, context: dict[str, Any]) -> TemplateResponse:
        """One of our own pages, in the dress of the admin site."""
        request.current_app = self.admin_site.name
        site = self.admin_site.each_context(request)
        full = {**site, "opts": self.opts, "title": title, "media": self.media, **context}
        return TemplateResponse(request, f"admin/django_taskq/periodictask/{template}", full)

    def url(self, page: str, *args: Any) -> str:
        """The address of one of the pages on this site."""
        return reverse(f"admin:django_taskq_periodictask_{page}", args=args, current_app=self.admin_site.name)

    def _said(self, request: HttpRequest, verb: Verb, done: int, runs: list[str]) -> str:
        said = verb.done(done)
        if len(runs) == 1 and runs[0] and request.user.has_perm(f"{self.opts.app_label}.view_taskrecord"):
            url = reverse("admin:django_taskq_taskrecord_change", args=runs, current_app=self.admin_site.name)
            return format_html('{} <a href="{}">{}</a>', said, url, _("Show the run"))
        return said

    def _selected(
        self, request: HttpRequest, rows: PeriodicTaskQuerySet, verb: Verb, action: str
    ) -> HttpResponse | None:
        is_bulk = request.POST.get("select_across") == "1"
        if not is_bulk or CONFIRMED in request.POST:
            self.perform(request, rows, verb)
            return None
        names = list(rows.values_list("name", flat=True))
        context = {
            "verb": verb,
            "action": action,
            "is_bulk": True,
            "count": len(names),
            "examples": [words.one_line(name) for name in names[:EXAMPLES]],
            "rest": len(names) - EXAMPLES,
            "chosen": request.POST.getlist(ACTION_CHECKBOX_NAME),
            "checkbox_name": ACTION_CHECKBOX_NAME,
            "filters": [(key, value) for key, value in request.GET.items() if value],
        }
        return self.page(request, "confirm.html", verb.label, context)


def is_id(text: str) -> bool:
    """Whether a database would take it for the id of a row."""
    return text.isascii() and text.isdecimal() and len(text) < 19
