"""Publishing to an AMQP server so that it is known what was taken: confirmed, routed, and within a time."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, NamedTuple

import amqp
from amqp import spec

from django_taskq.brokers.kombu.codec import Content
from django_taskq.brokers.kombu.connection import LOST, Dialer, Link, describe
from django_taskq.exceptions import DepotError, MessageRefused

# Idle connections that are kept: as many threads can publish at once without connecting anew.
_KEPT = 8
# How long the confirms of what was written just before an alarm may still take.
_ALARM_GRACE = 0.2
# How long a refusal is not taken for an answer.
_INSIST = 1.0


class Letter(NamedTuple):
    """A message ready to be sent: ``exchange`` and ``routing_key`` are the server's names."""

    id: str
    exchange: str
    routing_key: str
    content: Content


class Line:
    """A connection, and a channel that confirms once it is wanted. :class:`Publisher` lends it to one thread."""

    def __init__(self, link: Link) -> None:
        self.link = link
        self.channel: Any = None
        # What was sent on it and is neither confirmed nor refused, by its number on the channel.
        self._pending: dict[int, Letter] = {}
        self._sent = 0
        self._refused: list[Letter] = []
        self._returned: set[str] = set()

    def prepare(self) -> None:
        """Make it ready to :meth:`post`. A server blocks who publishes, so who only asks does without."""
        if self.channel is not None:
            return
        self.channel = self.link.connection.channel()
        self.channel.events["basic_ack"].add(self._on_ack)
        self.channel.events["basic_nack"].add(self._on_nack)
        self.channel.events["basic_return"].add(self._on_return)
        self.channel.confirm_select()
        self._ask_for_alarms()

    def _ask_for_alarms(self) -> None:
        """A server tells of an alarm to whom publishes only: publish something that goes nowhere, and ask anything.

        So an alarm is known before the first message is sent, and its error can be certain.
        """
        self._sent += 1
        self._write(Letter("", "", "", Content(b"", "", "", {})), is_mandatory=False)
        self.channel.send_method(spec.Basic.Qos, "lBb", (0, 0, False))
        answered: list[bool] = []
        self.channel._pending[spec.Basic.QosOk] = lambda *_: answered.append(True)
        while not answered and not self.link.blocked_by:
            if not self.link.drain(self._left()):
                raise TimeoutError("the server did not answer in time")

    def post(self, letters: Sequence[Letter]) -> tuple[list[Letter], list[Letter]]:
        """Send all, wait for all confirms; returns what no queue was bound for, and what the server refused."""
        self._pending, self._refused, self._returned = {}, [], set()
        with self.link.wire.corked():
            for letter in letters:
                self._sent += 1
                self._pending[self._sent] = letter
                self._write(letter, is_mandatory=True)
        alarm_at = None
        while self._pending:
            left = self._left()
            if self.link.blocked_by:
                alarm_at = alarm_at or time.monotonic()
                left = min(left, alarm_at + _ALARM_GRACE - time.monotonic())
            if left <= 0 or (not self.link.drain(left) and not self.link.blocked_by):
                blocked = f"it is blocked by an alarm ({self.link.blocked_by})" if self.link.blocked_by else ""
                raise TimeoutError(blocked or "the server did not confirm in time")
        refused = {id(letter) for letter in self._refused}
        returned = [each for each in letters if each.id in self._returned and id(each) not in refused]
        return returned, self._refused

    def insist(self, letters: list[Letter]) -> tuple[list[Letter], list[Letter]]:
        """Send what was refused again, for a moment: a quorum queue that has no leader yet refuses everything.

        Returns what is refused still, and what could not be routed meanwhile.
        """
        until, returned = time.monotonic() + min(_INSIST, self._left() / 2), []
        while letters and time.monotonic() < until:
            time.sleep(_INSIST / 20)
            late, letters = self.post(letters)
            returned += late
        return letters, returned

    def _write(self, letter: Letter, *, is_mandatory: bool) -> None:
        content = letter.content
        message = amqp.Message(
            content.body,
            content_type=content.content_type or None,
            content_encoding=content.content_encoding or None,
            application_headers=dict(content.headers) or None,
            message_id=letter.id or None,
            delivery_mode=2,
        )
        # What basic_publish() does besides is a read from the socket for each message.
        arguments = (0, letter.exchange, letter.routing_key, is_mandatory, False)
        self.channel.send_method(spec.Basic.Publish, "Bssbb", arguments, message)

    def _left(self) -> float:
        return self.link.wire.deadline - time.monotonic()

    def _on_ack(self, tag: int, is_multiple: bool) -> None:
        for number in self._numbers(tag, is_multiple):
            del self._pending[number]

    def _on_nack(self, tag: int, is_multiple: bool) -> None:
        for number in self._numbers(tag, is_multiple):
            self._refused.append(self._pending.pop(number))

    def _numbers(self, tag: int, is_multiple: bool) -> list[int]:
        if not is_multiple:
            return [tag] if tag in self._pending else []
        # Numbers rise in the order of the dict.
        numbers = []
        for number in self._pending:
            if number > tag:
                break
            numbers.append(number)
        return numbers

    def _on_return(self, error: object, exchange: str, routing_key: str, message: Any) -> None:
        self._returned.add(message.properties.get("message_id", ""))


