"""The SQL of deliveries as their owners see them: `delivery`, `attempt`, and sending one again.

A redelivery keeps the delivery's id, so whoever knows it takes it once. It changes nothing that is
pending, being sent, on a deleted endpoint, or about a report that the authority no longer has.
Claiming and settling belong to the queue, in `delivery.outbox`.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from datetime import datetime
from typing import Any
from uuid import UUID

import asyncpg

# Of one request; more would keep too many rows from those who settle.
BATCH = 10_000


async def list_deliveries(
    conn: asyncpg.Connection,
    *,
    authority_id: UUID,
    state: str | None = None,
    endpoint_id: UUID | None = None,
    report_id: UUID | None = None,
    delivery_id: UUID | None = None,
    after: Sequence[Any] | None = None,
    limit: int,
) -> Sequence[asyncpg.Record]:
    """The deliveries owed to an authority's endpoints by (created_at, id), the newest first.

    Beyond the pair `after`; each with its attempts.
    """
    created_at, after_id = after or (None, None)
    # The page first: attempts are gathered of what is shown, not of all that is sorted.
    rows: Sequence[asyncpg.Record] = await conn.fetch(
        """
        WITH page AS MATERIALIZED (
            SELECT delivery.id, report_id, endpoint_id, sequence, delivery.state,
                   delivery.created_at, settled_at, due_at, redelivered_at, reference
            FROM delivery
            JOIN endpoint ON endpoint.id = endpoint_id
            WHERE endpoint.authority_id = $1
              AND ($2::text IS NULL OR delivery.state = $2)
              AND ($3::uuid IS NULL OR endpoint_id = $3)
              AND ($4::uuid IS NULL OR report_id = $4)
              AND ($5::uuid IS NULL OR delivery.id = $5)
              AND ($6::timestamptz IS NULL OR (delivery.created_at, delivery.id) < ($6, $7::uuid))
            ORDER BY delivery.created_at DESC, delivery.id DESC
            LIMIT $8
        )
        SELECT page.*, tries.attempts
        FROM page
        CROSS JOIN LATERAL (
            SELECT coalesce(jsonb_agg(jsonb_build_object(
                'n', n, 'started_at', started_at, 'finished_at', finished_at, 'outcome', outcome,
                'status', status, 'answer', answer, 'error', error) ORDER BY n), '[]') AS attempts
            FROM attempt WHERE delivery_id = page.id
        ) AS tries
        ORDER BY page.created_at DESC, page.id DESC
        """,
        authority_id,
        state,
        endpoint_id,
        report_id,
        delivery_id,
        created_at,
        after_id,
        limit,
    )
    return rows


# --- redelivery -----------------------------------------------------------------------------------


async def find_ended(
    conn: asyncpg.Connection,
    *,
    authority_id: UUID,
    endpoint_id: UUID | None,
    states: Collection[str],
    since: datetime,
    until: datetime,
) -> Mapping[UUID, datetime]:
    """What came to one of these ends within a span of time and may be redelivered, and when.

    The oldest first, at most `BATCH`. `until` is not part of the span.
    """
    rows = await conn.fetch(
        """
        SELECT delivery.id, settled_at
        FROM endpoint
        JOIN delivery ON delivery.endpoint_id = endpoint.id
        JOIN report ON report.id = report_id AND report.authority_id = endpoint.authority_id
        WHERE endpoint.authority_id = $1
          AND endpoint.state <> 'deleted'
          AND ($2::uuid IS NULL OR endpoint.id = $2)
          AND delivery.state = ANY ($3::text[])
          AND settled_at >= $4 AND settled_at < $5
          AND NOT EXISTS (SELECT FROM reroute WHERE reroute.report_id = report.id)
          AND NOT EXISTS (SELECT FROM triage WHERE triage.report_id = report.id)
        ORDER BY settled_at, delivery.id
        LIMIT $6
        """,
        authority_id,
        endpoint_id,
        list(states),
        since,
        until,
        BATCH,
    )
    return {row["id"]: row["settled_at"] for row in rows}


async def lock(
    conn: asyncpg.Connection, *, authority_id: UUID, delivery_ids: Collection[UUID]
) -> Sequence[asyncpg.Record]:
    """Lock these deliveries of an authority's, and say of each what decides whether it may be sent.

    Call it in a transaction. Until that ends, none of them and none that is unsettled beside one of
    them changes its state, none of the reports changes hands, and none of the endpoints is deleted.
    """
    ids = list(delivery_ids)
    # Reports, then deliveries by sequence, then endpoints, as all who lock several of them do.
    await conn.execute(
        """
        SELECT FROM report WHERE id IN (SELECT report_id FROM delivery WHERE id = ANY ($1))
        ORDER BY id FOR NO KEY UPDATE
        """,
        ids,
    )
    # Those beside: which one comes first is seen by the statements after this one, and whoever
    # settles the first later waits for us, and then wakes what we have made due.
    await conn.execute(
        """
        SELECT FROM delivery
        WHERE id IN (
            SELECT unnest($1::uuid[])
            UNION
            SELECT beside.id
            FROM delivery
            JOIN delivery AS beside USING (report_id, endpoint_id)
            WHERE delivery.id = ANY ($1) AND beside.state IN ('pending', 'leased')
        )
        ORDER BY sequence, id FOR UPDATE
        """,
        ids,
    )
    await conn.execute(
        """
        SELECT FROM endpoint WHERE id IN (SELECT endpoint_id FROM delivery WHERE id = ANY ($1))
        ORDER BY id FOR KEY SHARE
        """,
        ids,
    )
    rows: Sequence[asyncpg.Record] = await conn.fetch(
        """
        SELECT delivery.id, report_id, endpoint_id, delivery.state, settled_at,
               endpoint.state = 'deleted' AS endpoint_deleted,
               report.authority_id <> endpoint.authority_id
                   OR EXISTS (SELECT FROM reroute WHERE reroute.report_id = report.id)
                   OR EXISTS (SELECT FROM triage WHERE triage.report_id = report.id) AS elsewhere
        FROM delivery
        JOIN endpoint ON endpoint.id = endpoint_id
        JOIN report ON report.id = report_id
        WHERE delivery.id = ANY ($1) AND endpoint.authority_id = $2
        """,
        ids,
        authority_id,
    )
    return rows


async def restart(
    conn: asyncpg.Connection, delivery_ids: Collection[UUID], *, patience_s: float
) -> None:
    """Make these locked deliveries due again, as if they had just been added.

    Of what one endpoint is sent about one report, the first is due at once; what follows waits for
    it, `patience_s` at most, what was waiting already included.
    """
    ids = list(delivery_ids)
    await conn.execute(
        """
        UPDATE delivery
        SET state = 'pending', due_at = now(), settled_at = NULL, nothing_sent = false,
            redelivered_at = now(), redelivered_after = attempts, owed_at = clock_timestamp()
        WHERE id = ANY ($1)
        """,
        ids,
    )
    await conn.execute(
        """
        UPDATE delivery
        SET due_at = now() + $2 * interval '1 second'
        FROM delivery AS again
        WHERE again.id = ANY ($1)
          AND delivery.report_id = again.report_id
          AND delivery.endpoint_id = again.endpoint_id
          AND delivery.state = 'pending'
          AND delivery.attempts = delivery.redelivered_after
          AND EXISTS (
              SELECT FROM delivery AS before
              WHERE before.report_id = delivery.report_id
                AND before.endpoint_id = delivery.endpoint_id
                AND before.sequence < delivery.sequence
                AND before.state IN ('pending', 'leased')
          )
        """,
        ids,
        patience_s,
    )


# --- health ---------------------------------------------------------------------------------------

# `waiting` and what has settled are read through the indexes delivery_due and delivery_settled.
# `tried`: an attempt of the last day is of a delivery that is not settled, or was within the day;
# one that was delivered at the first attempt has none that failed.
HEALTH = """
SELECT waiting.n AS waiting, waiting.oldest AS oldest_waiting_at,
       delivered.n AS delivered_24h, failed.n AS failed_attempts_24h,
       delivered.n::float8 / nullif(delivered.n + failed.n, 0) AS success_rate_24h,
       dead.n AS dead,
       CASE WHEN endpoint.open_until IS NULL THEN 'closed' ELSE 'open' END AS breaker,
       endpoint.open_until,
       (SELECT max(settled_at) FROM delivery
        WHERE endpoint_id = endpoint.id AND state = 'delivered' AND settled_at IS NOT NULL)
           AS last_delivered_at
