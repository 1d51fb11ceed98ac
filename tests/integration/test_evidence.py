"""The log: one chain per report whoever inserts, only added to, with every attempt in it once."""

from __future__ import annotations

import asyncio
import shutil
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from uuid import UUID, uuid4

import asyncpg
import pytest

from api import db, evidence
from api.delivery import outbox
from api.delivery.outbox import Claimed
from api.delivery.policy import Deferred, Delivered, Next, Outcome, after
from api.store import deliveries
from api.store import evidence as log
from api.store.events import add_event
from tests.support import rows
from tests.support.app import WEST, Api

SESSIONS = (
    {},
    {"TimeZone": "Asia/Kolkata", "DateStyle": "German", "IntervalStyle": "iso_8601"},
    {"TimeZone": "America/St_Johns", "DateStyle": "SQL, DMY", "bytea_output": "escape"},
    {"TimeZone": "Pacific/Apia", "DateStyle": "Postgres, MDY", "extra_float_digits": "-15"},
    {"standard_conforming_strings": "off", "escape_string_warning": "off", "lc_messages": "C"},
    {
        "client_encoding": "UTF8",
        "lc_time": "C.UTF-8",
        "lc_numeric": "C.UTF-8",
        "xmloption": "content",
    },
)
AWKWARD: dict[str, Any] = {
    "note": 'Tŷ "Ŵyl"\n\\ \t\u2028 \u0085 \x7f 🕳️ previous 00',
    "b": {"zz": [1, 1.50, 1e300, -0.0, True, None], "a": ""},
    "longer name": "é",
}


async def chain(conn: asyncpg.Connection, report_id: UUID) -> Sequence[evidence.Logged]:
    """A report's events; they are sound."""
    events = (await log.read_logs(conn, [report_id]))[report_id]
    assert list(evidence.check_log(events)) == []
    return events


async def a_report(conn: asyncpg.Connection) -> UUID:
    return await rows.report(conn, await rows.authority(conn))


# --- the chain ------------------------------------------------------------------------------------


async def test_a_posted_report_begins_a_chain_that_commits_to_what_was_reported(
    api: Api, pool: asyncpg.Pool
) -> None:
    posted = await api.post_report(
        description='Tŷ "Ŵyl"\n\\ 🕳️', observed_at="2026-11-02T08:15:00+05:30", lat=50.123456789
    )
    async with db.acquire(pool) as conn:
        [received] = await chain(conn, UUID(posted.json()["id"]))
    assert (received.n, received.kind, received.previous_hash) == (1, "received", None)
    assert received.authority_id == api.authorities[WEST]


@pytest.mark.parametrize("settings", SESSIONS)
async def test_the_hash_does_not_depend_on_the_session(
    pool: asyncpg.Pool, database_url: str, settings: dict[str, str]
) -> None:
    async with db.acquire(pool) as conn:
        report_id = await a_report(conn)
        authority_id = await rows.authority(conn)
    other = await asyncpg.connect(database_url, server_settings=settings)
    try:
        await db._prepare(other)
        await add_event(other, report_id, kind="received")
        for n, at in enumerate(("0001-02-03 04:05:06", "1883-11-18 12:00", "2026-10-25 01:30"), 2):
            await other.execute(
                "INSERT INTO report_event (report_id, n, at, kind, authority_id, detail, key) "
                "VALUES ($1, $2, $3, 'status', $4, $5, $6)",
                report_id,
                n,
                datetime.fromisoformat(at).replace(tzinfo=UTC) + timedelta(microseconds=n),
                authority_id,
                AWKWARD,
                f'a key\n"{n}" \\ é',
            )
    finally:
        await other.close()
    async with db.acquire(pool) as conn:
        events = await chain(conn, report_id)
        assert len(events) == 4
        # And PostgreSQL says the same text as we do, whatever the session that asks.
        for event in events:
            text = await conn.fetchval(
                "SELECT report_event_text(e) FROM report_event e WHERE report_id = $1 AND n = $2",
                report_id,
                event.n,
            )
            assert text == event.text