class Publisher:
    """Lends lines to threads; they are connected when needed and belong to the process that made them."""

    def __init__(self, dialer: Dialer) -> None:
        self._dialer = dialer
        self._start_afresh()

    def _start_afresh(self) -> None:
        self._pid = os.getpid()
        self._lock = threading.Lock()
        self._idle: list[Line] = []
        self._lent: set[Line] = set()

    def post(
        self,
        letters: Sequence[Letter],
        seconds: float,
        declare: Callable[[Any], None],
        forget: Callable[[Letter], None],
    ) -> None:
        """Have every letter confirmed, or raise :exc:`DepotError`.

        ``declare`` gets a channel to declare what the letters need. What comes back although it was declared (its
        queue was deleted) is passed to ``forget``, declared and sent again, once.
        """
        with self.borrowed(seconds, to_publish=True) as line:
            declare(line.link.side_channel())
            try:
                returned, refused = line.post(letters)
                if returned:
                    for letter in returned:
                        forget(letter)
                    declare(line.link.side_channel())
                    returned, again = line.post(returned)
                    refused = [*refused, *again]
                refused, late = line.insist(refused)
                returned = [*returned, *late]
            except LOST as error:
                # A channel that is closed over a single letter has taken nothing of it.
                is_certain = isinstance(error, amqp.ChannelError) and len(letters) == 1
                raise self._failed(line.link, error, letters, is_certain=is_certain) from error
            is_certain = len(returned) + len(refused) == len(letters)
            if returned:
                raise MessageRefused(_unroutable(returned[0]), is_certain=is_certain)
            if refused:
                text = f"{line.link.address.name} refused {len(refused)} of {len(letters)} messages"
                raise DepotError(f"{text} for {refused[0].routing_key}", is_certain=is_certain)

    def _failed(self, link: Link, error: BaseException, letters: Sequence[Letter], *, is_certain: bool) -> DepotError:
        where = letters[0].exchange or letters[0].routing_key
        text = f"publishing to {where} on {link.address.name} failed: {describe(error)}"
        return DepotError(text, is_certain=is_certain)

    @contextmanager
    def borrowed(self, seconds: float, *, to_publish: bool = False) -> Iterator[Line]:
        """A line for this thread, everything with it within so many seconds; errors before its use are certain."""
        until = time.monotonic() + seconds
        line = self._take(until, to_publish=to_publish)
        try:
            with line.link.within(until - time.monotonic()):
                yield line
        except LOST as error:
            text = f"{line.link.address.name} failed: {describe(error)}"
            raise DepotError(text, is_certain=True) from error
        except DepotError as error:
            cause = error.__cause__
            if isinstance(cause, amqp.ChannelError):
                # py-amqp opens a channel again that the server closed, but not as one that confirms.
                line.link.close()
            elif isinstance(cause, LOST) and not line.link.blocked_by:
                line.link.abandon()
            raise
        finally:
            self._give_back(line)

    def _take(self, until: float, *, to_publish: bool) -> Line:
        if self._pid != os.getpid():
            self._start_afresh()
        while True:
            with self._lock:
                line = self._idle.pop() if self._idle else None
            is_new = line is None
            line = line or Line(self._dialer.dial(until - time.monotonic()))
            with self._lock:
                self._lent.add(line)
            try:
                with line.link.within(until - time.monotonic()):
                    line.link.drain()
                    if to_publish and not line.link.blocked_by:
                        line.prepare()
            except LOST as error:
                self._give_back(line)
                if is_new:
                    raise DepotError(f"{line.link.address.name} failed: {describe(error)}", is_certain=True) from error
                continue  # it was closed while nobody used it
            if line.link.blocked_by and to_publish:
                text = f"{line.link.address.name} takes no messages now: an alarm blocks it ({line.link.blocked_by})"
                self._give_back(line)
                raise DepotError(text, is_certain=True)
            if line.link.blocked_by:
                line.link.abandon()  # nothing said on it would be heard
                self._give_back(line)
                continue
            return line

    def _give_back(self, line: Line) -> None:
        with self._lock:
            # What was lent when everything was closed is not kept, or nobody would ever close it.
            if line in self._lent and line.link.is_open and len(self._idle) < _KEPT:
                self._lent.discard(line)
                self._idle.append(line)
                return
            self._lent.discard(line)
        # An alarm would let a goodbye wait for nothing.
        line.link.abandon() if line.link.blocked_by else line.link.close()

    def close(self) -> None:
        """Close what is idle."""
        if self._pid != os.getpid():
            return
        with self._lock:
            idle, self._idle = self._idle, []
            self._lent.clear()
        for line in idle:
            line.link.abandon() if line.link.blocked_by else line.link.close()


def _unroutable(letter: Letter) -> str:
    if letter.exchange:
        return f"no queue is bound to the exchange {letter.exchange} for the key {letter.routing_key!r}"
    return f"the server has no queue {letter.routing_key}, although it was declared"
