"""Limits in words: what each lets through, how it stands, and why a run waits at one."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any

from django.contrib.admin.utils import quote
from django.utils.translation import gettext as _
from django.utils.translation import gettext_lazy, ngettext

from django_taskq import registry
from django_taskq.admin import words
from django_taskq.brokers.database.limit_counts import COUNTED, Crowd
from django_taskq.flow_options import Rate
from django_taskq.gates import Gate, Kind
from django_taskq.models import Limit
from django_taskq.models.clock import stored
from django_taskq.models.standing import MOST_AHEAD, Stand, Standing

KINDS = {
    Kind.BREAKER: gettext_lazy("breaker"),
    Kind.LOCK: gettext_lazy("lock"),
    Kind.TASK: gettext_lazy("concurrency of a task"),
    Kind.RATE: gettext_lazy("rate of a task"),
    Kind.GROUP: gettext_lazy("concurrency of a group"),
    Kind.QUEUE: gettext_lazy("concurrency of a queue"),
    Kind.QUEUE_RATE: gettext_lazy("rate of a queue"),
}
RATES = (Kind.RATE, Kind.QUEUE_RATE)
_NAMED = {
    Kind.BREAKER: gettext_lazy("the breaker of %(name)s"),
    Kind.LOCK: gettext_lazy("the lock %(name)s"),
    Kind.TASK: gettext_lazy("the concurrency limit of %(name)s"),
    Kind.RATE: gettext_lazy("the rate limit of %(name)s"),
    Kind.GROUP: gettext_lazy("the concurrency limit of its group"),
    Kind.QUEUE: gettext_lazy("the concurrency limit of the queue %(name)s"),
    Kind.QUEUE_RATE: gettext_lazy("the rate limit of the queue %(name)s"),
}
SHOWN_HOLDERS = 3


def named(gate: Gate, *, shows_keys: bool) -> str:
    """A limit in a sentence. Keys are made of arguments, and so are the names of locks: not everybody may see them."""
    if gate.kind == Kind.LOCK and not shows_keys:
        return _("a lock")
    name = str(_NAMED[Kind(gate.kind)]) % {"name": words.one_line(gate.name)}
    return f"{name} ({words.one_line(gate.sub)})" if gate.sub and shows_keys else name


def at_gate(standing: Standing, *, shows_keys: bool) -> str:
    """Why a run waits at a gate, in sentences."""
    said = [_("It waits for %(limit)s.") % {"limit": named(standing.gate, shows_keys=shows_keys)}]
    if standing.ahead > MOST_AHEAD:
        said.append(_("More than %(count)s runs are before it.") % {"count": f"{MOST_AHEAD:,}"})
    elif standing.ahead:
        text = ngettext("%(count)d run is before it.", "%(count)d runs are before it.", standing.ahead)
        said.append(text % {"count": standing.ahead})
    else:
        said.append(_("It is the next."))
    said += [] if standing.limit is None else _state(standing.limit)
    if standing.holders and standing.gate.kind not in RATES:
        said.append(_held(standing.holders))
    return " ".join(said)


def _held(stands: list[Stand]) -> str:
    shown = ", ".join(
        f"{stand.task_id} ({words.one_line(stand.record.name)})" if stand.record else str(stand.task_id)
        for stand in stands[:SHOWN_HOLDERS]
    )
    if len(stands) > SHOWN_HOLDERS:
        return _("It is held by %(runs)s and others.") % {"runs": shown}
    return _("It is held by %(runs)s.") % {"runs": shown}


def _state(limit: Any) -> Iterator[str]:
    if limit.tripped_at is not None:
        yield _("The breaker has been open since %(time)s.") % {"time": words.precise(_time(limit.tripped_at))}
    elif lets_nothing_pass(limit):
        yield _("It is set to let nothing pass, until somebody changes that.")
    if limit.opens_at is not None and not lets_nothing_pass(limit):
        yield _("The next one may pass at %(time)s.") % {"time": words.precise(_time(limit.opens_at))}


def lets_nothing_pass(limit: Any) -> bool:
    """Whether it is set to 0; it comes from :meth:`.LimitQuerySet.in_force`."""
    if limit.kind in RATES:
        return bool(limit.now_rate == 0)
    return bool(limit.kind != Kind.BREAKER and limit.now_most == 0)


def look(limit: Any, crowd: Crowd) -> words.Look:
    """How it stands, as a badge."""
    if limit.tripped_at is not None:
        return words.Look("failed", _("Open"))
    if lets_nothing_pass(limit):
        return words.Look("paused", _("Nothing passes"))
    if crowd.waiting:
        return words.Look("waiting", _("Waited for"))
    return words.Look("online", _("Free"))


def described(limit: Any, crowd: Crowd) -> dict[str, Any]:
    """What a list shows of a limit."""
    is_breaker = limit.kind == Kind.BREAKER
    return {
        "address": quote(limit.key),
        "key": words.one_line(limit.key),
        "kind": KINDS[Kind(limit.kind)],
        "badge": words.badge(look(limit, crowd)),
        "most": "" if limit.now_most is None or is_breaker else f"{limit.now_most:,}",
        "rate": rate_text(limit.now_rate),
        "burst": "" if limit.now_rate is None or limit.now_burst is None else f"{limit.now_burst:,}",
        "held": number(crowd.held),
        "waiting": number(crowd.waiting),
        "opens": words.NONE if limit.opens_at is None else words.moment(_time(limit.opens_at)),
        "is_set": limit.set_at is not None,
        "by": words.one_line(limit.set_by),
        "since": words.moment(limit.set_at),
        "is_for_keys": not limit.sub and _has_keys(limit),
    }


def facts(limit: Any) -> list[tuple[str, Any]]:
    """What the page of a limit shows besides its list entry."""
    found: list[tuple[str, Any]] = [(_("Kind"), KINDS[Kind(limit.kind)])]
    if limit.kind == Kind.BREAKER:
        found += [
            (_("Opens after failures in a row"), _both(limit.now_most, limit.most)),
            (_("Rests for"), words.duration(limit.rest)),
            (_("Failures in a row"), limit.failures),
            (_("The last one"), words.one_line(limit.failure) or words.NONE),
            (_("Open since"), words.NONE if limit.tripped_at is None else words.moment(_time(limit.tripped_at))),
        ]
    elif limit.kind in RATES:
        found += [
            (_("Rate"), _both(rate_text(limit.now_rate), rate_text(limit.rate))),
            (_("At once"), _both(limit.now_burst, limit.burst)),
        ]
    else:
        found.append((_("At once"), _both(limit.now_most, limit.most)))
    if limit.opens_at is not None:
        found.append((_("The next one may pass"), words.moment(_time(limit.opens_at))))
    if limit.set_at is not None:
        found += [(_("Set"), words.moment(limit.set_at)), (_("Set by"), words.one_line(limit.set_by) or words.NONE)]
    return found


def rate_text(per_second: float | None) -> str:
    """``100/m``; "" for none."""
    return "" if per_second is None else Rate(per_second, 1).text


def number(count: int) -> str:
    """A bounded count."""
    return f"{COUNTED:,}+" if count > COUNTED else f"{count:,}"


def _both(now: Any, declared: Any) -> str:
    """What holds now, and what the code says where that is something else."""
    shown = words.NONE if now in (None, "") else f"{now:,}" if isinstance(now, int) else str(now)
    if now == declared or declared in (None, ""):
        return shown
    return _("%(now)s (in the code: %(declared)s)") % {"now": shown, "declared": declared}


def _has_keys(limit: Limit) -> bool:
    """Whether it is the whole of a limit that holds for each of its keys, as far as this process knows."""
    task = registry.find(limit.base.partition(":")[2])
    option = {Kind.TASK: "concurrency_key", Kind.RATE: "rate_key"}.get(Kind(limit.kind))
    return task is not None and option is not None and getattr(task.options, option) is not None


def _time(seconds: float) -> datetime:
    return stored(datetime.fromtimestamp(seconds, UTC))
