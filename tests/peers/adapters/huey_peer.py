"""Huey on Redis, without Django and without results."""

import os

from huey import RedisHuey
from peer_recorder import record

huey = RedisHuey("taskq-peers", url=os.environ["PEER_BROKER"], results=False)


@huey.task()
def work(number: int) -> None:
    record(number)


def send(number: int) -> None:
    work(number)
