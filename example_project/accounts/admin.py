"""The admin's list of users with one more action: what a web request should do with slow work."""

from __future__ import annotations

from django.contrib import admin, messages
from django.contrib.admin.models import CHANGE, LogEntry
from django.contrib.auth.admin import UserAdmin as DjangoUserAdmin
from django.contrib.auth.models import User
from django.db import transaction
from django.db.models import QuerySet
from django.http import HttpRequest
from django.utils.translation import ngettext

from accounts.tasks import send_password_reset

admin.site.unregister(User)


@admin.register(User)
class UserAdmin(DjangoUserAdmin):
    actions = ["send_password_reset"]

    @admin.action(permissions=["change"], description="Send password-reset e-mails to selected users")
    def send_password_reset(self, request: HttpRequest, queryset: QuerySet[User]) -> None:
        """Note it in each user's history and have the e-mails sent: both or neither.

        No ``transaction.on_commit`` is needed. A run is a row in this database, which no worker sees before it is
        committed, and which is gone when the transaction is rolled back.
        """
        reachable = queryset.filter(is_active=True).exclude(email="")
        with transaction.atomic():
            users = list(reachable)
            LogEntry.objects.log_actions(request.user.pk, users, CHANGE, "Password-reset e-mail requested.")
            send_password_reset.enqueue_many(((user.pk,), {}) for user in users)
        left_out = queryset.count() - len(users)
        if users:
            text = ngettext("%d e-mail is on its way.", "%d e-mails are on their way.", len(users)) % len(users)
            self.message_user(request, text, messages.SUCCESS)
        if left_out:
            text = (
                ngettext(
                    "%d user has no address, or is not active.",
                    "%d users have no address, or are not active.",
                    left_out,
                )
                % left_out
            )
            self.message_user(request, text, messages.WARNING)
