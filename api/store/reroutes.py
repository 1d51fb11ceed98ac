"""The SQL of reports that change hands: `reroute`, `triage`, and what that does to deliveries.

A report in `reroute` waits to be routed again, one in `triage` for an operator. Until one of them
has found it a body it is owed to nobody, and it is lost in neither: a row leaves these tables in
the transaction that owes or holds the report elsewhere.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple
from uuid import UUID

import asyncpg

from api.store import audit
from api.store.authorities import heirs
from api.store.endpoints import delete_endpoint
from api.store.events import add_event


async def say_not_ours(
    conn: asyncpg.Connection,
    report_id: UUID,
    *,
    authority_id: UUID,
    named: str | None,
    note: str | None,
    key: str,
) -> bool:
    """Note that an authority says a report is not theirs, and have it routed again.

    False if it is not, or no longer, with that authority or one that it has taken over from; or if
    it said so under the same key before. Call it in a transaction.
    """
    holder = await conn.fetchval(
        "SELECT authority_id FROM report WHERE id = $1 FOR NO KEY UPDATE", report_id
    )
    if holder is None or authority_id not in await heirs(conn, holder):
        return False
    detail = {"named": named, "note": note}
    n = await add_event(
        conn,
        report_id,
        kind="not_ours",
        authority_id=authority_id,
        detail={name: value for name, value in detail.items() if value},
        key=f"not_ours:{key}",
    )
    if n is None:
        return False
    await _owe_nobody(conn, report_id)
    await conn.execute(
        """
        INSERT INTO reroute (report_id, named) VALUES ($1, $2)
        ON CONFLICT (report_id) DO UPDATE SET named = excluded.named
        """,
        report_id,
        named,
    )
    return True


async def tell(
    conn: asyncpg.Connection,
    report_id: UUID,
    *,
    authority_id: UUID,
    detail: Mapping[str, Any],
    key: str,
) -> bool:
    """Note what an authority says of its work on a report; whether that was news.

    `detail` has a `state`, and a `reason` where that is closed: if it is not theirs, the report is
    routed again. Call it in a transaction.
    """
    if detail.get("reason") == "not_responsible":
        return await say_not_ours(
            conn,
            report_id,
            authority_id=authority_id,
            named=detail.get("responsible"),
            note=detail.get("note"),
            key=key,
        )
    n = await add_event(
        conn, report_id, kind="status", authority_id=authority_id, detail=detail, key=key
    )
    return n is not None


async def next_reroute(conn: asyncpg.Connection) -> asyncpg.Record | None:
    """Lock the report that has waited longest to be routed again.

    Call it in a transaction; of two processes each gets another report.
    """
    return await conn.fetchrow(
        """
        SELECT report.id, lon, lat, category, accuracy_m, road_ref, chosen, authority_id, named
        FROM reroute
        JOIN report ON report.id = report_id
        ORDER BY reroute.since
        LIMIT 1
        FOR UPDATE OF reroute, report SKIP LOCKED
        """
    )


class Refusals(NamedTuple):
    """The codes of the authorities that said a report is not theirs, and how often that was."""

    codes: Sequence[str]
    hops: int


async def find_refusals(
    conn: asyncpg.Connection, report_id: UUID, *, before: int | None = None
) -> Refusals:
    """Who said that a report is not theirs, before an event or so far."""
    row = await conn.fetchrow(
        """
        SELECT coalesce(array_agg(DISTINCT code) FILTER (WHERE code IS NOT NULL), '{}'),
               count(DISTINCT n)::int
        FROM report_event LEFT JOIN authority_code USING (authority_id)
        WHERE report_id = $1 AND kind = 'not_ours' AND ($2::int IS NULL OR n < $2)
        """,
        report_id,
        before,
    )
    return Refusals(*row)


async def hand_over(
    conn: asyncpg.Connection,
    report_id: UUID,
    *,
    decision: Mapping[str, Any],
    dataset_id: int,
    authority_id: UUID,
    chosen: str | None = None,
    road_ref: str | None = None,
) -> None:
    """Give a report to an authority by a new decision: owe it to their endpoints, or hold it.

    What it was owed elsewhere is cancelled; the decision of the receipt is kept. `chosen` and
    `road_ref`, where either is given, are the reporter's latest answer, and replace the one before.
    The report's row must be locked.
    """
    before = await conn.fetchval("SELECT authority_id FROM report WHERE id = $1", report_id)
    await conn.execute(
        """
        UPDATE report
        SET first_decision = coalesce(first_decision, decision),
            decision = $2, dataset_id = $3, authority_id = $4,
            chosen = CASE WHEN coalesce($5, $6) IS NULL THEN chosen ELSE $5 END,
            road_ref = CASE WHEN coalesce($5, $6) IS NULL THEN road_ref ELSE $6 END
        WHERE id = $1
        """,
        report_id,
        decision,
        dataset_id,
        authority_id,
        chosen,
        road_ref,
    )
    waiting = await conn.fetchval(
        """
        SELECT EXISTS (SELECT FROM reroute WHERE report_id = $1)
            OR EXISTS (SELECT FROM triage WHERE report_id = $1)
        """,
        report_id,
    )
    if before == authority_id and not waiting:
        return  # who has it keeps it; only the decision is another
    await _owe_nobody(conn, report_id)
    # The lock makes a deletion of the endpoint wait for us, and us for a deletion, as on receipt.
    owed = await conn.fetchval(
        """
        WITH intake AS MATERIALIZED (
            SELECT id FROM intake_endpoint
            WHERE authority_id = $2 AND NOT fallback
              AND wanted(categories, (SELECT category FROM report WHERE id = $1))
            FOR KEY SHARE
        ), owed AS (
            INSERT INTO delivery (report_id, endpoint_id)
            SELECT $1, id FROM intake
            -- With a life of its own, but all that its attempts left in doubt: nobody has looked.
            ON CONFLICT (report_id, endpoint_id, sequence) DO UPDATE
            SET state = 'pending', due_at = now(), settled_at = NULL, redelivered_at = now(),
                owed_at = clock_timestamp()
            WHERE delivery.state IN ('cancelled', 'dead')
        )
        SELECT count(*) FROM intake
        """,
        report_id,
        authority_id,
    )
    if not owed:
        await conn.execute(
            """
            INSERT INTO held (report_id, authority_id) VALUES ($1, $2)
            ON CONFLICT (report_id) DO UPDATE SET authority_id = excluded.authority_id
            """,
            report_id,
            authority_id,
        )
    await _leave_queues(conn, report_id)


async def send_to_triage(conn: asyncpg.Connection, report_id: UUID, *, reason: str) -> None:
    """Put a report in the operator's queue, in place of any other. Its row must be locked."""
    await _owe_nobody(conn, report_id)
    await _leave_queues(conn, report_id)
    await conn.execute("INSERT INTO triage (report_id, reason) VALUES ($1, $2)", report_id, reason)
    await add_event(conn, report_id, kind="with_operator", detail={"reason": reason})


