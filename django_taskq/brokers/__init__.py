"""Which broker keeps the work: one instance for the process, made from the settings when first needed."""

from __future__ import annotations

from functools import lru_cache

from django.core.signals import setting_changed
from django.utils.module_loading import import_string

from django_taskq import conf
from django_taskq.brokers.base import Broker
from django_taskq.brokers.depot import Depot
from django_taskq.conf_brokers import DEFAULT_BROKER, REDIS_SCHEMES, BrokerConfig
from django_taskq.message import EXCHANGE

# By dotted path: a broker may import models, and the modules that ask for work load before the app registry is ready;
# and nobody loads the client of a server that the project does not use.
_DATABASE = "django_taskq.brokers.database.DatabaseBroker"
_MIXED = "django_taskq.brokers.mixed.MixedBroker"
_REDIS = "django_taskq.brokers.redis.RedisDepot"
_KOMBU = "django_taskq.brokers.kombu.KombuDepot"


@lru_cache(maxsize=1)
def get_broker() -> Broker:
    """The broker of this project: its rows, and where queues are kept elsewhere, the depots with them."""
    depots = get_depots()
    # An eager run never leaves the process, so it never leaves the database either.
    if not depots or conf.get_settings().eager:
        return get_rows()
    mixed: Broker = import_string(_MIXED)(get_rows(), depots, alias_of)
    return mixed


@lru_cache(maxsize=1)
def get_rows() -> Broker:
    """The rows alone as a broker, wherever queues are kept: READY rows are claimed without asking a depot."""
    rows: Broker = import_string(_DATABASE)(conf.get_settings().database)
    return rows


@lru_cache(maxsize=1)
def get_depots() -> dict[str, Depot]:
    """The depots of this project by broker alias; none where everything is in the database."""
    settings = conf.get_settings()
    configs = [settings.broker(alias) for alias in settings.broker_aliases()]
    return {config.alias: make_depot(config) for config in configs if not config.is_database}


def make_depot(config: BrokerConfig) -> Depot:
    """A depot for one broker's configuration. Raises ``ImproperlyConfigured`` for options it does not know."""
    settings = conf.get_settings()
    if config.scheme in REDIS_SCHEMES:
        depot: Depot = import_string(_REDIS)(config, settings.enqueue_timeout)
        return depot
    queues = {name: queue.arguments for name, queue in settings.queues.items() if queue.broker == config.alias}
    exchanges = {name: each for name, each in settings.exchanges.items() if each.broker == config.alias}
    depot = import_string(_KOMBU)(config, settings.enqueue_timeout, queues=queues, exchanges=exchanges)
    return depot


def alias_of(queue_name: str) -> str:
    """The alias of the broker that keeps a queue, or an exchange where it is named as one."""
    settings = conf.get_settings()
    if queue_name.startswith(EXCHANGE):
        exchange = settings.exchanges.get(queue_name.removeprefix(EXCHANGE))
        return exchange.broker if exchange else DEFAULT_BROKER
    queue = settings.queues.get(queue_name)
    return queue.broker if queue else DEFAULT_BROKER


def _forget(*, setting: str, **kwargs: object) -> None:
    if setting in ("TASKQ", "DATABASES"):
        for depot in get_depots().values() if get_depots.cache_info().currsize else ():
            depot.close()
        get_broker.cache_clear()
        get_rows.cache_clear()
        get_depots.cache_clear()


setting_changed.connect(_forget, dispatch_uid="django_taskq.brokers")
