"""The SQL of what the public is not shown: `report_trace`, marks of spam, hidden reports."""

from __future__ import annotations

from uuid import UUID

import asyncpg


async def count_same(
    conn: asyncpg.Connection, *, api_key_id: UUID, address_hmac: str | None, text_hmac: str
) -> tuple[int, int]:
    """How often a text came before, within the hour: from that address, and by that key.

    Of the last 200 times: enough to tell, however common the text is.
    """
    row = await conn.fetchrow(
        """
        SELECT count(*) FILTER (WHERE address_hmac = $2), count(*) FILTER (WHERE api_key_id = $1)
        FROM (
            SELECT address_hmac, api_key_id FROM report_trace
            WHERE text_hmac = $3 AND at > now() - interval '1 hour'
            ORDER BY at DESC LIMIT 200
        ) AS last
        """,
        api_key_id,
        address_hmac,
        text_hmac,
    )
    return tuple(row)


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
