"""The supervisor's ear for commands: it reads what is new for its worker, has it obeyed, and writes the answers.

A command is obeyed once at most: its number is passed before it is. What stands in rows besides (paused queues, limits)
is read when a command says that it has changed, and now and then anyway.
"""

from __future__ import annotations

import json
import logging
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from typing import TYPE_CHECKING, Any, Protocol

from django.core.serializers.json import DjangoJSONEncoder
from django.db import IntegrityError, transaction
from django.db.models import Q

from django_taskq import conf, signals
from django_taskq.control import catalogue
from django_taskq.exceptions import InvalidCommand
from django_taskq.models import Command, CommandReply, Queue, TaskLimits
from django_taskq.models.clock import database_now
from django_taskq.worker import obeying, overrides
from django_taskq.worker.cancels import Cancels
from django_taskq.worker.orders import Order
from django_taskq.worker.overrides import Limits
from django_taskq.worker.service import Service

if TYPE_CHECKING:
    from django_taskq.worker.obeying import Boss as Obeying

    class Boss(Obeying, Protocol):
        """Who also has a row that says which queues it serves."""

        def note_queues(self) -> None: ...


logger = logging.getLogger("django_taskq")

LOOK_INTERVAL = 1.0  # seconds between looks when nothing rings
# A busy database rings all the time; commands may wait for so long, and a flood of them for a moment.
SHORTEST_LOOK, FLOOD_PAUSE = 0.1, 0.02
STATE_INTERVAL = 5.0  # seconds between looks at what should have come with a command
AT_ONCE = 100
MOST_REPLY = 1 << 18  # characters
# Numbers are given out before commits, so a lower one may show later: it is looked for so long, and so many of them.
GAP_SECONDS, MOST_GAPS = 10.0, 500
PAUSED = "paused"  # a reason for which the shutter closes queues
QUEUES_CHANGE = ("add_consumer", "cancel_consumer")
STORED = ("pause_queue", "resume_queue", "set_time_limits")


def newest_command() -> int:
    """The number of the last command there is; a worker obeys only those after its start."""
    return _commands().order_by("-pk").values_list("pk", flat=True).first() or 0


