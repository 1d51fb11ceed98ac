"""The SQL of `notice`: what authorities and the operator are told of.

Notices are written by the statements that cause them (`delivery.outbox`); here they are read.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any
from uuid import UUID

import asyncpg


async def list_notices(
    conn: asyncpg.Connection,
    *,
    authority_id: UUID | None,
    after: Sequence[Any] | None,
    limit: int,
) -> Sequence[asyncpg.Record]:
    """Notices of an authority, or of all, the newest first, beyond the pair (at, id) `after`."""
    at, notice_id = after or (None, None)
    rows: Sequence[asyncpg.Record] = await conn.fetch(
        """
        SELECT id, at, authority_id, endpoint_id, delivery_id, kind, detail
        FROM notice
        WHERE ($1::uuid IS NULL OR authority_id = $1)
          AND ($2::timestamptz IS NULL OR (at, id) < ($2, $3::uuid))
        ORDER BY at DESC, id DESC
        LIMIT $4
        """,
        authority_id,
        at,
        notice_id,
        limit,
    )
    return rows
