"""The SQL of personal data: who it is about, what there is of it, and that it goes.

Here alone is written where personal data lies; docs/privacy.md says the same in words, and a test
holds the two to the schema. The log of events holds none and is never touched.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final
from uuid import UUID

import asyncpg

from api.store import photos

PURGE_LOCK: Final = 7305214
ERASED: Final = "[erased]"
# Rows of one statement: more would keep their locks from those who work.
BATCH: Final = 1000


@dataclass(frozen=True, slots=True)
class Retention:
    """How long what is kept, from the settings."""

    address_hours: int
    contact_days: int
    contact_most_days: int
    photos_days: int
    answers_days: int


@dataclass(frozen=True, slots=True)
class Rule:
    """What goes when its time is over: a query of keys, and what becomes of their rows.

    The query may name the fields of `Retention`, as {name}.
    """

    what: str
    due: str
    erase: str


# --- photos: their objects go with the sweep, once they are on no report --------------------------

_PHOTOS = Rule(
    "photo",
    "SELECT photo.id FROM photo JOIN report ON report.id = photo.report_id"
    " WHERE received_at < now() - {photos_days} * interval '1 day'",
    "UPDATE photo SET expires_at = '-infinity', idempotency_key = NULL, report_id = NULL,"
    " attached_at = NULL WHERE id = ANY ($1)",
)

RULES: Final = (
    # The private link stays: it says nothing of whose it is.
    Rule(
        "follower",
        "SELECT follower.id FROM follower JOIN report ON report.id = report_id"
        " LEFT JOIN closed_report ON closed_report.id = report.id"
        " WHERE (contact IS NOT NULL OR contact_hmac IS NOT NULL)"
        " AND (closed_at < now() - {contact_days} * interval '1 day'"
        " OR received_at < now() - {contact_most_days} * interval '1 day')",
        "UPDATE follower SET contact = NULL, contact_hmac = NULL, notify = false,"
        " share_contact = false WHERE id = ANY ($1)",
    ),
    _PHOTOS,
    Rule(
        "report_trace",
        "SELECT report_id FROM report_trace WHERE at < now() - {address_hours} * interval '1 hour'",
        "DELETE FROM report_trace WHERE report_id = ANY ($1)",
    ),
    # What it said is in the log as a digest, once it is there.
    Rule(
        "attempt",
        "SELECT DISTINCT delivery_id FROM attempt WHERE answer IS NOT NULL AND logged"
        " AND finished_at < now() - {answers_days} * interval '1 day'",
        "UPDATE attempt SET answer = NULL WHERE delivery_id = ANY ($1) AND answer IS NOT NULL"
        " AND logged AND finished_at < now() - {answers_days} * interval '1 day'",
    ),
)


def _with(retention: Retention, sql: str) -> str:
    # Whole numbers of the settings; no value of a request ever comes here.
    return sql.format(**{name: int(getattr(retention, name)) for name in retention.__slots__})


async def count_due(conn: asyncpg.Connection, retention: Retention) -> Mapping[str, int]:
    """How many rows of which table a purge would change."""
    return {
        rule.what: await conn.fetchval(
            f"SELECT count(*) FROM ({_with(retention, rule.due)}) AS due"
        )
        for rule in RULES
    }


async def purge(conn: asyncpg.Connection, retention: Retention) -> Mapping[str, int] | None:
    """Erase a batch of what is due, a table at a time; how many rows of each.

    None if somebody else is at it. In a transaction.
    """
    if not await conn.fetchval("SELECT pg_try_advisory_xact_lock($1)", PURGE_LOCK):
        return None
    counts = {}
    for rule in RULES:
        due = f"{_with(retention, rule.due)} LIMIT {BATCH}"
        rows = await conn.fetch(due)
        await conn.execute(_with(retention, rule.erase), [row[0] for row in rows])
        counts[rule.what] = len(rows)
    return counts


# --- one person -----------------------------------------------------------------------------------


async def find_by_token(conn: asyncpg.Connection, token_sha256: bytes) -> Sequence[UUID]:
    """The follower whose private link this is of."""
    rows = await conn.fetch("SELECT id FROM follower WHERE token_sha256 = $1", token_sha256)
    return [row["id"] for row in rows]


async def list_contacts(conn: asyncpg.Connection) -> Sequence[asyncpg.Record]:
    """Followers with contact details, sealed."""
    rows: Sequence[asyncpg.Record] = await conn.fetch(
        "SELECT id, contact FROM follower WHERE contact IS NOT NULL ORDER BY created_at, id"
    )
    return rows


async def find_reporter(conn: asyncpg.Connection, report_id: UUID) -> UUID | None:
    """The follower that reported a report."""
    found: UUID | None = await conn.fetchval(
        "SELECT id FROM follower WHERE report_id = $1 AND kind = 'reporter'", report_id
    )
    return found


async def has_report(conn: asyncpg.Connection, report_id: UUID) -> bool:
    """Whether there is such a report."""
    found: bool = await conn.fetchval("SELECT EXISTS (SELECT FROM report WHERE id = $1)", report_id)
    return found


async def read_followers(
    conn: asyncpg.Connection, follower_ids: Sequence[UUID]
) -> Sequence[asyncpg.Record]:
    """All that is stored of followers but for the token's digest; contacts are sealed."""
    rows: Sequence[asyncpg.Record] = await conn.fetch(
        """
        SELECT id, report_id, kind, contact, share_contact, notify, confirmed_at, unsubscribed_at,
               created_at, erased_at
        FROM follower WHERE id = ANY ($1) ORDER BY created_at, id
        """,
        list(follower_ids),
    )
    return rows


