"""The session's database is the one that was asked for, and other processes reach it."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest
from django.db import connection, connections

from tests.testapp.models import Effect

pytestmark = pytest.mark.database


@pytest.mark.django_db
def test_it_is_the_one_asked_for() -> None:
    assert connection.vendor == os.environ.get("TASKQ_TEST_DB", "sqlite")
    if connection.vendor == "sqlite":
        with connection.cursor() as cursor:
            cursor.execute("PRAGMA journal_mode")
            assert cursor.fetchone() == ("wal",)


@pytest.mark.django_db(transaction=True, databases=["default", "other"])
def test_another_process_sees_what_is_committed(worker_env: dict[str, str]) -> None:
    Effect.objects.create(name="here")
    Effect.objects.using("other").create(name="there")
    code = """
import django
django.setup()
from tests.testapp.models import Effect
print(Effect.objects.get().name, Effect.objects.using("other").get().name)
Effect.objects.create(name="from the other process")
"""
    done = subprocess.run([sys.executable, "-c", code], env=worker_env, capture_output=True, text=True, check=False)
    assert done.stdout == "here there\n", done.stderr
    assert Effect.objects.count() == 2


def test_the_second_alias_is_sqlite() -> None:
    assert connections["other"].vendor == "sqlite"
