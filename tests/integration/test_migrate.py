from __future__ import annotations

import asyncio
import shutil
from pathlib import Path

import asyncpg
import pytest

from api import db
from tests.support.postgres import with_database

ALL = sorted(file.name for file in db.MIGRATIONS.glob("*.sql"))


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A copy of the migrations, to tamper with."""
    return Path(shutil.copytree(db.MIGRATIONS, tmp_path / "migrations"))


async def test_from_zero_and_twice(empty_database_url: str) -> None:
    conn = await db.connect(empty_database_url)
    try:
        with pytest.raises(db.SchemaOutdated, match="georouter migrate"):
            await db.check_schema(conn)
        assert await db.migrate(empty_database_url) == ALL
        assert await db.migrate(empty_database_url) == []
        await db.check_schema(conn)
        assert await conn.fetchval("SELECT count(*) FROM report") == 0
    finally:
        await conn.close()


async def test_a_changed_file_is_refused(empty_database_url: str, folder: Path) -> None:
    await db.migrate(empty_database_url, folder)
    with (folder / ALL[0]).open("a") as file:
        file.write("-- an afterthought\n")
    with pytest.raises(db.MigrationRefused, match="was changed after it ran"):
        await db.migrate(empty_database_url, folder)


async def test_a_file_out_of_order_is_refused(empty_database_url: str, folder: Path) -> None:
    await db.migrate(empty_database_url, folder)
    (folder / "0000_late.sql").write_text("CREATE TABLE late ()")
    with pytest.raises(db.MigrationRefused, match="later number"):
        await db.migrate(empty_database_url, folder)


async def test_a_failed_migration_leaves_nothing(empty_database_url: str, folder: Path) -> None:
    (folder / "9999_half.sql").write_text("CREATE TABLE half (); SELECT 1 / 0;")
    with pytest.raises(asyncpg.DivisionByZeroError):
        await db.migrate(empty_database_url, folder)
    conn = await db.connect(empty_database_url)
    try:
        assert await db.pending_migrations(conn, folder) == ["9999_half.sql"]
        assert await conn.fetchval("SELECT to_regclass('half')") is None
    finally:
        await conn.close()


async def test_concurrent_migrators_run_each_once(empty_database_url: str) -> None:
    ran = await asyncio.gather(*(db.migrate(empty_database_url) for _ in range(4)))
    assert sorted(ran) == [[], [], [], ALL]


async def test_an_absent_database_is_unavailable(cluster_url: str, tmp_path: Path) -> None:
    with pytest.raises(db.DatabaseUnavailable):
        await db.connect(f"postgresql://postgres:x@/postgres?host={tmp_path}")
    # A wrong name or password is no outage: it must not be retried as one.
    with pytest.raises(asyncpg.InvalidCatalogNameError):
        await db.connect(with_database(cluster_url, "no_such_database"))


async def test_jsonb_is_read_and_written_as_values(pool: asyncpg.Pool) -> None:
    async with db.acquire(pool) as conn:
        value = {"a": [1, None, "é"]}
        assert await conn.fetchval("SELECT $1::jsonb", value) == value


async def test_a_session_that_stands_still_in_a_transaction_is_ended(pool: asyncpg.Pool) -> None:
    async with db.acquire(pool) as conn:
        assert await conn.fetchval("SHOW idle_in_transaction_session_timeout") == "10s"
        await conn.execute("SET idle_in_transaction_session_timeout = '50ms'")
        transaction = conn.transaction()
        await transaction.start()
        await asyncio.sleep(0.3)
        with pytest.raises(db.DatabaseUnavailable), db.translate():
            await conn.execute("SELECT 1")
