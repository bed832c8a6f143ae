"""Issuing a command: checked, authorised, stored for its workers in one transaction, and their answers awaited."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from django.apps import apps
from django.core.exceptions import PermissionDenied
from django.db import connections, transaction

from django_taskq import conf
from django_taskq.cancelling import wake_supervisors
from django_taskq.control import catalogue
from django_taskq.exceptions import InvalidCommand

TIMEOUT = 2.0  # seconds
# A worker that does not get to a command within this time (a host that was frozen) leaves it alone.
GOOD_FOR = 60.0
FIRST_POLL, LAST_POLL = 0.005, 0.1  # seconds


@dataclass(frozen=True, slots=True)
class Reply:
    """What a worker answered. ``error`` says why ``value`` is missing: it refused, failed, or did not answer."""

    worker: str
    worker_id: int
    is_ok: bool
    value: Any = None
    error: str = ""


Replies = dict[str, Reply]


def issue(
    name: str,
    arguments: Mapping[str, Any] | None = None,
    *,
    workers: Any = None,
    by: Any = None,
    timeout: float = TIMEOUT,
    effect: Callable[[str, str], object] | None = None,
) -> Replies:
    """Store a command and wait ``timeout`` seconds at most for the answers; by worker, as ``host:pid``.

    ``workers``: None for all that are online, or names or ids of some. ``by``: who issues it, a user whose permission
    is checked, or a text. ``effect(using, by)`` writes what the command is about, in the transaction that stores it.
    Inside a transaction nothing is waited for. Raises :exc:`InvalidCommand` and ``PermissionDenied``.
    """
    kind = catalogue.find(name)
    text = catalogue.dumps(name, arguments or {})
    who, user_id = authorised(by, kind.permission)
    using = conf.get_settings().database
    asked = find_workers(workers, using)
    commands = apps.get_model("django_taskq", "Command").objects.using(using)
    wanted: Iterable[int | None] = [None] if workers is None else asked
    with transaction.atomic(using=using):
        # The write comes first: SQLite refuses a transaction that has read before another one wrote.
        rows = commands.issue(name, text, wanted, issued_by=who, user_id=user_id, seconds=max(GOOD_FOR, timeout))
        if effect is not None:
            effect(using, who)
        wake_supervisors(using)
    if kind.is_noted or timeout <= 0 or not asked:
        return {}
    if connections[using].in_atomic_block:
        why = "not asked yet: the transaction that this was issued in is still open"
        return {worker: Reply(worker, pk, is_ok=False, error=why) for pk, worker in asked.items()}
    return _await([row.pk for row in rows], asked, using, timeout)


def authorised(by: Any, permission: str) -> tuple[str, str]:
    """Name and id of who issues something, for the record. Raises ``PermissionDenied`` for a user who may not."""
    if by is None or isinstance(by, str):
        return by or "", ""
    if not by.has_perm(f"django_taskq.{permission}"):
        raise PermissionDenied(f"{by} needs the permission django_taskq.{permission}")
    return str(by), str(by.pk)


def find_workers(workers: Any, using: str) -> dict[int, str]:
    """The online workers that are meant, names by id. Raises :exc:`InvalidCommand` for one that is not there."""
    online = {
        worker.pk: str(worker) for worker in apps.get_model("django_taskq", "Worker").objects.using(using).online()
    }
    counts = list(online.values())
    # Containers may all have the same host name and pid.
    named = {pk: f"{name}#{pk}" if counts.count(name) > 1 else name for pk, name in online.items()}
    if workers is None:
        return named
    chosen = workers if isinstance(workers, Collection) and not isinstance(workers, str) else [workers]
    found = {}
    for one in chosen:
        wanted = getattr(one, "pk", one)
        matching = [pk for pk, name in named.items() if wanted in (pk, str(pk), name, online[pk])]
        if not matching:
            known = ", ".join(sorted(named.values())) or "none"
            hint = conf.suggest(str(wanted)[:100], named.values())
            raise InvalidCommand(f"no worker online is {str(wanted)[:100]!r}.{hint} Online: {known}.")
        found.update({pk: named[pk] for pk in matching})
    if not found:
        raise InvalidCommand("workers=[] names nobody; None means all")
    return found


def _await(command_ids: list[int], asked: Mapping[int, str], using: str, timeout: float) -> Replies:
    replies = apps.get_model("django_taskq", "CommandReply").objects.using(using).filter(command_id__in=command_ids)
    deadline, pause, found = time.monotonic() + timeout, FIRST_POLL, dict[int, Reply]()
    while True:
        for worker_id, is_ok, text in replies.exclude(worker_id__in=found).values_list("worker_id", "is_ok", "reply"):
            if worker_id in asked:
                value = json.loads(text)
                answer = {"value": value} if is_ok else {"error": str(value)}
                found[worker_id] = Reply(asked[worker_id], worker_id, is_ok, **answer)
        left = deadline - time.monotonic()
        if len(found) == len(asked) or left <= 0:
            break
        time.sleep(min(pause, left))
        pause = min(1.5 * pause, LAST_POLL)
    silent = f"no answer within {timeout:g} s"
    return {
        name: found.get(pk) or Reply(name, pk, is_ok=False, error=silent)
        for pk, name in sorted(asked.items(), key=lambda item: item[1])
    }
