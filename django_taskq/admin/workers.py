"""Workers in the admin: who works, for which queues, and who was lost. Only to look at."""

from __future__ import annotations

import json
from contextlib import suppress
from typing import TYPE_CHECKING, Any

from django.contrib import admin, messages
from django.contrib.admin import SimpleListFilter
from django.contrib.admin.options import IncorrectLookupParameters
from django.core.exceptions import PermissionDenied
from django.db.models import BooleanField, Case, F, Q, Value, When
from django.db.models.functions import Substr
from django.http import HttpRequest, HttpResponse, HttpResponseNotAllowed, HttpResponseRedirect
from django.template.response import TemplateResponse
from django.urls import reverse
from django.utils.html import format_html
from django.utils.translation import gettext as _
from django.utils.translation import gettext_lazy

from django_taskq import conf
from django_taskq.admin import words
from django_taskq.admin.looking import OnlyLookedAt
from django_taskq.models import CommandReply, TaskRecord, Worker, WorkerProcess
from django_taskq.models.clock import database_now
from django_taskq.models.worker import WorkerQuerySet

if TYPE_CHECKING:
    WorkerModelAdmin = admin.ModelAdmin[Worker]
else:
    WorkerModelAdmin = admin.ModelAdmin

SHOWN_RUNS, SHOWN_QUEUES = 100, 20
SHOWN_COMMANDS, SHOWN_TEXT = 50, 200


def worker_look(worker: Worker) -> words.Look:
    """Online, stopped in order, or lost: its lease ended and it did not say why."""
    if worker.stopped_at is not None:
        return words.Look("stopped", _("Stopped"))
    if getattr(worker, "is_lapsed", False):
        return words.Look("lost", _("Lost"))
    return words.Look("online", _("Online"))


class StateFilter(SimpleListFilter):
    """By the worker's state."""

    title = gettext_lazy("state")
    parameter_name = "state"
    template = "admin/django_taskq/filter.html"

    def lookups(self, request: HttpRequest, model_admin: admin.ModelAdmin[Any]) -> list[tuple[str, str]]:
        return [("online", _("Online")), ("stopped", _("Stopped")), ("lost", _("Lost"))]

    def queryset(self, request: HttpRequest, queryset: Any) -> Any:
        value = self.value()
        if value is None:
            return queryset
        if value == "stopped":
            return queryset.filter(stopped_at__isnull=False)
        if value not in ("online", "lost"):
            raise IncorrectLookupParameters(f"no state is named {value!r}")
        return queryset.online() if value == "online" else queryset.lapsed()


class WorkerAdmin(OnlyLookedAt, WorkerModelAdmin):
    """The registry of workers."""

    list_display = ["state", "host", "pid_shown", "queues_shown", "size", "version_shown", "started", "heartbeat"]
    list_display_links = ["host"]
    list_filter = [StateFilter]
    list_per_page = 100
    sortable_by = ()
    show_full_result_count = False
    show_facets = admin.ShowFacets.NEVER
    actions = None
    # The online ones and the lost ones first, newest first.
    ordering = [F("stopped_at").desc(nulls_first=True), "-pk"]
    change_list_template = "admin/django_taskq/worker/change_list.html"

    def get_queryset(self, request: HttpRequest) -> WorkerQuerySet:
        using = conf.get_settings().database
        workers: WorkerQuerySet = Worker.objects.using(using)
        lapsed = When(Q(lease_expires_at__lt=database_now(using), stopped_at=None), then=Value(True))
        found = workers.annotate(is_lapsed=Case(lapsed, default=Value(False), output_field=BooleanField()))
        return found.order_by(*self.ordering)

    def get_changelist_instance(self, request: HttpRequest) -> Any:
        found = super().get_changelist_instance(request)
        found.title = str(self.opts.verbose_name_plural).capitalize()
        return found

    def lookup_allowed(self, lookup: str, value: Any, request: HttpRequest | None = None) -> bool:
        return lookup == "state"

    def change_view(
        self, request: HttpRequest, object_id: str, form_url: str = "", extra_context: Any = None
    ) -> HttpResponse:
        """One worker, its processes and what they hold now."""
        if request.method not in ("GET", "HEAD"):
            return HttpResponseNotAllowed(["GET", "HEAD"])
        if not self.has_view_permission(request):
            raise PermissionDenied
        is_id = object_id.isascii() and object_id.isdecimal() and len(object_id) < 19
        worker = self.get_queryset(request).filter(pk=int(object_id)).first() if is_id else None
        if worker is None:
            self.message_user(request, _("No worker has this id: it stopped long ago, or never was."), messages.WARNING)
            url = reverse("admin:django_taskq_worker_changelist", current_app=self.admin_site.name)
            return HttpResponseRedirect(url)
        request.current_app = self.admin_site.name
        title = _("Worker %(name)s") % {"name": words.one_line(str(worker))}
        site = self.admin_site.each_context(request)
        context = {**site, "opts": self.opts, "title": title, "media": self.media, **_details(worker, request)}
        return TemplateResponse(request, "admin/django_taskq/worker/detail.html", {**context, **(extra_context or {})})

    @admin.display(description=gettext_lazy("state"))
    def state(self, worker: Worker) -> str:
        return words.badge(worker_look(worker))

    @admin.display(description=gettext_lazy("host"))
    def host(self, worker: Worker) -> str:
        return format_html('<bdi class="tq-name">{}</bdi>', words.one_line(worker.hostname))

    @admin.display(description=gettext_lazy("process id"))
    def pid_shown(self, worker: Worker) -> str:
        return words.cell(_("Process id"), str(worker.pid))

    @admin.display(description=gettext_lazy("queues"))
    def queues_shown(self, worker: Worker) -> str:
        return words.cell(_("Queues"), queues(worker))

    @admin.display(description=gettext_lazy("processes and threads"))
    def size(self, worker: Worker) -> str:
        return words.cell(_("Processes and threads"), f"{worker.processes} {words.TIMES} {worker.threads}")

    @admin.display(description=gettext_lazy("version"))
    def version_shown(self, worker: Worker) -> str:
        return words.cell(_("Version"), words.one_line(worker.version))

    @admin.display(description=gettext_lazy("started"))
    def started(self, worker: Worker) -> str:
        return words.cell(_("Started"), words.moment(worker.started_at))

    @admin.display(description=gettext_lazy("last heartbeat"))
    def heartbeat(self, worker: Worker) -> str:
        return words.cell(_("Last heartbeat"), words.moment(worker.heartbeat_at))


