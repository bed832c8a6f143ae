"""What a call that is to be unique brings to the rows, and what it learns there."""

from __future__ import annotations

from typing import NamedTuple

from django_taskq.message import Message
from django_taskq.status import Status
from django_taskq.unique_options import Unique

# In the headers, as text, of a run with a key; and of one whose arguments are no longer those of its message.
KEYED = '"unique":'
REPLACED = '"replaced":'


class KeyedCall(NamedTuple):
    """A call whose run is to have ``key`` for itself."""

    message: Message
    key: str
    rule: Unique


class Holder(NamedTuple):
    """The run that has a key, as it was found there: what a duplicate gets a handle on."""

    id: str
    status: Status


class Decision(NamedTuple):
    """What becomes of calls with keys, by the ids of their messages: stored as they stand here, or a duplicate."""

    stored: dict[str, Message]
    duplicates: dict[str, Holder]
