"""Dead letters in the admin: messages that brokers refused for good, to look at, to replay, and to discard.

They are no rows, so they have a page instead of a model. A broker that is down is a sentence on it. What a letter says
may be anybody's arguments: its text, and what its reason may quote of it, need ``view_payload``.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, cast

from django.contrib import messages
from django.contrib.admin.models import CHANGE, DELETION, LogEntry
from django.contrib.contenttypes.models import ContentType
from django.core.exceptions import BadRequest, PermissionDenied
from django.http import HttpRequest, HttpResponse, HttpResponseNotAllowed, HttpResponseRedirect
from django.urls import path, reverse
from django.utils.translation import gettext as _
from django.utils.translation import gettext_lazy, ngettext

from django_taskq import brokers, conf
from django_taskq.admin import payload, words
from django_taskq.admin.actions import CONFIRMED, VerbActions
from django_taskq.brokers.depot import DeadLetter, Depot
from django_taskq.exceptions import DepotError
from django_taskq.management.text import mask

SHOWN = 100
_NAMED_IN_LOG = 20
# Where a reason may begin to quote the message.
_QUOTATION = re.compile(r"""[,:;'"`\[({<]""")


@dataclass(frozen=True, slots=True)
class LetterVerb:
    """What may be done to dead letters. ``permission`` is the codename."""

    name: str
    permission: str
    label: Any
    help: Any
    perform: Callable[[Depot, Sequence[str]], int]
    done: Callable[[int], str]


VERBS = {
    "replay": LetterVerb(
        "replay",
        "replay_deadletter",
        gettext_lazy("Replay"),
        gettext_lazy("Back into their queues, where they can be read by now: by this version, or with these options."),
        lambda depot, ids: depot.replay(ids),
        lambda n: ngettext("%(n)d message was put back.", "%(n)d messages were put back.", n) % {"n": n},
    ),
    "discard": LetterVerb(
        "discard",
        "discard_deadletter",
        gettext_lazy("Discard"),
        gettext_lazy("The messages are thrown away for good. Runs with a record stay, and are published again."),
        lambda depot, ids: depot.discard(ids),
        lambda n: ngettext("%(n)d message was thrown away.", "%(n)d messages were thrown away.", n) % {"n": n},
    ),
}


class DeadLetterPages(VerbActions):
    """The page, beside the list of runs."""

    def get_urls(self) -> list[Any]:
        view = self.admin_site.admin_view(self.dead_letters_view)
        return [path("dead-letters/", view, name="django_taskq_taskrecord_dead_letters"), *super().get_urls()]

    def changelist_view(self, request: HttpRequest, extra_context: Any = None) -> HttpResponse:
        settings = conf.get_settings()
        has_depots = any(not settings.broker(alias).is_database for alias in settings.broker_aliases())
        return super().changelist_view(request, {"has_depots": has_depots, **(extra_context or {})})

    def dead_letters_view(self, request: HttpRequest) -> HttpResponse:
        """The newest of each broker, and the buttons that this user may press."""
        if not self.has_view_permission(request):
            raise PermissionDenied
        if request.method == "POST":
            return self._act_on_letters(request)
        if request.method not in ("GET", "HEAD"):
            return HttpResponseNotAllowed(["GET", "HEAD", "POST"])
        sees_payload = self.has_payload_permission(request)
        context = {
            "brokers": [_shelf(alias, depot, sees=sees_payload) for alias, depot in brokers.get_depots().items()],
            "sees_payload": sees_payload,
            "verbs": [verb for verb in VERBS.values() if self._may_letters(request, verb)],
            "shown": SHOWN,
        }
        return self.page(request, "dead_letters.html", _("Dead letters"), context)

    def _may_letters(self, request: HttpRequest, verb: LetterVerb) -> bool:
        return request.user.has_perm(f"{self.opts.app_label}.{verb.permission}")

    def _act_on_letters(self, request: HttpRequest) -> HttpResponse:
        verb, alias = VERBS.get(request.POST.get("action", "")), request.POST.get("broker", "")
        depot = brokers.get_depots().get(alias)
        ids = list(dict.fromkeys(request.POST.getlist("shown" if "every" in request.POST else "letter")))
        if verb is None or depot is None or len(ids) > SHOWN:
            raise BadRequest("no such action, no such broker, or more messages than the page shows")
        if not self._may_letters(request, verb):
            raise PermissionDenied
        if not ids:
            self.message_user(request, _("No message was selected."), messages.WARNING)
        elif verb.name == "discard" and CONFIRMED not in request.POST:
            context = {"verb": verb, "alias": alias, "ids": ids, "named": [words.one_line(id) for id in ids[:5]]}
            context |= {"rest": len(ids) - 5, "count": len(ids)}
            return self.page(request, "dead_letters_confirm.html", verb.label, context)
        else:
            self._perform_on_letters(request, verb, alias, depot, ids)
        return HttpResponseRedirect(
            reverse("admin:django_taskq_taskrecord_dead_letters", current_app=self.admin_site.name)
        )

    def _perform_on_letters(
        self, request: HttpRequest, verb: LetterVerb, alias: str, depot: Depot, ids: list[str]
    ) -> None:
        try:
            count = verb.perform(depot, ids)
        except DepotError as error:
            text = _("The broker %(broker)s could not be asked: %(error)s")
            self.message_user(request, text % {"broker": alias, "error": _shown(error)}, messages.ERROR)
            return
        if count:
            self._log_letters(request, verb, alias, ids, count)
            self.message_user(request, verb.done(count), messages.SUCCESS)
        over = max(0, len(ids) - count)
        if over:
            text = ngettext(
                "%(n)d message stays as it is: it is gone already, or still cannot be read.",
                "%(n)d messages stay as they are: they are gone already, or still cannot be read.",
                over,
            )
            self.message_user(request, text % {"n": over}, messages.WARNING)

    def _log_letters(self, request: HttpRequest, verb: LetterVerb, alias: str, ids: list[str], count: int) -> None:
        """One entry: they are no objects of the database that could have a history each."""
        named = ", ".join(words.one_line(id)[:100] for id in ids[:_NAMED_IN_LOG])
        more = " …" if len(ids) > _NAMED_IN_LOG else ""
        LogEntry.objects.create(
            user_id=cast(int, request.user.pk),
            content_type=ContentType.objects.get_for_model(self.model),
            object_id=None,
            object_repr=_("Dead letters of the broker %(broker)s") % {"broker": alias},
            action_flag=DELETION if verb.name == "discard" else CHANGE,
            change_message=f"{verb.label} ({count}): {named}{more}",
        )


def _shelf(alias: str, depot: Depot, *, sees: bool) -> dict[str, Any]:
    """One broker's dead letters, or why they cannot be shown."""
    try:
        letters = depot.dead_letters(SHOWN + 1)
    except DepotError as error:
        return {"alias": alias, "error": _shown(error)}
    return {
        "alias": alias,
        "letters": [_letter(letter, sees=sees) for letter in letters[:SHOWN]],
        "has_more": len(letters) > SHOWN,
    }


def _shown(error: DepotError) -> str:
    return words.one_line(mask(str(error)))


def _letter(letter: DeadLetter, *, sees: bool) -> dict[str, Any]:
    reason = letter.reason if sees else _QUOTATION.split(letter.reason)[0].strip()
    shown: dict[str, Any] = {
        "id": letter.id,
        "id_shown": words.one_line(letter.id),
        "queue_name": words.one_line(letter.queue_name) or words.NONE,
        "reason": words.one_line(reason) or _("unknown"),
        "refused_at": words.moment(letter.refused_at),
    }
    if sees:
        # Nobody can tell in a text that cannot be read which part of it is the secret.
        shown["is_masked"] = payload.is_secret(letter.text)
        shown["text"] = payload.MASK if shown["is_masked"] else words.visible(letter.text)
    return shown
