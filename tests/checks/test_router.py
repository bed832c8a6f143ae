"""``TaskqRouter``: this app's rows on ``TASKQ["DATABASE"]``, and nothing else."""

from __future__ import annotations

from typing import Any

import pytest
from django.contrib.auth.models import User
from django.db import connections, router

from django_taskq.models import TaskAttempt, TaskRecord, Worker
from tests.testapp.models import Effect
from tests.testapp.tasks import add

OURS, OTHERS = (TaskRecord, TaskAttempt, Worker), (User, Effect)


@pytest.fixture(params=["default", "other"])
def alias(request: pytest.FixtureRequest, settings: Any) -> str:
    settings.DATABASE_ROUTERS = ["django_taskq.router.TaskqRouter"]
    settings.TASKQ = {"DATABASE": request.param}
    return str(request.param)


@pytest.mark.parametrize("model", OURS)
def test_its_own_models_live_on_their_database(alias: str, model: Any) -> None:
    assert {router.db_for_read(model), router.db_for_write(model)} == {alias}
    assert [name for name in connections if router.allow_migrate_model(name, model)] == [alias]


@pytest.mark.parametrize("model", OTHERS)
def test_other_models_are_none_of_its_business(alias: str, model: Any) -> None:
    assert {router.db_for_read(model), router.db_for_write(model)} == {"default"}
    assert all(router.allow_migrate_model(name, model) for name in connections)


def test_relations(alias: str) -> None:
    assert router.allow_relation(TaskRecord(), TaskAttempt())
    ours, theirs = TaskRecord(), User()
    ours._state.db, theirs._state.db = "other", "default"
    assert not router.allow_relation(ours, theirs)


@pytest.mark.django_db(databases=["default", "other"])
def test_a_run_goes_where_its_tables_are(alias: str) -> None:
    result = add.enqueue(1, 2)
    assert TaskRecord.objects.using(alias).filter(pk=result.id).exists()
    assert TaskRecord.objects.filter(pk=result.id).exists()
