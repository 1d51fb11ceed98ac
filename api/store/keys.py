"""The SQL of API keys: `api_key`.

Secrets never come here, only their digests; `auth` makes and judges keys.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from uuid import UUID

import asyncpg


async def find_key(conn: asyncpg.Connection, *, secret_sha256: bytes) -> asyncpg.Record | None:
    """The key with this digest; `revoked` and `expired` are judged by the database's clock."""
    return await conn.fetchrow(
        """
        SELECT id, role, authority_id,
               revoked_at IS NOT NULL AND revoked_at <= now() AS revoked,
               expires_at IS NOT NULL AND expires_at <= now() AS expired
        FROM api_key
        WHERE secret_sha256 = $1
        """,
        secret_sha256,
    )


async def insert_key(
    conn: asyncpg.Connection,
    *,
    secret_sha256: bytes,
    role: str,
    label: str,
    authority_id: UUID | None,
    expires_at: datetime | None,
    address_limited: bool = True,
) -> UUID:
    """Store a key; `auth.create_key` makes one."""
    key_id: UUID = await conn.fetchval(
        """
        INSERT INTO api_key (secret_sha256, role, label, authority_id, expires_at, address_limited)
        VALUES ($1, $2, $3, $4, $5, $6)
        RETURNING id
        """,
        secret_sha256,
        role,
        label,
        authority_id,
        expires_at,
        address_limited,
    )
    return key_id


async def revoke_key(conn: asyncpg.Connection, *, key_id: UUID) -> asyncpg.Record | None:
    """Revoke a key from now on; None if there is none. A second time changes nothing.

    Returns whose it is, and whether it was `revoked` just now.
    """
    return await conn.fetchrow(
        """
        WITH before AS (
            SELECT id, revoked_at FROM api_key WHERE id = $1 FOR NO KEY UPDATE
        )
        UPDATE api_key SET revoked_at = coalesce(before.revoked_at, now())
        FROM before WHERE api_key.id = before.id
        RETURNING role, label, authority_id, before.revoked_at IS NULL AS revoked
        """,
        key_id,
    )


async def list_keys(conn: asyncpg.Connection) -> Sequence[asyncpg.Record]:
    """All keys, the oldest first, without their digests."""
    rows: Sequence[asyncpg.Record] = await conn.fetch(
        """
        SELECT key.id, role, label, authority_id, authority.name AS authority,
               key.created_at, expires_at, revoked_at, address_limited
        FROM api_key AS key
        LEFT JOIN authority ON authority.id = key.authority_id
        ORDER BY key.created_at, key.id
        """
    )
    return rows
