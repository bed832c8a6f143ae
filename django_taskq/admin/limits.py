"""Time limits in the admin: which tasks have others than in the code, since when and by whom; setting and clearing."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, cast

from django import forms
from django.contrib import admin, messages
from django.contrib.admin.models import CHANGE, LogEntry
from django.contrib.contenttypes.models import ContentType
from django.core.exceptions import BadRequest, PermissionDenied, ValidationError
from django.http import HttpRequest, HttpResponse, HttpResponseNotAllowed, HttpResponseRedirect
from django.template.response import TemplateResponse
from django.urls import reverse
from django.utils.translation import gettext as _
from django.utils.translation import gettext_lazy

from django_taskq import conf, control, registry
from django_taskq.admin import words
from django_taskq.admin.looking import OnlyLookedAt
from django_taskq.models import TaskLimits
from django_taskq.options import TaskOptions

if TYPE_CHECKING:
    LimitsModelAdmin = admin.ModelAdmin[TaskLimits]
else:
    LimitsModelAdmin = admin.ModelAdmin


_SOFT, _HARD = gettext_lazy("soft %(limit)s"), gettext_lazy("hard %(limit)s")


class LimitsForm(forms.Form):
    """The limits of one task."""

    task = forms.ChoiceField(label=gettext_lazy("Task"))
    soft = forms.FloatField(
        label=gettext_lazy("Soft limit, seconds"),
        required=False,
        help_text=gettext_lazy("The task is told by an error that it may handle. Empty: as in the code."),
    )
    hard = forms.FloatField(
        label=gettext_lazy("Hard limit, seconds"),
        required=False,
        help_text=gettext_lazy("The run is ended, if need be with its process. Empty: as in the code."),
    )

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        names = sorted(task.name for task in registry.all_tasks())
        choices = [("", "---------"), *((name, words.one_line(name)) for name in names)]
        cast(forms.ChoiceField, self.fields["task"]).choices = choices
        for name in ("soft", "hard"):
            self.fields[name].widget.attrs.update(step="any", min=0)

    def clean_soft(self) -> float | None:
        return self._seconds("soft")

    def clean_hard(self) -> float | None:
        return self._seconds("hard")

    def clean(self) -> dict[str, Any]:
        found = self.cleaned_data
        if "soft" in found and "hard" in found:
            soft, hard = found["soft"], found["hard"]
            if soft is None and hard is None:
                raise ValidationError(_("Give one limit or both. To have those in the code again, clear the entry."))
            if soft is not None and hard is not None and soft >= hard:
                raise ValidationError(_("The soft limit must be below the hard one, or it would never strike."))
        return found

    def _seconds(self, name: str) -> float | None:
        value: float | None = self.cleaned_data[name]
        if value is not None and not 0 < value <= conf.MOST_SECONDS:
            raise ValidationError(_("A number of seconds above 0, of at most ten years."))
        return value


class TaskLimitsAdmin(OnlyLookedAt, LimitsModelAdmin):
    """One page for all tasks whose limits were set, with the form to set them below."""

    def has_set_permission(self, request: HttpRequest) -> bool:
        """Whether this user may set and clear limits."""
        return request.user.has_perm(f"{self.opts.app_label}.set_limits")

    def change_view(self, request: HttpRequest, *args: Any, **kwargs: Any) -> HttpResponse:
        """A task has no page of its own."""
        return HttpResponseRedirect(self._url())

    def changelist_view(self, request: HttpRequest, extra_context: Any = None) -> HttpResponse:
        """All limits that were set, or with POST: set or clear those of one task."""
        if not self.has_view_permission(request):
            raise PermissionDenied
        if request.method not in ("GET", "HEAD", "POST"):
            return HttpResponseNotAllowed(["GET", "HEAD", "POST"])
        rows = list(TaskLimits.objects.using(conf.get_settings().database).order_by("task_name"))
        form = None
        if request.method == "POST":
            form = self._act(request, rows)
            if form is None:
                return HttpResponseRedirect(self._url())
        elif self.has_set_permission(request):
            form = LimitsForm(initial=_initial(request, rows))
        request.current_app = self.admin_site.name
        context = {
            **self.admin_site.each_context(request),
            "opts": self.opts,
            "title": str(self.opts.verbose_name_plural).capitalize(),
            "media": self.media,
            "limits": [_described(row) for row in rows],
            "form": form,
        }
        return TemplateResponse(
            request, "admin/django_taskq/tasklimits/list.html", {**context, **(extra_context or {})}
        )

    def _act(self, request: HttpRequest, rows: list[TaskLimits]) -> LimitsForm | None:
        """Do it; or the form, with what is wrong about it."""
        if not self.has_set_permission(request):
            raise PermissionDenied
        if request.POST.get("action") == "clear":
            name = request.POST.get("task", "")
            if name not in [row.task_name for row in rows]:
                self.message_user(request, _("No limits of this task are set any more."), messages.WARNING)
                return None
            control.set_time_limits(name, by=request.user, timeout=0)
            self._note(request, name, _("The limits of %(task)s are those in the code again."))
            return None
        if request.POST.get("action") != "set":
            raise BadRequest("no such action")
        form = LimitsForm(request.POST)
        if not form.is_valid():
            return form
        name, soft, hard = (form.cleaned_data[key] for key in ("task", "soft", "hard"))
        control.set_time_limits(name, soft=soft, hard=hard, by=request.user, timeout=0)
        text = _("Limits of %(task)s for runs that start from now on: soft %(soft)s, hard %(hard)s.")
        self._note(request, name, text, soft=_shown(soft), hard=_shown(hard))
        return None

    def _note(self, request: HttpRequest, name: str, text: str, **values: str) -> None:
        said = text % {"task": words.one_line(name), **values}
        LogEntry.objects.create(
            user_id=cast(int, request.user.pk),
            content_type=ContentType.objects.get_for_model(self.model),
            object_id=None,
            object_repr=words.one_line(name)[:200],
            action_flag=CHANGE,
            change_message=said,
        )
        self.message_user(request, said, messages.SUCCESS)

    def _url(self) -> str:
        return reverse("admin:django_taskq_tasklimits_changelist", current_app=self.admin_site.name)


def _initial(request: HttpRequest, rows: list[TaskLimits]) -> dict[str, Any]:
    """The task that was asked for, with what holds for it now."""
    name = request.GET.get("task", "")
    row = next((row for row in rows if row.task_name == name), None)
    limits = {} if row is None else {"soft": row.soft_time_limit, "hard": row.time_limit}
    return {"task": name} | {key: f"{limit:.15g}" for key, limit in limits.items() if limit is not None}


def _described(row: TaskLimits) -> dict[str, Any]:
    task = registry.find(row.task_name)
    return {
        "name": row.task_name,
        "shown": words.one_line(row.task_name),
        "soft": _shown(row.soft_time_limit),
        "hard": _shown(row.time_limit),
        "since": words.moment(row.set_at),
        "by": words.one_line(row.set_by),
        "is_known": task is not None,
        "in_code": _in_code(task.options) if task is not None else _("not registered here"),
    }


def _in_code(options: TaskOptions) -> str:
    """What holds when nothing is set: of the task's options, or else of the settings."""
    settings = conf.get_settings()
    soft, hard = options.soft_time_limit or settings.soft_time_limit, options.time_limit or settings.time_limit
    shown = [word % {"limit": _shown(limit)} for word, limit in ((_SOFT, soft), (_HARD, hard)) if limit]
    return ", ".join(shown) or _("none")


def _shown(seconds: float | None) -> str:
    return f"{seconds:.15g} s" if seconds is not None else _("as in the code")
