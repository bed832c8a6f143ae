"""Everything that may wake the courier, on one selector: a finished run, an order of the supervisor, the broker."""

from __future__ import annotations

import os
import selectors
from collections.abc import Sequence


class Ears:
    """``orders`` is the file descriptor of the supervisor's pipe. :meth:`wake` is for other threads."""

    def __init__(self, orders: int) -> None:
        self._orders = orders
        self._sending: list[int] = []
        self._wake_reader, self._wake_writer = os.pipe()
        os.set_blocking(self._wake_reader, False)
        self._selector = selectors.DefaultSelector()
        self._selector.register(self._wake_reader, selectors.EVENT_READ)
        self._selector.register(orders, selectors.EVENT_READ)

    def wake(self) -> None:
        """End the wait that is going on, or the next one; safe in a signal handler."""
        os.write(self._wake_writer, b"w")

    def listen(self, timeout: float, senders: Sequence[int]) -> tuple[bytes | None, bool]:
        """Wait for so many seconds at most: the orders heard (None: nothing; empty: the supervisor is gone), and
        whether one of ``senders``, the broker's descriptors, has sent something."""
        # Each time anew: a new connection may have the number of one that was closed, of which nothing is heard.
        for fileno in self._sending:
            self._selector.unregister(fileno)
        self._sending = list(senders)
        for fileno in self._sending:
            self._selector.register(fileno, selectors.EVENT_READ)
        orders, has_sent = None, False
        for key, _ in self._selector.select(timeout):
            if key.fd == self._orders:
                orders = os.read(self._orders, 4096)
            elif key.fd == self._wake_reader:
                os.read(self._wake_reader, 4096)
            else:
                has_sent = True
        return orders, has_sent
