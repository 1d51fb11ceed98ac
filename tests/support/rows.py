"""Rows for tests of storage and delivery, put there by SQL as the rest of the service would."""

from __future__ import annotations

import hashlib
import secrets
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any
from uuid import UUID, uuid4

import asyncpg

from api.delivery import signing

SECRET = signing.new_secret(lambda size: bytes(range(size)))
RECEIVED_AT = datetime(2027, 1, 15, 8, 0, 0, 123456, UTC)
DECISION = {
    "state": "certain",
    "rule": "covering-area",
    "reason": "the point lies inside Dogger",
    "question": None,
    "category": "pothole",
    "tier": "highway",
    "dataset": "sample-1",
    "candidates": [],
}


async def api_key(conn: asyncpg.Connection) -> UUID:
    return await conn.fetchval(
        """
        INSERT INTO api_key (secret_sha256, role, label)
        VALUES (sha256(gen_random_uuid()::text::bytea), 'operator', 'test') RETURNING id
        """
    )


async def dataset(conn: asyncpg.Connection) -> int:
    return await conn.fetchval(
        """
        INSERT INTO dataset (version, manifest) VALUES ($1, '{}') RETURNING id
        """,
        f"test-{uuid4().hex}",
    )


async def authority(conn: asyncpg.Connection, name: str = "Dogger Council") -> UUID:
    return await conn.fetchval("INSERT INTO authority (name) VALUES ($1) RETURNING id", name)


async def endpoint(
    conn: asyncpg.Connection,
    authority_id: UUID,
    *,
    url: str = "https://council.example/intake",
    channel: str = "webhook",
    state: str = "active",
    fallback: bool = False,
    secret: str = SECRET,
    config: Mapping[str, Any] | None = None,
) -> UUID:
    return await conn.fetchval(
        """
        INSERT INTO endpoint (authority_id, channel, url, secret, state, created_by, fallback,
                              config)
        VALUES ($1, $2, $3, $4, $5, $6, $7, $8) RETURNING id
        """,
        authority_id,
        channel,
        url,
        secret,
        state,
        await api_key(conn),
        fallback,
        config or {},
    )


async def report(
    conn: asyncpg.Connection,
    authority_id: UUID,
    *,
    held: bool = False,
    description: str = "A hole as deep as a bucket, by № 7",
) -> UUID:
    report_id = uuid4()
    await conn.execute(
        """
        INSERT INTO report (id, received_at, api_key_id, lon, lat, category, description, decision,
                            dataset_id, authority_id, held_on_receipt)
        VALUES ($1, $2, $3, 2.5, 55.25, 'pothole', $4, $5, $6, $7, $8)
        """,
        report_id,
        RECEIVED_AT,
        await api_key(conn),
        description,
        DECISION,
        await dataset(conn),
        authority_id,
        held,
    )
    if held:
        await conn.execute(
            "INSERT INTO held (report_id, authority_id) VALUES ($1, $2)", report_id, authority_id
        )
    return report_id


async def delivery(
    conn: asyncpg.Connection,
    authority_id: UUID,
    endpoint_id: UUID,
    *,
    due_in_s: float = 0.0,
) -> UUID:
    """A report and the delivery of it that is owed to the endpoint."""
    return await conn.fetchval(
        """
        INSERT INTO delivery (report_id, endpoint_id, due_at)
        VALUES ($1, $2, now() + $3 * interval '1 second') RETURNING id
        """,
        await report(conn, authority_id),
        endpoint_id,
        due_in_s,
    )


async def follower(
    conn: asyncpg.Connection,
    report_id: UUID | str,
    *,
    kind: str = "reporter",
    contact: str | None = None,
    notify: bool = False,
    confirmed: bool = False,
) -> str:
    """The token of a follower's private link; `contact` is sealed already.

    The reporter that a report has is made anew.
    """
    token = secrets.token_urlsafe(32)
    await conn.execute(
        """
        INSERT INTO follower (report_id, kind, token_sha256, token, contact, notify, confirmed_at)
        VALUES ($1, $2, $3, $4, $5, $6, CASE WHEN $7 THEN now() END)
        ON CONFLICT (report_id) WHERE kind = 'reporter' DO UPDATE
        SET token_sha256 = excluded.token_sha256, token = excluded.token,
            contact = excluded.contact, notify = excluded.notify,
            confirmed_at = excluded.confirmed_at
        """,
        report_id,
        kind,
        hashlib.sha256(token.encode()).digest(),
        token,
        contact,
        notify,
        confirmed,
    )
    return token
