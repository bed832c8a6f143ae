"""What lies below py-amqp: a socket that knows a deadline, and deliveries that cost little.

py-amqp reads nine times from the socket for every delivery, writes once for every message, has no time limit for a
whole conversation and keeps a body however large it is. It lets its transport and its frame handler be replaced; here
they are. :class:`Wire` reads and writes in big pieces, each with one deadline; :func:`frame_handler` reads deliveries
itself and leaves every other frame to py-amqp.
"""

from __future__ import annotations

import select
import socket
import ssl
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from struct import Struct
from typing import Any

import amqp.method_framing
from amqp.exceptions import UnexpectedFrame
from amqp.serialization import decode_properties_basic
from amqp.transport import AMQP_PROTOCOL_HEADER, TCPTransport

# The kernel looks after silent peers, not AMQP's heartbeat: a task may keep the interpreter busy for minutes.
# Seconds: silence before the first probe, between probes; probes without an answer; unacknowledged data.
KEEPALIVE = {"TCP_NODELAY": 1, "TCP_KEEPIDLE": 30, "TCP_KEEPINTVL": 10, "TCP_KEEPCNT": 3, "TCP_USER_TIMEOUT": 30_000}
_CHUNK = 1 << 17
_FLUSH = 1 << 18
_HEAD = Struct(">BHI")
_FRAME_END = 0xCE
_WANTS = (BlockingIOError, ssl.SSLWantReadError, ssl.SSLWantWriteError)


class Wire(TCPTransport):  # type: ignore[misc]  # amqp ships no types
    """A connected socket, plain or TLS. Nothing here waits beyond :attr:`deadline` (on the monotonic clock)."""

    sock: Any

    def __init__(self, host: str, deadline: float, context: ssl.SSLContext | None, frame_max: int) -> None:
        super().__init__(host)
        self.deadline = deadline
        self.context = context
        self.frame_max = frame_max
        self._in = b""
        self._at = 0
        self._out = bytearray()
        self._is_corked = False

    def _connect(self, host: str, port: int, timeout: float | None) -> None:
        error: OSError = TimeoutError("no time was left to connect")
        for family, kind, protocol, _, address in socket.getaddrinfo(host, port, 0, socket.SOCK_STREAM):
            self.sock = socket.socket(family, kind, protocol)
            try:
                self.sock.settimeout(self._left())
                self.sock.connect(address)
                return
            except OSError as found:
                error = found
                self.sock.close()
        self.sock = None
        raise error

    def _init_socket(self, *unused: object) -> None:
        self.sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        for name, value in KEEPALIVE.items():
            if hasattr(socket, name):
                self.sock.setsockopt(socket.IPPROTO_TCP, getattr(socket, name), value)
        if self.context:
            self.sock.settimeout(self._left())
            self.sock = self.context.wrap_socket(self.sock, server_hostname=self.host)
        self.sock.setblocking(False)
        self._write(AMQP_PROTOCOL_HEADER)

    def _left(self) -> float:
        left = self.deadline - time.monotonic()
        if left <= 0:
            raise TimeoutError("the server did not answer in time")
        return left

    def _ready(self, event: int, until: float) -> bool:
        poll = select.poll()
        poll.register(self.sock, event)
        return bool(poll.poll(max(0.0, until - time.monotonic()) * 1000))

    @contextmanager
    def having_timeout(self, timeout: float | None) -> Iterator[Any]:
        yield self.sock  # the deadline holds, whatever py-amqp asks for

    # Reading.

    def fill(self, until: float) -> bool:
        """Read what has come, waiting for it until then at most; False when nothing came."""
        if self.sock is None:
            raise ConnectionError("the connection is closed")
        while True:
            try:
                data = self.sock.recv(_CHUNK)
            except _WANTS as wants:
                event = select.POLLOUT if isinstance(wants, ssl.SSLWantWriteError) else select.POLLIN
                if not self._ready(event, until):
                    return False
                continue
            if not data:
                raise ConnectionError("the server closed the connection")
            self._in, self._at = self._in[self._at :] + data, 0
            return True

    def next_frame(self) -> tuple[int, int, bytes] | None:
        """The next frame that is here as a whole."""
        data, at = self._in, self._at
        if len(data) < at + 8:
            return None
        kind, channel, size = _HEAD.unpack_from(data, at)
        if size > self.frame_max:
            raise UnexpectedFrame(f"a frame of {size} bytes")
        end = at + 7 + size
        if len(data) <= end:
            return None
        if data[end] != _FRAME_END:
            raise UnexpectedFrame("a frame without its end")
        self._at = end + 1
        return kind, channel, data[at + 7 : end]

    def read_frame(self, unpack: object = None) -> tuple[int, int, bytes]:
        """For py-amqp, which waits for an answer."""
        while (frame := self.next_frame()) is None:
            if not self.fill(self.deadline):
                raise TimeoutError("the server did not answer in time")
        return frame

    # Writing.

    @contextmanager
    def corked(self) -> Iterator[None]:
        """Write at the end, and in big pieces, what is written in here."""
        self._is_corked = True
        try:
            yield
        except BaseException:
            self._out.clear()
            raise
        finally:
            self._is_corked = False
        self._flush()

    def write(self, s: bytes) -> None:
        if not self._is_corked:
            self._write(s)
            return
        self._out += s
        if len(self._out) > _FLUSH:
            self._flush()

    def _flush(self) -> None:
        data, self._out = self._out, bytearray()
        self._write(data)

    def _write(self, s: bytes | bytearray) -> None:
        if self.sock is None:
            raise ConnectionError("the connection is closed")
        rest = memoryview(s)
        while rest:
            try:
                rest = rest[self.sock.send(rest) :]
            except _WANTS as wants:
                event = select.POLLIN if isinstance(wants, ssl.SSLWantReadError) else select.POLLOUT
                if not self._ready(event, self.deadline):
                    raise TimeoutError("the server did not read in time") from None

    def close(self) -> None:
        """Close our end and no more: a goodbye could wait for ever, and in a forked child it is not ours to say."""
        if self.sock is not None:
            self.sock.close()
            self.sock = None
        self.connected = False


