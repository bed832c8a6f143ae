"""The form of a periodic task: what it calls is checked against the registry, when it runs by the schedule itself."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime
from functools import lru_cache
from typing import TYPE_CHECKING, Any
from zoneinfo import available_timezones

from django import forms
from django.contrib.admin.widgets import AdminTextareaWidget, AdminTextInputWidget
from django.core.exceptions import ValidationError
from django.utils import timezone
from django.utils.translation import gettext as _
from django.utils.translation import gettext_lazy

from django_taskq import client, conf, registry, schedules
from django_taskq.admin.schedule_arguments import ArgumentsError, Stored, canonical, check_binding, read_json
from django_taskq.admin.words import one_line
from django_taskq.exceptions import InvalidSchedule, SerializationError, UnknownQueue
from django_taskq.models import PeriodicTask
from django_taskq.models.clock import aware
from django_taskq.models.schedule import TIMING
from django_taskq.options import MAX_PRIORITY, MIN_PRIORITY
from django_taskq.schedules import CatchUp, Overlap, Schedule

if TYPE_CHECKING:
    PeriodicTaskModelForm = forms.ModelForm[PeriodicTask]
else:
    PeriodicTaskModelForm = forms.ModelForm

PREVIEW = "_preview"
# What the schedule takes, by the field that says it, in the order in which one may contradict those before it.
_OPTIONS = {
    "timezone": "timezone",
    "starts_at": "start",
    "ends_at": "end",
    "jitter": "jitter",
    "max_lateness": "max_lateness",
    "catch_up": "catch_up",
    "catch_up_limit": "catch_up_limit",
    "overlap": "overlap",
}
CATCH_UP = {
    CatchUp.NONE: gettext_lazy("Run none of them: they are noted as missed"),
    CatchUp.LAST: gettext_lazy("Run the newest of them once"),
    CatchUp.ALL: gettext_lazy("Run all of them, up to the limit"),
}
OVERLAP = {
    Overlap.ALLOW: gettext_lazy("Start the next one beside it"),
    Overlap.SKIP: gettext_lazy("Skip the next one"),
    Overlap.QUEUE_ONE: gettext_lazy("Start one more when it has ended"),
    Overlap.CANCEL_PREVIOUS: gettext_lazy("Cancel it, and start the next one"),
}


@lru_cache(maxsize=1)
def zone_names() -> list[str]:
    """The zones that exist here; finding them reads hundreds of files."""
    return sorted(available_timezones())


def _say_list() -> str:
    return _('It takes a list, such as [1, "a"].')


def _say_object() -> str:
    return _('It takes an object, such as {"days": 7}.')


class JsonField(forms.CharField):
    """JSON of one kind; what means the same has not changed."""

    widget = AdminTextareaWidget

    def __init__(self, kind: type, **kwargs: Any) -> None:
        self.kind = kind
        attrs = {"rows": 3, "spellcheck": "false", "dir": "ltr", "class": "vLargeTextField tq-json"}
        super().__init__(required=False, widget=AdminTextareaWidget(attrs=attrs), **kwargs)

    def to_python(self, value: Any) -> Any:
        try:
            return read_json(value or str(self.kind()), self.kind, _say_list if self.kind is list else _say_object)
        except ValueError as error:
            raise ValidationError(str(error), code="invalid") from error

    def has_changed(self, initial: Any, data: Any) -> bool:
        try:
            return canonical(self.to_python(initial)) != canonical(self.to_python(data))
        except ValidationError:
            return True


class PeriodicTaskForm(PeriodicTaskModelForm):
    """Fields may be missing: those that code says, and the arguments for those who may not see them."""

    task_name = forms.ChoiceField(
        label=gettext_lazy("Task"),
        error_messages={"invalid_choice": gettext_lazy("No task is registered here as “%(value)s”.")},
    )
    args = JsonField(
        list,
        label=gettext_lazy("Positional arguments"),
        help_text=gettext_lazy('A JSON list. Other types in their stored form: {"__taskq__": "decimal", "v": "1.10"}.'),
    )
    kwargs = JsonField(dict, label=gettext_lazy("Keyword arguments"), help_text=gettext_lazy("A JSON object."))
    queue_name = forms.ChoiceField(label=gettext_lazy("Queue"), required=False)
    priority = forms.IntegerField(
        label=gettext_lazy("Priority"),
        required=False,
        min_value=MIN_PRIORITY,
        max_value=MAX_PRIORITY,
        help_text=gettext_lazy("From -100 to 100, higher first. Empty: the task's own."),
    )
    catch_up = forms.ChoiceField(label=gettext_lazy("Due times that were missed"), choices=list(CATCH_UP.items()))
    overlap = forms.ChoiceField(label=gettext_lazy("While the last run goes on"), choices=list(OVERLAP.items()))
    save_although_never = forms.BooleanField(
        label=gettext_lazy("Save it although it never runs"), required=False, widget=forms.HiddenInput
    )

    class Meta:
        model = PeriodicTask
        fields = ("name", "task_name", "queue_name", "priority", "expires", *TIMING, "is_enabled", "is_one_off")
        widgets = {
            "schedule": AdminTextInputWidget(attrs={"spellcheck": "false", "dir": "ltr"}),
            "timezone": AdminTextInputWidget(attrs={"list": "tq-zones", "spellcheck": "false", "dir": "ltr"}),
        }
        labels = {
            "starts_at": gettext_lazy("Not before"),
            "ends_at": gettext_lazy("Not after"),
            "jitter": gettext_lazy("Jitter"),
            "catch_up_limit": gettext_lazy("Limit of missed runs"),
            "max_lateness": gettext_lazy("Lateness limit"),
            "expires": gettext_lazy("Expires"),
            "is_one_off": gettext_lazy("One-off"),
        }
        help_texts = {
            "schedule": gettext_lazy(
                "One of: 30 1 * * * (a crontab); @daily; every 5 minutes; once 2026-12-01T10:00:00+02:00; "
                "solar sunset 56.95 24.1"
            ),
            "timezone": gettext_lazy("Such as Europe/Riga. Empty: the project's TIME_ZONE."),
            "jitter": gettext_lazy("Each run starts up to so many seconds later."),
            "catch_up_limit": gettext_lazy("At most so many of the missed due times are run."),
            "max_lateness": gettext_lazy("Seconds after which a due time is skipped. Empty: never."),
            "expires": gettext_lazy("Seconds after the due time in which the run may start. Empty: the task's own."),
            "is_one_off": gettext_lazy("It is disabled after its first run."),
        }

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.schedule_read: Schedule | None = None
        self.payload: str | None = None
        self.stored = Stored.read(self.instance.task_name, self.instance.payload)
        if "args" in self.fields and self.stored is not None:
            self.initial["args"], self.initial["kwargs"] = self.stored.shown()
        if "task_name" in self.fields:
            self._set_choices("task_name", [task.name for task in registry.all_tasks()], _("(choose one)"))
        if "queue_name" in self.fields:
            self._set_choices("queue_name", client.known_queues(), _("the task's own"))

    def _set_choices(self, name: str, known: Iterable[str], none: str) -> None:
        """Those known here, and what is stored, which other processes may know."""
        stored = getattr(self.instance, name)
        choices = {"": none} | {one: one_line(one) for one in sorted(known)}
        if stored and stored not in choices:
            choices[stored] = _("%(name)s (not known here)") % {"name": one_line(stored)}
        field = self.fields[name]
        assert isinstance(field, forms.ChoiceField)
        field.choices = list(choices.items())

    def is_valid(self) -> bool:
        """Never for a preview: Django's view saves what is valid, and shows the form again otherwise."""
        return super().is_valid() and PREVIEW not in self.data

    def validate_unique(self) -> None:
        """Not by Django, which would ask its default database; see :meth:`clean_name`."""

    def clean_name(self) -> str:
        name: str = self.cleaned_data["name"]
        rows = PeriodicTask.objects.using(conf.get_settings().database).exclude(pk=self.instance.pk)
        if rows.filter(name=name).exists():
            raise ValidationError(_("Another periodic task has this name."), code="unique")
        return name

    def clean_queue_name(self) -> str:
        name: str = self.cleaned_data["queue_name"]
        if name:
            try:
                client.check_queue(name)
            except UnknownQueue as error:
                raise ValidationError(_("No queue is named “%(name)s”."), params={"name": name}) from error
        return name

    def clean_expires(self) -> float | None:
        return self._seconds("expires", is_zero_good=False)

    def clean_max_lateness(self) -> float | None:
        return self._seconds("max_lateness", is_zero_good=False)

    def clean_jitter(self) -> float | None:
        return self._seconds("jitter", is_zero_good=True)

    def clean_timezone(self) -> str:
        name: str = self.cleaned_data["timezone"]
        try:
            schedules.parse("@daily", timezone=name or None)
        except InvalidSchedule as error:
            hint = conf.suggest(name, zone_names())
            text = _("No time zone is named “%(name)s”. It takes a name such as Europe/Riga.") % {"name": name}
            raise ValidationError(text + hint) from error
        return name

    def clean(self) -> dict[str, Any]:
        cleaned = super().clean() or self.cleaned_data
        self._check_call()
        self._check_timing()
        return cleaned

    def save(self, commit: bool = True) -> Any:
        if self.payload is not None:
            self.instance.payload = self.payload
        return super().save(commit)

    def _seconds(self, name: str, *, is_zero_good: bool) -> float | None:
        value: float | None = self.cleaned_data[name]
        if value is not None and not (0 <= value <= conf.MOST_SECONDS and (value or is_zero_good)):
            lower = _("0 or more") if is_zero_good else _("more than 0")
            raise ValidationError(_("It takes %(lower)s seconds, and at most ten years."), params={"lower": lower})
        return value

    def _check_call(self) -> None:
        """The arguments against the signature, unless code says both."""
        name = self.cleaned_data.get("task_name")
        has_arguments = "args" in self.fields
        if not name or self.stored is None or (has_arguments and not {"args", "kwargs"} <= set(self.cleaned_data)):
            return
        try:
            if has_arguments:
                self.payload = self.stored.changed(self.cleaned_data["args"], self.cleaned_data["kwargs"])
            check_binding(name, self.payload or self.instance.payload)
        except ArgumentsError as error:
            if has_arguments:
                self.add_error(error.field, str(error))
            else:
                self.add_error("task_name", _("It needs arguments, and you may not see or give any."))
        except SerializationError as error:
            # What another process stored and knows to read stays as it is, as long as it is for the same task.
            if name != self.stored.task_name:
                self.add_error("task_name", _("The stored arguments cannot be read here: %s") % error)

    def _check_timing(self) -> None:
        """The schedule with one more of its options each time: the first that is refused is where the error is."""
        if "schedule" not in self.fields or "schedule" not in self.cleaned_data:
            return
        options: dict[str, Any] = {}
        field = "schedule"
        try:
            read = schedules.parse(self.cleaned_data["schedule"])
            for field, option in _OPTIONS.items():
                value = self.cleaned_data.get(field)
                if field in self.errors or (value in (None, "") and option not in ("jitter", "catch_up_limit")):
                    continue
                options[option] = aware(value) if isinstance(value, datetime) else value
                read = schedules.parse(self.cleaned_data["schedule"], **options)
        except InvalidSchedule as error:
            start, end = (self.cleaned_data.get(name) for name in ("starts_at", "ends_at"))
            is_reversed = field == "ends_at" and bool(start and end and end < start)
            said = _("It is before “not before”, so nothing would ever run.") if is_reversed else str(error)
            self.add_error(field, said)
            return
        if not any(field in self.errors for field in _OPTIONS):
            self._check_runs(read)

    def _check_runs(self, schedule: Schedule) -> None:
        self.schedule_read = schedule
        changed = set(self.changed_data)
        is_enabled_again = "is_enabled" in changed and self.cleaned_data["is_enabled"]
        is_new = self.instance._state.adding or bool(changed & set(TIMING)) or is_enabled_again
        if not is_new or schedule.next_run(aware(timezone.now())) is not None:
            return
        self.fields["save_although_never"].widget = forms.CheckboxInput()
        if self.cleaned_data.get("save_although_never") or PREVIEW in self.data:
            return
        if schedule.is_ever_due():
            text = _("It has no run that is still to come.")
        else:
            text = _("It never runs: no date fits it.")
        self.add_error("schedule", text + " " + _("To save it all the same, tick “Save it although it never runs”."))
