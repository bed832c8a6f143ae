"""Messages as bodies with a content type, and back. What a body claims to be is checked before anything is decoded."""

from __future__ import annotations

import hashlib
import json
import uuid
from collections.abc import Mapping
from typing import Any, NamedTuple

import kombu.compression
import kombu.serialization
from django.core.exceptions import ImproperlyConfigured

from django_taskq import envelope
from django_taskq.brokers.kombu.decompress import decompress
from django_taskq.brokers.kombu.options import Options
from django_taskq.exceptions import MessageRefused, SerializationError
from django_taskq.message import Message, Parcel, Tracking

_EXCHANGE_FIELD = 11
# kombu says that it is typed; most of it is not.
_compression: Any = kombu.compression
_serialization: Any = kombu.serialization


class Content(NamedTuple):
    """A body and how to read it."""

    body: bytes
    content_type: str
    content_encoding: str
    headers: Mapping[str, Any]


class Codec:
    """Writes with one serializer, reads those that are accepted. kombu's registry knows all but JSON, which is ours."""

    def __init__(self, options: Options) -> None:
        self.options = options
        types = _serialization.registry.name_to_type
        for name in options.accept:
            if name not in types:
                raise ImproperlyConfigured(f"kombu knows no serializer {name!r}; is its package installed?")
        if options.compression:
            try:
                _compression.get_encoder(options.compression)
            except KeyError:
                raise ImproperlyConfigured(f"The package for {options.compression} is not installed.") from None
        self._accept = {types[name] for name in options.accept}

    def encode(self, message: Message) -> Content:
        """The message as it travels. :exc:`DepotError` when no worker would take anything so large."""
        if self.options.serializer == "json":
            kind, encoding, body = envelope.CONTENT_TYPE, "utf-8", envelope.dumps(message).encode()
        else:
            fields = envelope.fields(message)
            kind, encoding, body = _serialization.dumps(fields, serializer=self.options.serializer)
            body = body.encode() if isinstance(body, str) else body
        if len(body) > self.options.max_body:
            text = f"a message of {len(body)} bytes is over the limit of {self.options.max_body} (OPTIONS['max_body'])"
            raise MessageRefused(text)
        if not self.options.compression:
            return Content(body, kind, encoding, {})
        body, method = _compression.compress(body, self.options.compression)
        return Content(body, kind, encoding, {"compression": method})

    def decode(
        self,
        content: Content,
        queue_name: str,
        claim: int = 0,
        *,
        receipt: Any = None,
        is_suspect: bool = False,
    ) -> Parcel:
        """What :meth:`encode` made, taken from ``queue_name``. Raises :exc:`SerializationError` saying what is wrong.

        What came through an exchange is one of several copies, and a run of its own: its id follows from the
        message's id and the queue, so that the same copy delivered again has the same id again.
        """
        values = self._values(content)
        parcel = envelope.parcel(values, claim, receipt=receipt, is_suspect=is_suspect)
        if not values[_EXCHANGE_FIELD]:
            return parcel
        run = parcel.delivery
        copied = run._replace(id=copy_id(run.id, queue_name), queue_name=queue_name)
        tracking = Tracking.START if parcel.tracking is Tracking.ROW else parcel.tracking
        return parcel._replace(delivery=copied, tracking=tracking, parent_id=run.id)

    def _values(self, content: Content) -> Any:
        body, kind = content.body, content.content_type
        if kind not in self._accept:
            raise SerializationError(f"the content type {kind!r:.60} is not accepted here (OPTIONS['accept'])")
        if len(body) > self.options.max_body:
            raise SerializationError(f"the message is larger than {self.options.max_body} bytes")
        if (method := content.headers.get("compression")) is not None:
            body = decompress(body, method, self.options.max_body)
        try:
            if kind == envelope.CONTENT_TYPE:
                return json.loads(body)
            return _serialization.loads(body, kind, content.content_encoding, accept={kind})
        except RecursionError:
            raise SerializationError("the message is nested too deeply to be read") from None
        except Exception as error:
            raise SerializationError(f"the message is not readable {kind:.60}: {type(error).__name__}") from error


def copy_id(id: str, queue_name: str) -> str:
    """The id of the copy of a message in one queue: the message's time, and otherwise a hash of id and queue."""
    try:
        moment = uuid.UUID(id).int >> 80
    except ValueError:
        raise SerializationError("the id of the message is not a UUID") from None
    number = int.from_bytes(hashlib.sha256(f"{id}\n{queue_name}".encode()).digest()[:10])
    # As every run's id: 48 bits of milliseconds, the version (7), 12 bits, the variant (binary 10), 62 bits.
    value = moment << 80 | 7 << 76 | (number >> 62 & 0xFFF) << 64 | 2 << 62 | number & (1 << 62) - 1
    return str(uuid.UUID(int=value))
