"""The border to PostgreSQL: which database, connections with our codecs, migrations, its failures.

It promises that a database that cannot be reached shows as `DatabaseUnavailable` and as nothing
else, and that a schema is migrated by one process at a time or not at all. Queries live with their
subjects (`store`, `intake`, `delivery.outbox`), not here.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
import re
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass
from pathlib import Path

import asyncpg

from api import embedded
from api.settings import Settings

MIGRATIONS = Path(__file__).parent / "migrations"
# Any number that nothing else in this database uses as an advisory lock
MIGRATION_LOCK = 7305211


class DatabaseUnavailable(Exception):  # noqa: N818 - reads as the sentence it is
    """The database cannot be reached, is starting or stopping, or has no connection to spare."""


class MigrationRefused(Exception):  # noqa: N818 - reads as the sentence it is
    """The migrations in the code and those in the database contradict each other."""


class SchemaOutdated(Exception):  # noqa: N818 - reads as the sentence it is
    """The database lacks migrations that this code needs."""


def resolve_dsn(settings: Settings) -> str:
    """The database of these settings; an embedded one is started if it does not run.

    Blocks while it starts (up to a second or two). Raises `EmbeddedPostgresError`.
    """
    if settings.database_url is not None:
        return settings.database_url.get_secret_value()
    return embedded.ensure(settings.data_dir / "postgres")


# "connection is closed", "pool is closing"; a pool takes a lost one back from under its user; an
# idle one that was told of the server's shutdown has an "operation" in progress that never ends.
_LOST = re.compile(r"clos(ed|ing)|released back to the pool|not connected|cannot switch to state")


@contextmanager
def translate() -> Iterator[None]:
    """Turn asyncpg's and the system's connection errors into `DatabaseUnavailable`.

    Put nothing but database work inside: every `OSError` is taken for the database's, a time-out
    among them. Errors of a query itself pass unchanged.
    """
    try:
        yield
    except (
        OSError,
        asyncpg.PostgresConnectionError,
        asyncpg.CannotConnectNowError,
        asyncpg.AdminShutdownError,
        asyncpg.CrashShutdownError,
        asyncpg.TooManyConnectionsError,
    ) as error:
        raise DatabaseUnavailable(f"{type(error).__name__}: {error}") from error
    except (asyncpg.InterfaceError, asyncpg.InternalClientError) as error:
        # The same classes for misuse, which is a bug, and for what follows from a lost connection.
        if not _LOST.search(str(error)):
            raise
        raise DatabaseUnavailable(f"{type(error).__name__}: {error}") from error


async def _prepare(conn: asyncpg.Connection) -> None:
    await conn.set_type_codec(
        "jsonb", schema="pg_catalog", encoder=json.dumps, decoder=json.loads, format="text"
    )


_SERVER_SETTINGS = {
    "application_name": "georouter",
    "timezone": "UTC",
    # A 201 promises that the report outlives a crash; a server may be set up to promise less.
    "synchronous_commit": "on",
    # Nobody waits for the outside world in a transaction. Of a process that stands still in one the
    # locks are taken back, so that the others, above all the other workers, go on.
    "idle_in_transaction_session_timeout": "10s",
}


async def connect(dsn: str) -> asyncpg.Connection:
    """Open one connection, for what a pool is wrong for: LISTEN, session locks, migrations."""
    with translate():
        conn = await asyncpg.connect(dsn, timeout=10.0, server_settings=_SERVER_SETTINGS)
        await _prepare(conn)
        return conn


class _Pooled(asyncpg.Connection):  # type: ignore[misc]  # it publishes no types
    """A connection of a pool. What holds for a session, LISTEN or a lock, needs `connect`."""

    def get_reset_query(self) -> str:
        """Nothing: there is nothing to reset, and asking costs as much as what was asked for.

        A transaction left open is rolled back without it.
        """
        return ""


async def create_pool(dsn: str, *, size: int) -> asyncpg.Pool:
    """Open a pool of at most `size` connections; one is opened now, so that failures show early."""
    with translate():
        return await asyncpg.create_pool(
            dsn,
            min_size=1,
            max_size=size,
            connection_class=_Pooled,
            init=_prepare,
            timeout=10.0,
            command_timeout=30.0,
            server_settings=_SERVER_SETTINGS,
        )


@asynccontextmanager
async def acquire(
    pool: asyncpg.Pool, *, timeout_s: float = 5.0
) -> AsyncIterator[asyncpg.Connection]:
    """Take a connection from the pool, with connection errors translated throughout."""
    with translate():
        async with pool.acquire(timeout=timeout_s) as conn:
            yield conn


# --- migrations -----------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class _Migration:
    name: str
    sha256: str
    sql: str


def _read_migrations(folder: Path) -> list[_Migration]:
    files = sorted(folder.glob("[0-9]*.sql"))
    return [
        _Migration(
            name=file.name,
            sha256=hashlib.sha256(file.read_bytes()).hexdigest(),
            sql=file.read_text(encoding="utf-8"),
        )
        for file in files
    ]


async def _pending(conn: asyncpg.Connection, folder: Path) -> list[_Migration]:
    applied: dict[str, str] = {}
    if await conn.fetchval("SELECT to_regclass('schema_migration') IS NOT NULL"):
        rows = await conn.fetch("SELECT name, sha256 FROM schema_migration")
        applied = {row["name"]: row["sha256"] for row in rows}
    last = max(applied, default="")
    pending = []
    for migration in _read_migrations(folder):
        if migration.name not in applied:
            if migration.name < last:
                raise MigrationRefused(
                    f"{migration.name} sorts before {last}, which has run; give it a later number"
                )
            pending.append(migration)
        elif migration.sha256 != applied[migration.name]:
            raise MigrationRefused(
                f"{migration.name} was changed after it ran; restore it, and put the change into a "
                "new migration"
            )
    return pending


async def pending_migrations(conn: asyncpg.Connection, folder: Path = MIGRATIONS) -> list[str]:
    """Names of the migrations that this database still needs, in order.

    Raises `MigrationRefused` if one that ran was changed or a new one sorts before one that ran.
    """
    with translate():
        return [migration.name for migration in await _pending(conn, folder)]


async def check_schema(conn: asyncpg.Connection) -> None:
    """Raise `SchemaOutdated` unless every migration of this code has run."""
    pending = await pending_migrations(conn)
    if pending:
        raise SchemaOutdated(
            f"the database lacks {', '.join(pending)}; run `georouter migrate` first"
        )


async def migrate(dsn: str, folder: Path = MIGRATIONS) -> list[str]:
    """Run the pending migrations, each in a transaction of its own, and return their names.

    Several at a time wait for each other. Raises `MigrationRefused` before anything is run.
    """
    conn = await connect(dsn)
    try:
        with translate():
            # Polled: a session that waits in pg_advisory_lock holds a snapshot, and a CREATE INDEX
            # CONCURRENTLY of the one that has the lock would wait for that snapshot for ever.
            while not await conn.fetchval(  # noqa: ASYNC110 - the event is in another process
                "SELECT pg_try_advisory_lock($1)", MIGRATION_LOCK
            ):
                await asyncio.sleep(0.1)
            await conn.execute("""
                CREATE TABLE IF NOT EXISTS schema_migration (
                    name       text PRIMARY KEY,
                    sha256     text NOT NULL,
                    applied_at timestamptz NOT NULL DEFAULT now()
                )
            """)
            pending = await _pending(conn, folder)
            for migration in pending:
                async with conn.transaction():
                    # Waiting behind a long query makes every later query wait behind us.
                    await conn.execute("SET LOCAL lock_timeout = '5s'")
                    await conn.execute(migration.sql)
                    await conn.execute(
                        "INSERT INTO schema_migration (name, sha256) VALUES ($1, $2)",
                        migration.name,
                        migration.sha256,
                    )
            return [migration.name for migration in pending]
    finally:
        await conn.close(timeout=5.0)