def queues(worker: Worker) -> str:
    """The queues it serves, in words."""
    return words.one_line(worker.queues).replace(",", ", ") or _("none")


def slots(worker: Worker) -> str:
    """How many slots each of its queues has, in words; those that share some name the same ones."""
    found = worker.slots_by_queue
    shown = [f"{words.one_line(name)} {number}" for name, number in list(found.items())[:SHOWN_QUEUES]]
    return ", ".join(shown + ["…"] * (len(found) > SHOWN_QUEUES)) or _("none")


def _details(worker: Worker, request: HttpRequest) -> dict[str, Any]:
    using = conf.get_settings().database
    processes = list(WorkerProcess.objects.using(using).filter(worker=worker).order_by("-pk")[:SHOWN_RUNS])
    held = TaskRecord.objects.using(using).held_by([process.pk for process in processes])
    fields = ("name", "queue_name", "status", "started_at", "attempt", "worker_id")
    runs = list(held.only(*fields).order_by("-pk")[:SHOWN_RUNS]) if worker.stopped_at is None else []
    pids = {process.pk: process.pid for process in processes}
    facts = [
        (_("Host"), words.one_line(worker.hostname)),
        (_("Process id"), str(worker.pid)),
        (_("Queues"), queues(worker)),
        (_("Processes"), str(worker.processes)),
        (_("Threads of each"), str(worker.threads)),
        (_("Slots by queue"), slots(worker)),
        (_("Version"), words.one_line(worker.version)),
        (_("Started"), words.moment(worker.started_at)),
        (_("Last heartbeat"), words.moment(worker.heartbeat_at)),
        (_("Lease ends"), words.moment(worker.lease_expires_at)),
        (_("Stopped"), words.moment(worker.stopped_at)),
    ]
    return {
        "original": worker,
        "badge": words.badge(worker_look(worker)),
        "facts": facts,
        "processes": [
            {
                "pid": str(process.pid or words.NONE),
                "started": words.moment(process.started_at),
                "stopped": words.moment(process.stopped_at),
            }
            for process in processes
        ],
        "runs": [
            {"id": run.pk, "name": words.one_line(run.name), "badge": words.badge(words.status_look(run)),
             "pid": pids.get(run.worker_id or 0), "started": words.moment(run.started_at),
             "ran": words.duration(words.ran(run))}
            for run in runs
        ],
        "commands": _commands(worker) if request.user.has_perm("django_taskq.view_command") else None,
        "may_see_tasks": request.user.has_perm("django_taskq.view_taskrecord"),
    }  # fmt: skip


def _answer(text: str) -> str:
    """An answer as a person reads it: a text without its quotes, also where it was cut, and nothing for none."""
    if text.startswith('"'):
        with suppress(ValueError):
            text = json.loads(text if len(text) < SHOWN_TEXT else text + '"')
    return "" if text == "null" else words.one_line(text)


def _commands(worker: Worker) -> list[dict[str, Any]]:
    """The newest commands that it answered, with what it said."""
    using = conf.get_settings().database
    replies = CommandReply.objects.using(using).filter(worker=worker).select_related("command").order_by("-pk")
    # Both texts may be of any length, and an answer may be a whole inspection.
    cut = replies.defer("reply", "command__arguments").annotate(
        text=Substr("reply", 1, SHOWN_TEXT), arguments=Substr("command__arguments", 1, SHOWN_TEXT)
    )
    return [
        {
            "name": words.one_line(reply.command.name),
            "arguments": "" if reply.arguments == "{}" else words.one_line(reply.arguments),
            "by": words.one_line(reply.command.issued_by) or words.NONE,
            "at": words.moment(reply.command.issued_at),
            "is_ok": reply.is_ok,
            "text": _answer(reply.text),
        }
        for reply in cut[:SHOWN_COMMANDS]
    ]
