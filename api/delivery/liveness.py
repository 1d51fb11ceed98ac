"""Who is at work on the queue: workers that live by a session, and the word that wakes them.

It promises that what a dead worker held is due again as soon as another one looks, and that a word
that is lost costs seconds, not a delivery. What is due, and for whom, is `outbox`'s.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from types import TracebackType
from typing import Self

import asyncpg
import structlog

from api import db

# The NOTIFY channel on which workers hear that something may be due
WAKE_UP = "georouter_delivery"
# A worker lives as long as a session holds the advisory lock of this class and the worker's id.
WORKER_LOCK_CLASS = 7305214
# Of what runs on the session that a worker lives by: one that hangs must show.
STATEMENT_TIMEOUT_S = 5.0

log = structlog.get_logger(__name__)


async def enlist(conn: asyncpg.Connection, random_id: Callable[[], int]) -> int:
    """Make this session the life of a worker; returns the worker's new id, a positive int32.

    It ends with the session, however that ends, and not before.
    """
    while True:
        worker = random_id()
        if await conn.fetchval("SELECT pg_try_advisory_lock($1, $2)", WORKER_LOCK_CLASS, worker):
            return worker


async def free_orphans(conn: asyncpg.Connection) -> int:
    """Make due at once what is leased to workers that are no more; returns how many."""
    # Through the index of what is leased. SKIP LOCKED: of two who look at once, one does it; and
    # what is being settled, or has been claimed again, is looked at again and left.
    return await conn.fetchval(  # type: ignore[no-any-return]
        """
        WITH holder AS MATERIALIZED (
            SELECT DISTINCT leased_by FROM delivery WHERE state = 'leased' AND due_at > now()
        ), lost AS MATERIALIZED (
            SELECT leased_by
            FROM holder
            WHERE NOT EXISTS (
                SELECT FROM pg_locks
                WHERE locktype = 'advisory' AND granted AND objsubid = 2
                  AND database = (SELECT oid FROM pg_database WHERE datname = current_database())
                  AND classid = $1::int::oid AND objid = leased_by::oid
            )
        ), orphan AS MATERIALIZED (
            SELECT id
            FROM delivery
            WHERE state = 'leased' AND due_at > now()
              AND leased_by IN (SELECT leased_by FROM lost)
            FOR UPDATE SKIP LOCKED
        ), freed AS (
            UPDATE delivery SET due_at = now() FROM orphan WHERE delivery.id = orphan.id
            RETURNING delivery.id
        )
        SELECT count(*)::int FROM freed
        """,
        WORKER_LOCK_CLASS,
        timeout=STATEMENT_TIMEOUT_S,
    )


async def count_attempts(conn: asyncpg.Connection, counts: Mapping[tuple[str, str], int]) -> None:
    """Add to the counters of attempts by (channel, outcome)."""
    # In one order, so that two workers do not wait for each other.
    ordered = sorted(counts.items())
    await conn.execute(
        """
        INSERT INTO attempt_count (channel, outcome, attempts)
        SELECT * FROM unnest($1::text[], $2::text[], $3::bigint[])
        ON CONFLICT (channel, outcome)
        DO UPDATE SET attempts = attempt_count.attempts + excluded.attempts
        """,
        [channel for (channel, _), _ in ordered],
        [outcome for (_, outcome), _ in ordered],
        [count for _, count in ordered],
        timeout=STATEMENT_TIMEOUT_S,
    )


class Notifier:
    """Tells workers that something may be due, once for all that happens within `interval_s`.

    NOTIFY takes a lock of the whole server at commit, so it never belongs in a request's
    transaction: `poke` after the commit is enough. A notice that is lost costs seconds, not a
    delivery, because workers look by themselves too; so no error here reaches the caller.
    """

    def __init__(self, pool: asyncpg.Pool, *, interval_s: float = 0.02) -> None:
        self._pool = pool
        self._interval_s = interval_s
        self._poked = asyncio.Event()
        self._tasks = asyncio.TaskGroup()
        self._task: asyncio.Task[None] | None = None

    async def __aenter__(self) -> Self:
        await self._tasks.__aenter__()
        self._task = self._tasks.create_task(self._run())
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._task is not None:
            self._task.cancel()
        await self._tasks.__aexit__(kind, error, trace)

    def poke(self) -> None:
        """Something may be due now. Cheap; never raises."""
        self._poked.set()

    async def _run(self) -> None:
        while True:
            await self._poked.wait()
            self._poked.clear()
            try:
                async with db.acquire(self._pool) as conn:
                    await conn.execute(f"NOTIFY {WAKE_UP}")
            except Exception as error:  # noqa: BLE001 - see above: whatever it is, it is harmless
                log.warning("notify_failed", error=type(error).__name__)
            await asyncio.sleep(self._interval_s)
