"""Rows that the admin shows and does not edit: what changes them are verbs with permissions of their own."""

from __future__ import annotations

from typing import Any

from django.http import HttpRequest


class OnlyLookedAt:
    """For a ``ModelAdmin``: Django's own forms neither add nor change nor delete these rows."""

    def has_add_permission(self, request: HttpRequest) -> bool:
        """Nobody may."""
        return False

    def has_change_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        """Nobody may."""
        return False

    def has_delete_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        """Nobody may."""
        return False
