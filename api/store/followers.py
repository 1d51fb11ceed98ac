"""The SQL of those who follow a report, and of the key that their addresses are hashed with.

Nothing here can be read without the installation's keys; sealing is `api.followers`' business.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any
from uuid import UUID

import asyncpg


@dataclass(frozen=True, slots=True, kw_only=True)
class NewFollower:
    """A row of `follower`, but for whom it follows and why."""

    id: UUID
    token_sha256: bytes = field(repr=False)
    token: str = field(repr=False)  # sealed
    contact: str | None = field(default=None, repr=False)  # sealed
    contact_hmac: bytes | None = field(default=None, repr=False)
    share_contact: bool = False
    notify: bool = False


async def find_contact_key(conn: asyncpg.Connection) -> str | None:
    """The sealed key that e-mail addresses are hashed with."""
    found: str | None = await conn.fetchval("SELECT key FROM contact_key")
    return found


async def insert_contact_key(conn: asyncpg.Connection, sealed: str) -> None:
    """Store the key unless there is one."""
    await conn.execute(
        "INSERT INTO contact_key (key) VALUES ($1) ON CONFLICT (id) DO NOTHING", sealed
    )


async def claim_key(
    conn: asyncpg.Connection,
    *,
    api_key_id: UUID,
    idempotency_key: str,
    request_sha256: bytes,
    report_id: UUID,
    follower_id: UUID,
) -> datetime | None:
    """Note that an idempotency key is used for a me-too, and when; None if it was used before.

    In the caller's transaction, for whose end others with the same key wait.
    """
    at: datetime | None = await conn.fetchval(
        """
        INSERT INTO idempotency (api_key_id, key, request_sha256, report_id, follower_id)
        VALUES ($1, $2, $3, $4, $5)
        ON CONFLICT (api_key_id, key) DO NOTHING
        RETURNING created_at
        """,
        api_key_id,
        idempotency_key,
        request_sha256,
        report_id,
        follower_id,
    )
    return at


async def find_original(conn: asyncpg.Connection, report_id: UUID) -> asyncpg.Record | None:
    """A report that others may join, as it is by now; None if the public may not see it."""
    return await conn.fetchrow(
        """
        SELECT public_report.lon, public_report.lat, public_report.category, status, closed,
               reports, report.decision, report.authority_id, authority.name AS authority_name,
               EXISTS (SELECT FROM held WHERE report_id = report.id) AS held,
               EXISTS (SELECT FROM reroute WHERE report_id = report.id
                       UNION ALL SELECT FROM triage WHERE report_id = report.id) AS waiting
        FROM public_report
        JOIN report USING (id)
        JOIN authority ON authority.id = report.authority_id
        WHERE report.id = $1
        """,
        report_id,
    )


async def insert_me_too(
    conn: asyncpg.Connection,
    report_id: UUID,
    follower: NewFollower,
    *,
    api_key_id: UUID,
    idempotency_key: str,
    receipt: Mapping[str, Any],
) -> None:
    """Store who joins a report, and what their receipt says. In the caller's transaction."""
    await conn.execute(
        """
        WITH joined AS (
            INSERT INTO follower (id, report_id, kind, token_sha256, token, contact, contact_hmac,
                                  share_contact, notify)
            VALUES ($1, $2, 'me_too', $3, $4, $5, $6, $7, $8)
        )
        UPDATE idempotency SET receipt = $9 WHERE api_key_id = $10 AND key = $11
        """,
        follower.id,
        report_id,
        follower.token_sha256,
        follower.token,
        follower.contact,
        follower.contact_hmac,
        follower.share_contact,
        follower.notify,
        receipt,
        api_key_id,
        idempotency_key,
    )
