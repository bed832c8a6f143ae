"""These tests as an app of the workers that are to die at a crash point."""

from __future__ import annotations

from django.apps import AppConfig


class FaultsConfig(AppConfig):
    name = "tests.faults"

    def ready(self) -> None:
        """Build the crash points in, and wait for less time than a project can: for pruning, for what the dead held."""
        from django_taskq.brokers import outbox, sending
        from django_taskq.worker import keeper, scheduling
        from tests.faults import crash_points

        keeper.PRUNE_INTERVAL = 0.5
        outbox.GRACE = sending.GRACE = 1.0
        scheduling.LEASE, scheduling.RENEW_INTERVAL, scheduling.STANDBY_INTERVAL = 2.0, 0.5, 0.2
        crash_points.install()
