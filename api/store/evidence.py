"""The SQL of evidence: attempts become events, chains are read, and the keys that sign.

An attempt that has ended is an event within seconds, once, whoever dies in between: event and mark
are one transaction, and the event's key says which attempt and which outcome it tells of.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import Any
from uuid import UUID

import asyncpg

from api.evidence import Logged

# Attempts looked at in one transaction, which holds the locks of their reports
BATCH = 200

# An attempt has ended when it was settled; or when another was begun after it, or its delivery was
# cancelled, so that nobody settles it any more: what came of it is not known.
_ENDED = """
NOT logged AND (finished_at IS NOT NULL OR delivery.attempts > attempt.n
                OR delivery.state <> 'leased')
"""
_KEY = "'attempt:' || delivery.id || ':' || attempt.n || ':' || coalesce(outcome, 'unknown')"
_AT = '\'YYYY-MM-DD"T"HH24:MI:SS.US"Z"\''


async def log_attempts(conn: asyncpg.Connection, *, limit: int = BATCH) -> int:
    """Make events of attempts that have ended; returns of how many.

    Reports that somebody else has in hand are left for the next time. In a transaction of its own.
    """
    async with conn.transaction():
        # Nothing is locked yet: which they are is looked at again once their reports are.
        ids = await conn.fetch(
            f"""
            SELECT DISTINCT report_id
            FROM (
                SELECT report_id
                FROM attempt JOIN delivery ON delivery.id = delivery_id
                WHERE {_ENDED}
                LIMIT $1
            ) AS ended
            """,
            limit,
        )
        if not ids:
            return 0
        locked = await conn.fetch(
            """
            SELECT id FROM report WHERE id = ANY ($1::uuid[])
            ORDER BY id FOR NO KEY UPDATE SKIP LOCKED
            """,
            [row["report_id"] for row in ids],
        )
        return await _log(conn, [row["id"] for row in locked])


async def log_attempts_of(conn: asyncpg.Connection, report_id: UUID) -> None:
    """The same for all of one report, whose row must be locked."""
    await _log(conn, [report_id])


async def _log(conn: asyncpg.Connection, report_ids: Sequence[UUID]) -> int:
    """The reports' rows are locked: events of one report take turns."""
    # `ended` sees what those before us committed, for it is a statement after the lock. The number
    # follows the order in which the attempts began. Sorted, so that each event finds the one before
    # it: a trigger sees the rows that its statement has inserted already.
    # An attempt's row is written by others while its delivery is leased to them, and by a bounce;
    # a mail that comes back just now is marked again by that.
    return await conn.fetchval(  # type: ignore[no-any-return]
        f"""
        WITH ended AS MATERIALIZED (
            SELECT delivery.id AS delivery_id, report_id, attempt.n, started_at, {_KEY} AS key,
                   endpoint.authority_id,
                   jsonb_strip_nulls(jsonb_build_object(
                       'delivery', delivery.id, 'sequence', sequence, 'n', attempt.n,
                       'endpoint', endpoint.id, 'channel', channel,
                       'started_at', to_char(started_at AT TIME ZONE 'UTC', {_AT}),
                       'finished_at', to_char(finished_at AT TIME ZONE 'UTC', {_AT}),
                       'outcome', coalesce(outcome, 'unknown'), 'status', status,
                       'answer_sha256', encode(sha256(convert_to(answer, 'UTF8')), 'hex'),
                       'reference', attempt.reference,
                       'unsure', CASE WHEN unsure THEN true END,
                       'nothing_sent', CASE WHEN attempt.nothing_sent THEN true END))
                       AS detail
            FROM delivery
            JOIN attempt ON attempt.delivery_id = delivery.id
            JOIN endpoint ON endpoint.id = endpoint_id
            WHERE report_id = ANY ($1) AND {_ENDED}
        ), fresh AS (
            SELECT * FROM ended
            WHERE NOT EXISTS (SELECT FROM report_event
                              WHERE report_id = ended.report_id AND key = ended.key)
        ), told AS (
            INSERT INTO report_event (report_id, n, kind, authority_id, detail, key)
            SELECT report_id,
                   (SELECT coalesce(max(n), 0) FROM report_event
                    WHERE report_id = fresh.report_id)
                       + row_number() OVER (PARTITION BY report_id
                                            ORDER BY started_at, delivery_id, n) AS place,
                   'attempted', authority_id, detail, key
            FROM fresh
            ORDER BY report_id, place
        ), marked AS (
            UPDATE attempt SET logged = true
            FROM ended
            WHERE attempt.delivery_id = ended.delivery_id AND attempt.n = ended.n
              -- not what has come back meanwhile
              AND coalesce(attempt.outcome, 'unknown') = split_part(ended.key, ':', 4)
            RETURNING attempt.n
        )
        SELECT count(*)::int FROM marked
        """,
        list(report_ids),
    )


