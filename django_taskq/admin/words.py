"""How values look on a page: statuses as icon and word, moments, durations, and text that a task may have chosen.

Nothing here trusts its input: HTML comes from ``format_html`` alone.
"""

from __future__ import annotations

import re
from datetime import datetime
from typing import Any, NamedTuple

from django.utils import timezone
from django.utils.formats import date_format
from django.utils.html import format_html
from django.utils.translation import gettext as _
from django.utils.translation import pgettext

from django_taskq.models import TaskRecord
from django_taskq.status import Status

NONE = "\N{EN DASH}"
TIMES = "\N{MULTIPLICATION SIGN}"

_CIRCLE = "M8 1.5a6.5 6.5 0 1 0 0 13a6.5 6.5 0 1 0 0-13"
# Each look has its own shape: colour alone tells nothing to many.
_SHAPES = {
    "successful": f"{_CIRCLE}M5 8.3l2.1 2.1L11 6.2",
    "failed": "M5.3 1.5h5.4l3.8 3.8v5.4l-3.8 3.8H5.3l-3.8-3.8V5.3zM5.8 5.8l4.4 4.4M10.2 5.8l-4.4 4.4",
    "running": "M4.5 2.2v11.6L13.5 8z",
    "retrying": "M13.5 8a5.5 5.5 0 1 1-1.6-3.9M12.6 1.2v3.4H9.2",
    "waiting": "M2 8a1 1 0 1 0 2 0a1 1 0 1 0-2 0M7 8a1 1 0 1 0 2 0a1 1 0 1 0-2 0M12 8a1 1 0 1 0 2 0a1 1 0 1 0-2 0",
    "scheduled": f"{_CIRCLE}M8 4.5V8l2.5 1.8",
    "cancelled": f"{_CIRCLE}M3.6 12.4l8.8-8.8",
    "online": f"{_CIRCLE}M5 8.3l2.1 2.1L11 6.2",
    "stopped": "M3 3h10v10H3z",
    "paused": "M5.5 3v10M10.5 3v10",
    "lost": "M5.4 5.6a2.7 2.7 0 1 1 4 2.4C8.4 8.6 8 9.1 8 10.2M8 13h.01",
}
_LOOKS = {
    Status.SCHEDULED: "scheduled",
    Status.WAITING: "waiting",
    Status.READY: "waiting",
    Status.RUNNING: "running",
    Status.SUCCESSFUL: "successful",
    Status.FAILED: "failed",
    Status.CANCELLED: "cancelled",
}
# Controls, and the marks that reorder text: shown as what they are, so that no name can pose as another.
_DECEPTIVE = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u061c\u200b-\u200f\u2028-\u202e\u2060-\u2069\ufeff]")


class Look(NamedTuple):
    """A CSS key with its shape, and the word beside it."""

    key: str
    word: str


def is_retrying(record: TaskRecord) -> bool:
    """Whether it waits for another attempt."""
    return record.status == Status.SCHEDULED and record.attempt > 1


def status_look(record: TaskRecord) -> Look:
    """How a run's status is shown."""
    if is_retrying(record):
        return Look("retrying", _("Retrying"))
    status = record.shown_status
    return Look(_LOOKS[status], str(status.label))


def badge(look: Look) -> str:
    """Icon and word."""
    return format_html(
        '<span class="tq-status tq-{}"><svg class="tq-icon" viewBox="0 0 16 16" width="16" height="16" '
        'aria-hidden="true" focusable="false"><path d="{}"></path></svg>{}</span>',
        look.key,
        _SHAPES[look.key],
        look.word,
    )


def cell(label: Any, value: Any) -> str:
    """A value with its column's name, which narrow screens show beside it."""
    return format_html('<span class="tq-label">{}</span><span class="tq-value">{}</span>', label, value)


def visible(text: str) -> str:
    """``text`` with control and bidirectional characters written out; line breaks and tabs stay."""
    return _DECEPTIVE.sub(lambda found: f"\\u{ord(found[0]):04x}", text)


def one_line(text: str) -> str:
    """:func:`visible` on a single line."""
    return visible(" ".join(text.split()))


def moment(value: datetime | None) -> str:
    """A time: short in the text, to the second with date, zone and UTC in the title."""
    if value is None:
        return NONE
    local = timezone.localtime(value) if timezone.is_aware(value) else value
    today = timezone.localdate() if timezone.is_aware(value) else datetime.now().date()  # noqa: DTZ005 - naive rows
    short = local.strftime("%H:%M:%S") if local.date() == today else f"{date_format(local, 'j M')}, {local:%H:%M}"
    if local.year != today.year:
        short = f"{date_format(local, 'SHORT_DATE_FORMAT')}, {local:%H:%M}"
    return format_html('<time datetime="{}" title="{}">{}</time>', value.isoformat(), precise(value), short)


def precise(value: datetime) -> str:
    """A time in full: local with its zone, and UTC."""
    if timezone.is_naive(value):
        return f"{value:%Y-%m-%d %H:%M:%S}"
    local = timezone.localtime(value)
    utc = value.astimezone(tz=datetime.fromisoformat("1970-01-01T00:00:00+00:00").tzinfo)
    return f"{local:%Y-%m-%d %H:%M:%S %Z} · {utc:%Y-%m-%d %H:%M:%S} UTC"


def duration(seconds: float | None) -> str:
    """A length of time in the two units that matter."""
    if seconds is None:
        return NONE
    if seconds < 1:
        return pgettext("duration", "%(ms)d ms") % {"ms": round(seconds * 1000)}
    if seconds < 60:
        return pgettext("duration", "%(s)s s") % {"s": f"{seconds:.1f}" if seconds < 10 else int(seconds)}
    whole = int(seconds)
    if whole < 3600:
        return pgettext("duration", "%(min)d min %(s)d s") % {"min": whole // 60, "s": whole % 60}
    if whole < 86400:
        return pgettext("duration", "%(h)d h %(min)d min") % {"h": whole // 3600, "min": whole % 3600 // 60}
    return pgettext("duration", "%(d)d d %(h)d h") % {"d": whole // 86400, "h": whole % 86400 // 3600}


def waited(record: TaskRecord) -> float | None:
    """Seconds from when the current attempt could start to when it did, or to now; None where nobody knows."""
    if record.run_after is not None:
        since = max(record.enqueued_at, record.run_after)
    elif record.attempt > 1:
        return None  # the attempt before this one ended at a time that the row does not keep
    else:
        since = record.enqueued_at
    if record.status == Status.SCHEDULED or (record.is_final and record.started_at is None):
        return None
    return max(0.0, ((record.started_at or timezone.now()) - since).total_seconds())


def ran(record: TaskRecord) -> float | None:
    """Seconds the current attempt took, or has taken until now; None when it has not begun."""
    if record.started_at is None:
        return None
    return max(0.0, ((record.finished_at or timezone.now()) - record.started_at).total_seconds())


def reason_class(reason: str) -> str:
    """The error class a reason begins with: what may be shown without the message, which may quote arguments."""
    return reason.partition(":")[0] if re.match(r"[A-Za-z_]\w*(:|$)", reason) else ""


def process_name(record: TaskRecord) -> str:
    """Who has or had a run; its row in the registry may have been pruned long ago."""
    if record.worker_id is None:
        return NONE
    if record.worker is None:
        return _("no longer known")
    return str(record.worker)
