"""A PostgreSQL for the tests: a cluster per session, a database per test.

The cluster is embedded and in a folder of its own, or a server that
GEOROUTER_TEST_DATABASE_URL names. Nothing is left running or on disk.
"""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from urllib.parse import urlsplit
from uuid import uuid4

from api import db, embedded

# What these give up is safety when the machine dies, which no test does.
FAST = {"fsync": "off", "full_page_writes": "off", "autovacuum_naptime": "1h"}


def with_database(dsn: str, name: str) -> str:
    return urlsplit(dsn)._replace(path=f"/{name}").geturl()


@contextmanager
def cluster_folder() -> Iterator[Path]:
    """A folder for an embedded cluster, directly below the system's temporary one.

    pytest's `tmp_path` will not do: as root its parents are closed to the user who runs PostgreSQL.
    """
    folder = Path(tempfile.mkdtemp(prefix="georouter-test-"))
    try:
        yield folder
    finally:
        embedded.stop(folder)
        shutil.rmtree(folder)


@contextmanager
def cluster() -> Iterator[str]:
    given = os.environ.get("GEOROUTER_TEST_DATABASE_URL")  # noqa: TID251 - not one of the service's
    if given:
        yield given
        return
    with cluster_folder() as folder:
        yield embedded.ensure(folder, options=FAST)


@asynccontextmanager
async def database(cluster_url: str, *, template: str | None = None) -> AsyncIterator[str]:
    """The DSN of a fresh database, empty or a copy of `template`; dropped afterwards."""
    name = f"test_{uuid4().hex}"
    admin = await db.connect(cluster_url)
    try:
        await admin.execute(f'CREATE DATABASE "{name}" TEMPLATE "{template or "template1"}"')
        try:
            yield with_database(cluster_url, name)
        finally:
            # FORCE: a failed test may leave connections behind.
            await admin.execute(f'DROP DATABASE "{name}" WITH (FORCE)')
    finally:
        await admin.close()


@asynccontextmanager
async def template_database(cluster_url: str) -> AsyncIterator[str]:
    """The name of a migrated database to copy from."""
    async with database(cluster_url) as dsn:
        await db.migrate(dsn)
        yield urlsplit(dsn).path.removeprefix("/")
