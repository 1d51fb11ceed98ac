"""The SQL of reports: `report` and its events, `idempotency`, `held`, deliveries owed on receipt.

A report is stored with all that follows from it in one statement, or not at all.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any
from uuid import UUID

import asyncpg

from api.store.followers import NewFollower


async def insert_report(
    conn: asyncpg.Connection,
    *,
    report_id: UUID,
    api_key_id: UUID,
    idempotency_key: str,
    request_sha256: bytes,
    lon: float,
    lat: float,
    accuracy_m: float | None,
    road_ref: str | None,
    chosen: str | None,
    observed_at: datetime | None,
    category: str,
    description: str,
    answers: Mapping[str, Any],
    decision: Mapping[str, Any],
    dataset_id: int,
    authority_id: UUID,
    follower: NewFollower,
    photos: Sequence[UUID] = (),
    photos_public: bool = False,
    address_hmac: str | None = None,
    text_hmac: str = "",
    spam: Sequence[str] = (),
) -> asyncpg.Record | None:
    """Store a report with all that follows from it; None if the idempotency key was used before.

    None also if one of the photos is not the key's to put on a report.

    A single statement and so a transaction of its own: all of it is committed on return, or none.
    """
    return await conn.fetchrow(
        """
        WITH given AS MATERIALIZED (
            -- Of two reports with one photo, the later waits here and then finds it taken. Before
            -- the key, so that of concurrent posts with one key the losers wait here already.
            SELECT id FROM photo
            WHERE id = ANY ($24::uuid[]) AND api_key_id = $2 AND report_id IS NULL
              AND expires_at > now()
            ORDER BY id
            FOR UPDATE
        ), fresh AS (
            -- Of concurrent posts with one key, the losers wait here on the unique index until the
            -- winner commits, and then insert nothing, here and below. They find the winner's
            -- report in a statement of their own: this one's snapshot is too old to see it.
            INSERT INTO idempotency (api_key_id, key, request_sha256, report_id, follower_id)
            SELECT $2, $3, $4, $1, $17
            WHERE (SELECT count(*) FROM given) = cardinality($24::uuid[])
            ON CONFLICT (api_key_id, key) DO NOTHING
            RETURNING report_id
        ), intake AS MATERIALIZED (
            -- The lock makes a deletion of the endpoint wait for us, and us for a deletion, after
            -- which the row no longer qualifies: no delivery is ever left on a deleted endpoint.
            -- An endpoint being activated is not seen, and the report is held behind it; the
            -- worker releases such reports regularly.
            SELECT id FROM intake_endpoint
            WHERE authority_id = $13 AND NOT fallback AND wanted(categories, $9)
            FOR KEY SHARE
        ), stored AS (
            INSERT INTO report (id, api_key_id, lon, lat, accuracy_m, observed_at, category,
                                description, decision, dataset_id, authority_id, held_on_receipt,
                                road_ref, chosen, answers, photos_public, spam)
            SELECT report_id, $2, $5::float8, $6::float8, $7::float8, $8::timestamptz, $9::text,
                   $10::text, $11::jsonb, $12::bigint, $13, NOT EXISTS (SELECT FROM intake),
                   $14::text, $15::text, $16::jsonb, $25::boolean,
                   CASE WHEN $28::text[] <> '{}' THEN jsonb_build_object('reasons', $28) END
            FROM fresh
            RETURNING *
        ), owed AS (
            INSERT INTO delivery (report_id, endpoint_id)
            SELECT stored.id, intake.id FROM stored CROSS JOIN intake
        ), waiting AS (
            INSERT INTO held (report_id, authority_id)
            SELECT id, $13 FROM stored WHERE held_on_receipt
        ), reporter AS (
            INSERT INTO follower (id, report_id, kind, token_sha256, token, contact, contact_hmac,
                                  share_contact, notify)
            SELECT $17, id, 'reporter', $18::bytea, $19::text, $20::text, $21::bytea, $22::boolean,
                   $23::boolean
            FROM stored
        ), attached AS (
            UPDATE photo
            SET report_id = stored.id, attached_at = CASE WHEN stored_at IS NOT NULL THEN now() END
            FROM stored
            WHERE photo.id IN (SELECT id FROM given)
        ), traced AS (
            INSERT INTO report_trace (report_id, api_key_id, address_hmac, text_hmac)
            SELECT id, $2, $26::text, $27::text FROM stored
        ), told AS (
            -- The log commits to what was reported, and does not say it.
            INSERT INTO report_event (report_id, n, kind, authority_id, detail)
            SELECT id, 1, 'received', $13,
                   jsonb_build_object('content_sha256', encode(sha256(convert_to(
                       report_content_text(id, content_salt, category, lon, lat, observed_at,
                                           answers, description), 'UTF8')), 'hex'))
            FROM stored
            UNION ALL
            SELECT id, 2, 'spam', NULL, spam FROM stored WHERE spam IS NOT NULL
        )
        SELECT received_at, held_on_receipt FROM stored
        """,
        report_id,
        api_key_id,
        idempotency_key,
        request_sha256,
        lon,
        lat,
        accuracy_m,
        observed_at,
        category,
        description,
        decision,
        dataset_id,
        authority_id,
        road_ref,
        chosen,
        answers,
        follower.id,
        follower.token_sha256,
        follower.token,
        follower.contact,
        follower.contact_hmac,
        follower.share_contact,
        follower.notify,
        list(photos),
        photos_public,
        address_hmac,
        text_hmac,
        list(spam),
    )


async def find_posted(
    conn: asyncpg.Connection, *, api_key_id: UUID, idempotency_key: str
) -> asyncpg.Record | None:
    """The report that an idempotency key was used for, and the private link of the receipt.

    `receipt` is null unless the report is another's, which the request joined.
    """
    return await conn.fetchrow(
        """
        SELECT request_sha256, report.id, received_at,
               coalesce(first_decision, decision) AS decision, held_on_receipt, receipt,
               follower.token
        FROM idempotency
        JOIN report ON report.id = idempotency.report_id
        LEFT JOIN follower ON follower.id = follower_id
        WHERE idempotency.api_key_id = $1 AND key = $2
        """,
        api_key_id,
        idempotency_key,
    )


async def find_report(conn: asyncpg.Connection, report_id: UUID) -> Sequence[asyncpg.Record]:
    """A report with its deliveries: a row for each, one with a null `delivery_id` if there is none.

    One statement, so that a report never shows as neither held nor owed while it is released.
    """
    rows: Sequence[asyncpg.Record] = await conn.fetch(
        """
        SELECT report.id, report.received_at, report.decision AS current,
               coalesce(report.first_decision, report.decision) AS decision,
               report.held_on_receipt, report.answers, report.api_key_id, report.authority_id,
               held.report_id IS NOT NULL AS held,
               EXISTS (SELECT FROM reroute WHERE report_id = report.id) AS rerouting,
               EXISTS (SELECT FROM triage WHERE report_id = report.id) AS with_operator,
               endpoint.authority_id = report.authority_id AS to_who_has_it,
               delivery.id AS delivery_id, delivery.endpoint_id, sequence, delivery.state,
               delivery.attempts, delivery.reference, delivery.settled_at, delivery.due_at,
               delivery.nothing_sent,
               last.outcome AS last_outcome, last.status AS last_status
        FROM report
        LEFT JOIN held ON held.report_id = report.id
        LEFT JOIN delivery ON delivery.report_id = report.id
        LEFT JOIN endpoint ON endpoint.id = delivery.endpoint_id
        LEFT JOIN LATERAL (
            SELECT outcome, status FROM attempt
            WHERE delivery_id = delivery.id AND outcome IS NOT NULL
            ORDER BY n DESC LIMIT 1
        ) AS last ON true
        WHERE report.id = $1
        ORDER BY delivery.created_at, delivery.id
        """,
        report_id,
    )
    return rows


async def find_question(conn: asyncpg.Connection, report_id: UUID) -> asyncpg.Record | None:
    """What decided about a report: its question, its decision by now, and that one's dataset."""
    return await conn.fetchrow(
        """
        SELECT report.id, received_at, lon, lat, category, accuracy_m, road_ref, chosen, decision,
               dataset_id
        FROM report
        WHERE report.id = $1
        """,
        report_id,
    )


async def list_questions(conn: asyncpg.Connection, *, since: datetime) -> Sequence[asyncpg.Record]:
    """What the reports received since an instant ask, with the codes of those who refused them.

    Whether a report is `open` is what the public is told.
    """
    rows: Sequence[asyncpg.Record] = await conn.fetch(
        """
        SELECT id, lon, lat, category, accuracy_m, road_ref, chosen,
               ARRAY(
                   SELECT DISTINCT code
                   FROM report_event JOIN authority_code USING (authority_id)
                   WHERE report_id = report.id AND kind = 'not_ours'
                   ORDER BY code
               ) AS refused,
               NOT closed AS open
        FROM report JOIN report_progress USING (id)
        WHERE received_at >= $1
        ORDER BY received_at, id
        """,
        since,
    )
    return rows
