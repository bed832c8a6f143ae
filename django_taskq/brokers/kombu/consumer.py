"""Taking from an AMQP server: what it sends ahead waits here, in order, until it is taken or given back.

Every band of every queue has a channel of its own, so that delivery tags rise in the order in which a band's messages
are taken, and most of them can be acknowledged together. All channels share one connection, which belongs to the
courier of one worker process; its end hands everything that is held to others, and makes every receipt stale.
"""

from __future__ import annotations

import os
import random
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import NamedTuple

from django_taskq.brokers.kombu.connection import LOST, Dialer, Link, describe
from django_taskq.brokers.kombu.line import Line
from django_taskq.brokers.kombu.suspects import Handed, Suspects
from django_taskq.brokers.kombu.topology import Topology
from django_taskq.brokers.kombu.wire import Incoming
from django_taskq.exceptions import DepotError

_FIRST_PAUSE, _LONGEST_PAUSE = 0.2, 5.0
# How long the first take from a queue waits for what the server said is there.
_FIRST_DELIVERIES = 0.1


class Receipt(NamedTuple):
    """What is held: by which line (a number that no other line of this process ever has), under which tag."""

    line: int
    tag: int


# Puts messages into a queue of the server once more, as new ones.
Renew = Callable[[str, Sequence[Handed]], None]


