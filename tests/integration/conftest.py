from __future__ import annotations

from collections.abc import AsyncIterator

import asyncpg
import pytest

from tests.support.app import Api, serving


@pytest.fixture
async def api(database_url: str, pool: asyncpg.Pool) -> AsyncIterator[Api]:
    async with serving(database_url, pool) as api:
        yield api
