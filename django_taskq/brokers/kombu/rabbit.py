"""The depot on RabbitMQ: publishing, taking and looking, put together."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from typing import Any, TypeVar

import amqp

from django_taskq.brokers.depot import DepotCapabilities, Finding
from django_taskq.brokers.kombu.connection import Dialer, describe
from django_taskq.brokers.kombu.consumer import Consumer, Receipt
from django_taskq.brokers.kombu.dead import DeadLetters, content_of
from django_taskq.brokers.kombu.depot import KombuDepot
from django_taskq.brokers.kombu.line import Line
from django_taskq.brokers.kombu.publisher import Letter, Publisher
from django_taskq.brokers.kombu.suspects import Handed
from django_taskq.brokers.kombu.topology import explaining
from django_taskq.brokers.kombu.wire import Incoming
from django_taskq.conf_exchanges import Binding, ExchangeConfig
from django_taskq.exceptions import DepotError, SerializationError
from django_taskq.message import Message, Parcel

Value = TypeVar("Value")


class RabbitDepot(KombuDepot):
    """See :class:`~.depot.KombuDepot`. The end of a connection gives back what was held on it.

    What another process gave back, for whatever reason, is suspect: the server tells no more.
    """

    sends_ahead = True

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.capabilities = DepotCapabilities(
            priority_levels=len(self.options.bands),
            is_shared=True,
            knows_holders=False,
            has_exchanges=True,
            refuses_doubles=False,
            can_peek=False,
        )
        dialer = Dialer(self.config.url, self.options)
        self._publisher = Publisher(dialer)
        self._consumer = Consumer(dialer, self.topology, self.options.socket_timeout, self._renew)
        self._dead = DeadLetters(self._publisher, self.topology, self.codec, self.options.socket_timeout)

    # Asking for work.

    def publish(self, messages: Sequence[Message]) -> None:
        topology = self.topology
        letters = [self._letter(message) for message in messages]
        routes = {(each.exchange, each.queue_name, topology.band(each.priority)): each.priority for each in messages}

        def declare(channel: Any) -> None:
            for (exchange, queue_name, _), priority in routes.items():
                topology.declare_route(channel, exchange, queue_name, priority)

        def forget(letter: Letter) -> None:
            topology.forget(f"exchange {letter.exchange}" if letter.exchange else letter.routing_key)
            if letter.exchange:
                # Its binding may have gone with a queue.
                topology.forget()

        if letters:
            self._publisher.post(letters, self.timeout, declare, forget)

    def _letter(self, message: Message) -> Letter:
        content = self.codec.encode(message)
        if message.exchange is not None:
            return Letter(message.id, self.topology.server_exchange(message.exchange), message.routing_key, content)
        target = self.topology.server_queue(message.queue_name, self.topology.band(message.priority))
        return Letter(message.id, "", target, content)

    # Doing work.

    def queues_with_work(self, queue_names: Sequence[str]) -> list[str]:
        return self._consumer.with_work(queue_names)

    def take(self, queue_name: str, limit: int, process_id: int, first_claim: int) -> list[Parcel]:
        parcels: list[Parcel] = []
        refused: list[tuple[Line, Incoming, str]] = []
        # Again when some could not be read, so that they are not between a worker and its work.
        while found := self._consumer.take(queue_name, limit - len(parcels)):
            for line, delivery in found:
                try:
                    parcels.append(self._parcel(line, delivery, queue_name, first_claim + len(parcels)))
                except SerializationError as error:
                    refused.append((line, delivery, str(error)))
            if len(parcels) == limit or not refused:
                break
        if refused:
            self._refuse(queue_name, refused)
        return parcels

    def _parcel(self, line: Line, delivery: Incoming, queue_name: str, claim: int) -> Parcel:
        if not delivery.is_whole:
            raise SerializationError(f"the message is larger than {self.options.max_body} bytes")
        try:
            content = content_of(delivery.properties(), delivery)
        except Exception as error:
            raise SerializationError(f"its properties are not readable: {type(error).__name__}") from error
        receipt = Receipt(line.serial, delivery.tag)
        is_suspect = self._consumer.is_suspect(line, delivery)
        return self.codec.decode(content, queue_name, claim, receipt=receipt, is_suspect=is_suspect)

    def _refuse(self, queue_name: str, refused: Sequence[tuple[Line, Incoming, str]]) -> None:
        """Move them to the dead letters. What is too large to be here goes there without passing through us."""
        reasons: list[str] = []
        try:
            for line, delivery, reason in refused:
                if not delivery.is_whole:
                    self._consumer.refuse(line, delivery)
                    reasons.append(reason)
            if parked := [each for each in refused if each[1].is_whole]:
                self._park(parked)
                reasons += [reason for _, _, reason in parked]
        finally:
            self.report_dead(queue_name, reasons)

    def _park(self, parked: Sequence[tuple[Line, Incoming, str]]) -> None:
        receipts = [Receipt(line.serial, delivery.tag) for line, delivery, _ in parked]
        try:
            self._dead.park([(line.server_queue, delivery, reason) for line, delivery, reason in parked])
        except DepotError:
            self._consumer.settle(receipts, is_done=False)
            raise
        self._consumer.settle(receipts, is_done=True)

    def drop(self, process_id: int, parcels: Sequence[Parcel]) -> None:
        self._consumer.settle((parcel.receipt for parcel in parcels), is_done=True)

    def give_back(self, process_id: int, parcels: Sequence[Parcel]) -> int:
        return self._consumer.settle((parcel.receipt for parcel in parcels), is_done=False)

    def _renew(self, server_queue: str, worn: Sequence[Handed]) -> None:
        """Publish them once more, with a new count: at the end of their queue, and suspects if they are suspects."""
        letters = []
        for handed in worn:
            if handed.delivery is not None:
                content = content_of(handed.delivery.properties(), handed.delivery)
                headers = {key: value for key, value in content.headers.items() if not key.startswith("x-")}
                headers |= {"taskq-suspect": True} if handed.is_suspect else {}
                letters.append(Letter(handed.id, "", server_queue, content._replace(headers=headers)))
        self._publisher.post(letters, self.timeout, lambda channel: None, lambda letter: None)

    def pause(self) -> None:
        self._consumer.pause()

    def filenos(self) -> list[int]:
        fileno = self._consumer.fileno()
        return [] if fileno is None else [fileno]

    # For people.

    def purge(self, queue_name: str) -> int:
        return self._for_each_band(queue_name, lambda channel, name: channel.queue_purge(name))

    def size(self, queue_name: str) -> int:
        return self._for_each_band(queue_name, lambda channel, name: _declared(channel, name).message_count)

    def _for_each_band(self, queue_name: str, ask: Callable[[Any, str], int]) -> int:
        count = 0
        with self._publisher.borrowed(self.options.socket_timeout) as line:
            for name in self.topology.server_queues(queue_name):
                try:
                    count += ask(line.link.side_channel(), name)
                except amqp.NotFound:
                    pass  # nobody has used it yet
        return count

    def check(self) -> list[Finding]:
        found = []
        with self._publisher.borrowed(self.options.socket_timeout) as line:
            properties = line.link.connection.server_properties
            product, version = str(properties.get("product", "?")), str(properties.get("version", "?"))
            found.append(Finding("info", f"{line.link.address.name} is {product} {version}."))
            try:
                self.topology.forget(self.topology.dead_queue)
                self.topology.declare_dead_queue(line.link.side_channel())
            except DepotError as error:
                found.append(Finding("error", str(error), self._rights()))
        try:
            # Publishing needs one right more, and an alarm is told to nobody else.
            with self._publisher.borrowed(self.options.socket_timeout, to_publish=True):
                pass
        except DepotError as error:
            found.append(Finding("error" if "ACCESS_REFUSED" in str(error) else "warning", str(error), self._rights()))
        is_known = product == "RabbitMQ" and version.partition(".")[0].isdigit()
        if is_known and tuple(int(part) for part in version.split(".")[:2] if part.isdigit()) < (3, 8):
            found.append(Finding("error", f"RabbitMQ {version} has no quorum queues.", "Use 3.10 or newer."))
        if self.options.queue_type == "classic":
            text = "OPTIONS['queue_type'] is 'classic': a queue is on one node, and lost with its disk."
            found.append(Finding("warning", text, "Use quorum queues; their delivery limit stops poison as well."))
        else:
            text = "Quorum queues are as safe as the number of nodes that keep them; on a single node, as its disk."
            found.append(Finding("info", text, "Three nodes or more survive the loss of one."))
        return found

    def _rights(self) -> str:
        own = rf"{re.escape(self.config.prefix)}\."
        return rf"The user needs the rights configure ^{own}, write ^({own}|amq\.default$) and read ^{own}"

    # At run time.

    def declare_exchange(self, exchange: ExchangeConfig) -> None:
        self.topology.exchanges[exchange.name] = exchange
        self.topology.forget(f"exchange {self.topology.server_exchange(exchange.name)}")
        self._ask(lambda channel: self.topology.declare_exchange(channel, exchange))

    def bind(self, exchange: str, queue_name: str, routing_key: str = "") -> None:
        self._ask(lambda channel: self.topology.bind(channel, exchange, Binding(queue_name, routing_key)))

    def unbind(self, exchange: str, queue_name: str, routing_key: str = "") -> None:
        queue = self.topology.server_queue(queue_name, self.topology.plain_band)
        name = self.topology.server_exchange(exchange)
        with explaining(f"unbinding {queue} from the exchange {name}"):
            self._ask(lambda channel: channel.queue_unbind(queue, name, routing_key))

    def delete_exchange(self, name: str) -> None:
        self.topology.exchanges.pop(name, None)
        self.topology.forget(f"exchange {self.topology.server_exchange(name)}")
        self._ask(lambda channel: channel.exchange_delete(self.topology.server_exchange(name)))

    def _delete_bands(self, queue_name: str) -> None:
        for name in self.topology.server_queues(queue_name):
            self.topology.forget(name)
        self._for_each_band(queue_name, lambda channel, name: channel.queue_delete(name))

    def _ask(self, question: Callable[[Any], Value]) -> Value:
        with self._publisher.borrowed(self.options.socket_timeout) as line:
            try:
                return question(line.link.side_channel())
            except amqp.ChannelError as error:
                raise DepotError(f"the server refused: {describe(error)}", is_certain=True) from error

    def close(self) -> None:
        self._consumer.close()
        self._publisher.close()


def _declared(channel: Any, name: str) -> Any:
    return channel.queue_declare(name, passive=True)
