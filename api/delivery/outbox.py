"""The queue: deliveries owed to endpoints, claimed under a lease and settled under its token.

The SQL that races is here and says why it is as it is. It promises that one delivery is leased to
one worker at a time, that an attempt is on record before it is made, and that a worker which comes
too late changes nothing. Enqueuing is the intake's, in the report's own transaction; nothing here
sends. Who is at work on the queue, and what wakes them, is `liveness`'s. It is long by its
comments: what two statements may do to each other is read in one place.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any
from uuid import UUID

import asyncpg

from api.delivery import policy
from api.delivery.policy import Deferred, Delivered, Gone, Next, NotOurs, Outcome, Rejected
from api.store import reroutes

# Claims take turns under this advisory lock.
CLAIM_LOCK = 7305212
# How long a later delivery of a report waits for an earlier one to the same endpoint at most
PATIENCE_S = 3600.0
# What was held for an endpoint that has just become active does not fall upon it all at once: each
# worker makes a batch of this many due in so many seconds.
RELEASE_BATCH = 500
RELEASE_EVERY_S = 5.0
ERROR_CHARS = 500


@dataclass(frozen=True, slots=True, kw_only=True)
class Claimed:
    """A delivery leased to us, with what a channel needs to send it."""

    delivery_id: UUID
    lease_token: UUID
    attempt: int  # from 1
    tries: int = 1  # attempts since it was owed, or redelivered last, this one included
    rejections: int  # earlier ones of those that were rejected
    age_s: float
    endpoint_id: UUID
    channel: str
    url: str
    secret: str = field(repr=False)  # as it is stored; the worker opens it for the channel
    sequence: int = 1  # of what this endpoint is sent about the report
    event: Mapping[str, Any] | None = field(default=None, repr=False)  # None: the report itself
    report_id: UUID
    received_at: datetime
    observed_at: datetime | None
    lon: float
    lat: float
    accuracy_m: float | None
    category: str
    description: str = field(repr=False)
    answers: Mapping[str, Any] = field(repr=False)
    decision: Mapping[str, Any] = field(repr=False)
    authority_id: UUID
    authority_name: str
    config: Mapping[str, Any] = field(default_factory=dict, repr=False)
    old_secret: str | None = field(default=None, repr=False)  # signs too, while it is rotated
    # What of the reporter the authority may have, sealed JSON; the worker opens it for the channel
    contact: str | None = field(default=None, repr=False)
    unsure: bool = False  # an earlier attempt may have arrived
    # Of this try, or of the first one since it was owed: what must be alike in all tries counts
    # from then.
    first_tried_at: datetime | None = None
    spam: Sequence[str] = ()  # reasons to think so, as they were on receipt
    photos: Sequence[Mapping[str, Any]] = ()  # that came before it was owed

    @property
    def reporter(self) -> Mapping[str, str] | None:
        """What of the reporter the authority may have: name, email, phone, as far as given."""
        opened: Mapping[str, str] | None = json.loads(self.contact) if self.contact else None
        return opened


async def release_held(conn: asyncpg.Connection, authority_id: UUID | None = None) -> int:
    """Turn held reports into deliveries where their authority has an endpoint for them by now.

    At most `RELEASE_BATCH`, oldest first; returns how many reports were released. Any number of
    processes may call it at the same time.
    """
    # `open`: FOR SHARE waits for, and then looks again after, a transaction that is just deleting
    # or suspending the endpoint; without it a report could leave `held` and be owed to nobody.
    # `batch`: SKIP LOCKED, so that two callers divide the work rather than wait for each other.
    # `owed`: a microsecond apart, so that the claims take them in this order.
    return await conn.fetchval(  # type: ignore[no-any-return]
        """
        WITH open AS MATERIALIZED (
            SELECT id, authority_id, categories
            FROM intake_endpoint
            WHERE NOT fallback
              AND ($1::uuid IS NULL OR authority_id = $1)
              AND EXISTS (SELECT FROM held WHERE held.authority_id = intake_endpoint.authority_id)
            FOR SHARE
        ), batch AS MATERIALIZED (
            SELECT held.report_id, category, received_at
            FROM held
            JOIN report ON report.id = held.report_id
            WHERE EXISTS (
                SELECT FROM open
                WHERE open.authority_id = held.authority_id AND wanted(categories, category)
            )
            ORDER BY since, received_at
            LIMIT $2
            FOR UPDATE OF held SKIP LOCKED
        ), freed AS (
            DELETE FROM held
            USING batch
            WHERE held.report_id = batch.report_id
            RETURNING held.report_id, held.authority_id, since, category, received_at
        ), owed AS (
            INSERT INTO delivery (report_id, endpoint_id, due_at)
            SELECT freed.report_id, open.id,
                   now() + row_number() OVER (ORDER BY since, received_at)
                           * interval '1 microsecond'
            FROM freed
            JOIN open ON open.authority_id = freed.authority_id
                     AND wanted(categories, freed.category)
            -- It may have been there before, and have been handed over to somebody else meanwhile.
            -- With a life of its own, but all that its attempts left in doubt: nobody has looked.
            ON CONFLICT (report_id, endpoint_id, sequence) DO UPDATE
            SET state = 'pending', due_at = excluded.due_at, settled_at = NULL,
                redelivered_at = now(), owed_at = clock_timestamp()
            WHERE delivery.state IN ('cancelled', 'dead')
        )
        SELECT count(*)::int FROM freed
        """,
        authority_id,
        RELEASE_BATCH,
    )


async def owe_event(
    conn: asyncpg.Connection,
    report_id: UUID,
    event: Mapping[str, Any],
    *,
    authority_id: UUID | None = None,
) -> int:
    """Owe an event about a report, {"type", "data"}, to every webhook that has the report.

    That is: was sent it, or is owed it, and is not deleted; wants events of this type; and is the
    authority's, if one is given. Other channels have no form for events. Returns to how many. In
    the caller's transaction, or in one of its own.
    """
    async with conn.transaction():
        # Events of one report take turns. Not FOR UPDATE: that would wait for, and hold up, all who
        # only refer to the report.
        now = await conn.fetchval(
            "SELECT now() FROM report WHERE id = $1 FOR NO KEY UPDATE", report_id
        )
        if now is None:
            return 0
        # What is just being settled is waited for, so that the next statement sees how it ended;
        # who settles later waits for us, and then wakes what we have added. By sequence, as all who
        # lock several deliveries do.
        await conn.execute(
            """
            SELECT FROM delivery WHERE report_id = $1 AND state IN ('pending', 'leased')
            ORDER BY sequence, id FOR SHARE
            """,
            report_id,
        )
        return await conn.fetchval(  # type: ignore[no-any-return]
            """
            WITH open AS MATERIALIZED (
                -- waits for a deletion of the endpoint, and then leaves it out
                SELECT endpoint.id
                FROM delivery JOIN endpoint ON endpoint.id = endpoint_id
                WHERE report_id = $1 AND sequence = 1
                  AND delivery.state IN ('pending', 'leased', 'delivered')
                  AND endpoint.state <> 'deleted' AND wanted(endpoint.events, $4)
                  AND endpoint.channel = 'webhook'
                  AND ($5::uuid IS NULL OR endpoint.authority_id = $5)
                FOR KEY SHARE OF endpoint
            ), owed AS (
                INSERT INTO delivery (report_id, endpoint_id, sequence, event, due_at)
                SELECT $1, open.id, before.last + 1, $2,
                       now() + CASE WHEN before.unsettled THEN $3 ELSE 0 END * interval '1 second'
                FROM open
                CROSS JOIN LATERAL (
                    SELECT max(sequence) AS last,
                           bool_or(state IN ('pending', 'leased')) AS unsettled
                    FROM delivery
                    WHERE report_id = $1 AND endpoint_id = open.id
                ) AS before
                RETURNING id
            )
            SELECT count(*)::int FROM owed
            """,
            report_id,
            {"type": event["type"], "timestamp": rfc3339(now), "data": event["data"]},
            PATIENCE_S,
            event["type"],
            authority_id,
        )


# `due`: asked endpoint by endpoint through the index delivery_due; a single list by due_at
# would show nothing but the backlog of an endpoint that is down. `place` is which of its
# endpoint's deliveries in flight it would be: whoever has nothing in flight goes before
# whoever has, so that those that hang delay the others as little as can be.
# `locked`: the lock keeps other claims out, not those who settle, cancel or redeliver: a
# row that one of them has in hand is skipped, and one that has changed is looked at again.
# `LIMIT 100` and the array show the planner, which does not know the parameters, that these are
# few: it would read whole tables otherwise.
CLAIM = """
WITH due AS MATERIALIZED (
    SELECT oldest.id
    FROM endpoint
    CROSS JOIN LATERAL (
        SELECT count(*) AS n
        FROM delivery
        WHERE endpoint_id = endpoint.id AND state = 'leased' AND due_at > now()
    ) AS in_flight
    CROSS JOIN LATERAL (
        SELECT id, due_at, in_flight.n + row_number() OVER (ORDER BY due_at) AS place
        FROM (
            SELECT id, due_at
            FROM (
                SELECT id, due_at
                FROM delivery
                WHERE endpoint_id = endpoint.id
                  AND state IN ('pending', 'leased')
                  AND due_at <= now()
                ORDER BY due_at
                LIMIT 100
            ) AS head
            LIMIT greatest(0, CASE WHEN failures > 0 THEN 1 ELSE $3 END - in_flight.n)
        ) AS first
    ) AS oldest
    WHERE endpoint.state = 'active' AND (open_until IS NULL OR open_until <= now())
    ORDER BY oldest.place, oldest.due_at
    LIMIT $1
), locked AS MATERIALIZED (
    SELECT id
    FROM delivery
    WHERE id = ANY (ARRAY (SELECT id FROM due))
      AND state IN ('pending', 'leased')
      AND due_at <= now()
    FOR UPDATE SKIP LOCKED
), claimed AS (
    UPDATE delivery
    SET state = 'leased',
        lease_token = gen_random_uuid(),
        leased_by = $4,
        due_at = now() + $2 * interval '1 second',
        attempts = attempts + 1
    FROM locked
    WHERE delivery.id = locked.id
    RETURNING delivery.*
), tried AS (
    INSERT INTO attempt (delivery_id, n)
    SELECT id, attempts FROM claimed
)
SELECT claimed.id AS delivery_id,
       claimed.lease_token,
       claimed.attempts AS attempt,
       claimed.attempts - claimed.redelivered_after AS tries,
       (SELECT count(*)::int
        FROM attempt
        WHERE delivery_id = claimed.id AND n > claimed.redelivered_after
          AND outcome = 'rejected') AS rejections,
       extract(epoch FROM now() - coalesce(claimed.redelivered_at, claimed.created_at))::float8
           AS age_s,
       -- The present attempt is not in this statement's snapshot. One without an outcome is of a
       -- worker that died, perhaps after sending.
       EXISTS (SELECT FROM attempt
               WHERE delivery_id = claimed.id AND n > claimed.redelivered_after
                 AND (outcome IS NULL OR unsure)) AS unsure,
       -- A minute: of a claim that waited for its turn, the attempt begins before what it claims
       -- was owed.
       coalesce((SELECT min(started_at) FROM attempt
                 WHERE delivery_id = claimed.id
                   AND started_at >= claimed.owed_at - interval '1 minute'), now())
           AS first_tried_at,
       (SELECT coalesce(jsonb_agg(jsonb_build_object('id', photo.id, 'width', width,
                                                     'height', height)
                                  ORDER BY attached_at, created_at, photo.id), '[]')
        FROM photo
        WHERE photo.report_id = claimed.report_id AND attached_at <= claimed.owed_at) AS photos,
       claimed.sequence, claimed.event,
       endpoint.id AS endpoint_id, endpoint.channel, endpoint.url, endpoint.secret,
       endpoint.config,
       CASE WHEN endpoint.old_secret_until > now() THEN endpoint.old_secret END AS old_secret,
       report.id AS report_id, report.received_at, report.observed_at,
       report.lon, report.lat, report.accuracy_m, report.category, report.description,
       report.answers, report.decision,
       CASE WHEN claimed.event IS NULL THEN (
           SELECT contact FROM follower
           WHERE report_id = report.id AND kind = 'reporter' AND share_contact
       ) END AS contact,
       coalesce(report.spam -> 'reasons', '[]') AS spam,
       authority.id AS authority_id, authority.name AS authority_name
