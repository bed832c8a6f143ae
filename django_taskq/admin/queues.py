"""Queues in the admin: which are paused, since when, by whom and why; and the buttons to pause and resume them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, cast

from django.contrib import admin, messages
from django.contrib.admin.models import CHANGE, LogEntry
from django.contrib.contenttypes.models import ContentType
from django.core.exceptions import BadRequest, PermissionDenied
from django.http import HttpRequest, HttpResponse, HttpResponseNotAllowed, HttpResponseRedirect
from django.template.response import TemplateResponse
from django.urls import reverse
from django.utils.translation import gettext as _

from django_taskq import client, conf, control
from django_taskq.admin import words
from django_taskq.admin.looking import OnlyLookedAt
from django_taskq.models import Queue

if TYPE_CHECKING:
    QueueModelAdmin = admin.ModelAdmin[Queue]
else:
    QueueModelAdmin = admin.ModelAdmin

MOST_REASON = 500


class QueueAdmin(OnlyLookedAt, QueueModelAdmin):
    """One page for all queues: those that are known, and those that were paused and are not known any more."""

    def has_pause_permission(self, request: HttpRequest) -> bool:
        """Whether this user may pause and resume."""
        return request.user.has_perm(f"{self.opts.app_label}.pause_queue")

    def change_view(self, request: HttpRequest, *args: Any, **kwargs: Any) -> HttpResponse:
        """A queue has no page of its own."""
        return HttpResponseRedirect(self._url())

    def changelist_view(self, request: HttpRequest, extra_context: Any = None) -> HttpResponse:
        """All queues, or with POST: pause or resume one."""
        if not self.has_view_permission(request):
            raise PermissionDenied
        if request.method == "POST":
            return self._act(request)
        if request.method not in ("GET", "HEAD"):
            return HttpResponseNotAllowed(["GET", "HEAD", "POST"])
        request.current_app = self.admin_site.name
        context = {
            **self.admin_site.each_context(request),
            "opts": self.opts,
            "title": str(self.opts.verbose_name_plural).capitalize(),
            "media": self.media,
            "queues": [_described(name, row) for name, row in _queues().items()],
            "may_pause": self.has_pause_permission(request),
            "most_reason": MOST_REASON,
        }
        return TemplateResponse(request, "admin/django_taskq/queue/list.html", {**context, **(extra_context or {})})

    def _act(self, request: HttpRequest) -> HttpResponse:
        if not self.has_pause_permission(request):
            raise PermissionDenied
        action, name = request.POST.get("action", ""), request.POST.get("queue", "")
        reason = request.POST.get("reason", "").strip()
        if action not in ("pause", "resume") or name not in _queues() or len(reason) > MOST_REASON:
            raise BadRequest("no such action, no such queue, or a reason that is too long")
        if action == "pause":
            control.pause_queue(name, reason=reason, by=request.user, timeout=0)
            text = _("The queue %(queue)s is paused.")
        else:
            control.resume_queue(name, by=request.user, timeout=0)
            text = _("The queue %(queue)s is served again.")
        shown = text % {"queue": words.one_line(name)}
        LogEntry.objects.create(
            user_id=cast(int, request.user.pk),
            content_type=ContentType.objects.get_for_model(self.model),
            object_id=None,
            object_repr=words.one_line(name)[:200],
            action_flag=CHANGE,
            change_message=f"{shown} {words.one_line(reason)}".strip(),
        )
        self.message_user(request, shown, messages.SUCCESS)
        return HttpResponseRedirect(self._url())

    def _url(self) -> str:
        return reverse("admin:django_taskq_queue_changelist", current_app=self.admin_site.name)


def pause_of(queue_name: str, using: str) -> Queue | None:
    """The pause of a queue, if it has one."""
    found: Queue | None = Queue.objects.using(using).paused().filter(name=queue_name).first()
    return found


def _queues() -> dict[str, Queue | None]:
    paused = {row.name: row for row in Queue.objects.using(conf.get_settings().database).paused()}
    return {name: paused.get(name) for name in sorted(client.known_queues() | set(paused))}


def _described(name: str, row: Queue | None) -> dict[str, Any]:
    queue = conf.get_settings().queues.get(name)
    look = words.Look("paused", _("Paused")) if row is not None else words.Look("online", _("Served"))
    return {
        "name": name,
        "shown": words.one_line(name),
        "badge": words.badge(look),
        "max_length": queue.max_length if queue else None,
        "when_full": queue.when_full.value if queue else "",
        "is_paused": row is not None,
        "since": words.moment(row.paused_at) if row else words.NONE,
        "by": words.one_line(row.paused_by) if row else "",
        "reason": words.one_line(row.reason) if row else "",
    }