class Consumer:
    """The consuming connection of one process; for one thread."""

    def __init__(self, dialer: Dialer, topology: Topology, timeout: float, renew: Renew) -> None:
        self._dialer, self._topology, self._timeout, self._renew = dialer, topology, timeout, renew
        self._most = dialer.options.prefetch
        self._link: Link | None = None
        self._lines: dict[tuple[str, int], Line] = {}
        self._by_serial: dict[int, Line] = {}
        self._serial = 0
        self._suspects = Suspects(dialer.options.delivery_limit // 2)
        self._is_paused = False
        self._pause = 0.0
        self._not_before = 0.0

    def fileno(self) -> int | None:
        """The socket while something may come on it."""
        link = self._link
        if link is None or not link.is_open or not any(line.prefetch for line in self._lines.values()):
            return None
        return link.fileno()

    def with_work(self, queue_names: Sequence[str]) -> list[str]:
        """The queues of which something is here. All are consumed from now on, or while paused, looked at."""
        if self._is_backing_off():
            return []
        with self._connected() as link:
            link.drain()
            lines = {name: self._lines_of(link, name) for name in queue_names}
            if self._is_paused:
                names = {name: [line.server_queue for line in lines[name]] for name in queue_names}
                return [name for name in queue_names if any(_ready(link, queue) for queue in names[name])]
            self._start(link, [line for each in lines.values() for line in each if not line.prefetch], 1)
        return [name for name in queue_names if any(line.waiting for line in lines[name])]

    def take(self, queue_name: str, limit: int) -> list[tuple[Line, Incoming]]:
        """Up to ``limit`` deliveries, urgent bands first; fewer, perhaps none, when no more have come."""
        if self._is_backing_off():
            return []
        with self._connected() as link:
            self._is_paused = False
            lines = self._lines_of(link, queue_name)
            link.drain()
            prefetch = self._prefetch(lines, limit)
            self._start(link, [line for line in lines if line.wants(prefetch)], prefetch)
        found: list[tuple[Line, Incoming]] = []
        for line in lines:
            while line.waiting and len(found) < limit:
                found.append((line, line.next()))
        return found

    def _prefetch(self, lines: Sequence[Line], limit: int) -> int:
        """1, 4, 16, 64, 128, ...: what is held and what is asked for, with as much again on its way if that is many."""
        taken = max(len(line.held) - len(line.waiting) for line in lines)
        wanted, prefetch = taken + min(limit if limit < 64 else 2 * limit, self._most), 1
        while prefetch < wanted:
            prefetch *= 4 if prefetch < 64 else 2
        return min(prefetch, 65_535)

    def _lines_of(self, link: Link, queue_name: str) -> list[Line]:
        """Of every band, the most urgent first."""
        lines = []
        for band in range(len(self._topology.bands)):
            line = self._lines.get((queue_name, band))
            if line is None or not line.prefetch:
                # Somebody may have deleted the queue since.
                self._topology.forget(self._topology.server_queue(queue_name, band))
                self._topology.declare_queue(link.side_channel(), queue_name, band)
            if line is None:
                self._serial += 1
                name = self._topology.server_queue(queue_name, band)
                line = Line(self._serial, link.connection.channel(), queue_name, name, self._suspects)
                self._lines[queue_name, band] = self._by_serial[line.serial] = line
            lines.append(line)
        return lines

    def _start(self, link: Link, lines: Sequence[Line], prefetch: int) -> None:
        """Consume with this prefetch, and wait a moment for what is there, so that the most urgent comes first."""
        expected = {}
        for line in lines:
            expected[line] = len(line.waiting) + min(prefetch, _ready(link, line.server_queue))
            line.consume(prefetch)
        until = time.monotonic() + _FIRST_DELIVERIES
        while any(len(line.waiting) < count for line, count in expected.items()) and time.monotonic() < until:
            link.drain(until - time.monotonic())

    def _is_backing_off(self) -> bool:
        return (self._link is None or not self._link.is_open) and time.monotonic() < self._not_before

    def _replace_worn(self, line: Line, tags: Sequence[int]) -> None:
        """Queues count what is given back as they count what killed its taker: start the count anew before its end."""
        worn = line.worn(tags)
        if not worn:
            return
        try:
            self._renew(line.server_queue, worn)
        except DepotError:
            return  # given back as it is: the next one may manage
        line.ack([handed.tag for handed in worn])

    def is_suspect(self, line: Line, delivery: Incoming) -> bool:
        """Whether somebody who died may have held it. Ask once for each delivery, when it is taken."""
        line.held[delivery.tag] = handed = self._suspects.judge(delivery)
        return handed.is_suspect

    def settle(self, receipts: Iterable[Receipt], *, is_done: bool) -> int:
        """Acknowledge or give back what is still held; returns how many that were."""
        by_line: dict[int, list[int]] = {}
        for serial, tag in receipts:
            by_line.setdefault(serial, []).append(tag)
        by_line = {serial: tags for serial, tags in by_line.items() if serial in self._by_serial}
        if not by_line or self._link is None or not self._link.is_open:
            return 0
        try:
            with self._link.within(self._timeout) as link:
                lines = {self._by_serial[serial]: tags for serial, tags in by_line.items()}
                if not is_done:
                    return self._give_back(link, lines)
                with link.wire.corked():
                    return sum(line.ack(tags) for line, tags in lines.items())
        except LOST:
            self._lost()  # which gives everything back
            return 0

    def refuse(self, line: Line, delivery: Incoming) -> None:
        """Have the server move it to the dead letters."""
        with self._connected():
            line.refuse(delivery.tag)

    def pause(self) -> None:
        """Stop consuming, and give back what was not taken. What was taken stays held."""
        self._is_paused = True
        if self._link is None or not self._link.is_open:
            return
        with self._connected() as link:
            self._give_back(link, {line: [] for line in self._lines.values()})

    def _give_back(self, link: Link, tags: Mapping[Line, Sequence[int]]) -> int:
        """These tags, and what waits in their queues; those are not consumed, or the server would send it all again."""
        names = {line.queue_name for line in tags}
        lines = [line for line in self._lines.values() if line.queue_name in names]
        count = sum(tag in line.held for line, some in tags.items() for tag in set(some))
        for line in lines:
            line.stop()
            self._replace_worn(line, [*tags.get(line, ()), *(delivery.tag for delivery in line.waiting)])
        with link.wire.corked():
            for line, some in tags.items():
                line.give_back(some)
            for line in lines:
                line.give_back([delivery.tag for delivery in line.waiting])
        return count

    @contextmanager
    def _connected(self) -> Iterator[Link]:
        """The connection, made when there is none, for one verb; its errors become :exc:`DepotError`."""
        if self._link is not None and not self._link.is_open:
            self._lost()
        try:
            if self._link is None:
                self._link = self._dialer.dial(self._dialer.options.connect_timeout)
                self._pause = 0.0
            with self._link.within(self._timeout) as link:
                yield link
        except LOST as error:
            name = self._link.address.name if self._link else "the server"
            self._lost()
            self._wait_longer()
            raise DepotError(f"{name} failed: {describe(error)}") from error
        except DepotError:
            if self._link is None:
                self._wait_longer()
            raise

    def _wait_longer(self) -> None:
        self._pause = min(_LONGEST_PAUSE, max(_FIRST_PAUSE, 2 * self._pause))
        self._not_before = time.monotonic() + self._pause * random.uniform(0.5, 1.0)

    def _lost(self) -> None:
        """The server has everything again: forget the connection and what came on it."""
        link, self._link = self._link, None
        self._lines, self._by_serial = {}, {}
        self._topology.forget()
        if link is not None:
            link.abandon()

    def close(self) -> None:
        """Close the connection, which gives back what is held."""
        link, self._link = self._link, None
        self._lines, self._by_serial = {}, {}
        if link is not None and link.pid == os.getpid():
            link.close()


def _ready(link: Link, server_queue: str) -> int:
    """How many nobody holds."""
    return int(link.side_channel().queue_declare(server_queue, passive=True).message_count)
