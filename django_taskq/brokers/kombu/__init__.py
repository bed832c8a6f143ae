"""Depots behind kombu: RabbitMQ, and as best effort whatever else kombu speaks."""

from django_taskq.brokers.kombu.depot import KombuDepot

__all__ = ["KombuDepot"]