async def has_it(conn: asyncpg.Connection, report_id: UUID, authority_id: UUID) -> bool:
    """Whether a report was delivered to an authority."""
    found: bool = await conn.fetchval(
        """
        SELECT EXISTS (SELECT FROM delivery JOIN endpoint ON endpoint.id = endpoint_id
                       WHERE report_id = $1 AND authority_id = $2 AND sequence = 1
                         AND delivery.state = 'delivered')
        """,
        report_id,
        authority_id,
    )
    return found


async def _owe_nobody(conn: asyncpg.Connection, report_id: UUID) -> None:
    """Cancel what is owed of a report, but for the word to who had it that it has gone on."""
    await conn.execute(
        """
        SELECT FROM delivery WHERE report_id = $1 AND state IN ('pending', 'leased')
        ORDER BY sequence, id FOR UPDATE
        """,
        report_id,
    )
    await conn.execute(
        """
        UPDATE delivery SET state = 'cancelled', settled_at = now(), lease_token = NULL
        WHERE report_id = $1 AND state IN ('pending', 'leased')
          AND event ->> 'type' IS DISTINCT FROM 'report.withdrawn'
        """,
        report_id,
    )
    await conn.execute("DELETE FROM held WHERE report_id = $1", report_id)


async def _leave_queues(conn: asyncpg.Connection, report_id: UUID) -> None:
    await conn.execute("DELETE FROM reroute WHERE report_id = $1", report_id)
    await conn.execute("DELETE FROM triage WHERE report_id = $1", report_id)


async def find_triage(
    conn: asyncpg.Connection, *, after: Sequence[Any] | None, limit: int
) -> Sequence[asyncpg.Record]:
    """The operator's queue by (since, report_id), the oldest first, beyond the pair `after`."""
    since, report_id = after or (None, None)
    rows: Sequence[asyncpg.Record] = await conn.fetch(
        """
        SELECT report_id, since, reason, category, lon, lat, description, name AS last
        FROM triage
        JOIN report ON report.id = report_id
        JOIN authority ON authority.id = authority_id
        WHERE $1::timestamptz IS NULL OR (since, report_id) > ($1, $2::uuid)
        ORDER BY since, report_id
        LIMIT $3
        """,
        since,
        report_id,
        limit,
    )
    return rows


async def lock_report(conn: asyncpg.Connection, report_id: UUID) -> asyncpg.Record | None:
    """Lock a report's row, and say what decides about it and where it is."""
    return await conn.fetchrow(
        """
        SELECT id, lon, lat, category, accuracy_m, road_ref, chosen, authority_id, api_key_id,
               EXISTS (SELECT FROM triage WHERE report_id = report.id) AS with_operator,
               EXISTS (SELECT FROM reroute WHERE report_id = report.id
                       UNION ALL SELECT FROM triage WHERE report_id = report.id) AS waiting
        FROM report WHERE id = $1
        FOR NO KEY UPDATE
        """,
        report_id,
    )


# --- authorities that end -------------------------------------------------------------------------


async def wind_up(conn: asyncpg.Connection) -> int:
    """End the endpoints of authorities that are no more, and have what they never got rerouted.

    Returns how many authorities there were. What was delivered before stays delivered. Call it in a
    transaction; done twice it changes nothing.
    """
    over = await conn.fetch(
        """
        SELECT id
        FROM authority
        WHERE valid_to <= now()
          AND (EXISTS (SELECT FROM endpoint
                       WHERE authority_id = authority.id AND state <> 'deleted')
               OR EXISTS (SELECT FROM held WHERE authority_id = authority.id))
        FOR NO KEY UPDATE SKIP LOCKED
        """
    )
    for row in over:
        endpoints = await conn.fetch(
            "SELECT id FROM endpoint WHERE authority_id = $1 AND state <> 'deleted'", row["id"]
        )
        for endpoint in endpoints:
            await delete_endpoint(conn, authority_id=row["id"], endpoint_id=endpoint["id"])
            await audit.record(
                conn,
                "endpoint.deleted",
                api_key_id=None,
                authority_id=row["id"],
                target=endpoint["id"],
                detail={"because": "the authority is no more"},
            )
        await conn.execute(
            """
            WITH moved AS (
                DELETE FROM held WHERE authority_id = $1 RETURNING report_id
            )
            INSERT INTO reroute (report_id) SELECT report_id FROM moved
            ON CONFLICT (report_id) DO NOTHING
            """,
            row["id"],
        )
    return len(over)
