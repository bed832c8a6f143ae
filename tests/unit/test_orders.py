"""Orders on their way to a worker process."""

from __future__ import annotations

import multiprocessing
import os
import threading

from django_taskq.worker.child import Child
from django_taskq.worker.orders import QUEUES, RING, STOP, Order, Reader


def test_a_full_pipe_loses_no_order_but_rings() -> None:
    reader, writer = multiprocessing.Pipe(duplex=False)
    os.set_blocking(writer.fileno(), False)
    child = Child.__new__(Child)
    child._orders, child._lock, child._unsent = writer, threading.Lock(), b""
    sent = [Order(QUEUES, f'["{"x" * 1000}{number}"]') for number in range(200)]
    for order in [*sent, Order(STOP), *[Order(RING)] * 1000]:
        child.order(order)
    heard, orders = Reader(), list[Order]()
    with reader, writer:
        while len(orders) < 201:
            orders += heard.feed(os.read(reader.fileno(), 4096))
            child.flush()
    assert orders[:201] == [*sent, Order(STOP)]
