"""Redis as a depot: each verb is one script that the server runs as a whole, so no crash can come between two steps."""

from __future__ import annotations

from importlib.util import find_spec

from django.core.exceptions import ImproperlyConfigured

if find_spec("redis") is None:
    raise ImproperlyConfigured(
        'A broker on Redis needs the Python package redis: pip install "django-kombu-taskq[redis]"'
    )

# Only now: these import that library, whose own error would not say which extra brings it.
from django_taskq.brokers.redis.depot import RedisDepot

__all__ = ["RedisDepot"]
