"""dramatiq, without Django and without results: its quickest shape."""

import os

import dramatiq
from peer_recorder import record

QUEUE = "taskq-peers"
url = os.environ["PEER_BROKER"]
if url.startswith("redis"):
    from dramatiq.brokers.redis import RedisBroker

    dramatiq.set_broker(RedisBroker(url=url, namespace=QUEUE))
else:
    from dramatiq.brokers.rabbitmq import RabbitmqBroker

    # pika takes two slashes for a virtual host without a name
    dramatiq.set_broker(RabbitmqBroker(url=url.rstrip("/"), confirm_delivery=os.environ["PEER_CONFIRMS"] == "1"))


@dramatiq.actor(queue_name=QUEUE)
def work(number: int) -> None:
    record(number)


def send(number: int) -> None:
    work.send(number)
