"""One e-mail, one task."""

from __future__ import annotations

from django.conf import settings
from django.contrib.auth import get_user_model
from django.contrib.auth.tokens import default_token_generator
from django.core.mail import send_mail
from django.urls import reverse
from django.utils.encoding import force_bytes
from django.utils.http import urlsafe_base64_encode

from django_taskq import task


@task(queue_name="mail", autoretry_for=(OSError,), retry_backoff=30, max_retries=5, time_limit=60)
def send_password_reset(user_id: int) -> str:
    """Send a link for choosing a new password, and return the address it went to.

    A mail server that is away (every SMTP error is an ``OSError``) is tried again in 30 seconds, then in 60, and so
    on. The link is made here, when the e-mail is written, so that it is good for as long as it says.

    Nothing can promise that an e-mail is sent exactly once: a crash between the server's "accepted" and our record of
    it means a second one. That is the side to err on here; where it is not, see ``acks_late=False``.
    """
    user = get_user_model().objects.get(pk=user_id)
    uid, token = urlsafe_base64_encode(force_bytes(user.pk)), default_token_generator.make_token(user)
    link = settings.SITE_URL + reverse("password_reset_confirm", args=[uid, token])
    send_mail("Choose a new password", f"Hello {user},\n\nplease follow this link:\n\n{link}\n", None, [user.email])
    return user.email
