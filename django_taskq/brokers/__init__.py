"""Which broker keeps the work: one instance for the process, made from ``TASKQ["BROKER_URL"]`` when first needed."""

from __future__ import annotations

from functools import lru_cache

from django.core.signals import setting_changed
from django.utils.module_loading import import_string

from django_taskq import conf
from django_taskq.brokers.base import Broker

# By dotted path: a broker may import models, and the modules that ask for work load before the app registry is ready.
_CLASSES = {"database": "django_taskq.brokers.database.DatabaseBroker"}


@lru_cache(maxsize=1)
def get_broker() -> Broker:
    """The broker of this project."""
    settings = conf.get_settings()
    broker: Broker = import_string(_CLASSES[settings.broker_url.partition("://")[0]])(settings.database)
    return broker


def _forget(*, setting: str, **kwargs: object) -> None:
    if setting in ("TASKQ", "DATABASES"):
        get_broker.cache_clear()


setting_changed.connect(_forget, dispatch_uid="django_taskq.brokers")
