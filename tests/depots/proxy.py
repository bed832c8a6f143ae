"""A small TCP proxy that fails on demand: between a depot and its server, it loses exactly what a test wants lost."""

from __future__ import annotations

import contextlib
import socket
import threading
from typing import Self


class Proxy:
    """Forwards to a port of this machine.

    ``hold()`` keeps what clients send from now on until ``release()``; ``lose_replies()`` forwards what they send, and
    cuts the connection instead of passing on an answer, so many times or until ``pass_all()``.
    """

    def __init__(self, port: int) -> None:
        self.target = port
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port = self._listener.getsockname()[1]
        self._may_send = threading.Event()
        self._may_send.set()
        self._left_to_lose = 0
        self._sockets: list[socket.socket] = []
        threading.Thread(target=self._accept, daemon=True).start()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc_info: object) -> None:
        self._may_send.set()
        for each in [self._listener, *self._sockets]:
            _close(each)

    def hold(self) -> None:
        self._may_send.clear()

    def release(self) -> None:
        self._may_send.set()

    def lose_replies(self, count: int = 1_000_000) -> None:
        self._left_to_lose = count

    def pass_all(self) -> None:
        self._left_to_lose = 0

    def cut(self) -> None:
        """End every connection there is."""
        for each in self._sockets:
            _close(each)

    def _accept(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                client, _ = self._listener.accept()
                server = socket.create_connection(("127.0.0.1", self.target))
                self._sockets += [client, server]
                threading.Thread(target=self._forward, args=(client, server, True), daemon=True).start()
                threading.Thread(target=self._forward, args=(server, client, False), daemon=True).start()

    def _forward(self, source: socket.socket, target: socket.socket, is_request: bool) -> None:
        with contextlib.suppress(OSError):
            while data := source.recv(65536):
                if is_request:
                    self._may_send.wait()
                elif self._left_to_lose:
                    self._left_to_lose -= 1
                    break
                target.sendall(data)
        # What a client sent last still reaches the server after the client has gone, as in a network.
        if is_request:
            with contextlib.suppress(OSError):
                target.shutdown(socket.SHUT_WR)
        else:
            _close(source)
            _close(target)


def _close(each: socket.socket) -> None:
    with contextlib.suppress(OSError):
        each.shutdown(socket.SHUT_RDWR)
    each.close()
