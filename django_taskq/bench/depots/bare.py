"""The bare clients: how they connect; and as a script, the smallest possible worker on a server.

Imports nothing but the client. The script reads one line of JSON, takes one message at a time, writes the
time at which it got it as a line of its standard output, and goes on until it is killed.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable
from importlib import import_module
from typing import Any

TIMEOUT = 30.0
CONNECT_TIMEOUT = 5.0


def redis_client(access: dict[str, Any]) -> Any:
    """The first server that answers."""
    import redis

    options = {"socket_timeout": TIMEOUT, "socket_connect_timeout": CONNECT_TIMEOUT, **access["options"]}
    *others, last = access["urls"]
    for url in others:
        client = redis.Redis.from_url(url, **options)
        try:
            client.ping()
        except redis.RedisError:
            continue
        return client
    return redis.Redis.from_url(last, **options)


def kombu_connection(access: dict[str, Any], *, confirms: bool = False) -> Any:
    """kombu's own connection; with ``confirms``, a publish on AMQP returns when the server has confirmed it."""
    options = dict(access["options"])
    if access["is_amqp"]:
        options["confirm_publish"] = confirms
    return _kombu().Connection(
        access["url"],
        ssl=access["ssl"] or False,
        connect_timeout=CONNECT_TIMEOUT,
        transport_options=options,
        heartbeat=0,
    )


def kombu_queue(access: dict[str, Any]) -> Any:
    """The raw queue, of the type that the measured queues have."""
    arguments = {"x-queue-type": access["queue_type"]} if access["is_amqp"] else None
    return _kombu().Queue(access["name"], routing_key=access["name"], durable=True, queue_arguments=arguments)


def serve_redis(access: dict[str, Any], note: Callable[[], None]) -> None:
    """Waits in a blocking pop."""
    client = redis_client(access)
    while True:
        if client.blpop([access["name"]], timeout=TIMEOUT / 2):
            note()


def serve_kombu(access: dict[str, Any], note: Callable[[], None]) -> None:
    """Waits at the socket, where there is one."""

    def take(message: Any) -> None:
        note()
        message.ack()

    connection = kombu_connection(access)
    with _kombu().Consumer(connection.channel(), [kombu_queue(access)], on_message=take, prefetch_count=1):
        while True:
            try:
                connection.drain_events(timeout=TIMEOUT)
            except TimeoutError:
                pass  # nothing came


def _kombu() -> Any:
    """By name: kombu says that it is typed, and most of it is not."""
    return import_module("kombu")


def main() -> None:
    """Serve until killed."""
    access = json.loads(sys.stdin.readline())
    serve = serve_redis if access["kind"] == "redis" else serve_kombu
    serve(access, lambda: print(repr(time.time()), flush=True))


if __name__ == "__main__":
    main()
