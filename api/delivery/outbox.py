"""The queue: deliveries owed to endpoints, claimed under a lease and settled under its token.

The SQL that races is here and says why it is as it is. It promises that one delivery is leased to
one worker at a time, that an attempt is on record before it is made, and that a worker which comes
too late changes nothing. Enqueuing is the intake's, in the report's own transaction; nothing here
sends.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from types import TracebackType
from typing import Any, Self
from uuid import UUID

import asyncpg
import structlog

from api import db
from api.delivery.policy import Deferred, Delivered, Gone, Next, Outcome, Rejected

# The NOTIFY channel on which workers hear that something may be due
WAKE_UP = "georouter_delivery"
# Claims take turns under this advisory lock.
CLAIM_LOCK = 7305212
RELEASE_BATCH = 500
ERROR_CHARS = 500

log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class Claimed:
    """A delivery leased to us, with what a channel needs to send it."""

    delivery_id: UUID
    lease_token: UUID
    attempt: int  # from 1
    rejections: int  # earlier attempts that were rejected
    age_s: float
    endpoint_id: UUID
    channel: str
    url: str
    secret: str = field(repr=False)  # as it is stored; the worker opens it for the channel
    report_id: UUID
    received_at: datetime
    observed_at: datetime | None
    lon: float
    lat: float
    accuracy_m: float | None
    category: str
    description: str = field(repr=False)
    decision: Mapping[str, Any] = field(repr=False)
    authority_id: UUID
    authority_name: str
    config: Mapping[str, Any] = field(default_factory=dict, repr=False)
    unsure: bool = False  # an earlier attempt may have arrived


async def release_held(conn: asyncpg.Connection, authority_id: UUID | None = None) -> int:
    """Turn held reports into deliveries where their authority has an active endpoint by now.

    At most `RELEASE_BATCH`, oldest first; returns how many reports were released. Any number of
    processes may call it at the same time.
    """
    # `open`: FOR SHARE waits for, and then looks again after, a transaction that is just pausing or
    # deleting the endpoint; without it a report could leave `held` and be owed to nobody.
    # `batch`: SKIP LOCKED, so that two callers divide the work rather than wait for each other.
    return await conn.fetchval(  # type: ignore[no-any-return]
        """
        WITH open AS MATERIALIZED (
            SELECT id, authority_id
            FROM endpoint
            WHERE state = 'active'
              AND ($1::uuid IS NULL OR authority_id = $1)
              AND EXISTS (SELECT FROM held WHERE held.authority_id = endpoint.authority_id)
            FOR SHARE
        ), batch AS MATERIALIZED (
            SELECT report_id
            FROM held
            WHERE authority_id IN (SELECT authority_id FROM open)
            ORDER BY since
            LIMIT $2
            FOR UPDATE SKIP LOCKED
        ), freed AS (
            DELETE FROM held
            USING batch
            WHERE held.report_id = batch.report_id
            RETURNING held.report_id, held.authority_id
        ), owed AS (
            INSERT INTO delivery (report_id, endpoint_id)
            SELECT freed.report_id, open.id
            FROM freed
            JOIN open USING (authority_id)
            ON CONFLICT (report_id, endpoint_id) DO NOTHING
        )
        SELECT count(*)::int FROM freed
        """,
        authority_id,
        RELEASE_BATCH,
    )


async def claim(
    conn: asyncpg.Connection, *, limit: int, lease_s: float, per_endpoint: int
) -> list[Claimed]:
    """Lease up to `limit` due deliveries of active endpoints, the longest due first.

    No endpoint gets more than `per_endpoint` in flight, over all workers, so one that hangs cannot
    take every slot. An expired lease is due again. Each attempt is written before this returns.
    """
    async with conn.transaction():
        # Two statements: what the second one counts must include what the claim before ours
        # leased, so its snapshot may only be taken once that claim is over.
        await conn.execute("SELECT pg_advisory_xact_lock($1)", CLAIM_LOCK)
        # `due`: asked endpoint by endpoint through the index delivery_due; a single list by due_at
        # would show nothing but the backlog of an endpoint that is down.
        # `locked`: the lock keeps other claims out, not those who settle, cancel or redeliver: a
        # row that one of them has in hand is skipped, and one that has changed is looked at again.
        rows = await conn.fetch(
            """
            WITH due AS MATERIALIZED (
                SELECT oldest.id
                FROM endpoint
                CROSS JOIN LATERAL (
                    SELECT id, due_at
                    FROM delivery
                    WHERE endpoint_id = endpoint.id
                      AND state IN ('pending', 'leased')
                      AND due_at <= now()
                    ORDER BY due_at
                    LIMIT greatest(0, $3 - (
                        SELECT count(*)
                        FROM delivery AS in_flight
                        WHERE in_flight.endpoint_id = endpoint.id
                          AND in_flight.state = 'leased'
                          AND in_flight.due_at > now()
                    ))
                ) AS oldest
                WHERE endpoint.state = 'active'
                ORDER BY oldest.due_at
                LIMIT $1
            ), locked AS MATERIALIZED (
                SELECT delivery.id
                FROM delivery
                JOIN due USING (id)
                WHERE delivery.state IN ('pending', 'leased')
                  AND delivery.due_at <= now()
                FOR UPDATE OF delivery SKIP LOCKED
            ), claimed AS (
                UPDATE delivery
                SET state = 'leased',
                    lease_token = gen_random_uuid(),
                    due_at = now() + $2 * interval '1 second',
                    attempts = attempts + 1
                FROM locked
                WHERE delivery.id = locked.id
                RETURNING delivery.*
            ), tried AS (
                INSERT INTO attempt (delivery_id, n)
                SELECT id, attempts FROM claimed
            )
            SELECT claimed.id AS delivery_id,
                   claimed.lease_token,
                   claimed.attempts AS attempt,
                   (SELECT count(*)::int
                    FROM attempt
                    WHERE delivery_id = claimed.id AND outcome = 'rejected') AS rejections,
                   -- The present attempt is not in this statement's snapshot. One without an
                   -- outcome is of a worker that died, perhaps after sending.
                   EXISTS (SELECT FROM attempt
                           WHERE delivery_id = claimed.id
                             AND (outcome IS NULL OR unsure)) AS unsure,
                   extract(epoch FROM now() - claimed.created_at)::float8 AS age_s,
                   endpoint.id AS endpoint_id, endpoint.channel, endpoint.url, endpoint.secret,
                   endpoint.config,
                   report.id AS report_id, report.received_at, report.observed_at,
                   report.lon, report.lat, report.accuracy_m, report.category, report.description,
                   report.decision,
                   authority.id AS authority_id, authority.name AS authority_name
            FROM claimed
            JOIN endpoint ON endpoint.id = claimed.endpoint_id
            JOIN report ON report.id = claimed.report_id
            JOIN authority ON authority.id = report.authority_id
            """,
            limit,
            lease_s,
            per_endpoint,
        )
    return [Claimed(**row) for row in rows]


async def settle(
    conn: asyncpg.Connection, claimed: Claimed, outcome: Outcome, following: Next
) -> bool:
    """Write down an attempt's outcome and what follows; False if the lease was lost.

    The token fences: when the lease has expired and someone else has claimed the delivery, or it
    was cancelled, nothing changes. An endpoint that is gone is suspended with the same statement;
    what else it is owed stays pending.
    """
    kind, reference, error = _columns(outcome)
    return await conn.fetchval(  # type: ignore[no-any-return]
        """
        WITH settled AS (
            UPDATE delivery
            SET state = $3,
                lease_token = NULL,
                due_at = CASE WHEN $3 = 'pending' THEN now() + $4 * interval '1 second'
                              ELSE due_at END,
                settled_at = CASE WHEN $3 = 'pending' THEN NULL ELSE now() END,
                reference = $5,
                nothing_sent = $12
            WHERE id = $1 AND state = 'leased' AND lease_token = $2
            RETURNING id, attempts, endpoint_id
        ), noted AS (
            UPDATE attempt
            SET finished_at = now(), outcome = $6, status = $7, answer = $8, error = $9,
                unsure = $13
            FROM settled
            WHERE attempt.delivery_id = settled.id AND attempt.n = settled.attempts
        ), followed AS (
            INSERT INTO service_request (delivery_id, token, reference, next_poll_at)
            SELECT id, $11, $5, now() FROM settled WHERE $10
        ), suspended AS (
            UPDATE endpoint
            SET state = 'suspended'
            FROM settled
            WHERE $6 = 'gone' AND endpoint.id = settled.endpoint_id AND endpoint.state = 'active'
        )
        SELECT EXISTS (SELECT FROM settled)
        """,
        claimed.delivery_id,
        claimed.lease_token,
        following.state,
        following.delay_s,
        _storable(reference),
        kind,
        outcome.status,
        _storable(outcome.answer),
        _storable(error[:ERROR_CHARS] if error else None),
        isinstance(outcome, Delivered) and outcome.follow,
        outcome.token if isinstance(outcome, Delivered) else None,
        isinstance(outcome, Delivered) and outcome.nothing_sent,
        isinstance(outcome, Deferred) and outcome.unsure,
    )


async def bounce(conn: asyncpg.Connection, delivery_id: UUID, diagnostic: str) -> bool:
    """Note that a mail came back: what counted as delivered is dead. False if it did not count.

    The last attempt keeps the diagnostic as its answer, where the authority's operator reads it.
    """
    return await conn.fetchval(  # type: ignore[no-any-return]
        """
        WITH ended AS (
            UPDATE delivery SET state = 'dead', settled_at = now()
            FROM endpoint
            WHERE delivery.id = $1 AND delivery.state = 'delivered'
              AND endpoint.id = endpoint_id AND endpoint.channel = 'mail'
            RETURNING delivery.id, delivery.attempts
        ), noted AS (
            UPDATE attempt SET outcome = 'rejected', answer = $2, error = 'the mail came back'
            FROM ended WHERE attempt.delivery_id = ended.id AND attempt.n = ended.attempts
        )
        SELECT EXISTS (SELECT FROM ended)
        """,
        delivery_id,
        _storable(diagnostic),
    )


async def next_due_in(conn: asyncpg.Connection) -> float | None:
    """Seconds until the next delivery becomes due that is not yet; None if there is none.

    What is due already waits for a slot, not for time.
    """
    return await conn.fetchval(  # type: ignore[no-any-return]
        """
        SELECT extract(epoch FROM min(next.due_at) - now())::float8
        FROM endpoint
        CROSS JOIN LATERAL (
            SELECT due_at
            FROM delivery
            WHERE endpoint_id = endpoint.id
              AND state IN ('pending', 'leased')
              AND due_at > now()
            ORDER BY due_at
            LIMIT 1
        ) AS next
        WHERE endpoint.state = 'active'
        """
    )


def _columns(outcome: Outcome) -> tuple[str, str | None, str | None]:
    """The outcome as (name, reference, error)."""
    match outcome:
        case Delivered(reference=reference):
            return "delivered", reference, None
        case Deferred(why=why):
            return "deferred", None, why
        case Rejected(why=why):
            return "rejected", None, why
        case Gone(why=why):
            return "gone", None, why


def _storable(text: str | None) -> str | None:
    """A stranger's text without what PostgreSQL refuses: NUL, and surrogates that JSON lets by."""
    return text.replace("\0", "").encode("utf-8", "ignore").decode() if text else text


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