async def read_report(conn: asyncpg.Connection, report_id: UUID) -> asyncpg.Record:
    """All that is stored of a report, what happened to it, and to whom it was sent."""
    return await conn.fetchrow(
        """
        SELECT report.id, received_at, observed_at, lon, lat, accuracy_m, category, description,
               answers, road_ref, chosen, photos_public, spam, hidden_at, report.erased_at,
               authority.name AS authority,
               EXISTS (SELECT FROM report_trace WHERE report_id = report.id) AS traced,
               ARRAY(SELECT id FROM photo WHERE report_id = report.id ORDER BY created_at, id)
                   AS photos,
               (SELECT coalesce(jsonb_agg(jsonb_build_object(
                    'n', n, 'at', at, 'kind', kind, 'detail', detail) ORDER BY n), '[]')
                FROM report_event WHERE report_id = report.id) AS events
        FROM report JOIN authority ON authority.id = authority_id
        WHERE report.id = $1
        """,
        report_id,
    )


async def list_sent(
    conn: asyncpg.Connection, report_ids: Sequence[UUID]
) -> Sequence[asyncpg.Record]:
    """To whom reports were sent, or may have been, and how: they have a copy of their own."""
    rows: Sequence[asyncpg.Record] = await conn.fetch(
        """
        SELECT delivery.report_id, authority.name AS authority, channel, url,
               min(attempt.started_at) AS first_sent_at, max(delivery.reference) AS reference
        FROM delivery
        JOIN endpoint ON endpoint.id = delivery.endpoint_id
        JOIN authority ON authority.id = endpoint.authority_id
        JOIN attempt ON attempt.delivery_id = delivery.id
        WHERE delivery.report_id = ANY ($1) AND NOT attempt.nothing_sent
        GROUP BY delivery.report_id, endpoint.id, authority.id
        ORDER BY delivery.report_id, authority.name, endpoint.id
        """,
        list(report_ids),
    )
    return rows


async def erase_followers(conn: asyncpg.Connection, follower_ids: Sequence[UUID]) -> int:
    """Erase contact details and private links; returns of how many followers."""
    done = await conn.execute(
        """
        UPDATE follower
        SET token_sha256 = NULL, token = NULL, contact = NULL, contact_hmac = NULL,
            share_contact = false, notify = false, erased_at = now()
        WHERE id = ANY ($1) AND erased_at IS NULL
        """,
        list(follower_ids),
    )
    return int(done.removeprefix("UPDATE "))


async def erase_report(conn: asyncpg.Connection, report_id: UUID) -> bool:
    """Erase what a reporter wrote, photographed, and where it came from; whether there was any.

    With the text goes its salt, without which nobody can try guesses against its digest. Place and
    category stay: they are the defect's.
    """
    await conn.execute("SELECT FROM report WHERE id = $1 FOR NO KEY UPDATE", report_id)
    done = await conn.execute(
        """
        UPDATE report
        SET description = $2, content_salt = NULL, erased_at = now(),
            answers = (SELECT coalesce(jsonb_object_agg(code, value), '{}')
                       FROM jsonb_each(answers) AS answer (code, value)
                       WHERE jsonb_typeof(value) <> 'string')
        WHERE id = $1 AND erased_at IS NULL
        """,
        report_id,
        ERASED,
    )
    await conn.execute("DELETE FROM report_trace WHERE report_id = $1", report_id)
    await conn.execute(
        """
        UPDATE attempt SET answer = NULL FROM delivery
        WHERE delivery.id = delivery_id AND delivery.report_id = $1 AND logged
        """,
        report_id,
    )
    # A digest of the request, without a salt. A retry is told that its key was used for another.
    await conn.execute(
        """
        UPDATE idempotency SET request_sha256 = sha256(gen_random_uuid()::text::bytea)
        WHERE report_id = $1
        """,
        report_id,
    )
    gone = await photos.erase_photos(conn, report_id)
    return bool(done == "UPDATE 1") or gone > 0
