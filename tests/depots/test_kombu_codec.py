"""Messages as bodies: what is written can be read, and what cannot be read costs little and says why."""

from __future__ import annotations

import bz2
import gzip
import pickle
import tracemalloc
import uuid
import zlib
from typing import Any

import pytest
from django.core.exceptions import ImproperlyConfigured

from django_taskq.brokers.kombu.codec import Codec, Content, copy_id
from django_taskq.brokers.kombu.decompress import decompress
from django_taskq.brokers.kombu.options import parse_options
from django_taskq.conf_brokers import BrokerConfig
from django_taskq.exceptions import DepotError, SerializationError
from django_taskq.message import Tracking
from tests.unit.making import make_message


def codec(**options: Any) -> Codec:
    return Codec(parse_options(BrokerConfig("default", "amqp://", "t", options)))


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"compression": "gzip"},
        {"compression": "bzip2"},
        {"serializer": "yaml", "accept": ["json", "yaml"]},
        {"serializer": "pickle", "accept": ["pickle"], "compression": "gzip"},
    ],
    ids=str,
)
def test_what_is_written_is_read(options: dict[str, Any]) -> None:
    own = codec(**options)
    message = make_message(payload='[["žā", 1.5, null], {}]', priority=7, tracking=Tracking.END)
    parcel = own.decode(own.encode(message), "mail", 5, receipt="r", is_suspect=True)
    delivery = parcel.delivery
    assert (delivery.id, delivery.claim, delivery.payload) == (message.id, 5, message.payload)
    assert (parcel.priority, parcel.tracking, parcel.receipt, delivery.is_suspect) == (7, Tracking.END, "r", True)
    assert delivery.queue_name == message.queue_name


def test_a_copy_is_a_run_of_its_own_and_the_same_one_every_time() -> None:
    own = codec()
    message = make_message(exchange="events", routing_key="a.b")
    content = own.encode(message)
    mail, again, audit = (own.decode(content, queue) for queue in ("mail", "mail", "audit"))
    assert mail == again
    assert len({message.id, mail.delivery.id, audit.delivery.id}) == 3
    assert (mail.parent_id, mail.delivery.queue_name, mail.tracking) == (message.id, "mail", Tracking.START)
    parsed = uuid.UUID(mail.delivery.id)
    assert (parsed.version, parsed.variant) == (7, uuid.RFC_4122)
    assert parsed.int >> 80 == uuid.UUID(message.id).int >> 80
    rowless = own.decode(own.encode(make_message(exchange="events", tracking=Tracking.FAILURE)), "mail")
    assert rowless.tracking is Tracking.FAILURE
    with pytest.raises(SerializationError, match="not a UUID"):
        copy_id("x" * 36, "mail")


def test_the_content_type_is_looked_at_before_anything_is_decoded() -> None:
    class Trap:
        def __reduce__(self) -> tuple[Any, ...]:
            return pytest.fail, ("it was unpickled",)

    writer = codec(serializer="pickle", accept=["pickle"])
    content = writer.encode(make_message())
    with pytest.raises(SerializationError, match="x-python-serialize' is not accepted"):
        codec().decode(content, "mail")
    with pytest.raises(SerializationError, match="not accepted"):
        codec().decode(Content(pickle.dumps(Trap()), "application/x-python-serialize", "binary", {}), "mail")


BAD = {
    "no type": (Content(b"[]", "", "", {}), "content type '' is not accepted"),
    "broken": (Content(b"{", "application/json", "utf-8", {}), "not readable application/json: JSONDecodeError"),
    "no text": (Content(b"\xff\xfe\x00", "application/json", "utf-8", {}), "not readable"),
    "brackets": (Content(b"[" * 200_000, "application/json", "utf-8", {}), "nested too deeply"),
    "foreign": (Content(b'{"task": "x"}', "application/json", "utf-8", {}), "not of format 1"),
    "unknown compression": (
        Content(b"x", "application/json", "utf-8", {"compression": "application/x-rar"}),
        "compressed in an unknown way",
    ),
    "odd compression": (Content(b"x", "application/json", "", {"compression": 7}), "compressed in an unknown way"),
    "not compressed": (
        Content(b"not at all", "application/json", "", {"compression": "application/x-gzip"}),
        "cannot be decompressed",
    ),
    "cut off": (
        Content(zlib.compress(b"x" * 1000)[:-6], "application/json", "", {"compression": "application/x-gzip"}),
        "cut off",
    ),
}


