"""What the test tasks leave behind, so that tests can count effects apart from task records."""

import os

from django.db import models


def current_pid() -> int:
    return os.getpid()  # a function of ours: migrations would call os.getpid by the name of its platform


class Effect(models.Model):
    """One thing a task did. Nothing is unique here: doing it twice must show."""

    name = models.CharField(max_length=200, db_index=True)
    value = models.JSONField(null=True)
    pid = models.IntegerField(default=current_pid)
    created_at = models.DateTimeField(auto_now_add=True)

    def __str__(self) -> str:
        return self.name
