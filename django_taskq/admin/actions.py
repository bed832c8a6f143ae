"""The verbs as the admin offers them: permission, confirmation, a message that says what happened, and the log."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, cast
from uuid import UUID

from django.contrib import admin, messages
from django.contrib.admin.helpers import ACTION_CHECKBOX_NAME
from django.contrib.admin.models import CHANGE, DELETION, LogEntry
from django.contrib.contenttypes.models import ContentType
from django.core.exceptions import BadRequest
from django.http import HttpRequest, HttpResponse
from django.template.response import TemplateResponse
from django.utils.translation import gettext as _
from django.utils.translation import ngettext

from django_taskq.admin.verbs import COUNTED, VERBS, Tally, Verb, bare
from django_taskq.admin.words import status_look
from django_taskq.models import TaskRecord
from django_taskq.models.task import TaskQuerySet

if TYPE_CHECKING:
    TaskModelAdmin = admin.ModelAdmin[TaskRecord]
else:
    TaskModelAdmin = admin.ModelAdmin

EXAMPLES = 5
CONFIRMED = "confirmed"


class VerbActions(TaskModelAdmin):
    """Actions of the list; the detail page uses the same verbs through :meth:`perform`."""

    actions = ["retry_selected", "run_selected", "cancel_selected", "delete_selected"]

    def may(self, request: HttpRequest, verb: Verb) -> bool:
        """Whether this user may use the verb on runs that they may see."""
        allowed = request.user.has_perm(f"{self.opts.app_label}.{verb.permission}")
        return allowed and self.has_view_permission(request)

    def has_retry_permission(self, request: HttpRequest) -> bool:
        return self.may(request, VERBS["retry"])

    def has_run_permission(self, request: HttpRequest) -> bool:
        return self.may(request, VERBS["run"])

    def has_cancel_permission(self, request: HttpRequest) -> bool:
        return self.may(request, VERBS["cancel"])

    def has_payload_permission(self, request: HttpRequest) -> bool:
        """Whether this user may see arguments, results, error messages and tracebacks."""
        return request.user.has_perm(f"{self.opts.app_label}.view_payload")

    @admin.action(permissions=["retry"], description=VERBS["retry"].label_many)
    def retry_selected(self, request: HttpRequest, records: TaskQuerySet) -> HttpResponse | None:
        return self._selected(request, records, VERBS["retry"], "retry_selected")

    @admin.action(permissions=["run"], description=VERBS["run"].label_many)
    def run_selected(self, request: HttpRequest, records: TaskQuerySet) -> HttpResponse | None:
        return self._selected(request, records, VERBS["run"], "run_selected")

    @admin.action(permissions=["cancel"], description=VERBS["cancel"].label_many)
    def cancel_selected(self, request: HttpRequest, records: TaskQuerySet) -> HttpResponse | None:
        return self._selected(request, records, VERBS["cancel"], "cancel_selected")

    @admin.action(permissions=["delete"], description=VERBS["delete"].label_many)
    def delete_selected(self, request: HttpRequest, records: TaskQuerySet) -> HttpResponse | None:
        return self._selected(request, records, VERBS["delete"], "delete_selected")

    def response_action(self, request: HttpRequest, *args: Any, **kwargs: Any) -> HttpResponse | None:
        for chosen in request.POST.getlist(ACTION_CHECKBOX_NAME):
            try:
                UUID(chosen)
            except ValueError as error:
                raise BadRequest("a selected id is not the id of a run") from error
        return super().response_action(request, *args, **kwargs)

    def perform(self, request: HttpRequest, records: TaskQuerySet, verb: Verb, *, is_bulk: bool) -> Tally:
        """Do it, write the log and tell the user."""
        taken = [] if is_bulk else list(records.filter(verb.eligible).only("pk", "name").order_by("pk"))
        tally = verb.perform(records)
        if tally.done or tally.asked:
            self._log(request, taken, verb, tally)
        self._tell(request, verb, tally)
        return tally

    def _selected(self, request: HttpRequest, records: TaskQuerySet, verb: Verb, action: str) -> HttpResponse | None:
        records = bare(records)
        is_bulk = request.POST.get("select_across") == "1"
        if (is_bulk or verb.name == "delete") and CONFIRMED not in request.POST:
            return self._confirmation(request, records, verb, action, is_bulk=is_bulk)
        self.perform(request, records, verb, is_bulk=is_bulk)
        return None

    def _confirmation(
        self, request: HttpRequest, records: TaskQuerySet, verb: Verb, action: str, *, is_bulk: bool
    ) -> HttpResponse:
        count = records[: COUNTED + 1].count()
        newest = records.order_by("-pk").defer("payload", "result")[:EXAMPLES]
        examples = [(record, status_look(record)) for record in newest]
        context = {
            "count": f"{min(count, COUNTED):,}",
            "is_more": count > COUNTED,
            "examples": examples,
            "rest": count - len(examples),
            "verb": verb,
            "action": action,
            "is_bulk": is_bulk,
            "chosen": request.POST.getlist(ACTION_CHECKBOX_NAME),
            "checkbox_name": ACTION_CHECKBOX_NAME,
            "filters": [(key, value) for key, value in request.GET.items() if value],
        }
        return self.page(request, "confirm.html", verb.label, context)

    def page(self, request: HttpRequest, template: str, title: Any, context: dict[str, Any]) -> TemplateResponse:
        """One of our own pages, in the dress of the admin site."""
        request.current_app = self.admin_site.name
        site = self.admin_site.each_context(request)
        full = {**site, "opts": self.opts, "title": title, "media": self.media, **context}
        return TemplateResponse(request, f"admin/django_taskq/{self.opts.model_name}/{template}", full)

    def _log(self, request: HttpRequest, taken: list[TaskRecord], verb: Verb, tally: Tally) -> None:
        """One entry for each chosen run; one in all for a whole list, which may be a million."""
        content_type = ContentType.objects.get_for_model(self.model)
        user_id = cast(int, request.user.pk)
        flag = DELETION if verb.name == "delete" else CHANGE
        said = {"verb": str(verb.label), "n": tally.done, "asked": tally.asked}
        message = _("%(verb)s, by the buttons of the admin.") % said
        entries = [
            LogEntry(
                user_id=user_id,
                content_type=content_type,
                object_id=str(record.pk),
                object_repr=str(record)[:200],
                action_flag=flag,
                change_message=message,
            )
            for record in taken
        ]
        if not taken:
            message = _("%(verb)s, on a whole list: %(n)s done, %(asked)s asked.") % said
            filters = request.GET.urlencode() or _("no filter")
            entries = [
                LogEntry(
                    user_id=user_id,
                    content_type=content_type,
                    object_id=None,
                    object_repr=f"{self.opts.verbose_name_plural} ({filters})"[:200],
                    action_flag=flag,
                    change_message=message,
                )
            ]
        LogEntry.objects.bulk_create(entries)

    def _tell(self, request: HttpRequest, verb: Verb, tally: Tally) -> None:
        if tally.done:
            self.message_user(request, verb.done(tally.done), messages.SUCCESS)
        if tally.asked:
            text = ngettext(
                "%(n)d run that a worker has was marked: it ends as cancelled when it is given back or wants a retry.",
                "%(n)d runs that workers have were marked: they end as cancelled when given back or wanting a retry.",
                tally.asked,
            )
            self.message_user(request, text % {"n": tally.asked}, messages.SUCCESS)
        over = sum(tally.passed_over.values())
        if over:
            self.message_user(request, _passed_over(verb, tally, over), messages.WARNING)
        elif not tally.done and not tally.asked:
            self.message_user(request, _("Nothing was there to do: the runs are gone."), messages.WARNING)


def _passed_over(verb: Verb, tally: Tally, count: int) -> str:
    reasons = "; ".join(f"{reason}: {n:,}" for reason, n in tally.passed_over.most_common(10))
    number = _("%(n)s or more") % {"n": f"{COUNTED:,}"} if count >= COUNTED else f"{count:,}"
    text = ngettext(
        "%(number)s run was passed over (%(reasons)s). %(rule)s",
        "%(number)s runs were passed over (%(reasons)s). %(rule)s",
        count,
    )
    return text % {"number": number, "reasons": reasons, "rule": verb.help}
