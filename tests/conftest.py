"""Fixtures for tests that need PostgreSQL; a test that asks for none starts none."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator

import asyncpg
import pytest

from api import db
from tests.support import postgres


@pytest.fixture(scope="session")
def cluster_url() -> Iterator[str]:
    with postgres.cluster() as dsn:
        yield dsn


@pytest.fixture(scope="session")
async def template(cluster_url: str) -> AsyncIterator[str]:
    """The name of a migrated, empty database."""
    async with postgres.template_database(cluster_url) as name:
        yield name


@pytest.fixture
async def database_url(cluster_url: str, template: str) -> AsyncIterator[str]:
    """A migrated database of the test's own."""
    async with postgres.database(cluster_url, template=template) as dsn:
        yield dsn


@pytest.fixture
async def empty_database_url(cluster_url: str) -> AsyncIterator[str]:
    """A database without a schema."""
    async with postgres.database(cluster_url) as dsn:
        yield dsn


@pytest.fixture
async def pool(database_url: str) -> AsyncIterator[asyncpg.Pool]:
    async with await db.create_pool(database_url, size=10) as pool:
        yield pool
