"""Connections to an AMQP server: made within a time, to the first of several addresses that answers."""

from __future__ import annotations

import os
import ssl
import time
import weakref
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, NamedTuple

import amqp
from amqp import spec
from kombu.utils.url import url_to_parts

from django_taskq.brokers.kombu.options import Options
from django_taskq.brokers.kombu.wire import Wire, frame_handler
from django_taskq.exceptions import DepotError

# What py-amqp raises when a connection or channel ends, or a server refuses.
LOST = (OSError, amqp.AMQPError)
_GOODBYE = 0.5


class Address(NamedTuple):
    """Where a server is and who we are there. Only :attr:`name` is ever shown."""

    host: str
    port: int
    user: str
    password: str
    virtual_host: str
    is_tls: bool

    @property
    def name(self) -> str:
        return f"{self.host}:{self.port}"

    @classmethod
    def parse(cls, url: str) -> Address:
        """The address in an ``amqp://`` or ``amqps://`` URL."""
        parts = url_to_parts(url)
        is_tls = parts.scheme == "amqps"
        port = parts.port or (5671 if is_tls else 5672)
        host, user, password = parts.hostname or "localhost", parts.username or "guest", parts.password or "guest"
        return cls(host, port, user, password, parts.path or "/", is_tls)


class _Connection(amqp.Connection):  # type: ignore[misc]  # amqp ships no types
    """py-amqp's connection on our :class:`Wire`; it also remembers why the server blocks it."""

    _METHODS = {**amqp.Connection._METHODS, spec.Connection.Blocked: spec.method(spec.Connection.Blocked, "s")}

    def __init__(self, address: Address, deadline: float, context: ssl.SSLContext | None, limit: int) -> None:
        self.address, self.deadline, self.context = address, deadline, context
        self.blocked_by: str | None = None
        super().__init__(
            address.name,
            userid=address.user,
            password=address.password,
            login_method="PLAIN",
            virtual_host=address.virtual_host,
            frame_handler=frame_handler(limit),
            heartbeat=0,
        )

    def Transport(self, host: str, connect_timeout: object, *args: object, **kwargs: object) -> Wire:
        wire = Wire(host, self.deadline, self.context, self.frame_max)
        wire.host, wire.port = self.address.host, self.address.port
        return wire

    def _on_blocked(self, reason: str = "") -> None:
        self.blocked_by = reason or "an alarm"

    def _on_unblocked(self) -> None:
        self.blocked_by = None


class Link:
    """One connection of one process. Everything done with it is done inside :meth:`within`."""

    def __init__(self, address: Address, seconds: float, context: ssl.SSLContext | None, limit: int) -> None:
        self.address = address
        self.pid = os.getpid()
        self.connection = _Connection(address, time.monotonic() + seconds, context, limit)
        _open_links.add(self)
        try:
            self.connection.connect()
        except BaseException:
            self.abandon()
            raise
        self._side: Any = None

    @property
    def is_open(self) -> bool:
        """Whether it can still be used, as far as is known."""
        return bool(self.connection.connected) and self.pid == os.getpid()

    @property
    def blocked_by(self) -> str | None:
        """The alarm for which the server takes nothing from this connection, or None."""
        return self.connection.blocked_by

    @property
    def wire(self) -> Wire:
        wire: Wire | None = self.connection._transport
        if wire is None:
            raise ConnectionError("the connection is closed")
        return wire

    def fileno(self) -> int:
        return int(self.wire.sock.fileno())

    @contextmanager
    def within(self, seconds: float) -> Iterator[Link]:
        """Everything in here ends within so many seconds. An error of the connection ends the connection."""
        try:
            self.wire.deadline = time.monotonic() + seconds
            yield self
        except LOST as error:
            if not isinstance(error, amqp.ChannelError):
                self.abandon()
            raise

    def side_channel(self) -> Any:
        """A channel for questions. py-amqp opens it again after the server has closed it over one of them."""
        if self._side is None or not self._side.is_open:
            self._side = self.connection.channel()
        return self._side

    def drain(self, seconds: float = 0.0) -> bool:
        """Handle every frame that has come, waiting so long for the first; False when there was none."""
        wire, handle = self.wire, self.connection.on_inbound_frame
        until, has_some = time.monotonic() + seconds, False
        while True:
            while (frame := wire.next_frame()) is not None:
                has_some = True
                handle(frame)
                if wire.sock is None:  # the server said goodbye
                    raise ConnectionError("the server closed the connection")
            if not wire.fill(0.0 if has_some else until):
                return has_some

    def close(self) -> None:
        """Say goodbye, if that goes quickly, and close."""
        if self.is_open:
            try:
                with self.within(_GOODBYE):
                    self.connection.close()
            except LOST:
                pass
        self.abandon()

    def abandon(self) -> None:
        """Close our end without a word: what a forked child does, and what is left to do with a broken one."""
        transport = self.connection._transport
        if transport is not None:
            transport.close()
        _open_links.discard(self)


class Dialer:
    """Makes connections to the first address that answers, beginning with the one that did the last time."""

    def __init__(self, url: str, options: Options) -> None:
        self.addresses = [Address.parse(each) for each in url.split(";")]
        self.options = options
        self._first = 0

    def dial(self, seconds: float) -> Link:
        """A new connection within so many seconds, or a :exc:`DepotError` that names every address and its trouble."""
        until = time.monotonic() + min(seconds, self.options.connect_timeout * len(self.addresses))
        troubles = []
        for nth in range(len(self.addresses)):
            index = (self._first + nth) % len(self.addresses)
            address = self.addresses[index]
            share = (until - time.monotonic()) / (len(self.addresses) - nth)
            try:
                link = Link(address, min(share, self.options.connect_timeout), self._context(address), self.limit)
            except LOST as error:
                troubles.append(f"{address.name}: {describe(error)}")
            else:
                self._first = index
                return link
        raise DepotError(f"RabbitMQ cannot be reached ({'; '.join(troubles)})", is_certain=True)

    @property
    def limit(self) -> int:
        """The largest body worth keeping."""
        return self.options.max_body

    def _context(self, address: Address) -> ssl.SSLContext | None:
        if not address.is_tls:
            return None
        given = self.options.ssl or {}
        context = ssl.create_default_context(cafile=given.get("ca_certs"))
        context.check_hostname = given.get("check_hostname", True) and given.get("cert_reqs") != ssl.CERT_NONE
        context.verify_mode = given.get("cert_reqs", ssl.CERT_REQUIRED)
        if "certfile" in given:
            context.load_cert_chain(given["certfile"], given.get("keyfile"))
        return context


def describe(error: BaseException) -> str:
    """An error of the library in one bounded line. Neither py-amqp nor the socket ever repeats a password."""
    text = getattr(error, "reply_text", "") or str(error) or type(error).__name__
    return " ".join(text.split())[:300]


_open_links: weakref.WeakSet[Link] = weakref.WeakSet()


def _drop_the_parents_connections() -> None:
    for link in list(_open_links):
        link.abandon()


# The child of a fork must not keep its parent's connections open, much less talk on them.
os.register_at_fork(after_in_child=_drop_the_parents_connections)
