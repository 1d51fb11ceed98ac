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
    created_by: UUID,
) -> asyncpg.Record | None:
    """Register an active endpoint; None if the authority has an active one at this address.

    `secret` comes sealed.
    """
    # Registrations and deletions of one authority take turns, so that of two at the same address
    # the second sees the first. Reports do not wait for this lock.
    await conn.execute("SELECT FROM authority WHERE id = $1 FOR NO KEY UPDATE", authority_id)
    return await conn.fetchrow(
        """
        INSERT INTO endpoint (authority_id, channel, url, secret, state, created_by, config,
                              fallback)
        SELECT $1::uuid, $2::text, $3::text, $4::text, 'active', $5::uuid, $6::jsonb, $7::boolean
        WHERE NOT EXISTS (
            SELECT FROM endpoint WHERE authority_id = $1 AND url = $3 AND state = 'active'
        )
        RETURNING id, authority_id, channel, url, config, state, fallback, created_at
        """,
        authority_id,
        channel,
        url,
        secret,
        created_by,
        config,
        fallback,
    )


async def list_endpoints(conn: asyncpg.Connection, authority_id: UUID) -> Sequence[asyncpg.Record]:
    """The endpoints of an authority that are not deleted, the oldest first, without secrets."""
    rows: Sequence[asyncpg.Record] = await conn.fetch(
        """
        SELECT id, authority_id, channel, url, config, state, fallback, created_at
        FROM endpoint
        WHERE authority_id = $1 AND state <> 'deleted'
        ORDER BY created_at, id
        """,
        authority_id,
    )
    return rows


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
        WHERE endpoint_id = $1 AND delivery.state IN ('cancelled', 'dead')
          AND NOT EXISTS (
              SELECT FROM delivery AS other JOIN endpoint ON endpoint.id = other.endpoint_id
              WHERE other.report_id = report.id
                AND (other.state IN ('pending', 'leased', 'delivered')
                     OR endpoint.state <> 'deleted')
          )
        ON CONFLICT (report_id) DO NOTHING
        """,
        endpoint_id,
    )
    return True
