"""The session's database is the one that was asked for, and other processes reach it."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest
from django.contrib.auth.models import Permission, User
from django.db import connection, connections

from tests import emptying
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


@pytest.mark.django_db(transaction=True, databases=["default", "other"])
@pytest.mark.parametrize("alias", ["default", "other"])
def test_it_is_emptied_but_for_what_migrate_made(alias: str) -> None:
    kept = Permission.objects.using(alias).count()
    user = User.objects.using(alias).create(username="ann")
    user.user_permissions.add(Permission.objects.using(alias).first())
    Effect.objects.using(alias).create(name="here")
    emptying.empty(alias)
    left = [table for table in emptying.tables(alias) if is_filled(alias, table)]
    assert left == []
    assert Permission.objects.using(alias).count() == kept > 0


def is_filled(alias: str, table: str) -> bool:
    with connections[alias].cursor() as cursor:
        cursor.execute(f"SELECT 1 FROM {connections[alias].ops.quote_name(table)} LIMIT 1")
        return cursor.fetchone() is not None


def test_the_second_alias_is_sqlite() -> None:
    assert connections["other"].vendor == "sqlite"
