"""These tests as an app of the workers they start."""

from __future__ import annotations

import os

from django.apps import AppConfig


class DepotsConfig(AppConfig):
    name = "tests.depots"

    def ready(self) -> None:
        """Look for lost runs as often as the test wants, which cannot wait for it as a project can."""
        from django_taskq.worker import keeper

        keeper.LOST_INTERVAL = float(os.environ.get("TASKQ_TEST_LOST_INTERVAL", keeper.LOST_INTERVAL))
