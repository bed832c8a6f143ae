"""The HTTP of the health port, one step after the other, without threads."""

from __future__ import annotations

import socket
import threading
from collections.abc import Callable, Iterator

import pytest

from django_taskq.worker.health import http
from django_taskq.worker.health.http import HttpServer, Request, Response, listen

GET = b"GET /livez HTTP/1.1\r\nHost: x\r\n\r\n"


class Site:
    """A server and what it was asked; ``response`` None is "not known yet"."""

    def __init__(self) -> None:
        self.asked: list[Request] = []
        self.response: Response | None = Response(200, b"ok\n")
        listener = listen("127.0.0.1", 0)
        self._address = listener.getsockname()
        self.server = HttpServer(listener, self._answer)
        self._clients: list[socket.socket] = []

    def _answer(self, request: Request, may_wait: bool) -> Response | None:
        self.asked.append(request)
        return self.response or (None if may_wait else Response(503, b"too late\n"))

    def client(self, data: bytes = b"") -> socket.socket:
        """Connected, with this sent, and taken notice of."""
        made = socket.create_connection(self._address, 5)
        self._clients.append(made)
        if data:
            made.sendall(data)
        for _ in range(3):
            self.server.step(0.2)
        return made

    def close(self) -> None:
        for client in self._clients:
            client.close()
        self.server.close()


@pytest.fixture
def site() -> Iterator[Site]:
    made = Site()
    yield made
    made.close()


def answer(client: socket.socket) -> bytes:
    return b"".join(iter(lambda: client.recv(65536), b""))


def status(client: socket.socket) -> int:
    return int(answer(client).split()[1])


def test_an_answer(site: Site) -> None:
    head, _, body = answer(site.client(GET)).partition(b"\r\n\r\n")
    lines = head.decode().split("\r\n")
    assert lines[0] == "HTTP/1.1 200 OK"
    assert {"Content-Length: 3", "Connection: close", "Cache-Control: no-store"} <= set(lines)
    assert body == b"ok\n"
    assert site.asked == [Request("GET", "/livez", None)]


def test_head_has_no_body(site: Site) -> None:
    found = answer(site.client(b"HEAD /livez HTTP/1.0\r\n\r\n"))
    assert b"Content-Length: 3\r\n" in found
    assert found.endswith(b"\r\n\r\n")


def test_a_query_is_no_part_of_the_path(site: Site) -> None:
    site.client(b"GET /metrics?a=b HTTP/1.1\r\n\r\n")
    assert site.asked[0].path == "/metrics"


@pytest.mark.parametrize(
    ("line", "token"),
    [
        (b"Authorization: Bearer abc", b"abc"),
        (b"authorization:bearer  abc ", b"abc"),
        (b"Authorization: Basic abc", None),
        (b"X-Authorization: Bearer abc", None),
        (b"Authorization: Bearer a b", None),
    ],
    ids=["as usual", "lower case", "another scheme", "another header", "two words"],
)
def test_tokens(site: Site, line: bytes, token: bytes | None) -> None:
    site.client(b"GET / HTTP/1.1\r\nHost: x\r\n" + line + b"\r\n\r\n")
    assert site.asked[0].token == token


@pytest.mark.parametrize(
    ("request_", "expected"),
    [
        (b"nonsense\r\n\r\n", 400),
        (b"GET /\r\n\r\n", 400),
        (b"GET http://x/ HTTP/1.1\r\n\r\n", 400),
        (b"GET / HTTP/2.0\r\n\r\n", 400),
        (b"GET /\xff HTTP/1.1\r\n\r\n", 400),
        (b"\r\n\r\n", 400),
        (b"GET / HTTP/1.1\r\nX: " + b"x" * http.MOST_HEADER + b"\r\n\r\n", 431),
        (b"GET /" + b"x" * 2 * http.MOST_HEADER, 431),
        (b"\x16\x03\x01" + b"\x00" * 2 * http.MOST_HEADER, 431),
    ],
    ids=["nonsense", "no version", "a proxy's", "HTTP/2", "bytes", "empty", "long header", "endless line", "TLS"],
)
def test_what_is_no_request(site: Site, request_: bytes, expected: int) -> None:
    assert status(site.client(request_)) == expected
    assert site.asked == []