@pytest.mark.parametrize(("content", "text"), BAD.values(), ids=BAD)
def test_what_is_wrong_is_said(content: Content, text: str) -> None:
    with pytest.raises(SerializationError, match=text):
        codec().decode(content, "mail")


def test_a_body_over_the_limit_is_refused_on_both_sides() -> None:
    small = codec(max_body=1000)
    with pytest.raises(DepotError, match="over the limit of 1000") as caught:
        small.encode(make_message(payload="x" * 1000))
    assert caught.value.is_certain
    with pytest.raises(SerializationError, match="larger than 1000 bytes"):
        small.decode(codec().encode(make_message(payload="x" * 1000)), "mail")


def bomb(wbits: int) -> bytes:
    """A gigabyte of nothing. A block after a full flush stands for itself, so it can stand there a thousand times."""
    machine = zlib.compressobj(9, zlib.DEFLATED, wbits)
    first = machine.compress(bytes(1 << 20)) + machine.flush(zlib.Z_FULL_FLUSH)
    again = machine.compress(bytes(1 << 20)) + machine.flush(zlib.Z_FULL_FLUSH)
    return first + again * 1023


BOMBS = {
    "zlib": (bomb(15), "application/x-gzip"),
    "gzip": (bomb(31), "application/x-gzip"),
    "bzip2": (bz2.compress(bytes(20 << 20)) * 50, "application/x-bz2"),
}


@pytest.mark.parametrize(("body", "method"), BOMBS.values(), ids=BOMBS)
def test_a_bomb_does_not_go_off(body: bytes, method: str) -> None:
    tracemalloc.start()
    try:
        with pytest.raises(SerializationError, match="larger than 8388608 bytes once it is decompressed"):
            decompress(body, method, 8 << 20)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < 20 << 20


def test_the_limit_itself_is_allowed() -> None:
    body = bytes(100_000)
    assert decompress(gzip.compress(body), "application/x-gzip", 100_000) == body
    with pytest.raises(SerializationError):
        decompress(gzip.compress(body), "application/x-gzip", 99_999)
    assert decompress(zlib.compress(b""), "application/x-gzip", 1) == b""


WRONG_OPTIONS: list[tuple[dict[str, Any], str]] = [
    ({"delivery_limt": 1}, 'delivery_limt.*unknown. Did you mean "delivery_limit"'),
    ({"bands": [0, 1]}, "falling whole numbers"),
    ({"bands": []}, "falling whole numbers"),
    ({"queue_type": "stream"}, '"quorum" or "classic"'),
    ({"max_body": 0}, "at least 1"),
    ({"connect_timeout": 0}, "seconds above 0"),
    ({"compression": "rar"}, '"gzip", "bzip2" or "zstd"'),
    ({"accept": "json"}, "a list of serializers"),
    ({"serializer": "pickle"}, "its workers refuse"),
    ({"ssl": {"verify": False}}, "a dict of ca_certs"),
    ({"ssl": {"cert_reqs": "perhaps"}}, "cert_reqs"),
]


@pytest.mark.parametrize(("options", "text"), WRONG_OPTIONS, ids=range(len(WRONG_OPTIONS)))
def test_a_wrong_option_is_named(options: dict[str, Any], text: str) -> None:
    with pytest.raises(ImproperlyConfigured, match=text):
        codec(**options)


def test_a_serializer_that_nobody_knows() -> None:
    with pytest.raises(ImproperlyConfigured, match="no serializer 'nonsense'"):
        codec(accept=["json", "nonsense"])
