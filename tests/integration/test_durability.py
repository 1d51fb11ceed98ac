"""What is answered 201 outlives a crash, however the database server is set up."""

from __future__ import annotations

from urllib.parse import urlsplit

from api import db


async def test_commits_are_waited_for_whatever_the_server_thinks(database_url: str) -> None:
    name = urlsplit(database_url).path.removeprefix("/")
    admin = await db.connect(database_url)
    try:
        await admin.execute(f'ALTER DATABASE "{name}" SET synchronous_commit = off')
    finally:
        await admin.close()
    conn = await db.connect(database_url)
    try:
        assert await conn.fetchval("SHOW synchronous_commit") == "on"
    finally:
        await conn.close()
    async with await db.create_pool(database_url, size=1) as pool, db.acquire(pool) as pooled:
        assert await pooled.fetchval("SHOW synchronous_commit") == "on"
