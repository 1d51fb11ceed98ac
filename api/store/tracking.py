"""The SQL of the private link, and of what a follower does by mail: confirm, unsubscribe."""

from __future__ import annotations

from uuid import UUID

import asyncpg


async def find_follower(conn: asyncpg.Connection, token_sha256: bytes) -> asyncpg.Record | None:
    """Whose private link it is, with what of the report they are shown; None if it is nobody's.

    By the hash alone: how long it takes tells nothing of the token.
    """
    return await conn.fetchrow(
        """
        SELECT follower.id, report_id, kind, notify, confirmed_at, unsubscribed_at, mail_stopped,
               report.description, report.category,
               (SELECT coalesce(max(n), 0) FROM report_event
                WHERE report_event.report_id = follower.report_id) AS last
        FROM follower JOIN report ON report.id = report_id
        WHERE token_sha256 = $1 AND follower.erased_at IS NULL
        """,
        token_sha256,
    )


async def unsubscribe(conn: asyncpg.Connection, follower_id: UUID) -> None:
    """Send them no mail any more. A second time changes nothing."""
    await conn.execute(
        """
        UPDATE follower SET unsubscribed_at = now(), mail_due_at = NULL
        WHERE id = $1 AND unsubscribed_at IS NULL
        """,
        follower_id,
    )


async def find_by_mail(conn: asyncpg.Connection, token_sha256: bytes) -> asyncpg.Record | None:
    """Who was sent a mail with this token."""
    return await conn.fetchrow(
        """
        SELECT id, report_id, confirmed_at, unsubscribed_at FROM follower
        WHERE mail_token_sha256 = $1 AND erased_at IS NULL
        """,
        token_sha256,
    )


async def confirm(conn: asyncpg.Connection, follower_id: UUID) -> None:
    """Note that the address is theirs, and that they want mail. Also after they did not."""
    await conn.execute(
        """
        UPDATE follower
        SET confirmed_at = coalesce(confirmed_at, now()), unsubscribed_at = NULL,
            mail_due_at = now()
        WHERE id = $1 AND (confirmed_at IS NULL OR unsubscribed_at IS NOT NULL)
        """,
        follower_id,
    )