class Commands(Service):
    """Hears commands, paused queues, limits, and what is to be cancelled."""

    name = "commands"

    def __init__(self, boss: Boss, worker_id: int, last: int) -> None:
        """``last`` is the number of the newest command that is not for this worker any more."""
        super().__init__()
        self.worker_id = worker_id
        self._boss = boss
        self._last = last
        self._gaps: dict[int, float] = {}
        self._replies: list[CommandReply] = []
        self._limits: dict[str, Limits] = {}
        self._lock = threading.Lock()
        self._cancels = Cancels(boss)
        self._looked_at = 0.0
        self._state_at = 0.0

    def brief(self, tell: Callable[[Order], None]) -> None:
        """Tell a new process which limits are set; it is among those that are told of changes already."""
        # Under the lock, or a change that comes at this moment could reach it before what it replaces.
        with self._lock:
            for name, found in self._limits.items():
                tell(overrides.order(name, found))

    def work(self) -> float:
        time.sleep(max(0.0, self._looked_at + SHORTEST_LOOK - time.monotonic()))
        began = time.monotonic()
        while self.look() and not self._is_stopping:
            # A flood has half of the time at most: heartbeats want the interpreter and the database's lock, too.
            time.sleep(max(FLOOD_PAUSE, time.monotonic() - began))
            began = time.monotonic()
        patience = self._cancels.look()
        self._looked_at = time.monotonic()
        return LOOK_INTERVAL if patience is None else min(LOOK_INTERVAL, patience)

    def look(self) -> bool:
        """Obey what is new, and keep up with what is stored; whether there may be more."""
        found = self._read()
        for row in found:
            if row.worker_id in (None, self.worker_id):
                is_ok, text = self._answer(row)
                if text is not None:
                    reply = CommandReply(command_id=row.pk, worker_id=self.worker_id, is_ok=is_ok, reply=text)
                    self._replies.append(reply)
            if row.name in STORED:
                self._state_at = 0.0
        if time.monotonic() >= self._state_at:
            self.look_at_state()
        self._send()
        return len(found) == AT_ONCE

    def look_at_state(self) -> None:
        """Close the paused queues, and pass on the limits that have changed."""
        using = conf.get_settings().database
        paused = Queue.objects.using(using).paused().values_list("name", flat=True)
        self._boss.shutter.set(PAUSED, set(paused))
        rows = TaskLimits.objects.using(using).values_list("task_name", "soft_time_limit", "time_limit")
        found = {name: Limits(soft, hard) for name, soft, hard in rows}
        with self._lock:
            before, self._limits = self._limits, found
            for name in before.keys() | found.keys():
                if before.get(name) != found.get(name):
                    self._boss.crew.tell(overrides.order(name, found.get(name)))
        self._state_at = time.monotonic() + STATE_INTERVAL

    def _read(self) -> list[Command]:
        now = time.monotonic()
        self._gaps = {pk: since for pk, since in self._gaps.items() if now - since < GAP_SECONDS}
        new = Q(pk__gt=self._last)
        if self._gaps:
            new |= Q(pk__in=list(self._gaps))
        rows = _commands().filter(new)
        # Nearly always there is nothing, and that is to cost as little as may be.
        if rows.values_list("pk").first() is None:
            return []
        found = list(rows.to_obey(catalogue.MOST_ARGUMENTS).order_by("pk")[:AT_ONCE])
        for row in found:
            self._gaps.pop(row.pk, None)
            missed = range(max(self._last + 1, row.pk - MOST_GAPS), row.pk)
            self._gaps.update(dict.fromkeys(missed[: max(0, MOST_GAPS - len(self._gaps))], now))
            self._last = max(self._last, row.pk)
        return found

    def _answer(self, row: Any) -> tuple[bool, str | None]:
        """Whether it was obeyed, and the answer as JSON; None where nobody waits for one."""
        arguments: dict[str, Any] = {}
        try:
            if row.is_expired:
                raise InvalidCommand("it was read only after it had expired")
            arguments = catalogue.loads(row.name, row.text, row.size)
            if catalogue.COMMANDS[row.name].is_noted:
                return True, None
            text = json.dumps(obeying.obey(self._boss, row.name, arguments), cls=_Encoder)
            if row.name in QUEUES_CHANGE:
                self._boss.call(self._boss.note_queues)
            if len(text) > MOST_REPLY:
                raise InvalidCommand(f"the answer would take {len(text):,} characters, and {MOST_REPLY:,} are allowed")
            is_ok = True
        except InvalidCommand as error:
            is_ok, text = False, json.dumps(str(error))
            logger.warning("command %d was refused: %s", row.pk, error)
        except Exception as error:
            is_ok, text = False, json.dumps(f"it failed: {type(error).__name__}")
            logger.exception("command %d failed", row.pk)
        if is_ok and row.name not in ("ping", "inspect"):
            logger.info("command %d obeyed: %s, issued by %r", row.pk, row.name, row.issued_by)
        signals.send(
            signals.command_executed,
            None,
            worker_id=self.worker_id,
            command=row.name,
            arguments=arguments,
            is_ok=is_ok,
            issued_by=row.issued_by,
        )
        return is_ok, text

    def _send(self) -> None:
        if self._replies:
            using = conf.get_settings().database
            for reply in self._replies:
                reply.at = database_now(using)
            # What was sent already, and the database did not say so, is passed over; so is what was deleted meanwhile.
            with suppress(IntegrityError), transaction.atomic(using=using):
                CommandReply.objects.using(using).bulk_create(self._replies, ignore_conflicts=True)
            self._replies = []


class _Encoder(DjangoJSONEncoder):
    def default(self, o: Any) -> Any:
        try:
            return super().default(o)
        except TypeError:
            return sorted(map(str, o)) if isinstance(o, (set, frozenset)) else str(o)


def _commands() -> Any:
    return Command.objects.using(conf.get_settings().database)
