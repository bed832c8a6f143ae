from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest
from django.db import connection
from django.test import override_settings

from django_taskq import maintenance
from django_taskq.brokers import alias_of, make_depot
from django_taskq.brokers.database import DatabaseBroker
from django_taskq.brokers.memory import MemoryBroker
from django_taskq.brokers.mixed import MixedBroker
from django_taskq.conf import get_settings
from tests.conformance.bed import Bed
from tests.conformance.memory_depot import MemoryDepot
from tests.conformance.patient import PatientBroker
from tests.depots.workers_bed import on_url, shared_rabbitmq


def database_bed() -> Bed:
    return Bed(DatabaseBroker("default"), maintenance.promote_due)


@contextmanager
def in_memory(request: pytest.FixtureRequest) -> Iterator[Bed]:
    yield Bed(MemoryBroker())


@contextmanager
def in_database(request: pytest.FixtureRequest) -> Iterator[Bed]:
    yield database_bed()


@contextmanager
def in_memory_depot(request: pytest.FixtureRequest) -> Iterator[Bed]:
    """Rows and a depot that cannot fail, but on demand."""
    with override_settings(TASKQ={"BROKER_URL": "memory://"}):
        yield mixed_bed(MixedBroker(DatabaseBroker("default"), {"default": MemoryDepot()}, lambda name: "default"))


@contextmanager
def on_redis(request: pytest.FixtureRequest) -> Iterator[Bed]:
    with on_server(request.getfixturevalue("redis_server").url, MixedBroker) as bed:
        yield bed


@contextmanager
def on_rabbitmq(request: pytest.FixtureRequest) -> Iterator[Bed]:
    with on_server(shared_rabbitmq(request.config).url, PatientBroker) as bed:
        bed.keeps_places = False
        yield bed


@contextmanager
def on_server(url: str, kind: type[MixedBroker]) -> Iterator[Bed]:
    """Rows, and a server with nothing of anybody else's under the prefix of this test."""
    made: list[MixedBroker] = []

    def make() -> MixedBroker:
        made.append(
            kind(DatabaseBroker("default"), {"default": make_depot(get_settings().broker("default"))}, alias_of)
        )
        return made[-1]

    settings = on_url(url)
    with override_settings(TASKQ=settings):
        bed = mixed_bed(make())
        bed.make, bed.settings = make, settings
        yield bed
        for broker in made:
            broker.close()


def mixed_bed(broker: MixedBroker) -> Bed:
    def promote() -> None:
        maintenance.promote_due()
        broker.outbox.relay()

    return Bed(broker, promote)


# Every broker the suite runs on; the database is the one of this session. What publishes after a commit has to commit.
BEDS: dict[str, Callable[[pytest.FixtureRequest], Any]] = {
    "memory": in_memory,
    "database": in_database,
    "memory-depot": in_memory_depot,
    "redis": on_redis,
    "rabbitmq": on_rabbitmq,
}
WITHOUT_COMMITS = {"database": [pytest.mark.django_db], "memory": []}
WITH_COMMITS = [pytest.mark.django_db(transaction=True)]
# What they do to the database the others do as well.
ONE_DATABASE = {"memory", "rabbitmq"}


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """``bed`` is in a transaction of its test where it can be; what is put into ``shared_bed`` is committed."""
    for fixture, own in (("bed", WITHOUT_COMMITS), ("shared_bed", {"memory": []})):
        if fixture in metafunc.fixturenames:
            marks = {name: [pytest.mark.one_database] * (name in ONE_DATABASE) for name in BEDS}
            beds = [pytest.param(name, marks=own.get(name, WITH_COMMITS) + marks[name]) for name in BEDS]
            metafunc.parametrize(fixture, beds, indirect=True)


@pytest.fixture
def bed(request: pytest.FixtureRequest) -> Iterator[Bed]:
    with BEDS[request.param](request) as bed:
        yield bed


@pytest.fixture
def shared_bed(request: pytest.FixtureRequest) -> Iterator[Bed]:
    with BEDS[request.param](request) as bed:
        yield bed


@pytest.fixture
def rows(db: None) -> Bed:
    """The database broker, for what only rows can show."""
    return database_bed()


@pytest.fixture
def committed_rows(transactional_db: None) -> Bed:
    """The same, for what several connections see."""
    return database_bed()


@pytest.fixture
def is_postgresql() -> bool:
    return connection.vendor == "postgresql"
