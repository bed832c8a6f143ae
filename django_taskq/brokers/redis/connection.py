"""Round trips to one Redis, or to the first of several that answers: deadlines, trying again, and plain errors.

Every failure ends as a :exc:`DepotError` whose text holds no password, and which says whether anything can have
happened. What is tried again by itself:

- Before anything was sent (no connection, a pooled one that turns out dead): always, it changes nothing.
- A server that refuses because it is a replica or still loading: always, it has done nothing. The next one is asked.
- Sent, but no answer: only what may be done twice (the caller says so); anything else may have happened.
"""

from __future__ import annotations

import os
import select
import time
from collections.abc import Sequence
from typing import Any

from redis.exceptions import (
    BusyLoadingError,
    ConnectionError,
    MasterDownError,
    NoPermissionError,
    NoScriptError,
    OutOfMemoryError,
    ReadOnlyError,
    RedisError,
    ResponseError,
    TimeoutError,
)

from django_taskq.brokers.redis.addresses import Address
from django_taskq.brokers.redis.scripts import Call, pack, with_text
from django_taskq.exceptions import DepotError

# More than a process has threads as a rule; the connections of a burst beyond it are closed when it is over.
MOST_IDLE = 16
# Each server is asked once, and after this pause once more: long enough for a dropped connection to be gone, short
# enough for a web request that finds no server at all.
PAUSE = 0.05
_UNFIT = (ReadOnlyError, MasterDownError, BusyLoadingError)
# Refusals that come before a script's or command's first effect; any other error may come in its middle.
_REFUSALS = (*_UNFIT, OutOfMemoryError)
_REFUSAL_WORDS = ("MISCONF", "NOREPLICAS", "BUSY ", "NOAUTH", "OOM")