class Incoming:
    """A delivery as it came; its properties are decoded by whoever can refuse it. A body over the limit is not kept."""

    __slots__ = ("_header", "_limit", "_method", "_parts", "_received", "body_size", "is_redelivered", "tag")

    def __init__(self, method: bytes, limit: int) -> None:
        self._method, self._limit = method, limit
        self.tag: int
        self.body_size: int
        self.tag, flags = _TAG.unpack_from(method, 5 + method[4])
        self.is_redelivered = bool(flags & 1)
        self._parts: list[bytes] = []
        self._received = 0

    def header(self, payload: bytes) -> bool:
        """Take the content header; True when the message is complete with it."""
        self._header = payload
        (self.body_size,) = _SIZE.unpack_from(payload, 4)
        return self.body_size == 0

    def add(self, payload: bytes) -> bool:
        """Take a piece of the body; True when it was the last."""
        self._received += len(payload)
        if self.body_size <= self._limit:
            self._parts.append(payload)
        return self._received >= self.body_size

    @property
    def is_whole(self) -> bool:
        """Whether the body was kept."""
        return self.body_size <= self._limit

    @property
    def body(self) -> bytes:
        return b"".join(self._parts)

    def shorten(self, size: int) -> None:
        """Keep no more than the beginning of the body."""
        self._parts = [self.body[:size]]

    def properties(self) -> Mapping[str, Any]:
        """py-amqp's names for the properties. May raise anything: a sender writes here what it likes."""
        found: Mapping[str, Any] = decode_properties_basic(self._header, 12)[0]
        return found


_TAG = Struct(">QB")
_SIZE = Struct(">Q")
_DELIVER = b"\x00\x3c\x00\x3c"  # class basic, method deliver

Frame = tuple[int, int, bytes]


def frame_handler(limit: int) -> Callable[[Any, Any], Callable[[Frame], bool]]:
    """A frame handler for py-amqp that gives each delivery, as :class:`Incoming`, to ``deliver`` of its channel."""

    def make(connection: Any, callback: Any) -> Callable[[Frame], bool]:
        others = amqp.method_framing.frame_handler(connection, callback)
        incoming: dict[int, Incoming] = {}

        def on_frame(frame: Frame) -> bool:
            kind, channel, payload = frame
            if kind == 1 and payload.startswith(_DELIVER):
                incoming[channel] = Incoming(payload, limit)
                return False
            delivery = incoming.get(channel)
            if delivery is None or kind == 8:
                return bool(others(frame))
            if delivery.header(payload) if kind == 2 else delivery.add(payload):
                del incoming[channel]
                deliver = getattr(connection.channels.get(channel), "deliver", None)
                if deliver is not None:
                    deliver(delivery)
                return True
            return False

        return on_frame

    return make
