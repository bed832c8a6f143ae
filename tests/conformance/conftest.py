from __future__ import annotations

import pytest
from django.db import connection

from django_taskq import maintenance
from django_taskq.brokers.database import DatabaseBroker
from django_taskq.brokers.memory import MemoryBroker
from tests.conformance.bed import Bed


def database_bed() -> Bed:
    return Bed(DatabaseBroker("default"), maintenance.promote_due)


# Every broker the suite runs on; the database is the one of this session.
BEDS = {"memory": lambda: Bed(MemoryBroker()), "database": database_bed}


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """``bed`` is in a transaction of its test; what is put into ``shared_bed`` is committed for others to see."""
    for fixture, mark in (("bed", pytest.mark.django_db), ("shared_bed", pytest.mark.django_db(transaction=True))):
        if fixture in metafunc.fixturenames:
            database = pytest.param("database", marks=mark)
            metafunc.parametrize(fixture, ["memory", database], indirect=True)


@pytest.fixture
def bed(request: pytest.FixtureRequest) -> Bed:
    return BEDS[request.param]()


@pytest.fixture
def shared_bed(request: pytest.FixtureRequest) -> Bed:
    return BEDS[request.param]()


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
