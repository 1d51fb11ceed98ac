from __future__ import annotations

import asyncio
from collections import Counter
from uuid import UUID

import asyncpg
import pytest

from api import db
from api.delivery import outbox, policy
from api.delivery.outbox import Claimed
from api.delivery.policy import Deferred, Delivered, Gone, Next, Rejected
from tests.support import rows

SENT = Delivered(status=200, answer="thanks", reference="A-12")
SOON = Next("pending", 0.0)
ME = 7


async def claim(
    pool: asyncpg.Pool, *, limit: int = 100, lease_s: float = 60.0, per_endpoint: int = 100
) -> list[Claimed]:
    async with db.acquire(pool) as conn:
        return await outbox.claim(
            conn, worker=ME, limit=limit, lease_s=lease_s, per_endpoint=per_endpoint
        )


async def owe(pool: asyncpg.Pool, count: int, **endpoint: str) -> UUID:
    """An endpoint of a new authority, and that many deliveries due to it."""
    async with db.acquire(pool) as conn:
        authority_id = await rows.authority(conn)
        endpoint_id = await rows.endpoint(conn, authority_id, **endpoint)
        for _ in range(count):
            await rows.delivery(conn, authority_id, endpoint_id)
    return endpoint_id


async def states(pool: asyncpg.Pool) -> Counter[str]:
    return Counter(row["state"] for row in await pool.fetch("SELECT state FROM delivery"))


async def test_a_claim_brings_all_that_a_channel_needs(pool: asyncpg.Pool) -> None:
    endpoint_id = await owe(pool, 1, url="https://council.example/x")
    [one] = await claim(pool)
    assert (one.attempt, one.rejections) == (1, 0)
    assert one.endpoint_id == endpoint_id
    assert (one.channel, one.url) == ("webhook", "https://council.example/x")
    assert one.secret == rows.SECRET
    assert rows.SECRET not in repr(one)
    assert (one.lon, one.lat, one.category) == (2.5, 55.25, "pothole")
    assert one.received_at == rows.RECEIVED_AT
    assert one.decision["rule"] == "covering-area"
    assert one.authority_name == "Dogger Council"
    assert 0 <= one.age_s < 60
    # on record before it is made
    attempt = await pool.fetchrow("SELECT * FROM attempt")
    assert (attempt["n"], attempt["outcome"], attempt["finished_at"]) == (1, None, None)


async def test_no_delivery_is_claimed_twice(pool: asyncpg.Pool) -> None:
    for _ in range(4):
        await owe(pool, 25)
    found = await asyncio.gather(*(claim(pool, limit=15) for _ in range(10)))
    ids = [one.delivery_id for claimed in found for one in claimed]
    assert len(ids) == len(set(ids)) == 100
    assert await claim(pool) == []


async def test_what_is_not_due_or_not_active_is_left(pool: asyncpg.Pool) -> None:
    await owe(pool, 2, state="paused")
    await owe(pool, 2, state="suspended")
    async with db.acquire(pool) as conn:
        assert await outbox.next_due_in(conn) is None
        authority_id = await rows.authority(conn)
        endpoint_id = await rows.endpoint(conn, authority_id)
        await rows.delivery(conn, authority_id, endpoint_id, due_in_s=100)
        due_in_s = await outbox.next_due_in(conn)
    assert due_in_s is not None
    assert 90 < due_in_s <= 100
    assert await claim(pool) == []
    assert await states(pool) == {"pending": 5}


async def test_settling(pool: asyncpg.Pool) -> None:
    await owe(pool, 1)
    [one] = await claim(pool)
    async with db.acquire(pool) as conn:
        assert await outbox.settle(conn, one, SENT, Next("delivered"))
        assert not await outbox.settle(conn, one, SENT, Next("delivered"))
        delivery = await conn.fetchrow("SELECT * FROM delivery")
        attempt = await conn.fetchrow("SELECT * FROM attempt")
    assert (delivery["state"], delivery["reference"]) == ("delivered", "A-12")
    assert delivery["settled_at"] is not None
    assert (attempt["outcome"], attempt["status"], attempt["answer"]) == (
        "delivered",
        200,
        "thanks",
    )
    assert await claim(pool) == []


