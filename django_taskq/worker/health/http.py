"""As much HTTP as probes and scrapers need, on one selector: nobody who is slow, silent or rude holds up another.

One request for each connection, of bounded size and time, and GET or HEAD only. When all places are taken the oldest
connection that has not sent its request makes room, so a probe always gets in.
"""

from __future__ import annotations

import logging
import re
import selectors
import socket
import time
from collections.abc import Callable
from typing import NamedTuple

logger = logging.getLogger("django_taskq")

MOST_CONNECTIONS = 64
MOST_HEADER = 8192  # bytes
READ_SECONDS, WRITE_SECONDS, LINGER_SECONDS = 5.0, 10.0, 1.0
WAIT_SECONDS = 3.0  # for an answer that has to be found out first
REST_SECONDS = 1.0  # when the system has no descriptors left

_REQUEST = re.compile(rb"([A-Z]{1,16}) (/[\x21-\x7e]*) HTTP/1\.[01]\r\n")
_BEARER = re.compile(rb"\r\nauthorization:[ \t]*bearer[ \t]+([\x21-\x7e]+)[ \t]*(?=\r\n)", re.IGNORECASE)

REASONS = {
    200: "OK",
    400: "Bad Request",
    401: "Unauthorized",
    404: "Not Found",
    405: "Method Not Allowed",
    431: "Request Header Fields Too Large",
    500: "Internal Server Error",
    503: "Service Unavailable",
}


class Request(NamedTuple):
    """What was asked. ``token`` is the bearer token sent with it, or None."""

    method: str
    path: str
    token: bytes | None


class Response(NamedTuple):
    """What is answered; ``more`` are further header lines."""

    status: int
    body: bytes = b""
    content_type: str = "text/plain; charset=utf-8"
    more: tuple[str, ...] = ()

    def dumps(self, *, with_body: bool) -> bytes:
        """As it goes over the wire."""
        lines = [
            f"HTTP/1.1 {self.status} {REASONS[self.status]}",
            f"Content-Type: {self.content_type}",
            f"Content-Length: {len(self.body)}",
            "Cache-Control: no-store",
            "X-Content-Type-Options: nosniff",
            "Connection: close",
            *self.more,
        ]
        return "\r\n".join([*lines, "", ""]).encode() + (self.body if with_body else b"")


# The second argument says whether None, "not known yet", may be answered.
Answer = Callable[[Request, bool], Response | None]


class Visitor:
    """One connection, from being accepted to being closed."""

    def __init__(self, sock: socket.socket, now: float) -> None:
        self.sock = sock
        self.until = now + READ_SECONDS
        self.received = b""
        self.request: Request | None = None
        self.unsent = b""
        self.is_answered = False