def test_a_request_in_pieces(site: Site) -> None:
    client = site.client()
    for number in range(len(GET)):
        client.sendall(GET[number : number + 1])
        site.server.step(0.2)
    site.server.step(0.2)
    assert status(client) == 200


def test_a_body_is_left_alone(site: Site) -> None:
    """Closing with it unread would reset the connection, and with it the answer."""
    site.response = Response(405, b"no\n")
    client = site.client(b"POST / HTTP/1.1\r\nContent-Length: 100000\r\n\r\n" + b"x" * 100_000)
    for _ in range(20):
        site.server.step(0.01)
    assert status(client) == 405


def test_who_is_slow_holds_up_nobody(site: Site) -> None:
    slow = [site.client(b"GET /liv") for _ in range(5)]
    assert status(site.client(GET)) == 200
    assert all(client.fileno() > 0 for client in slow)


def test_who_never_asks_is_sent_away(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(http, "READ_SECONDS", 0.0)
    assert answer(site.client()) == b""
    monkeypatch.undo()
    client = site.client(b"GET /liv")
    (visitor,) = site.server._visitors.values()
    visitor.until = 0.0
    site.server.step(0)
    assert answer(client) == b""


def test_who_does_not_read_is_sent_away(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(http, "WRITE_SECONDS", 0.0)
    site.response = Response(200, b"x" * 50_000_000)
    site.client(GET)
    assert not site.server._visitors


def test_the_oldest_silent_one_makes_room(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(http, "MOST_CONNECTIONS", 3)
    silent = [site.client() for _ in range(3)]
    assert status(site.client(GET)) == 200
    assert answer(silent[0]) == b""
    assert len(site.server._visitors) <= 3
    silent[2].sendall(GET)
    site.server.step(0.2)
    assert status(silent[2]) == 200


def test_an_answer_that_has_to_be_found_out(site: Site) -> None:
    site.response = None
    client = site.client(GET)
    assert len(site.asked) == 1
    site.response = Response(200, b"found\n")
    site.server.wake()
    site.server.step(0.2)
    assert answer(client).endswith(b"found\n")


def test_nobody_waits_for_ever(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(http, "WAIT_SECONDS", 0.0)
    site.response = None
    assert status(site.client(GET)) == 503


def test_waking_ends_the_wait(site: Site) -> None:
    thread = threading.Thread(target=site.server.step, args=(30,))
    thread.start()
    site.server.wake()
    thread.join(10)
    assert not thread.is_alive()


def test_waking_often_is_fine(site: Site) -> None:
    for _ in range(100_000):
        site.server.wake()
    site.server.step(0)
    site.server.close()
    site.server.wake()


def test_a_failure_is_logged_and_told(
    site: Site, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def fail(request: Request, may_wait: bool) -> Response:
        raise RuntimeError("on purpose")

    monkeypatch.setattr(site.server, "_answer", fail)
    assert status(site.client(GET)) == 500
    assert "on purpose" in caplog.text


def test_without_descriptors_it_rests(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    """The listening socket stays readable: asking it again and again would take a whole core."""

    class Exhausted:
        def accept(self) -> None:
            raise OSError(24, "too many open files")

    real = site.server._listener
    monkeypatch.setattr(http, "REST_SECONDS", 3600.0)
    monkeypatch.setattr(site.server._selector, "unregister", unregistered := Noted(site.server._selector.unregister))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(socket.socket, "accept", Exhausted.accept)
        site.client(GET)
    assert unregistered.calls == [real]
    site.server._rests_until = 0.001
    site.server.step(0)
    assert status(site.client(GET)) == 200


class Noted:
    def __init__(self, function: Callable[..., object]) -> None:
        self.calls: list[object] = []
        self._function = function

    def __call__(self, value: object) -> object:
        self.calls.append(value)
        return self._function(value)


def test_a_port_that_is_taken() -> None:
    with listen("127.0.0.1", 0) as first, pytest.raises(OSError, match="in use"):
        listen("127.0.0.1", first.getsockname()[1])
