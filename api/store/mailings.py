"""The SQL of mail to followers: who is due, claimed under a lease and settled under its token.

There is no queue of messages: what they are told is the report's events after `told_n`. Which mail
is being sent is written before it is sent, so that every try of it is the same.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime
from typing import Any
from uuid import UUID

import asyncpg

# An address gets so many unanswered questions a day, whoever names it.
ASKED_A_DAY = 3
EVERY_S = 3600.0
# What is older when it could be asked is asked no more.
ASK_WITHIN_DAYS = 7
TOLD = """
    event.kind IN ('rerouted', 'with_operator', 'status', 'still_there')
    OR event.kind = 'attempted' AND event.detail ->> 'outcome' = 'delivered'
       AND event.detail ->> 'sequence' = '1' AND event.detail ->> 'nothing_sent' IS NULL
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Mailing:
    """A mail to one follower, leased to us; `upto` 0 is the one that asks to confirm."""

    id: UUID
    lease: UUID
    mail_id: UUID
    report_id: UUID
    category: str
    upto: int
    told_n: int
    tries: int
    since: datetime  # of the first try
    age_s: float
    contact: str = field(repr=False)  # sealed, as are the tokens
    token: str = field(repr=False)
    mail_token: str = field(repr=False)
    events: list[dict[str, Any]] = field(default_factory=list)


async def claim_mailing(
    conn: asyncpg.Connection, *, lease_s: float, mail_token: str, mail_token_sha256: bytes
) -> Mailing | None:
    """Lease what is due longest; None if nothing is. The token, sealed, is for a first mail.

    In a transaction of its own, which is over before anything is sent.
    """
    while True:
        async with conn.transaction():
            row = await conn.fetchrow(
                """
                SELECT id, contact, contact_hmac, confirmed_at, asked_at, told_n, telling_n,
                       created_at > now() - make_interval(days => $1) AS young
                FROM follower
                WHERE notify AND mail_due_at <= now()
                  AND contact IS NOT NULL AND token IS NOT NULL  -- erased otherwise
                ORDER BY mail_due_at LIMIT 1
                FOR UPDATE SKIP LOCKED
                """,
                ASK_WITHIN_DAYS,
            )
            if row is None:
                return None
            # A statement after the lock: later news waits for us, and makes it due again.
            upto = row["telling_n"]
            if upto is None:
                upto = await _next(conn, row)
            if upto is None:
                await conn.execute(
                    "UPDATE follower SET mail_due_at = NULL, mail_lease = NULL WHERE id = $1",
                    row["id"],
                )
                continue
            return await _lease(conn, row["id"], upto, lease_s, mail_token, mail_token_sha256)


async def _next(conn: asyncpg.Connection, row: asyncpg.Record) -> int | None:
    """Up to which event the next mail tells; 0 if it asks to confirm, None if there is none."""
    if row["confirmed_at"] is None:
        if row["asked_at"] is not None or not row["young"]:
            return None
        asked = await conn.fetchval(
            """
            SELECT count(*) FROM follower
            WHERE contact_hmac = $1 AND confirmed_at IS NULL
              AND (asked_at > now() - interval '1 day' OR telling_n = 0)
            """,
            row["contact_hmac"],
        )
        return 0 if asked < ASKED_A_DAY else None
    upto: int | None = await conn.fetchval(
        f"""
        SELECT max(event.n)
        FROM follower JOIN report_event AS event USING (report_id)
        WHERE follower.id = $1 AND event.n > told_n AND event.at >= follower.created_at AND ({TOLD})
        """,
        row["id"],
    )
    return upto


async def _lease(
    conn: asyncpg.Connection,
    follower_id: UUID,
    upto: int,
    lease_s: float,
    mail_token: str,
    mail_token_sha256: bytes,
) -> Mailing | None:
    row = await conn.fetchrow(
        """
        UPDATE follower
        SET telling_n = $2, mail_lease = gen_random_uuid(), mail_tries = mail_tries + 1,
            mail_due_at = now() + $3 * interval '1 second',
            mail_since = coalesce(mail_since, now()),
            mail_token = coalesce(mail_token, $4),
            mail_token_sha256 = coalesce(mail_token_sha256, $5)
        FROM report
        WHERE follower.id = $1 AND report.id = report_id
        RETURNING follower.id, mail_lease AS lease, mail_id, report_id, report.category,
                  telling_n AS upto, told_n, mail_tries AS tries, mail_since AS since,
                  contact, token, mail_token,
                  extract(epoch FROM now() - mail_since)::float8 AS age_s
        """,
        follower_id,
        upto,
        lease_s,
        mail_token,
        mail_token_sha256,
    )
    events = await conn.fetch(
        f"""
        SELECT event.n, at, event.kind, authority_id, name AS authority_name, detail, key
        FROM follower
        JOIN report_event AS event USING (report_id)
        LEFT JOIN authority ON authority.id = authority_id
        WHERE follower.id = $1 AND event.n > told_n AND event.n <= $2
          AND event.at >= follower.created_at AND ({TOLD})
        ORDER BY event.n
        """,
        follower_id,
        upto,
    )
    return Mailing(**row, events=[dict(event) for event in events])


async def settle_mailing(
    conn: asyncpg.Connection,
    mailing: Mailing,
    *,
    done: bool,
    delay_s: float = 0.0,
    stopped: str | None = None,
) -> bool:
    """Note how it ended; False if the lease was lost.

    `done`: this mail is over, sent or given up, and the next one waits an hour. Otherwise it is
    tried again after `delay_s`. `stopped` is why none is sent any more.
    """
    settled: str = await conn.execute(
        """
        UPDATE follower
        SET mail_lease = NULL, mail_stopped = $4,
            told_n = CASE WHEN $3 THEN greatest(told_n, telling_n) ELSE told_n END,
            asked_at = CASE WHEN $3 AND telling_n = 0 THEN now() ELSE asked_at END,
            telling_n = CASE WHEN $3 THEN NULL ELSE telling_n END,
            mail_tries = CASE WHEN $3 THEN 0 ELSE mail_tries END,
            mail_since = CASE WHEN $3 THEN NULL ELSE mail_since END,
            mail_due_at = CASE
                WHEN $4::text IS NOT NULL OR unsubscribed_at IS NOT NULL THEN NULL
                -- confirmed while it was sent: news need not wait
                WHEN $3 AND telling_n = 0 THEN CASE WHEN confirmed_at IS NOT NULL THEN now() END
                ELSE now() + $5 * interval '1 second' END
        WHERE id = $1 AND mail_lease = $2
        """,
        mailing.id,
        mailing.lease,
        done,
        stopped,
        EVERY_S if done else delay_s,
    )
    return settled == "UPDATE 1"


async def bounced(conn: asyncpg.Connection, mail_id: UUID) -> bool:
    """Note that a mail to a follower came back: they get no more. False if it was to none."""
    found: bool = await conn.fetchval(
        """
        WITH stopped AS (
            UPDATE follower SET mail_stopped = 'came back', mail_due_at = NULL, mail_lease = NULL
            WHERE mail_id = $1
            RETURNING id
        )
        SELECT EXISTS (SELECT FROM stopped)
        """,
        mail_id,
    )
    return found
