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

# Any number that nothing else in this database uses as an advisory lock
ACTIVATION_LOCK = 7305213


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
    conn: asyncpg.Connection, areas: Iterable[Area], handovers: Iterable[Handover] | None
) -> int:
    """Make an authority for each code that has none, and record who follows whom, and when.

    Returns how many were made. The handovers are all that there are: one whose day or reason was
    corrected replaces the one before, and one that is no longer among them is undone, unless its
    day is past. None leaves those recorded alone. Running it again changes nothing.
    """
    names = {area.code: area.name for area in areas}
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
        if handovers is not None:
            await _record_handovers(conn, list(handovers))
    return made


async def _record_handovers(conn: asyncpg.Connection, handovers: Sequence[Handover]) -> None:
    """Make these the successions that there are, but for those whose day is past."""
    # Processes that start together take turns: each would lock the same rows in its own order.
    await conn.execute("SELECT pg_advisory_xact_lock($1)", ACTIVATION_LOCK)
    # `dated`: in one UPDATE, because a body may take over on one day and end on another, and of two
    # updates of a row in one statement only one happens. All of it sees the days of before.
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
        ), wanted AS (
            SELECT id,
                   coalesce((SELECT min(at) FROM handover WHERE successor_id = authority.id),
                            CASE WHEN valid_from <= now() THEN valid_from END) AS begins,
                   coalesce((SELECT min(at) FROM handover WHERE predecessor_id = authority.id),
                            CASE WHEN valid_to <= now() THEN valid_to END) AS ends
            FROM authority
        ), dated AS (
            UPDATE authority SET valid_from = begins, valid_to = ends
            FROM wanted
            WHERE authority.id = wanted.id
              AND (valid_from, valid_to) IS DISTINCT FROM (begins, ends)
        ), undone AS (
            DELETE FROM succession
            USING authority
            WHERE authority.id = predecessor_id AND (valid_to <= now()) IS NOT TRUE
              AND (predecessor_id, successor_id)
                  NOT IN (SELECT predecessor_id, successor_id FROM handover)
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


async def heirs(conn: asyncpg.Connection, authority_id: UUID) -> Sequence[UUID]:
    """The authority, and all that have taken over from it by now, at whatever remove."""
    found: Sequence[UUID] = await conn.fetchval(
        """
        WITH RECURSIVE heir AS (
            SELECT $1::uuid AS id
            UNION
            SELECT successor_id
            FROM heir
            JOIN authority ON authority.id = heir.id AND valid_to <= now()
            JOIN succession ON predecessor_id = heir.id
        )
        SELECT array_agg(id) FROM heir
        """,
        authority_id,
    )
    return found


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
