"""The SQL of the audit trail: `audit`, append-only. Who did what to an authority's intake.

An entry is written in the transaction of what it tells of, so that neither is there alone. It never
holds a secret.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any
from uuid import UUID

import asyncpg


async def record(
    conn: asyncpg.Connection,
    action: str,
    *,
    api_key_id: UUID | None,
    authority_id: UUID | None,
    target: UUID | None = None,
    detail: Mapping[str, Any] | None = None,
) -> None:
    """Append an entry. `action` is a thing and a past participle, such as "endpoint.paused"."""
    await conn.execute(
        """
        INSERT INTO audit (api_key_id, authority_id, action, target, detail)
        VALUES ($1, $2, $3, $4, $5)
        """,
        api_key_id,
        authority_id,
        action,
        target,
        detail or {},
    )


async def list_entries(
    conn: asyncpg.Connection, *, authority_id: UUID | None, before: int | None, limit: int
) -> Sequence[asyncpg.Record]:
    """Entries, the newest first, from before the number `before`; of all authorities if none."""
    rows: Sequence[asyncpg.Record] = await conn.fetch(
        """
        SELECT audit.id, at, api_key_id, label AS key_label, role AS key_role,
               audit.authority_id, action, target, detail
        FROM audit LEFT JOIN api_key ON api_key.id = api_key_id
        WHERE ($1::uuid IS NULL OR audit.authority_id = $1)
          AND ($2::bigint IS NULL OR audit.id < $2)
        ORDER BY audit.id DESC
        LIMIT $3
        """,
        authority_id,
        before,
        limit,
    )
    return rows
