"""The benchmark as an app: installed by the settings it generates for itself, and by no project."""

from __future__ import annotations

from django.apps import AppConfig


class BenchConfig(AppConfig):
    """Exists so that workers discover :mod:`django_taskq.bench.tasks`; it has no models."""

    name = "django_taskq.bench"
    label = "taskq_bench"
