"""The SQL of intake endpoints: `endpoint`.

No report is lost by deleting an endpoint. Claiming, settling and releasing what is held belong to
the queue, in `delivery.outbox`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any
from uuid import UUID

import asyncpg


async def insert_endpoint(
    conn: asyncpg.Connection,
    *,
    authority_id: UUID,
    channel: str,
    url: str,
    config: Mapping[str, Any],
    secret: str,
    fallback: bool,
    events: Sequence[str] | None,
    categories: Sequence[str] | None,
    state: str,
    created_by: UUID,
) -> UUID | None:
    """Register an endpoint; None if the authority has one at this address already.

    `secret` comes sealed.
    """
    # Registrations and deletions of one authority take turns, so that of two at the same address
    # the second sees the first. Reports do not wait for this lock.
    await conn.execute("SELECT FROM authority WHERE id = $1 FOR NO KEY UPDATE", authority_id)
    return await conn.fetchval(  # type: ignore[no-any-return]
        """
        INSERT INTO endpoint (authority_id, channel, url, secret, state, created_by, config,
                              fallback, events, categories)
        SELECT $1::uuid, $2::text, $3::text, $4::text, $5::text, $6::uuid, $7::jsonb, $8::boolean,
               $9::text[], $10::text[]
        WHERE NOT EXISTS (
            SELECT FROM endpoint WHERE authority_id = $1 AND url = $3 AND state <> 'deleted'
        )
        RETURNING id
        """,
        authority_id,
        channel,
        url,
        secret,
        state,
        created_by,
        config,
        fallback,
        events,
        categories,
    )


async def list_endpoints(
    conn: asyncpg.Connection, authority_id: UUID, endpoint_id: UUID | None = None
) -> Sequence[asyncpg.Record]:
    """The endpoints of an authority that are not deleted, or that one, the oldest first.

    Without secrets; with what their latest challenge and test have come to.
    """
    rows: Sequence[asyncpg.Record] = await conn.fetch(
        """
        SELECT id, authority_id, channel, url, config, state, fallback, events, categories,
               CASE WHEN old_secret_until > now() THEN old_secret_until END AS old_secret_until,
               created_at,
               (SELECT shown FROM endpoint_probe_shown
                WHERE endpoint_id = endpoint.id AND kind = 'challenge') AS verification,
               (SELECT shown FROM endpoint_probe_shown
                WHERE endpoint_id = endpoint.id AND kind = 'test') AS last_test
        FROM endpoint
        WHERE authority_id = $1 AND state <> 'deleted' AND ($2::uuid IS NULL OR id = $2)
        ORDER BY created_at, id
        """,
        authority_id,
        endpoint_id,
    )
    return rows


async def lock_endpoint(
    conn: asyncpg.Connection, *, authority_id: UUID, endpoint_id: UUID
) -> asyncpg.Record | None:
    """Lock an endpoint that is not deleted, so that its state stays what it is found to be.

    Reports that are on their way to it do not wait. Call it in a transaction.
    """
    return await conn.fetchrow(
        """
        SELECT id, authority_id, channel, state, secret, config, fallback, events, categories
        FROM endpoint
        WHERE id = $1 AND authority_id = $2 AND state <> 'deleted'
        FOR NO KEY UPDATE
        """,
        endpoint_id,
        authority_id,
    )


async def change_endpoint(
    conn: asyncpg.Connection,
    endpoint_id: UUID,
    *,
    events: Sequence[str] | None,
    categories: Sequence[str] | None,
    fallback: bool,
    config: Mapping[str, Any],
    secret: str,
) -> None:
    """Change what an endpoint wants, from now on; what it is owed it stays owed."""
    await conn.execute(
        """
        UPDATE endpoint
        SET events = $2, categories = $3, fallback = $4, config = $5, secret = $6
        WHERE id = $1
        """,
        endpoint_id,
        events,
        categories,
        fallback,
        config,
        secret,
    )


async def pause_endpoint(conn: asyncpg.Connection, endpoint_id: UUID) -> None:
    """Pause an active endpoint: nothing more is claimed for it; what is in flight ends."""
    await conn.execute(
        "UPDATE endpoint SET state = 'paused' WHERE id = $1 AND state = 'active'", endpoint_id
    )


async def resume_endpoint(conn: asyncpg.Connection, endpoint_id: UUID) -> None:
    """Resume a paused endpoint, with a closed breaker: its owner says that it works."""
    await conn.execute(
        """
        UPDATE endpoint SET state = 'active', failures = 0, open_until = NULL
        WHERE id = $1 AND state = 'paused'
        """,
        endpoint_id,
    )


async def rotate_secret(
    conn: asyncpg.Connection, endpoint_id: UUID, *, secret: str, old_for_s: float
) -> None:
    """Sign with this secret, sealed, and for a while with the one before; none older signs."""
    await conn.execute(
        """
        UPDATE endpoint
        SET secret = $2,
            old_secret = CASE WHEN $3::float8 > 0 THEN secret END,
            old_secret_until = CASE WHEN $3 > 0 THEN now() + $3 * interval '1 second' END
        WHERE id = $1
        """,
        endpoint_id,
        secret,
        old_for_s,
    )


async def forget_old_secrets(conn: asyncpg.Connection) -> None:
    """Erase the secrets that sign no longer."""
    await conn.execute(
        """
        UPDATE endpoint SET old_secret = NULL, old_secret_until = NULL
        WHERE old_secret_until <= now()
        """
    )


async def delete_endpoint(
    conn: asyncpg.Connection, *, authority_id: UUID, endpoint_id: UUID
) -> bool:
    """Delete an endpoint and hold again what only it was owed; False if there is none.

    What was never delivered and is owed to no other endpoint becomes held, dead deliveries
    included: on a deleted endpoint nobody could ever redeliver them. A delivery that is being sent
    at this moment may reach the old endpoint and, once released, a new one: doubled, never lost.
    """
    await conn.execute("SELECT FROM authority WHERE id = $1 FOR NO KEY UPDATE", authority_id)
    # Deliveries before their endpoint and by sequence, as `outbox` locks them: in another order the
    # two could wait for each other.
    await conn.execute(
        """
        SELECT FROM delivery WHERE endpoint_id = $1 AND state IN ('pending', 'leased')
        ORDER BY sequence, id FOR UPDATE
        """,
        endpoint_id,
    )
    # FOR UPDATE, not the weaker lock that an UPDATE takes: it waits for reports that are on their
    # way to this endpoint, and the statements below see the deliveries of those.
    found = await conn.fetchval(
        """
        SELECT id FROM endpoint WHERE id = $1 AND authority_id = $2 AND state <> 'deleted'
        FOR UPDATE
        """,
        endpoint_id,
        authority_id,
    )
    if found is None:
        return False
    await conn.execute(
        "UPDATE endpoint SET state = 'deleted', ended_at = now() WHERE id = $1", endpoint_id
    )
    await conn.execute("DELETE FROM endpoint_probe WHERE endpoint_id = $1", endpoint_id)
    await conn.execute(
        """
        UPDATE delivery SET state = 'cancelled', settled_at = now(), lease_token = NULL
        WHERE endpoint_id = $1 AND state IN ('pending', 'leased')
        """,
        endpoint_id,
    )
    await conn.execute(
        """
        INSERT INTO held (report_id, authority_id)
        SELECT report.id, report.authority_id
        FROM delivery JOIN report ON report.id = report_id
        WHERE endpoint_id = $1 AND sequence = 1 AND delivery.state IN ('cancelled', 'dead')
          -- What has changed hands since, or waits to, is not this authority's any more.
          AND report.authority_id = $2
          AND NOT EXISTS (SELECT FROM reroute WHERE reroute.report_id = report.id)
          AND NOT EXISTS (SELECT FROM triage WHERE triage.report_id = report.id)
          -- Another authority's deliveries, of before, say nothing about this one's.
          AND NOT EXISTS (
              SELECT FROM delivery AS other JOIN endpoint ON endpoint.id = other.endpoint_id
              WHERE other.report_id = report.id AND other.sequence = 1
                AND endpoint.authority_id = $2
                AND (other.state IN ('pending', 'leased', 'delivered')
                     OR (other.state = 'dead' AND endpoint.state <> 'deleted'))
          )
        ON CONFLICT (report_id) DO NOTHING
        """,
        endpoint_id,
        authority_id,
    )
    return True