FROM claimed
JOIN endpoint ON endpoint.id = claimed.endpoint_id
JOIN report ON report.id = claimed.report_id
JOIN authority ON authority.id = report.authority_id
"""


async def claim(
    conn: asyncpg.Connection, *, worker: int, limit: int, lease_s: float, per_endpoint: int
) -> list[Claimed]:
    """Lease up to `limit` due deliveries of active endpoints to the worker with this id.

    Endpoints that have the fewest in flight come first, then what is longest due. No endpoint gets
    more than `per_endpoint` in flight, over all workers, and one that failed last only one; behind
    an open breaker, one when the time for a probe has come. An expired lease is due again. Each
    attempt is written before this returns.
    """
    async with conn.transaction():
        # Two statements: what the second one counts must include what the claim before ours
        # leased, so its snapshot may only be taken once that claim is over.
        await conn.execute("SELECT pg_advisory_xact_lock($1)", CLAIM_LOCK)
        rows = await conn.fetch(CLAIM, limit, lease_s, per_endpoint, worker)
    return [Claimed(**row) for row in rows]


async def settle(
    conn: asyncpg.Connection, claimed: Claimed, outcome: Outcome, following: Next
) -> bool:
    """Write down an attempt's outcome and all that follows; False if the lease was lost.

    The token fences: when the lease has expired and someone else has claimed the delivery, or it
    was cancelled, nothing changes. With the same statement an endpoint that is gone is suspended
    (what else it is owed stays pending), the breaker counts, notices are written, and a report that
    died goes to the authority's fallback endpoints. A report that is not theirs waits to be routed
    again. Call it in a transaction.
    """
    kind, reference, error = _columns(outcome)
    if isinstance(outcome, NotOurs):
        # The report before its deliveries, as all who hand it over lock them.
        await conn.execute("SELECT FROM report WHERE id = $1 FOR NO KEY UPDATE", claimed.report_id)
    settled: bool = await conn.fetchval(
        """
        WITH settled AS (
            UPDATE delivery
            SET state = $3,
                lease_token = NULL,
                due_at = CASE WHEN $3 = 'pending' THEN now() + $4 * interval '1 second'
                              ELSE due_at END,
                settled_at = CASE WHEN $3 = 'pending' THEN NULL ELSE now() END,
                reference = $5,
                nothing_sent = $16
            WHERE id = $1 AND state = 'leased' AND lease_token = $2
            RETURNING id, attempts, endpoint_id, report_id, sequence
        ), noted AS (
            UPDATE attempt
            SET finished_at = now(), outcome = $6, status = $7, answer = $8, error = $9,
                unsure = $17, reference = $5, nothing_sent = $16
            FROM settled
            WHERE attempt.delivery_id = settled.id AND attempt.n = settled.attempts
        ), judged AS (
            -- Of an endpoint that works nothing is written: its deliveries would queue for the row.
            UPDATE endpoint
            SET failures = CASE WHEN $10 THEN failures + 1 ELSE 0 END,
                open_until = CASE WHEN $10 AND failures + 1 >= $11
                                  THEN now() + $12 * interval '1 second' END
            FROM settled
            WHERE endpoint.id = settled.endpoint_id AND $6 <> 'gone' AND ($10 OR failures > 0)
        ), followed AS (
            INSERT INTO service_request (delivery_id, token, reference, next_poll_at)
            SELECT id, $15, $5, now() FROM settled WHERE $14
            -- redelivered: what they opened this time is asked about instead
            ON CONFLICT (delivery_id) DO UPDATE
            SET token = excluded.token, reference = excluded.reference, state = NULL, seen = NULL,
                since = now(), answered_at = now(), failures = 0, next_poll_at = now()
        ), suspended AS (
            UPDATE endpoint
            SET state = 'suspended', failures = 0, open_until = NULL
            FROM settled
            WHERE $6 = 'gone' AND endpoint.id = settled.endpoint_id AND endpoint.state = 'active'
            RETURNING endpoint.id
        ), died AS (
            SELECT settled.*, authority_id
            FROM settled JOIN endpoint ON endpoint.id = endpoint_id
            WHERE $3 = 'dead'
        ), told AS (
            INSERT INTO notice (authority_id, endpoint_id, delivery_id, kind, detail)
            SELECT authority_id, endpoint_id, died.id, kind, $13
            FROM died
            CROSS JOIN (SELECT 'delivery_dead' AS kind
                        UNION ALL SELECT 'endpoint_suspended' FROM suspended) AS news
        ), fallback AS MATERIALIZED (
            -- Locked as in intake: no delivery is left on an endpoint that is just being deleted.
            -- Only the report itself: who took that and not a later event has the report.
            SELECT intake_endpoint.id, died.report_id
            FROM died
            JOIN report ON report.id = died.report_id
            JOIN intake_endpoint ON intake_endpoint.authority_id = died.authority_id
            WHERE intake_endpoint.fallback AND wanted(categories, category)
              AND intake_endpoint.id <> died.endpoint_id AND died.sequence = 1
            FOR KEY SHARE OF intake_endpoint
        ), passed_on AS (
            INSERT INTO delivery (report_id, endpoint_id)
            SELECT report_id, id FROM fallback
            ON CONFLICT (report_id, endpoint_id, sequence) DO NOTHING
        )
        SELECT EXISTS (SELECT FROM settled)
        """,
        claimed.delivery_id,
        claimed.lease_token,
        following.state,
        following.delay_s,
        _storable(reference),
        kind,
        outcome.status,
        _storable(outcome.answer),
        _storable(error[:ERROR_CHARS] if error else None),
        policy.is_failure(outcome),
        policy.BREAK_AFTER,
        policy.PROBE_EVERY_S,
        _storable(f"given up after {claimed.attempt} attempts; the last: {error}"[:ERROR_CHARS]),
        isinstance(outcome, Delivered) and outcome.follow,
        outcome.token if isinstance(outcome, Delivered) else None,
        isinstance(outcome, Delivered) and outcome.nothing_sent,
        isinstance(outcome, Deferred) and outcome.unsure,
    )
    if settled and isinstance(outcome, NotOurs):
        await reroutes.say_not_ours(
            conn,
            claimed.report_id,
            authority_id=claimed.authority_id,
            named=_storable(outcome.named),
            note=None,
            # They may say so again of a delivery that an operator has sent them once more.
            key=f"delivery:{claimed.delivery_id}:{claimed.attempt}",
        )
    return settled


async def bounce(conn: asyncpg.Connection, delivery_id: UUID, diagnostic: str) -> bool:
    """Note that a mail came back: what counted as delivered is dead. False if it did not count.

    The last attempt keeps the diagnostic as its answer, and a notice tells of it.
    """
    return await conn.fetchval(  # type: ignore[no-any-return]
        """
        WITH ended AS (
            UPDATE delivery SET state = 'dead', settled_at = now()
            FROM endpoint
            WHERE delivery.id = $1 AND delivery.state = 'delivered'
              AND endpoint.id = endpoint_id AND endpoint.channel = 'mail'
            RETURNING delivery.id, delivery.attempts, endpoint_id, authority_id
        ), noted AS (
            -- which is news for the report's log
            UPDATE attempt SET outcome = 'rejected', answer = $2, error = 'the mail came back',
                               logged = false
            FROM ended WHERE attempt.delivery_id = ended.id AND attempt.n = ended.attempts
        ), told AS (
            INSERT INTO notice (authority_id, endpoint_id, delivery_id, kind, detail)
            SELECT authority_id, endpoint_id, id, 'delivery_dead', 'the mail came back'
            FROM ended
        )
        SELECT EXISTS (SELECT FROM ended)
        """,
        delivery_id,
        _storable(diagnostic),
    )


async def next_due_in(conn: asyncpg.Connection) -> float | None:
    """Seconds until the next delivery becomes due that is not yet; None if there is none.

    Behind an open breaker nothing is due before the next probe. What is due already waits for a
    slot, not for time.
    """
    return await conn.fetchval(  # type: ignore[no-any-return]
        """
        SELECT extract(epoch FROM min(greatest(next.due_at, open_until)) - now())::float8
        FROM endpoint
        CROSS JOIN LATERAL (
            SELECT due_at
            FROM delivery
            WHERE endpoint_id = endpoint.id
              AND state IN ('pending', 'leased')
              AND due_at > CASE WHEN open_until > now() THEN '-infinity' ELSE now() END
            ORDER BY due_at
            LIMIT 1
        ) AS next
        WHERE endpoint.state = 'active'
        """
    )


def rfc3339(at: datetime) -> str:
    """In UTC with microseconds, always as many digits."""
    return at.astimezone(UTC).isoformat(timespec="microseconds").replace("+00:00", "Z")


def _columns(outcome: Outcome) -> tuple[str, str | None, str | None]:
    """The outcome as (name, reference, error)."""
    match outcome:
        case Delivered(reference=reference):
            return "delivered", reference, None
        case Deferred(why=why):
            return "deferred", None, why
        case Rejected(why=why):
            return "rejected", None, why
        case Gone(why=why):
            return "gone", None, why
        case NotOurs(why=why):
            return "not_ours", None, why


def _storable(text: str | None) -> str | None:
    """A stranger's text without what PostgreSQL refuses: NUL, and surrogates that JSON lets by."""
    return text.replace("\0", "").encode("utf-8", "ignore").decode() if text else text