async def count_under_way(conn: asyncpg.Connection, report_id: UUID) -> int:
    """How many attempts of a report have begun and not ended."""
    count: int = await conn.fetchval(
        """
        SELECT count(*)::int FROM attempt JOIN delivery ON delivery.id = delivery_id
        WHERE report_id = $1 AND NOT logged
        """,
        report_id,
    )
    return count


# --- reading --------------------------------------------------------------------------------------


async def read_logs(
    conn: asyncpg.Connection, report_ids: Collection[UUID]
) -> Mapping[UUID, Sequence[Logged]]:
    """The events of reports as they are stored, in order."""
    rows = await conn.fetch(
        """
        SELECT report_id, n, at, kind, authority_id, authority.name AS authority_name, key,
               detail::text AS detail, previous_hash, hash
        FROM report_event LEFT JOIN authority ON authority.id = authority_id
        WHERE report_id = ANY ($1)
        ORDER BY report_id, n
        """,
        list(report_ids),
    )
    logs: dict[UUID, list[Logged]] = {one: [] for one in report_ids}
    for row in rows:
        logs[row["report_id"]].append(Logged(**row))
    return logs


async def read_reports(
    conn: asyncpg.Connection,
    *,
    report_ids: Collection[UUID] | None = None,
    after: UUID | None = None,
    limit: int,
) -> Sequence[asyncpg.Record]:
    """What was reported, by the reports' ids, beyond `after`; all reports or those named.

    `lost` are attempts that are marked as logged and are in no event.
    """
    rows: Sequence[asyncpg.Record] = await conn.fetch(
        f"""
        SELECT id, received_at, observed_at, lon, lat, accuracy_m, category, description,
               answers::text AS answers, content_salt, authority_id,
               decision, coalesce(first_decision, decision) AS first_decision,
               (SELECT count(*)::int
                FROM delivery JOIN attempt ON attempt.delivery_id = delivery.id
                WHERE delivery.report_id = report.id AND logged
                  AND NOT EXISTS (SELECT FROM report_event
                                  WHERE report_event.report_id = report.id
                                    AND key = {_KEY})) AS lost
        FROM report
        WHERE ($1::uuid[] IS NULL OR id = ANY ($1)) AND ($2::uuid IS NULL OR id > $2)
        ORDER BY id
        LIMIT $3
        """,
        list(report_ids) if report_ids is not None else None,
        after,
        limit,
    )
    return rows


async def lock_report(conn: asyncpg.Connection, report_id: UUID) -> asyncpg.Record | None:
    """Lock a report's row, so that nothing becomes of it meanwhile; who may see it."""
    return await conn.fetchrow(
        "SELECT api_key_id, authority_id FROM report WHERE id = $1 FOR NO KEY UPDATE", report_id
    )


async def clock(conn: asyncpg.Connection) -> Any:
    """The database's time, which the events have too."""
    return await conn.fetchval("SELECT clock_timestamp()")


# --- keys -----------------------------------------------------------------------------------------


async def list_signing_keys(conn: asyncpg.Connection) -> Sequence[asyncpg.Record]:
    """All keys without their secrets, the newest first."""
    rows: Sequence[asyncpg.Record] = await conn.fetch(
        """
        SELECT public_key, created_at, retired_at FROM signing_key
        ORDER BY created_at DESC, public_key
        """
    )
    return rows


async def find_signing_key(conn: asyncpg.Connection) -> str | None:
    """The key in use, sealed."""
    sealed: str | None = await conn.fetchval(
        "SELECT private_key FROM signing_key WHERE retired_at IS NULL"
    )
    return sealed


async def insert_signing_key(
    conn: asyncpg.Connection, *, public_key: bytes, private_key: str
) -> None:
    """Put a key in use, unless there is one."""
    await conn.execute(
        """
        INSERT INTO signing_key (public_key, private_key) VALUES ($1, $2)
        ON CONFLICT DO NOTHING
        """,
        public_key,
        private_key,
    )


async def retire_signing_key(conn: asyncpg.Connection) -> None:
    """Take the key in use out of use."""
    await conn.execute("UPDATE signing_key SET retired_at = now() WHERE retired_at IS NULL")