async def test_a_deferred_one_comes_back_with_the_same_id(pool: asyncpg.Pool) -> None:
    await owe(pool, 1)
    [first] = await claim(pool)
    async with db.acquire(pool) as conn:
        await outbox.settle(conn, first, Deferred(why="answered 503", status=503), SOON)
    [second] = await claim(pool)
    assert (second.delivery_id, second.attempt) == (first.delivery_id, 2)
    async with db.acquire(pool) as conn:
        await outbox.settle(conn, second, Rejected(why="answered 404"), Next("pending", 100.0))
        due_in_s = await outbox.next_due_in(conn)
        await conn.execute("UPDATE delivery SET due_at = now()")
    assert due_in_s is not None
    assert 90 < due_in_s <= 100
    [third] = await claim(pool)
    assert (third.attempt, third.rejections) == (3, 1)


async def test_an_expired_lease_is_claimed_again_and_the_late_worker_changes_nothing(
    pool: asyncpg.Pool,
) -> None:
    await owe(pool, 1)
    [late] = await claim(pool, lease_s=0.05)
    assert await claim(pool) == []
    await asyncio.sleep(0.06)
    [taken] = await claim(pool)
    assert (taken.delivery_id, taken.attempt) == (late.delivery_id, 2)
    before = await pool.fetch("SELECT * FROM delivery, attempt ORDER BY n")
    async with db.acquire(pool) as conn:
        assert not await outbox.settle(conn, late, SENT, Next("delivered"))
    assert await pool.fetch("SELECT * FROM delivery, attempt ORDER BY n") == before
    async with db.acquire(pool) as conn:
        assert await outbox.settle(conn, taken, SENT, Next("delivered"))
    outcomes = await pool.fetch("SELECT outcome FROM attempt ORDER BY n")
    assert [row["outcome"] for row in outcomes] == [None, "delivered"]


async def test_one_endpoint_cannot_take_every_slot(pool: asyncpg.Pool) -> None:
    hung = await owe(pool, 50)
    healthy = await owe(pool, 3)
    found = await claim(pool, limit=20, per_endpoint=5)
    assert Counter(one.endpoint_id for one in found) == {hung: 5, healthy: 3}
    # What is in flight counts, whoever claims,
    assert await claim(pool, limit=20, per_endpoint=5) == []
    more = await asyncio.gather(*(claim(pool, limit=20, per_endpoint=7) for _ in range(4)))
    assert Counter(one.endpoint_id for claimed in more for one in claimed) == {hung: 2}
    # until it is settled.
    one = next(one for one in found if one.endpoint_id == hung)
    async with db.acquire(pool) as conn:
        await outbox.settle(conn, one, SENT, Next("delivered"))
    assert len(await claim(pool, limit=20, per_endpoint=7)) == 1


async def test_the_longest_due_come_first(pool: asyncpg.Pool) -> None:
    async with db.acquire(pool) as conn:
        expected = []
        for late_s in (30, 10, 20):
            authority_id = await rows.authority(conn)
            endpoint_id = await rows.endpoint(conn, authority_id)
            one = await rows.delivery(conn, authority_id, endpoint_id, due_in_s=-late_s)
            expected.append((late_s, one))
    found = await claim(pool, limit=2)
    assert {one.delivery_id for one in found} == {one for late_s, one in expected if late_s > 10}


async def test_gone_suspends_the_endpoint_and_keeps_the_rest(pool: asyncpg.Pool) -> None:
    endpoint_id = await owe(pool, 3)
    [one] = await claim(pool, limit=1)
    async with db.acquire(pool) as conn:
        gone = Gone(why="answered 410", status=410)
        assert await outbox.settle(conn, one, gone, Next("dead"))
        state = await conn.fetchval("SELECT state FROM endpoint WHERE id = $1", endpoint_id)
    assert state == "suspended"
    assert await states(pool) == {"dead": 1, "pending": 2}
    assert await claim(pool) == []


