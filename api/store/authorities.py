"""The SQL of `authority`, `authority_code` and `succession`.

Authorities are added and renamed by datasets, never removed: reports and keys refer to them.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any
from uuid import UUID

import asyncpg

from georouter.model import Area


@dataclass(frozen=True, slots=True)
class Handover:
    """On an instant the authority with one code ends, and the one with the other takes over."""

    predecessor: str
    successor: str
    at: datetime
    reason: str


async def rename_authorities(conn: asyncpg.Connection, names: Mapping[str, str]) -> None:
    """Give authorities the names that a dataset has for their codes."""
    await conn.execute(
        """
        UPDATE authority SET name = wanted.name
        FROM unnest($1::text[], $2::text[]) AS wanted (code, name)
        JOIN authority_code USING (code)
        WHERE scheme = 'gss' AND authority.id = authority_id AND authority.name <> wanted.name
        """,
        list(names),
        list(names.values()),
    )


async def establish(
    conn: asyncpg.Connection, areas: Iterable[Area], handovers: Iterable[Handover]
) -> int:
    """Make an authority for each code that has none, and record who follows whom, and when.

    Returns how many were made. Running it again changes nothing; a handover whose date or reason
    was corrected replaces the one before.
    """
    names = {area.code: area.name for area in areas}
    handovers = list(handovers)
    async with conn.transaction():
        made: int = await conn.fetchval(
            """
            WITH missing AS MATERIALIZED (
                -- materialised: the id made here must be the same in both inserts
                SELECT gen_random_uuid() AS id, wanted.code, wanted.name
                FROM unnest($1::text[], $2::text[]) AS wanted (code, name)
                WHERE NOT EXISTS (
                    SELECT FROM authority_code WHERE scheme = 'gss' AND code = wanted.code
                )
            ), label AS (
                -- the code first: of two processes at once one makes the authority
                INSERT INTO authority_code (scheme, code, authority_id)
                SELECT 'gss', code, id FROM missing
                ON CONFLICT (scheme, code) DO NOTHING
                RETURNING authority_id
            ), body AS (
                INSERT INTO authority (id, name)
                SELECT id, name FROM missing WHERE id IN (SELECT authority_id FROM label)
            )
            SELECT count(*) FROM label
            """,
            list(names),
            list(names.values()),
        )
        await conn.execute(
            """
            WITH handover AS MATERIALIZED (
                SELECT predecessor.authority_id AS predecessor_id,
                       successor.authority_id AS successor_id, given.at, given.reason
                FROM unnest($1::text[], $2::text[], $3::timestamptz[], $4::text[])
                     AS given (predecessor, successor, at, reason)
                JOIN authority_code AS predecessor
                     ON predecessor.scheme = 'gss' AND predecessor.code = given.predecessor
                JOIN authority_code AS successor
                     ON successor.scheme = 'gss' AND successor.code = given.successor
            ), ends AS (
                UPDATE authority SET valid_to = handover.at
                FROM handover
                WHERE id = predecessor_id AND valid_to IS DISTINCT FROM handover.at
            ), begins AS (
                UPDATE authority SET valid_from = handover.at
                FROM handover
                WHERE id = successor_id AND valid_from IS DISTINCT FROM handover.at
            )
            INSERT INTO succession (predecessor_id, successor_id, reason)
            SELECT predecessor_id, successor_id, reason FROM handover
            ON CONFLICT (predecessor_id, successor_id) DO UPDATE SET reason = excluded.reason
            WHERE succession.reason <> excluded.reason
            """,
            [one.predecessor for one in handovers],
            [one.successor for one in handovers],
            [one.at for one in handovers],
            [one.reason for one in handovers],
        )
    return made


async def authorities_by_code(conn: asyncpg.Connection) -> Sequence[asyncpg.Record]:
    """(code, id, name) of every authority that boundary datasets can name."""
    rows: Sequence[asyncpg.Record] = await conn.fetch(
        """
        SELECT code, authority.id, name
        FROM authority_code JOIN authority ON authority.id = authority_id
        WHERE scheme = 'gss'
        """
    )
    return rows


async def list_authorities(
    conn: asyncpg.Connection, *, code: str | None, after: Sequence[Any] | None, limit: int
) -> Sequence[asyncpg.Record]:
    """Authorities by (name, id), beyond the pair `after`."""
    name, authority_id = after or (None, None)
    rows: Sequence[asyncpg.Record] = await conn.fetch(
        """
        SELECT id, name,
               (SELECT json_agg(json_build_object('scheme', scheme, 'code', code)
                                ORDER BY scheme, code)::jsonb
                FROM authority_code WHERE authority_id = authority.id) AS codes,
               EXISTS (SELECT FROM endpoint
                       WHERE authority_id = authority.id AND state = 'active' AND NOT fallback)
                   AS has_active_endpoint
        FROM authority
        WHERE ($1::text IS NULL
               OR id IN (SELECT authority_id FROM authority_code WHERE code = $1))
          AND ($2::text IS NULL OR (name, id) > ($2, $3::uuid))
        ORDER BY name, id
        LIMIT $4
        """,
        code,
        name,
        authority_id,
        limit,
    )
    return rows


async def find_authority(conn: asyncpg.Connection, authority_id: UUID) -> asyncpg.Record | None:
    """One authority, with the number of reports held for it."""
    return await conn.fetchrow(
        """
        SELECT id, name,
               (SELECT json_agg(json_build_object('scheme', scheme, 'code', code)
                                ORDER BY scheme, code)::jsonb
                FROM authority_code WHERE authority_id = authority.id) AS codes,
               EXISTS (SELECT FROM endpoint
                       WHERE authority_id = authority.id AND state = 'active' AND NOT fallback)
                   AS has_active_endpoint,
               (SELECT count(*) FROM held WHERE authority_id = authority.id) AS held
        FROM authority
        WHERE id = $1
        """,
        authority_id,
    )


async def resolve_authority(conn: asyncpg.Connection, name: str) -> UUID | None:
    """The authority with this id or external code."""
    found: UUID | None = await conn.fetchval(
        """
        SELECT id FROM authority
        WHERE id::text = lower($1)
           OR id IN (SELECT authority_id FROM authority_code WHERE code = upper($1))
        """,
        name,
    )
    return found