@pytest.mark.parametrize("settings", SESSIONS)
async def test_what_was_reported_is_hashed_alike_in_every_session(
    database_url: str, settings: dict[str, str]
) -> None:
    salt, report_id = uuid4(), uuid4()
    observed = datetime(2026, 11, 2, 8, 15, 0, 7, UTC)
    other = await asyncpg.connect(database_url, server_settings=settings)
    try:
        await db._prepare(other)
        for lon, lat in ((2.12, 54.71), (-0.00000004, 89.99999996), (-179.123456789, 1e-9)):
            text, answers = await other.fetchrow(
                "SELECT report_content_text($1, $2, $3, $4, $5, $6, $7, $8), $7::jsonb::text",
                *(report_id, salt, "pothole", lon, lat, observed, AWKWARD, AWKWARD["note"]),
            )
            assert text == evidence.content_text(
                report_id=report_id,
                salt=salt,
                category="pothole",
                lon=lon,
                lat=lat,
                observed_at=evidence.instant(observed),
                answers=answers,
                description=AWKWARD["note"],
            )
    finally:
        await other.close()


async def test_fifty_events_at_once_are_one_chain(pool: asyncpg.Pool) -> None:
    async with db.acquire(pool) as conn:
        report_id = await a_report(conn)

    async def one(n: int) -> int | None:
        async with db.acquire(pool) as conn:
            return await add_event(conn, report_id, kind="status", key=str(n // 2))

    numbers = await asyncio.gather(*(one(n) for n in range(100)))
    assert sorted(n for n in numbers if n is not None) == list(range(1, 51))
    async with db.acquire(pool) as conn:
        assert len(await chain(conn, report_id)) == 50


async def test_without_the_lock_there_is_an_error_and_never_a_fork(pool: asyncpg.Pool) -> None:
    async with db.acquire(pool) as conn:
        report_id = await a_report(conn)
        await add_event(conn, report_id, kind="received")

    async def one() -> bool:
        async with db.acquire(pool) as conn:
            try:
                await conn.execute(
                    "INSERT INTO report_event (report_id, n, kind) "
                    "SELECT $1, max(n) + 1, 'status' FROM report_event WHERE report_id = $1",
                    report_id,
                )
            except asyncpg.UniqueViolationError:
                return False
            return True

    done = await asyncio.gather(*(one() for _ in range(50)))
    async with db.acquire(pool) as conn:
        assert len(await chain(conn, report_id)) == 1 + sum(done)


@pytest.mark.parametrize("n", [0, 2, 4])
async def test_a_gap_is_refused(pool: asyncpg.Pool, n: int) -> None:
    async with db.acquire(pool) as conn:
        report_id = await a_report(conn)
        if n == 4:
            await add_event(conn, report_id, kind="received")
            await add_event(conn, report_id, kind="status")
        with pytest.raises(asyncpg.IntegrityConstraintViolationError, match="would follow none"):
            await conn.execute(
                "INSERT INTO report_event (report_id, n, kind) VALUES ($1, $2, 'status')",
                report_id,
                n,
            )


async def test_nobody_brings_a_hash_of_his_own(pool: asyncpg.Pool) -> None:
    async with db.acquire(pool) as conn:
        report_id = await a_report(conn)
        await conn.execute(
            "INSERT INTO report_event (report_id, n, kind, hash, previous_hash) "
            "VALUES ($1, 1, 'received', 'x', 'y')",
            report_id,
        )
        await chain(conn, report_id)


@pytest.mark.parametrize(
    "statement",
    [
        "UPDATE report_event SET at = at",
        "UPDATE report_event SET detail = '{}' WHERE false",
        "DELETE FROM report_event",
        "TRUNCATE report_event",
        "TRUNCATE report CASCADE",
        """
        INSERT INTO report_event (report_id, n, kind) SELECT report_id, n, kind FROM report_event
        ON CONFLICT (report_id, n) DO UPDATE SET kind = 'spam'
        """,
    ],
)
async def test_events_are_only_ever_added(pool: asyncpg.Pool, statement: str) -> None:
    async with db.acquire(pool) as conn:
        report_id = await a_report(conn)
        await add_event(conn, report_id, kind="received")
        with pytest.raises(asyncpg.IntegrityConstraintViolationError, match="only ever added to"):
            await conn.execute(statement)
        assert len(await chain(conn, report_id)) == 1


async def test_times_that_cannot_be_written_are_refused(pool: asyncpg.Pool) -> None:
    async with db.acquire(pool) as conn:
        report_id = await a_report(conn)
        for at in ("infinity", "-infinity", "0044-03-15 BC", "20000-01-01"):
            with pytest.raises(asyncpg.IntegrityConstraintViolationError):
                await conn.execute(
                    "INSERT INTO report_event (report_id, n, kind, at) "
                    f"VALUES ($1, 1, 'received', '{at}')",
                    report_id,
                )


async def test_events_from_before_are_chained_in_their_order(
    empty_database_url: str, tmp_path: Path
) -> None:
    before = tmp_path / "migrations"
    shutil.copytree(
        db.MIGRATIONS, before, ignore=lambda _, names: [one for one in names if one >= "0009"]
    )
    await db.migrate(empty_database_url, before)
    conn = await db.connect(empty_database_url)
    try:
        authority_id = await rows.authority(conn)
        endpoint_id = await rows.endpoint(conn, authority_id)
        ids = [await rows.report(conn, authority_id) for _ in range(20)]
        # All reports' events in turns, and stored in another order than they are numbered.
        for n in (3, 1, 2):
            await conn.executemany(
                "INSERT INTO report_event (report_id, n, kind, detail, key) "
                "VALUES ($1, $2, 'status', $3, $4)",
                [(one, n, AWKWARD, f"k{n}") for one in ids],
            )
        delivery_id = await conn.fetchval(
            "INSERT INTO delivery (report_id, endpoint_id, state, attempts, settled_at, reference) "
            "VALUES ($1, $2, 'delivered', 2, now(), 'OLD-1') RETURNING id",
            ids[0],
            endpoint_id,
        )
        await conn.execute(
            "INSERT INTO attempt (delivery_id, n, finished_at, outcome, status) "
            "VALUES ($1, 1, NULL, NULL, NULL), ($1, 2, now(), 'delivered', 200)",
            delivery_id,
        )
        # By whoever migrates, wherever they are.
        await conn.execute("SET TimeZone = 'Asia/Kolkata'; SET DateStyle = 'German'")
        sql = (db.MIGRATIONS / "0009_evidence.sql").read_text(encoding="utf-8")
        async with conn.transaction():
            await conn.execute(sql)
        for one in ids:
            assert [event.n for event in await chain(conn, one)] == [1, 2, 3]
        assert await log.log_attempts(conn) == 2
        events = await chain(conn, ids[0])
        assert [event.kind for event in events[3:]] == ["attempted"] * 2
        assert '"unknown"' in events[3].detail
        assert "OLD-1" in events[4].detail
    finally:
        await conn.close()


# --- attempts -------------------------------------------------------------------------------------


async def owed(conn: asyncpg.Connection, count: int = 1, channel: str = "webhook") -> list[UUID]:
    """Reports that are owed to one endpoint."""
    authority_id = await rows.authority(conn)
    endpoint_id = await rows.endpoint(conn, authority_id, channel=channel)
    deliveries = [await rows.delivery(conn, authority_id, endpoint_id) for _ in range(count)]
    found = []
    for one in deliveries:
        report_id = await conn.fetchval("SELECT report_id FROM delivery WHERE id = $1", one)
        await add_event(conn, report_id, kind="received", authority_id=authority_id)
        found.append(report_id)
    return found


async def claim(conn: asyncpg.Connection) -> list[Claimed]:
    """Claim all, whatever they wait for."""
    await conn.execute("UPDATE delivery SET due_at = now() WHERE state = 'pending'")
    await conn.execute("UPDATE endpoint SET failures = 0, open_until = NULL")
    return await outbox.claim(conn, worker=1, limit=50, lease_s=60, per_endpoint=50)


async def settle(
    conn: asyncpg.Connection, claimed: Claimed, outcome: Outcome, state: Next | None = None
) -> None:
    following = state or after(outcome, attempt=1, age_s=0, jitter=0, rejections=0)
    async with conn.transaction():
        assert await outbox.settle(conn, claimed, outcome, following)


async def told(conn: asyncpg.Connection, report_id: UUID) -> list[tuple[Any, ...]]:
    """What the log says of attempts: (n, outcome, status, reference)."""
    found = await conn.fetch(
        "SELECT detail FROM report_event WHERE report_id = $1 AND kind = 'attempted' ORDER BY n",
        report_id,
    )
    await chain(conn, report_id)
    names = ("n", "outcome", "status", "reference")
    return [tuple(row["detail"].get(name) for name in names) for row in found]


async def test_each_attempt_becomes_an_event_once(pool: asyncpg.Pool) -> None:
    async with db.acquire(pool) as conn:
        [report_id] = await owed(conn)
        assert await log.log_attempts(conn) == 0
        [one] = await claim(conn)
        assert await log.log_attempts(conn) == 0  # it is under way
        assert await log.count_under_way(conn, report_id) == 1
        await settle(conn, one, Deferred(status=503, answer="Mr Smith is away", why="x"))
        assert [await log.log_attempts(conn) for _ in range(2)] == [1, 0]
        [one] = await claim(conn)
        await settle(conn, one, Delivered(status=200, answer="ok", reference="HM-1"))
        assert [await log.log_attempts(conn) for _ in range(2)] == [1, 0]
        assert await told(conn, report_id) == [
            (1, "deferred", 503, None),
            (2, "delivered", 200, "HM-1"),
        ]
        details = await conn.fetch("SELECT detail::text FROM report_event")
    # Neither what an answer said, nor any secret or address.
    for hidden in ("Smith", "https:", rows.SECRET):
        assert hidden not in str(details)


async def test_an_attempt_whose_worker_died_is_told_of_once_another_follows(
    pool: asyncpg.Pool,
) -> None:
    async with db.acquire(pool) as conn:
        [report_id] = await owed(conn)
        await claim(conn)
        await conn.execute("UPDATE delivery SET due_at = now()")
        assert await log.log_attempts(conn) == 0
        [again] = await claim(conn)
        assert await log.log_attempts(conn) == 1
        await settle(conn, again, Delivered(status=200, answer="", reference=None))
        await log.log_attempts(conn)
        assert await told(conn, report_id) == [
            (1, "unknown", None, None),
            (2, "delivered", 200, None),
        ]


async def test_an_attempt_of_a_cancelled_delivery_is_told_of(pool: asyncpg.Pool) -> None:
    async with db.acquire(pool) as conn:
        [report_id] = await owed(conn)
        await claim(conn)
        await conn.execute(
            "UPDATE delivery SET state = 'cancelled', settled_at = now(), lease_token = NULL"
        )
        assert await log.log_attempts(conn) == 1
        assert await told(conn, report_id) == [(1, "unknown", None, None)]


async def test_a_mail_that_comes_back_is_news(pool: asyncpg.Pool) -> None:
    async with db.acquire(pool) as conn:
        [report_id] = await owed(conn, channel="mail")
        [one] = await claim(conn)
        await settle(conn, one, Delivered(status=250, answer="ok", reference=None))
        assert await log.log_attempts(conn) == 1
        assert await outbox.bounce(conn, one.delivery_id, "no such mailbox")
        assert [await log.log_attempts(conn) for _ in range(2)] == [1, 0]
        assert [said[1] for said in await told(conn, report_id)] == ["delivered", "rejected"]


async def test_killed_before_the_commit_it_is_done_again(pool: asyncpg.Pool) -> None:
    async with db.acquire(pool) as conn:
        [report_id] = await owed(conn)
        [one] = await claim(conn)
        await settle(conn, one, Delivered(status=200, answer="", reference=None))
        transaction = conn.transaction()
        await transaction.start()
        assert await log.log_attempts(conn) == 1
        await transaction.rollback()
        assert await log.log_attempts(conn) == 1
        # The mark alone lost, as if by hand: the key keeps it from being told twice.
        await conn.execute("UPDATE attempt SET logged = false")
        assert await log.log_attempts(conn) == 1
        assert len(await told(conn, report_id)) == 1


async def test_a_rehearsal_stays_one_when_it_is_sent_again_before_it_is_noted(
    pool: asyncpg.Pool,
) -> None:
    async with db.acquire(pool) as conn:
        [report_id] = await owed(conn)
        [one] = await claim(conn)
        await settle(conn, one, Delivered(answer="dry run: nothing was sent", nothing_sent=True))
        await deliveries.restart(conn, [one.delivery_id], patience_s=0)
        [again] = await claim(conn)
        await settle(conn, again, Deferred(status=503, answer="", why="x"))
        assert await log.log_attempts(conn) == 2
        details = await conn.fetch(
            "SELECT detail FROM report_event WHERE report_id = $1 AND n > 1 ORDER BY n", report_id
        )
    assert [row["detail"].get("nothing_sent") for row in details] == [True, None]


async def test_many_at_once_are_each_told_once_and_others_go_on(pool: asyncpg.Pool) -> None:
    async with db.acquire(pool) as conn:
        ids = await owed(conn, 40)
        for outcome in (Deferred(status=503, answer="", why="x"), Delivered(status=200, answer="")):
            for one in await claim(conn):
                await settle(conn, one, outcome)

    async def noting() -> None:
        async with db.acquire(pool) as conn:
            for _ in range(10):
                await log.log_attempts(conn, limit=30)

    async def telling(report_id: UUID) -> None:
        async with db.acquire(pool) as conn:
            await add_event(conn, report_id, kind="status")

    await asyncio.gather(*(noting() for _ in range(4)), *map(telling, ids))
    async with db.acquire(pool) as conn:
        while await log.log_attempts(conn):
            pass
        for one in ids:
            assert [said[1] for said in await told(conn, one)] == ["deferred", "delivered"]
        assert await conn.fetchval("SELECT count(*) FROM attempt WHERE NOT logged") == 0


async def test_a_report_in_other_hands_is_left_for_later(pool: asyncpg.Pool) -> None:
    async with db.acquire(pool) as conn, db.acquire(pool) as other:
        held, free = await owed(conn, 2)
        for one in await claim(conn):
            await settle(conn, one, Delivered(status=200, answer="", reference=None))
        async with other.transaction():
            await other.execute("SELECT FROM report WHERE id = $1 FOR NO KEY UPDATE", held)
            assert await log.log_attempts(conn) == 1
            assert len(await told(conn, free)) == 1
        assert await log.log_attempts(conn) == 1
        assert len(await told(conn, held)) == 1


async def test_finding_what_is_to_be_noted_reads_nothing_else(pool: asyncpg.Pool) -> None:
    async with db.acquire(pool) as conn:
        [_] = await owed(conn)
        await conn.execute(
            "INSERT INTO attempt (delivery_id, n, finished_at, outcome, logged) "
            "SELECT id, g + 10, now(), 'deferred', true FROM delivery, generate_series(1, 50000) g"
        )
        await conn.execute("ANALYZE")
        plan = await conn.fetch(
            "EXPLAIN SELECT delivery_id FROM attempt WHERE NOT logged LIMIT 200"
        )
    assert any("attempt_unlogged" in row[0] for row in plan)