async def test_answers_that_postgres_would_refuse(pool: asyncpg.Pool) -> None:
    await owe(pool, 1)
    [one] = await claim(pool)
    body = b'{"reference": "A\\u0000-\\ud800-12"}\x00\xff' + b"x" * 5000
    outcome = policy.outcome_of(200, {}, body, now=0.0)
    hostile = Delivered(status=200, answer=outcome.answer, reference="A\0-\ud800-12")
    async with db.acquire(pool) as conn:
        assert await outbox.settle(conn, one, hostile, Next("delivered"))
    assert await pool.fetchval("SELECT reference FROM delivery") == "A--12"
    answer = await pool.fetchval("SELECT answer FROM attempt")
    assert answer.startswith('{"reference": "A\\u0000-\\ud800-12"}xxx')
    assert 1900 < len(answer) <= 2048


@pytest.fixture
async def waiting(pool: asyncpg.Pool) -> UUID:
    """An authority without an endpoint, and 40 reports held for it."""
    async with db.acquire(pool) as conn:
        authority_id = await rows.authority(conn)
        for _ in range(40):
            await rows.report(conn, authority_id, held=True)
    return authority_id


async def release(pool: asyncpg.Pool, authority_id: UUID | None = None) -> int:
    async with db.acquire(pool) as conn:
        return await outbox.release_held(conn, authority_id)


async def test_held_reports_wait_for_an_active_endpoint(pool: asyncpg.Pool, waiting: UUID) -> None:
    assert await release(pool) == 0
    async with db.acquire(pool) as conn:
        paused = await rows.endpoint(conn, waiting, state="paused")
        other = await rows.authority(conn)
        await rows.endpoint(conn, other)
    assert await release(pool) == 0
    assert await release(pool, other) == 0
    await pool.execute("UPDATE endpoint SET state = 'active' WHERE id = $1", paused)
    assert await release(pool, waiting) == 40
    assert await release(pool) == 0
    assert await pool.fetchval("SELECT count(*) FROM held") == 0
    assert await states(pool) == {"pending": 40}


async def test_releasing_at_the_same_time_owes_each_report_once(
    pool: asyncpg.Pool, waiting: UUID, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(outbox, "RELEASE_BATCH", 7)
    async with db.acquire(pool) as conn:
        for _ in range(2):
            await rows.endpoint(conn, waiting)
    released = await asyncio.gather(*(release(pool) for _ in range(8)))
    while more := await release(pool):
        released.append(more)
    assert sum(released) == 40
    assert max(released) == 7
    # each to both endpoints
    assert await states(pool) == {"pending": 80}


async def test_an_endpoint_deleted_meanwhile_leaves_the_reports_held(
    pool: asyncpg.Pool, waiting: UUID
) -> None:
    async with db.acquire(pool) as conn:
        endpoint_id = await rows.endpoint(conn, waiting)
        async with conn.transaction():
            await conn.execute(
                "UPDATE endpoint SET state = 'deleted', ended_at = now() WHERE id = $1", endpoint_id
            )
            racing = asyncio.ensure_future(release(pool))
            await asyncio.sleep(0.1)
            assert not racing.done()
    assert await racing == 0
    assert await pool.fetchval("SELECT count(*) FROM held") == 40


async def test_pokes_are_gathered_into_few_notices(pool: asyncpg.Pool, database_url: str) -> None:
    heard = 0

    def hear(*_: object) -> None:
        nonlocal heard
        heard += 1

    conn = await db.connect(database_url)
    try:
        await conn.add_listener(outbox.WAKE_UP, hear)
        async with outbox.Notifier(pool) as notifier:
            for _ in range(100):
                notifier.poke()
                await asyncio.sleep(0.001)
            await asyncio.sleep(0.1)
    finally:
        await conn.close()
    assert 1 <= heard <= 20


async def test_a_notice_that_fails_harms_nobody(database_url: str) -> None:
    pool = await db.create_pool(database_url, size=1)
    async with outbox.Notifier(pool) as notifier:
        await pool.close()
        notifier.poke()
        await asyncio.sleep(0.05)
        notifier.poke()
