"""The SQL of service requests: what authorities opened because of our reports, and when to ask.

Whom a row is given to by `claim` may ask until the lease ends; `settle` by anybody later changes
nothing. The rows are made where a delivery is settled, in `delivery.outbox`.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from uuid import UUID

import asyncpg


async def claim(
    conn: asyncpg.Connection, *, limit: int, lease_s: float
) -> Sequence[asyncpg.Record]:
    """The service requests that are due, the longest due first, leased."""
    rows: Sequence[asyncpg.Record] = await conn.fetch(
        """
        WITH due AS MATERIALIZED (
            SELECT delivery_id
            FROM service_request
            WHERE next_poll_at <= now()
            ORDER BY next_poll_at
            LIMIT $1
            FOR UPDATE SKIP LOCKED
        ), claimed AS (
            UPDATE service_request
            SET next_poll_at = now() + $2 * interval '1 second'
            FROM due
            WHERE service_request.delivery_id = due.delivery_id
            RETURNING service_request.*
        )
        SELECT claimed.delivery_id, claimed.token, claimed.reference, claimed.state, claimed.seen,
               claimed.failures, claimed.next_poll_at AS lease_ends,
               extract(epoch FROM now() - claimed.since)::float8 AS age_s,
               extract(epoch FROM claimed.answered_at)::float8 AS answered_at,
               delivery.report_id, endpoint.id AS endpoint_id, endpoint.authority_id,
               endpoint.url, endpoint.secret, endpoint.config,
               endpoint.state = 'deleted' AS endpoint_deleted
        FROM claimed
        JOIN delivery ON delivery.id = claimed.delivery_id
        JOIN endpoint ON endpoint.id = delivery.endpoint_id
        ORDER BY endpoint.id, claimed.delivery_id
        """,
        limit,
        lease_s,
    )
    return rows


async def settle(
    conn: asyncpg.Connection,
    *,
    delivery_id: UUID,
    lease_ends: datetime,
    answered: bool,
    reference: str | None,
    state: str | None,
    seen: str | None,
    delay_s: float | None,
) -> bool:
    """Note what an authority said, and when to ask again (None: never); False if too late."""
    return await conn.fetchval(  # type: ignore[no-any-return]
        """
        WITH settled AS (
            UPDATE service_request
            SET reference = coalesce(reference, $3),
                state = $4,
                seen = $5,
                answered_at = CASE WHEN $6 THEN now() ELSE answered_at END,
                failures = CASE WHEN $6 THEN 0 ELSE failures + 1 END,
                next_poll_at = now() + $7::float8 * interval '1 second'
            WHERE delivery_id = $1 AND next_poll_at = $2
            RETURNING delivery_id, reference
        ), numbered AS (
            UPDATE delivery SET reference = settled.reference
            FROM settled
            WHERE delivery.id = settled.delivery_id AND delivery.reference IS NULL
        )
        SELECT EXISTS (SELECT FROM settled)
        """,
        delivery_id,
        lease_ends,
        reference,
        state,
        seen,
        answered,
        delay_s,
    )
