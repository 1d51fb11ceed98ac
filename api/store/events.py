"""The SQL of what became of a report: `report_event`, append-only, in order.

An event is never changed or removed. The same news under the same key counts once.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any
from uuid import UUID

import asyncpg


async def add_event(
    conn: asyncpg.Connection,
    report_id: UUID,
    *,
    kind: str,
    authority_id: UUID | None = None,
    detail: Mapping[str, Any] | None = None,
    key: str | None = None,
) -> int | None:
    """Append an event and return its number; None if this news was known, or there is no report.

    In the caller's transaction, or in one of its own.
    """
    async with conn.transaction():
        # Events of one report take turns. Two statements: the number must count what those before
        # us committed.
        found = await conn.fetchval(
            "SELECT id FROM report WHERE id = $1 FOR NO KEY UPDATE", report_id
        )
        if found is None:
            return None
        n: int | None = await conn.fetchval(
            """
            INSERT INTO report_event (report_id, n, kind, authority_id, detail, key)
            SELECT $1, coalesce(max(n), 0) + 1, $2::text, $3::uuid, $4::jsonb, $5::text
            FROM report_event WHERE report_id = $1
            ON CONFLICT (report_id, key) DO NOTHING
            RETURNING n
            """,
            report_id,
            kind,
            authority_id,
            detail or {},
            key,
        )
        return n


async def list_events(
    conn: asyncpg.Connection, report_id: UUID, *, since: int = 0
) -> Sequence[asyncpg.Record]:
    """A report's events after number `since`, in order, with the names of their authorities."""
    rows: Sequence[asyncpg.Record] = await conn.fetch(
        """
        SELECT n, at, kind, authority_id, name AS authority_name, detail, key
        FROM report_event LEFT JOIN authority ON authority.id = authority_id
        WHERE report_id = $1 AND n > $2
        ORDER BY n
        """,
        report_id,
        since,
    )
    return rows


async def list_news(
    conn: asyncpg.Connection, since: Mapping[UUID, int]
) -> Sequence[asyncpg.Record]:
    """The events of several reports, each after its number, in order. One question for all."""
    rows: Sequence[asyncpg.Record] = await conn.fetch(
        """
        SELECT event.report_id, event.n, at, kind, authority_id, name AS authority_name, detail, key
        FROM unnest($1::uuid[], $2::int[]) AS known (report_id, n)
        JOIN report_event AS event ON event.report_id = known.report_id AND event.n > known.n
        LEFT JOIN authority ON authority.id = authority_id
        ORDER BY event.report_id, event.n
        """,
        list(since),
        list(since.values()),
    )
    return rows


async def find_last(conn: asyncpg.Connection, report_id: UUID) -> asyncpg.Record | None:
    """The number of a report's last event, and who may see it."""
    return await conn.fetchrow(
        """
        SELECT api_key_id, authority_id,
               (SELECT coalesce(max(n), 0) FROM report_event WHERE report_id = report.id) AS last
        FROM report WHERE id = $1
        """,
        report_id,
    )


async def has_event(conn: asyncpg.Connection, report_id: UUID, keys: Sequence[str]) -> bool:
    """Whether a report has an event under one of these keys."""
    found: bool = await conn.fetchval(
        "SELECT EXISTS (SELECT FROM report_event WHERE report_id = $1 AND key = ANY ($2))",
        report_id,
        list(keys),
    )
    return found


async def had(conn: asyncpg.Connection, report_id: UUID, authority_id: UUID) -> bool:
    """Whether an authority was ever given a report."""
    found: bool = await conn.fetchval(
        """
        SELECT EXISTS (SELECT FROM report_event
                       WHERE report_id = $1 AND authority_id = $2
                         AND kind IN ('received', 'rerouted'))
        """,
        report_id,
        authority_id,
    )
    return found
