"""What holds runs back, in the admin: limits, locks and breakers, who holds them and who waits; changing, releasing."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, cast
from urllib.parse import urlencode
from uuid import UUID

from django import forms
from django.contrib import admin, messages
from django.contrib.admin.models import CHANGE, LogEntry
from django.contrib.admin.utils import quote, unquote
from django.contrib.contenttypes.models import ContentType
from django.core.exceptions import BadRequest, PermissionDenied
from django.http import Http404, HttpRequest, HttpResponse, HttpResponseNotAllowed, HttpResponseRedirect
from django.template.response import TemplateResponse
from django.urls import path, reverse
from django.utils.translation import gettext as _
from django.utils.translation import gettext_lazy

from django_taskq import conf, control
from django_taskq.admin import flow_words, words
from django_taskq.admin.actions import CONFIRMED
from django_taskq.admin.looking import OnlyLookedAt
from django_taskq.brokers.database.limit_counts import crowds
from django_taskq.exceptions import InvalidCommand
from django_taskq.gates import Kind
from django_taskq.models import Limit
from django_taskq.models.flow import LimitQuerySet
from django_taskq.models.standing import Stand, holders, waiters

if TYPE_CHECKING:
    LimitModelAdmin = admin.ModelAdmin[Limit]
else:
    LimitModelAdmin = admin.ModelAdmin

SHOWN, SHOWN_STANDS = 100, 50
# A page further than that is somebody counting, and each costs the database all before it.
MOST_PAGES = 1000
TABS = {
    "": gettext_lazy("All"),
    "waiting": gettext_lazy("Waited for"),
    "set": gettext_lazy("Set"),
    "open": gettext_lazy("Open breakers"),
}


class CountForm(forms.Form):
    """What holds instead of the declared number."""

    most = forms.IntegerField(
        label=gettext_lazy("At once"), min_value=0, help_text=gettext_lazy("With 0 nothing passes.")
    )


class BreakerForm(forms.Form):
    """What holds instead of the declared number of failures."""

    most = forms.IntegerField(label=gettext_lazy("Opens after failures in a row"), min_value=1)


class RateForm(forms.Form):
    """What holds instead of the declared rate."""

    rate = forms.CharField(
        label=gettext_lazy("Rate"),
        max_length=30,
        help_text=gettext_lazy("So many in a second, minute, hour or day, such as 100/m. With 0 nothing passes."),
    )
    burst = forms.IntegerField(
        label=gettext_lazy("At once"),
        required=False,
        min_value=1,
        help_text=gettext_lazy("How many of them may come at once. Empty: as the rate needs."),
    )

    def clean_rate(self) -> str | float:
        given: str = self.cleaned_data["rate"].strip()
        return 0.0 if given == "0" else given


class LimitAdmin(OnlyLookedAt, LimitModelAdmin):
    """The list of all limits that have a row, and a page for each."""

    def has_limits_permission(self, request: HttpRequest) -> bool:
        """Whether this user may change limits and release their holders."""
        return request.user.has_perm(f"{self.opts.app_label}.change_limits")

    def get_queryset(self, request: HttpRequest) -> LimitQuerySet:
        limits: LimitQuerySet = Limit.objects.using(conf.get_settings().database).in_force()
        return limits

    def get_urls(self) -> list[Any]:
        view = self.admin_site.admin_view(self.verb_view)
        return [path("<str:object_id>/do/<slug:name>/", view, name="django_taskq_limit_do"), *super().get_urls()]

    def changelist_view(self, request: HttpRequest, extra_context: Any = None) -> HttpResponse:
        """A page of the list, those with waiters first."""
        if not self.has_view_permission(request):
            raise PermissionDenied
        if request.method not in ("GET", "HEAD"):
            return HttpResponseNotAllowed(["GET", "HEAD"])
        state, kind, text = (request.GET.get(name, "").strip() for name in ("state", "kind", "q"))
        number = _page_number(request.GET.get("p", "1"))
        found = _filtered(self.get_queryset(request), state, kind, text).by_waiters()
        rows = list(found[(number - 1) * SHOWN : number * SHOWN + 1])
        counts = crowds(found.db, [row.key for row in rows[:SHOWN]])
        narrowed = {"state": state, "kind": kind, "q": text}
        context = {
            "limits": [flow_words.described(row, counts[row.key]) for row in rows[:SHOWN] if row.key in counts],
            "tabs": [
                {"word": word, "url": _query(narrowed | {"state": key}), "is_current": key == state}
                for key, word in TABS.items()
            ],
            "kinds": [{"value": each.value, "word": word, "is_chosen": each == kind} for each, word in _KINDS],
            "state": state,
            "text": text,
            "is_narrowed": any(narrowed.values()),
            "older": _query(narrowed | {"p": str(number + 1)}) if len(rows) > SHOWN else None,
            "newer": _query(narrowed | {"p": str(number - 1)}) if number > 1 else None,
        }
        title = str(self.opts.verbose_name_plural).capitalize()
        return self._page(request, "list.html", title, {**context, **(extra_context or {})})

    def change_view(
        self, request: HttpRequest, object_id: str, form_url: str = "", extra_context: Any = None
    ) -> HttpResponse:
        """One limit. Only to look at: what changes it are the verbs."""
        if not self.has_view_permission(request):
            raise PermissionDenied
        if request.method not in ("GET", "HEAD"):
            return HttpResponseNotAllowed(["GET", "HEAD"])
        limit = self._find(request, object_id)
        return self._gone(request) if limit is None else self._detail(request, limit, self._form(request, limit))

    def verb_view(self, request: HttpRequest, object_id: str, name: str) -> HttpResponse:
        """A button of that page."""
        if name not in ("set", "clear", "reset", "release"):
            raise Http404
        if request.method != "POST":
            return HttpResponseNotAllowed(["POST"])
        if not (self.has_view_permission(request) and self.has_limits_permission(request)):
            raise PermissionDenied
        limit = self._find(request, object_id)
        if limit is None:
            return self._gone(request)
        if name == "release":
            return self._release(request, limit)
        if name == "set":
            form = self._form(request, limit, request.POST)
            if form is None or not form.is_valid() or not self._set(request, limit, form):
                return self._detail(request, limit, form)
        elif name == "clear":
            control.clear_limit(limit.key, by=request.user)
            self._note(request, limit, _("The limit %(limit)s is as in the code again."))
        else:
            control.reset_breaker(limit.key, by=request.user)
            self._note(request, limit, _("The breaker %(limit)s is closed: runs may pass."))
        return HttpResponseRedirect(self._url("change", quote(limit.key)))

    def _set(self, request: HttpRequest, limit: Limit, form: forms.Form) -> bool:
        try:
            control.set_limit(limit.key, **form.cleaned_data, by=request.user)
        except InvalidCommand as error:
            form.add_error(None, words.one_line(str(error)))
            return False
        shown = ", ".join(
            f"{form.fields[key].label}: {value}" for key, value in form.cleaned_data.items() if value is not None
        )
        self._note(request, limit, _("The limit %(limit)s is changed. %(values)s"), values=words.one_line(shown))
        return True

    def _release(self, request: HttpRequest, limit: Limit) -> HttpResponse:
        try:
            id = UUID(request.POST.get("run", ""))
        except ValueError as error:
            raise BadRequest("that is not the id of a run") from error
        if CONFIRMED not in request.POST:
            context = {"key": words.one_line(limit.key), "address": quote(limit.key), "run": id}
            return self._page(request, "release.html", _("Release a holder"), context)
        if control.release_permit(limit.key, id, by=request.user):
            text = _("The run %(run)s holds %(limit)s no more. It was not stopped.")
            self._note(request, limit, text, run=str(id))
        else:
            self.message_user(request, _("That run does not hold it any more."), messages.WARNING)
        return HttpResponseRedirect(self._url("change", quote(limit.key)))

    def _detail(self, request: HttpRequest, limit: Limit, form: forms.Form | None) -> HttpResponse:
        using = conf.get_settings().database
        crowd = crowds(using, [limit.key]).get(limit.key)
        if crowd is None:
            return self._gone(request)
        context = {
            "limit": flow_words.described(limit, crowd),
            "facts": flow_words.facts(limit),
            "holders": [_shown(each) for each in holders(using, limit.key, SHOWN_STANDS)],
            "waiters": [_shown(each) for each in waiters(using, limit.key, SHOWN_STANDS)],
            "shown": SHOWN_STANDS,
            "form": form,
            "may_change": self.has_limits_permission(request),
            "is_tripped": limit.tripped_at is not None or limit.failures > 0,
            "may_see_tasks": request.user.has_perm("django_taskq.view_taskrecord"),
        }
        return self._page(request, "detail.html", words.one_line(limit.key), context)

    def _form(self, request: HttpRequest, limit: Any, data: Any = None) -> forms.Form | None:
        if not self.has_limits_permission(request):
            return None
        if limit.kind in flow_words.RATES:
            rate = "0" if limit.now_rate == 0 else flow_words.rate_text(limit.now_rate)
            return RateForm(data, initial={"rate": rate, "burst": limit.set_burst})
        form = BreakerForm if limit.kind == Kind.BREAKER else CountForm
        return form(data, initial={"most": limit.now_most})

    def _find(self, request: HttpRequest, object_id: str) -> Any:
        return self.get_queryset(request).filter(pk=unquote(object_id)[:500]).first()

    def _gone(self, request: HttpRequest) -> HttpResponse:
        text = _("There is no such limit, or not any more: nobody stands at it, and nothing was set.")
        self.message_user(request, text, messages.WARNING)
        return HttpResponseRedirect(self._url("changelist"))

    def _note(self, request: HttpRequest, limit: Limit, text: str, **values: str) -> None:
        said = text % {"limit": words.one_line(limit.key), **values}
        LogEntry.objects.create(
            user_id=cast(int, request.user.pk),
            content_type=ContentType.objects.get_for_model(self.model),
            object_id=limit.key,
            object_repr=words.one_line(limit.key)[:200],
            action_flag=CHANGE,
            change_message=said,
        )
        self.message_user(request, said, messages.SUCCESS)

    def _page(self, request: HttpRequest, template: str, title: Any, context: dict[str, Any]) -> TemplateResponse:
        request.current_app = self.admin_site.name
        site = self.admin_site.each_context(request)
        full = {**site, "opts": self.opts, "title": title, "media": self.media, **context}
        return TemplateResponse(request, f"admin/django_taskq/limit/{template}", full)

    def _url(self, page: str, *args: Any) -> str:
        return reverse(f"admin:django_taskq_limit_{page}", args=args, current_app=self.admin_site.name)


_KINDS = list(flow_words.KINDS.items())


def _filtered(limits: LimitQuerySet, state: str, kind: str, text: str) -> LimitQuerySet:
    if state == "waiting":
        limits = limits.waited_for()
    elif state == "set":
        limits = limits.was_set()
    elif state == "open":
        limits = limits.filter(tripped_at__isnull=False)
    if kind in set(Kind):
        limits = limits.filter(kind=kind)
    return limits.filter(key__icontains=text) if text else limits


def _page_number(text: str) -> int:
    return min(MOST_PAGES, max(1, int(text))) if text.isascii() and text.isdecimal() and len(text) < 10 else 1


def _query(parameters: dict[str, str]) -> str:
    return "?" + urlencode({key: value for key, value in parameters.items() if value})


def _shown(stand: Stand) -> dict[str, Any]:
    record = stand.record
    if record is None:
        return {"id": stand.task_id, "name": words.NONE, "badge": "", "worker": words.NONE, "since": words.NONE}
    return {
        "id": stand.task_id,
        "name": words.one_line(record.name),
        "badge": words.badge(words.status_look(record)),
        "worker": words.one_line(words.process_name(record)),
        "since": words.moment(stand.since),
        "enqueued": words.moment(record.enqueued_at),
    }