class Connections:
    """The connections of one process. Any thread may use them: each round trip has one for itself.

    A forked child starts with none. It lets go of its parent's sockets without a word, since they are still in use.
    """

    def __init__(self, addresses: Sequence[Address], socket_timeout: float) -> None:
        self._addresses = addresses
        self._socket_timeout = socket_timeout
        self._current = 0
        self._pid = os.getpid()
        # Taking from and adding to the end of a list are atomic, so no lock: a fork could happen while it is held.
        self._idle: list[Any] = []

    def run(
        self,
        calls: Sequence[Call],
        *,
        also: Sequence[Call] = (),
        seconds: float | None = None,
        repeat: bool = False,
        keep_errors: bool = False,
    ) -> list[Any]:
        """The replies to ``calls``, in one round trip that also carries ``also``, whose fate does not matter.

        ``seconds`` bounds everything, connecting and trying again included. ``repeat``: it may be done twice.
        ``keep_errors``: what the server refuses is among the replies, as an exception.
        """
        deadline = time.monotonic() + (self._socket_timeout if seconds is None else seconds)
        calls, count = [*calls, *also], len(calls)
        packed = pack(calls)
        is_certain = True
        tries = 2 * len(self._addresses)
        for attempt in range(tries):
            address, sent = self._addresses[self._current], False
            try:
                connection = self._connected(address, deadline, tries - attempt)
                sent = True
                replies = self._exchange(connection, calls, packed, deadline)[:count]
            except (RedisError, OSError) as error:
                if sent:
                    self.close()  # to the same server again: it must not be left because one connection broke
                else:
                    self._move_on(address)
                has_happened = sent and not isinstance(error, BusyLoadingError)
                is_certain = is_certain and not has_happened
                if attempt == tries - 1 or time.monotonic() + PAUSE >= deadline or (has_happened and not repeat):
                    raise self._translated(error, address, is_certain) from None
            else:
                errors = [reply for reply in replies if isinstance(reply, Exception)]
                if not errors or keep_errors:
                    self._put_back(connection, address)
                    return replies
                self._release(connection, address, errors)
                # All of them refused, and none of them for good: another server, or this one a little later, may do it.
                is_unfit = len(errors) == len(replies) and all(isinstance(error, _UNFIT) for error in errors)
                if not is_unfit or attempt == tries - 1 or time.monotonic() + PAUSE >= deadline:
                    is_certain = is_certain and len(errors) == len(replies) and all(map(_is_refusal, errors))
                    raise self._translated(errors[0], address, is_certain) from None
            if attempt + 1 >= len(self._addresses):
                time.sleep(PAUSE)
        raise AssertionError("unreachable")

    def one(self, call: Call, *, seconds: float | None = None, repeat: bool = False) -> Any:
        """The reply to one call."""
        return self.run([call], seconds=seconds, repeat=repeat)[0]

    def close(self) -> None:
        """Close what is idle; a round trip under way keeps its own connection, and gives it back to a new set."""
        idle, self._idle = self._idle, []
        if self._pid == os.getpid():
            for connection in idle:
                connection.disconnect()

    def _connected(self, address: Address, deadline: float, tries: int) -> Any:
        """A connection that is alive as far as can be seen without asking, or by asking when it was long unused."""
        if self._pid != os.getpid():
            self._idle, self._pid = [], os.getpid()
        while self._idle:
            try:
                connection = self._idle.pop()
            except IndexError:  # another thread was faster
                break
            if connection.label == address.label and not _has_ended(connection):
                try:
                    connection._sock.settimeout(_left(deadline, self._socket_timeout))
                    connection.check_health()
                    return connection
                except (RedisError, OSError):
                    pass  # it was black-holed, or its server went away just now: that says nothing of a new one
            connection.disconnect()
        # Servers not asked yet get their share of the time: one that swallows everything shall not use it all.
        share = max(1, tries - len(self._addresses))
        seconds = min(_left(deadline, self._socket_timeout), _left(deadline, 3600.0) / share)
        until = time.monotonic() + seconds

        def greet(connection: Any) -> None:
            # Where there is no password to send, a stopped server would be noticed only by the command's own silence,
            # and one that loads or wants a password by its refusal: too late for another server, and uncertain.
            connection._sock.settimeout(_left(until, seconds))
            connection.on_connect()
            connection.send_command("PING", check_health=False)
            try:
                connection.read_response()
            except NoPermissionError:
                pass  # it answers

        connection = address.make(
            socket_timeout=seconds, socket_connect_timeout=seconds, redis_connect_func=greet, **address.arguments
        )
        connection.label = address.label
        connection.connect()
        return connection

    def _exchange(self, connection: Any, calls: Sequence[Call], packed: bytes, deadline: float) -> list[Any]:
        """Send the calls together and read their replies; an error of the server's stands in place of its reply."""
        try:
            replies = _talk(connection, packed, len(calls), deadline)
            unknown = [index for index, reply in enumerate(replies) if isinstance(reply, NoScriptError)]
            if unknown:
                texts = pack(with_text(calls[index]) for index in unknown)
                again = _talk(connection, texts, len(unknown), deadline)
                for index, reply in zip(unknown, again, strict=True):
                    replies[index] = reply
            return replies
        except BaseException:
            connection.disconnect()  # half an answer may still be under way
            raise

    def _put_back(self, connection: Any, address: Address) -> None:
        if self._addresses[self._current] is address and len(self._idle) < MOST_IDLE:
            self._idle.append(connection)
        else:
            connection.disconnect()

    def _release(self, connection: Any, address: Address, errors: Sequence[Exception]) -> None:
        if any(isinstance(error, _UNFIT) for error in errors):
            connection.disconnect()
            self._move_on(address)
        else:
            self._put_back(connection, address)

    def _move_on(self, address: Address) -> None:
        """This server failed: so did the other connections to it, perhaps; start with the next server from now on."""
        if self._addresses[self._current] is address:
            self._current = (self._current + 1) % len(self._addresses)
            self.close()

    def _translated(self, error: BaseException, address: Address, is_certain: bool) -> DepotError:
        # What follows says where in a script of ours it was; nobody who reads the error can do anything with that.
        text = " ".join(str(error).split()).partition(" script: ")[0] or type(error).__name__
        for secret in (secret for each in self._addresses for secret in each.secrets):
            text = text.replace(secret, "***")
        return DepotError(f"Redis at {address.label}: {text[:500]}", is_certain=is_certain)


def _talk(connection: Any, packed: bytes, count: int, deadline: float) -> list[Any]:
    connection._sock.settimeout(_left(deadline, 3600.0))
    connection.send_packed_command([packed], check_health=False)
    replies: list[Any] = []
    for _ in range(count):
        if replies:
            connection._sock.settimeout(_left(deadline, 3600.0))
        try:
            replies.append(connection.read_response())
        except ConnectionError as error:
            # The library takes LOADING for a broken connection, which it is not; it cannot come after a real reply.
            if replies and isinstance(error, BusyLoadingError):
                raise ConnectionError("the server began to load its data") from None
            raise
        except ResponseError as error:
            replies.append(error)
    return replies


def _left(deadline: float, most: float) -> float:
    seconds = min(deadline - time.monotonic(), most)
    if seconds <= 0:
        raise TimeoutError("no answer in time")
    return seconds


def _has_ended(connection: Any) -> bool:
    """Whether the server closed it, or says something nobody asked for: a look that costs a microsecond."""
    if connection._sock is None:
        return True
    poll = select.poll()
    poll.register(connection._sock, select.POLLIN)
    return bool(poll.poll(0))


def _is_refusal(error: Exception) -> bool:
    return isinstance(error, _REFUSALS) or str(error).startswith(_REFUSAL_WORDS)
