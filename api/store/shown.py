"""The SQL of what the public is not shown: `report_trace`, marks of spam, hidden reports."""

from __future__ import annotations

from collections.abc import Sequence
from uuid import UUID

import asyncpg

from api.store import events


async def trace(
    conn: asyncpg.Connection,
    report_id: UUID,
    *,
    api_key_id: UUID,
    address_hmac: str | None,
    text_hmac: str,
) -> tuple[int, int]:
    """Note where a report came from; returns how often its text came before, within the hour.

    From that address, and by that key.
    """
    row = await conn.fetchrow(
        """
        WITH noted AS (
            INSERT INTO report_trace (report_id, api_key_id, address_hmac, text_hmac)
            VALUES ($1, $2, $3, $4)
        )
        SELECT count(*) FILTER (WHERE address_hmac = $3), count(*) FILTER (WHERE api_key_id = $2)
        FROM report_trace
        WHERE text_hmac = $4 AND at > now() - interval '1 hour'
        """,
        report_id,
        api_key_id,
        address_hmac,
        text_hmac,
    )
    return tuple(row)


async def mark_spam(conn: asyncpg.Connection, report_id: UUID, reasons: Sequence[str]) -> None:
    """Mark a report that is just being stored, with an event. In its transaction."""
    await conn.execute(
        "UPDATE report SET spam = jsonb_build_object('reasons', $2::text[]) WHERE id = $1",
        report_id,
        list(reasons),
    )
    await events.add_event(conn, report_id, kind="spam", detail={"reasons": list(reasons)})


async def hide(conn: asyncpg.Connection, report_id: UUID) -> bool:
    """Hide a report; whether that was news."""
    done = await conn.execute(
        "UPDATE report SET hidden_at = now() WHERE id = $1 AND hidden_at IS NULL", report_id
    )
    return bool(done == "UPDATE 1")


async def unhide(conn: asyncpg.Connection, report_id: UUID) -> bool:
    """Show a report again, be it hidden or marked as spam; whether that was news."""
    done = await conn.execute(
        """
        UPDATE report
        SET hidden_at = NULL, spam_cleared_at = CASE WHEN spam IS NOT NULL THEN now() END
        WHERE id = $1
          AND (hidden_at IS NOT NULL OR spam IS NOT NULL AND spam_cleared_at IS NULL)
        """,
        report_id,
    )
    return bool(done == "UPDATE 1")
