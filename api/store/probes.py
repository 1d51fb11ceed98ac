"""The SQL of `endpoint_probe`: challenges and tests, asked for, leased to a worker, and settled.

Of an endpoint only the latest of a kind counts: asking again starts it anew, and what comes of an
earlier one changes nothing. Whoever changes a probe has locked its endpoint before, so that of an
activation, a pause and a deletion at the same time one comes after the other. `claim` alone does
not, for it changes the lease only.
"""

from __future__ import annotations

import hmac
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Literal
from uuid import UUID

import asyncpg

from api.store import audit

# How long a challenge can be answered, and a test sent
EXPIRES_S = 24 * 3600.0
# Who registers an address need not own it: what can be sent there unasked has an end.
CHALLENGE_EVERY_S = 60.0
CHALLENGES_A_DAY = 10
CHALLENGES_A_DAY_OF_AUTHORITY = 50
ERROR_CHARS = 500

Kind = Literal["challenge", "test"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Probe:
    """A probe leased to us, with what a channel needs to send it."""

    id: UUID
    kind: Kind
    text: str = field(repr=False)
    attempt: int  # from 1
    asked_at: datetime
    endpoint_id: UUID
    authority_id: UUID
    authority_name: str
    channel: str
    url: str
    secret: str = field(repr=False)  # as it is stored; the worker opens it for the channel
    old_secret: str | None = field(default=None, repr=False)
    config: Mapping[str, Any] = field(default_factory=dict, repr=False)


async def ask(conn: asyncpg.Connection, endpoint_id: UUID, kind: Kind, *, text: str = "") -> None:
    """Have the worker send a probe, in place of any earlier one. The endpoint must be locked."""
    await conn.execute(
        """
        INSERT INTO endpoint_probe (endpoint_id, kind, text, expires_at)
        VALUES ($1, $2, $3, now() + $4 * interval '1 second')
        ON CONFLICT (endpoint_id, kind) DO UPDATE
        SET id = excluded.id, text = excluded.text, asked_at = now(), at = now(), due_at = now(),
            expires_at = excluded.expires_at, attempts = 0, outcome = NULL, status = NULL,
            error = NULL
        """,
        endpoint_id,
        kind,
        text,
        EXPIRES_S,
    )


async def challenge_in(conn: asyncpg.Connection, *, authority_id: UUID, endpoint_id: UUID) -> float:
    """Seconds until an endpoint may be sent a challenge; 0 if it may now.

    One in `CHALLENGE_EVERY_S`, `CHALLENGES_A_DAY`, and so many over all endpoints of its authority,
    deleted ones included. What the audit trail tells is counted, a registration as a challenge.
    """
    # Two endpoints of an authority may be asked about at once and both be the last of the day: that
    # is one too many, and not worth a lock.
    return await conn.fetchval(  # type: ignore[no-any-return]
        """
        SELECT greatest(0, extract(epoch FROM greatest(
                   max(at) FILTER (WHERE target = $2) + $3 * interval '1 second',
                   (array_agg(at ORDER BY at DESC) FILTER (WHERE target = $2))[$4]
                       + interval '1 day',
                   (array_agg(at ORDER BY at DESC))[$5] + interval '1 day'
               ) - now()))::float8
        FROM audit
        WHERE authority_id = $1 AND at > now() - interval '1 day'
          AND action IN ('endpoint.registered', 'endpoint.challenged')
        """,
        authority_id,
        endpoint_id,
        CHALLENGE_EVERY_S,
        CHALLENGES_A_DAY,
        CHALLENGES_A_DAY_OF_AUTHORITY,
    )


async def claim(conn: asyncpg.Connection, *, limit: int, lease_s: float) -> Sequence[Probe]:
    """The probes that are due and not too old, leased; of two callers each gets others."""
    rows = await conn.fetch(
        """
        WITH due AS MATERIALIZED (
            SELECT endpoint_id, kind
            FROM endpoint_probe
            WHERE due_at <= now() AND expires_at > now()
            ORDER BY due_at
            LIMIT $1
            FOR UPDATE SKIP LOCKED
        ), claimed AS (
            UPDATE endpoint_probe
            SET due_at = now() + $2 * interval '1 second', attempts = attempts + 1, at = now()
            FROM due
            WHERE endpoint_probe.endpoint_id = due.endpoint_id AND endpoint_probe.kind = due.kind
            RETURNING endpoint_probe.*
        )
        SELECT claimed.id, claimed.kind, claimed.text, claimed.attempts AS attempt,
               claimed.asked_at, endpoint.id AS endpoint_id, endpoint.authority_id,
               authority.name AS authority_name, endpoint.channel, endpoint.url, endpoint.config,
               endpoint.secret,
               CASE WHEN old_secret_until > now() THEN old_secret END AS old_secret
        FROM claimed
        JOIN endpoint ON endpoint.id = claimed.endpoint_id
        JOIN authority ON authority.id = endpoint.authority_id
        """,
        limit,
        lease_s,
    )
    return [Probe(**row) for row in rows]


async def settle(
    conn: asyncpg.Connection,
    probe: Probe,
    *,
    outcome: Literal["passed", "failed"] | None,
    delay_s: float | None,
    status: int | None,
    error: str | None,
) -> bool:
    """Write down what came of a try; a challenge that is passed makes the endpoint active.

    With neither an outcome nor a `delay_s` until the next try it waits for its owner. False if it
    comes too late: it was asked for again, tried again by another worker, has expired, or the
    endpoint is deleted. Call it in a transaction.
    """
    # Waits for a deletion, which takes the probe away, or makes the deletion wait for us.
    await conn.execute("SELECT FROM endpoint WHERE id = $1 FOR NO KEY UPDATE", probe.endpoint_id)
    settled = await conn.fetchval(
        """
        UPDATE endpoint_probe
        SET outcome = $5, due_at = now() + $6::float8 * interval '1 second', at = now(),
            status = $7, error = $8
        WHERE endpoint_id = $1 AND kind = $2 AND id = $3 AND attempts = $4
          AND due_at IS NOT NULL AND expires_at > now()
        RETURNING true
        """,
        probe.endpoint_id,
        probe.kind,
        probe.id,
        probe.attempt,
        outcome,
        delay_s,
        status,
        error[:ERROR_CHARS] if error else None,
    )
    if settled and probe.kind == "challenge" and outcome == "passed":
        await activate(conn, probe.endpoint_id, api_key_id=None)
    return bool(settled)


async def take_code(
    conn: asyncpg.Connection, endpoint_id: UUID, code: str, *, api_key_id: UUID
) -> bool:
    """Pass the challenge whose text this is; False if it is not, or too old.

    The endpoint must be locked.
    """
    text = await conn.fetchval(
        """
        SELECT text FROM endpoint_probe
        WHERE endpoint_id = $1 AND kind = 'challenge' AND outcome IS DISTINCT FROM 'passed'
          AND expires_at > now()
        """,
        endpoint_id,
    )
    if text is None or not hmac.compare_digest(text.encode(), code.encode()):
        return False
    await conn.execute(
        """
        UPDATE endpoint_probe SET outcome = 'passed', due_at = NULL, at = now(), error = NULL
        WHERE endpoint_id = $1 AND kind = 'challenge'
        """,
        endpoint_id,
    )
    return await activate(conn, endpoint_id, api_key_id=api_key_id)


async def activate(conn: asyncpg.Connection, endpoint_id: UUID, *, api_key_id: UUID | None) -> bool:
    """Make a pending or suspended endpoint active; what is held for it follows by itself."""
    authority_id = await conn.fetchval(
        """
        UPDATE endpoint SET state = 'active', failures = 0, open_until = NULL
        WHERE id = $1 AND state IN ('pending', 'suspended')
        RETURNING authority_id
        """,
        endpoint_id,
    )
    if authority_id is None:
        return False
    await audit.record(
        conn,
        "endpoint.activated",
        api_key_id=api_key_id,
        authority_id=authority_id,
        target=endpoint_id,
    )
    return True