class HttpServer:
    """Listens, reads, answers. :meth:`step` is for one thread; :meth:`wake` is for any."""

    def __init__(self, listener: socket.socket, answer: Answer) -> None:
        """``listener`` is bound and listening."""
        self._listener = listener
        self._answer = answer
        self._visitors: dict[socket.socket, Visitor] = {}
        self._is_woken = False
        self._rests_until = 0.0
        self._waker, self._wakeup = socket.socketpair()
        self._selector = selectors.DefaultSelector()
        for sock in (listener, self._waker, self._wakeup):
            sock.setblocking(False)
        self._selector.register(listener, selectors.EVENT_READ)
        self._selector.register(self._wakeup, selectors.EVENT_READ)

    @property
    def address(self) -> str:
        """Where it listens, as in a URL."""
        host, port = self._listener.getsockname()[:2]
        return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"

    def wake(self) -> None:
        """End the wait of :meth:`step`: what could not be answered may be known by now."""
        try:
            self._waker.send(b"w")
        except OSError:
            pass  # it is awake already, or closed

    def close(self) -> None:
        """Close everything, at once."""
        for visitor in list(self._visitors.values()):
            self._dismiss(visitor)
        self._selector.close()
        for sock in (self._listener, self._waker, self._wakeup):
            sock.close()

    def step(self, timeout: float) -> None:
        """Wait so long at most for something to do, and do it."""
        for key, _ in self._selector.select(timeout):
            if key.fileobj is self._wakeup:
                self._is_woken = bool(self._wakeup.recv(4096))
            elif key.fileobj is self._listener:
                self._accept()
            elif key.data is not None and key.fileobj in self._visitors:
                self._serve(key.data)
        now = time.monotonic()
        for visitor in list(self._visitors.values()):
            is_waiting = visitor.request is not None and not visitor.is_answered
            if is_waiting and (self._is_woken or now >= visitor.until):
                self._try_to_answer(visitor, may_wait=now < visitor.until)
            elif now >= visitor.until:
                self._dismiss(visitor)
        self._is_woken = False
        if self._rests_until and now >= self._rests_until:
            self._rests_until = 0.0
            self._selector.register(self._listener, selectors.EVENT_READ)

    def _accept(self) -> None:
        try:
            sock, _ = self._listener.accept()
        except (BlockingIOError, ConnectionAbortedError):
            return
        except OSError as error:
            logger.warning("the health port cannot take a connection: %s", error)
            self._selector.unregister(self._listener)
            self._rests_until = time.monotonic() + REST_SECONDS
            return
        sock.setblocking(False)
        if len(self._visitors) >= MOST_CONNECTIONS:
            silent = (visitor for visitor in self._visitors.values() if visitor.request is None or visitor.is_answered)
            self._dismiss(next(silent, next(iter(self._visitors.values()))))
        visitor = self._visitors[sock] = Visitor(sock, time.monotonic())
        self._selector.register(sock, selectors.EVENT_READ, visitor)

    def _serve(self, visitor: Visitor) -> None:
        try:
            if visitor.unsent:
                self._write(visitor)
            else:
                self._read(visitor)
        except BlockingIOError:
            pass
        except OSError:
            self._dismiss(visitor)

    def _read(self, visitor: Visitor) -> None:
        received = visitor.sock.recv(MOST_HEADER)
        if not received:
            self._dismiss(visitor)
        elif visitor.request is None and not visitor.is_answered:
            visitor.received += received
            self._understand(visitor)
        # What follows the request is read and forgotten: closing a socket with something unread resets the connection,
        # and the client might lose the answer.

    def _understand(self, visitor: Visitor) -> None:
        header, end, _ = visitor.received.partition(b"\r\n\r\n")
        if len(header) > MOST_HEADER:
            self._send(visitor, Response(431, b"the header is too large\n"))
        elif end:
            found = _REQUEST.match(header + b"\r\n")
            if found is None:
                self._send(visitor, Response(400, b"not a request\n"))
                return
            token = _BEARER.search(header + b"\r\n")
            path = found[2].partition(b"?")[0].decode("ascii")
            visitor.request = Request(found[1].decode("ascii"), path, token and token[1])
            visitor.until = time.monotonic() + WAIT_SECONDS
            self._try_to_answer(visitor, may_wait=True)

    def _try_to_answer(self, visitor: Visitor, *, may_wait: bool) -> None:
        assert visitor.request is not None
        try:
            response = self._answer(visitor.request, may_wait)
        except Exception:
            logger.exception("a request to the health port failed: %s", visitor.request.path[:100])
            response = Response(500, b"failed; the log says why\n")
        if response is not None:
            self._send(visitor, response)

    def _send(self, visitor: Visitor, response: Response) -> None:
        is_head = visitor.request is not None and visitor.request.method == "HEAD"
        visitor.unsent = response.dumps(with_body=not is_head)
        visitor.is_answered = True
        visitor.until = time.monotonic() + WRITE_SECONDS
        self._selector.modify(visitor.sock, selectors.EVENT_WRITE, visitor)
        self._serve(visitor)

    def _write(self, visitor: Visitor) -> None:
        visitor.unsent = visitor.unsent[visitor.sock.send(visitor.unsent) :]
        if not visitor.unsent:
            visitor.sock.shutdown(socket.SHUT_WR)
            visitor.until = time.monotonic() + LINGER_SECONDS
            self._selector.modify(visitor.sock, selectors.EVENT_READ, visitor)

    def _dismiss(self, visitor: Visitor) -> None:
        del self._visitors[visitor.sock]
        self._selector.unregister(visitor.sock)
        visitor.sock.close()


def listen(host: str, port: int) -> socket.socket:
    """A listening socket. Raises ``OSError`` when the address cannot be had."""
    family, kind, protocol, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
    sock = socket.socket(family, kind, protocol)
    try:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        sock.bind(address)
        sock.listen(MOST_CONNECTIONS)
    except OSError:
        sock.close()
        raise
    return sock