FROM endpoint
CROSS JOIN LATERAL (
    SELECT count(*)::int AS n, min(created_at) AS oldest
    FROM delivery
    WHERE endpoint_id = endpoint.id AND state IN ('pending', 'leased')
) AS waiting
CROSS JOIN LATERAL (
    SELECT count(*)::int AS n
    FROM delivery
    WHERE endpoint_id = endpoint.id AND state = 'delivered'
      AND settled_at > now() - interval '1 day'
) AS delivered
CROSS JOIN LATERAL (
    SELECT count(*)::int AS n
    FROM delivery
    WHERE endpoint_id = endpoint.id AND state = 'dead' AND settled_at IS NOT NULL
) AS dead
CROSS JOIN LATERAL (
    SELECT count(*)::int AS n
    FROM (
        SELECT id FROM delivery
        WHERE endpoint_id = endpoint.id AND state IN ('pending', 'leased') AND attempts > 0
        UNION ALL
        SELECT id FROM delivery
        WHERE endpoint_id = endpoint.id AND state IN ('delivered', 'dead', 'cancelled')
          AND settled_at > now() - interval '1 day'
          AND (attempts > 1 OR state <> 'delivered')
    ) AS tried
    CROSS JOIN LATERAL (
        SELECT FROM attempt
        WHERE delivery_id = tried.id AND finished_at > now() - interval '1 day'
          AND outcome <> 'delivered'
        OFFSET 0
    ) AS attempt
) AS failed
WHERE endpoint.id = $1 AND endpoint.authority_id = $2 AND endpoint.state <> 'deleted'
"""


async def read_health(
    conn: asyncpg.Connection, *, authority_id: UUID, endpoint_id: UUID
) -> asyncpg.Record | None:
    """How an endpoint does; None if the authority has no such one."""
    return await conn.fetchrow(HEALTH, endpoint_id, authority_id)
