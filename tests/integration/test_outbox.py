from __future__ import annotations

import asyncio
from collections import Counter
from uuid import UUID

import asyncpg
import pytest

from api import db
from api.delivery import liveness, outbox, policy
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


async def give_up(pool: asyncpg.Pool, one: Claimed, *, kind: type[Gone | Rejected]) -> None:
    async with db.acquire(pool) as conn:
        assert await outbox.settle(conn, one, kind(why="answered 4xx"), Next("dead"))


async def notices(pool: asyncpg.Pool) -> Counter[tuple[str, UUID, UUID]]:
    return Counter(
        (row["kind"], row["endpoint_id"], row["delivery_id"])
        for row in await pool.fetch("SELECT * FROM notice")
    )


async def test_the_dead_and_the_suspended_are_told(pool: asyncpg.Pool) -> None:
    endpoint_id = await owe(pool, 3)
    first, second, third = await claim(pool)
    await give_up(pool, first, kind=Rejected)
    assert await notices(pool) == {("delivery_dead", endpoint_id, first.delivery_id): 1}
    notice = await pool.fetchrow("SELECT notice.*, now() - at AS ago FROM notice")
    assert notice["authority_id"] == first.authority_id
    assert notice["detail"] == "given up after 1 attempts; the last: answered 4xx"
    # The suspension is told once, whatever else was in flight; what was not fenced off is not told.
    await asyncio.gather(*(give_up(pool, one, kind=Gone) for one in (second, third)))
    async with db.acquire(pool) as conn:
        assert not await outbox.settle(conn, third, Gone(why="answered 410"), Next("dead"))
    told = await notices(pool)
    assert Counter(kind for kind, *_ in told.elements()) == {
        "delivery_dead": 3,
        "endpoint_suspended": 1,
    }


async def test_what_dies_goes_to_the_fallback_once(pool: asyncpg.Pool) -> None:
    async with db.acquire(pool) as conn:
        authority_id = await rows.authority(conn)
        stranger = await rows.authority(conn)
        usual = [await rows.endpoint(conn, authority_id) for _ in range(2)]
        fallback = await rows.endpoint(conn, authority_id, fallback=True)
        await rows.endpoint(conn, authority_id, fallback=True, state="suspended")
        await rows.endpoint(conn, stranger, fallback=True)
        report_id = await rows.report(conn, authority_id)
        await conn.execute(
            "INSERT INTO delivery (report_id, endpoint_id) SELECT $1, unnest($2::uuid[])",
            report_id,
            usual,
        )
    both = await claim(pool)
    await asyncio.gather(*(give_up(pool, one, kind=Rejected) for one in both))
    [passed_on] = await claim(pool)
    assert (passed_on.endpoint_id, passed_on.report_id) == (fallback, report_id)
    # There is nowhere else to go from there.
    await give_up(pool, passed_on, kind=Rejected)
    assert await states(pool) == {"dead": 3}
    assert len(await notices(pool)) == 3


async def test_a_fallback_gets_nothing_else(pool: asyncpg.Pool, waiting: UUID) -> None:
    async with db.acquire(pool) as conn:
        await rows.endpoint(conn, waiting, fallback=True)
    assert await release(pool) == 0
    async with db.acquire(pool) as conn:
        usual = await rows.endpoint(conn, waiting)
    assert await release(pool) == 40
    assert {one.endpoint_id for one in await claim(pool)} == {usual}


# --- the breaker ----------------------------------------------------------------------------------


async def fail(pool: asyncpg.Pool, outcome: policy.Outcome, *, times: int) -> None:
    """Claim one and settle it so, several times; each is due again at once."""
    for _ in range(times):
        [one] = await claim(pool, limit=1)
        async with db.acquire(pool) as conn:
            assert await outbox.settle(conn, one, outcome, SOON)


async def breaker(pool: asyncpg.Pool) -> tuple[int, bool]:
    row = await pool.fetchrow("SELECT failures, open_until > now() AS open FROM endpoint")
    return row["failures"], bool(row["open"])


NO_ANSWER = Deferred(why="no answer")


async def test_a_breaker_opens_probes_and_closes(pool: asyncpg.Pool) -> None:
    await owe(pool, 20)
    await fail(pool, NO_ANSWER, times=4)
    assert await breaker(pool) == (4, False)
    # A refusal shows that somebody is there.
    for alive in (Rejected(why="answered 404", status=404), Deferred(why="", status=429)):
        await fail(pool, alive, times=1)
        assert await breaker(pool) == (0, False)
        await fail(pool, Deferred(why="answered 503", status=503), times=4)
    await fail(pool, NO_ANSWER, times=1)
    assert await breaker(pool) == (5, True)
    assert await claim(pool) == []
    async with db.acquire(pool) as conn:
        due_in_s = await outbox.next_due_in(conn)
    assert due_in_s is not None
    assert 50 < due_in_s <= policy.PROBE_EVERY_S

    probe_now = "UPDATE endpoint SET open_until = now()"
    await pool.execute(probe_now)
    [probe] = await claim(pool)
    assert await claim(pool) == [], "one probe at a time"
    async with db.acquire(pool) as conn:
        await outbox.settle(conn, probe, NO_ANSWER, SOON)
    assert await breaker(pool) == (6, True)
    assert await claim(pool) == []

    await pool.execute(probe_now)
    [probe] = await claim(pool)
    async with db.acquire(pool) as conn:
        await outbox.settle(conn, probe, SENT, Next("delivered"))
    assert await breaker(pool) == (0, False)
    assert len(await claim(pool)) == 19


async def test_who_has_nothing_in_flight_goes_first(pool: asyncpg.Pool) -> None:
    busy = await owe(pool, 10)
    await pool.execute("UPDATE delivery SET due_at = now() - interval '1 hour'")
    assert len(await claim(pool, limit=4)) == 4
    idle = await owe(pool, 2)
    found = await claim(pool, limit=3)
    assert Counter(one.endpoint_id for one in found) == {idle: 2, busy: 1}


# --- whose lease it is ----------------------------------------------------------------------------


async def test_what_a_worker_held_is_due_when_its_session_ends(
    pool: asyncpg.Pool, database_url: str
) -> None:
    await owe(pool, 2)
    session = await db.connect(database_url)
    ids = iter([ME, ME, ME + 1])
    try:
        assert await liveness.enlist(session, lambda: next(ids)) == ME
        async with db.acquire(pool) as other:
            # An id in use is not taken.
            assert await liveness.enlist(other, lambda: next(ids)) == ME + 1
        held = await claim(pool)
        async with db.acquire(pool) as conn:
            assert await liveness.free_orphans(conn) == 0
    finally:
        await session.close()
    assert await claim(pool) == []
    freed = await asyncio.gather(*(_free(pool) for _ in range(4)))
    assert sum(freed) == 2
    taken = await claim(pool)
    assert {one.delivery_id for one in taken} == {one.delivery_id for one in held}
    async with db.acquire(pool) as conn:
        assert not await outbox.settle(conn, held[0], SENT, Next("delivered"))


async def _free(pool: asyncpg.Pool) -> int:
    async with db.acquire(pool) as conn:
        return await liveness.free_orphans(conn)


# --- order ----------------------------------------------------------------------------------------

UPDATED = {"type": "report.updated", "data": {"status": "mended"}}


async def owe_event(pool: asyncpg.Pool, report_id: UUID) -> int:
    async with db.acquire(pool) as conn:
        return await outbox.owe_event(conn, report_id, UPDATED)


async def test_an_event_follows_the_report(pool: asyncpg.Pool) -> None:
    await owe(pool, 1)
    [created] = await claim(pool)
    assert (created.sequence, created.event) == (1, None)
    assert await owe_event(pool, created.report_id) == 1
    assert await owe_event(pool, created.report_id) == 1
    assert await claim(pool) == []
    async with db.acquire(pool) as conn:
        await outbox.settle(conn, created, NO_ANSWER, Next("pending", 60))
        assert await outbox.claim(conn, worker=ME, limit=9, lease_s=60, per_endpoint=9) == []
        await conn.execute("UPDATE delivery SET due_at = now() WHERE sequence = 1")
    [created] = await claim(pool)
    for sequence in (2, 3):
        async with db.acquire(pool) as conn:
            await outbox.settle(conn, created, SENT, Next("delivered"))
        [created] = await claim(pool)
        assert created.sequence == sequence
        assert created.event is not None
        assert (created.event["type"], created.event["data"]) == (
            "report.updated",
            {"status": "mended"},
        )
        assert created.event["timestamp"].endswith("Z")
    assert await claim(pool) == []
    assert await owe_event(pool, UUID(int=0)) == 0


async def test_an_event_waits_an_hour_at_most(pool: asyncpg.Pool) -> None:
    await owe(pool, 1)
    [created] = await claim(pool, lease_s=10_000)
    await owe_event(pool, created.report_id)
    wait = await pool.fetchval("SELECT due_at - created_at FROM delivery WHERE sequence = 2")
    assert wait.total_seconds() == outbox.PATIENCE_S
    await pool.execute("UPDATE delivery SET due_at = now() WHERE sequence = 2")
    [event] = await claim(pool)
    assert event.sequence == 2


async def test_an_event_goes_to_those_who_have_the_report(pool: asyncpg.Pool) -> None:
    async with db.acquire(pool) as conn:
        authority_id = await rows.authority(conn)
        report_id = await rows.report(conn, authority_id)
        endpoints = {name: await rows.endpoint(conn, authority_id) for name in "abcde"}
        await conn.executemany(
            """
            INSERT INTO delivery (report_id, endpoint_id, state, settled_at)
            VALUES ($1, $2, $3, CASE WHEN $3 <> 'pending' THEN now() END)
            """,
            [
                (report_id, endpoints["a"], "pending"),
                (report_id, endpoints["b"], "delivered"),
                (report_id, endpoints["c"], "dead"),
                (report_id, endpoints["d"], "delivered"),
            ],
        )
        await conn.execute(
            "UPDATE endpoint SET state = 'deleted', ended_at = now() WHERE id = $1", endpoints["d"]
        )
    assert await owe_event(pool, report_id) == 2
    owed = await pool.fetch("SELECT endpoint_id FROM delivery WHERE sequence = 2")
    assert {row["endpoint_id"] for row in owed} == {endpoints["a"], endpoints["b"]}


async def test_events_at_the_same_time_get_numbers_of_their_own(pool: asyncpg.Pool) -> None:
    await owe(pool, 1)
    report_id = await pool.fetchval("SELECT id FROM report")
    assert await asyncio.gather(*(owe_event(pool, report_id) for _ in range(8))) == [1] * 8
    numbers = await pool.fetch("SELECT sequence FROM delivery ORDER BY sequence")
    assert [row["sequence"] for row in numbers] == list(range(1, 10))


async def test_an_event_owed_while_the_report_is_settled_is_not_forgotten(
    pool: asyncpg.Pool,
) -> None:
    await owe(pool, 20)
    held = await claim(pool)

    async def settle(one: Claimed) -> None:
        async with db.acquire(pool) as conn:
            await outbox.settle(conn, one, SENT, Next("delivered"))

    await asyncio.gather(
        *(act for one in held for act in (settle(one), owe_event(pool, one.report_id)))
    )
    assert len(await claim(pool)) == 20

    # and each order for certain: the settlement waits for the event,
    [one, other] = (await claim_after_owing(pool))[:2]
    async with db.acquire(pool) as conn:
        async with conn.transaction():
            await outbox.owe_event(conn, one.report_id, UPDATED)
            racing = asyncio.ensure_future(settle(one))
            await asyncio.sleep(0.1)
            assert not racing.done()
        await racing
        assert [found.report_id for found in await claim(pool)] == [one.report_id]
        # the event for the settlement
        async with conn.transaction():
            await outbox.settle(conn, other, SENT, Next("delivered"))
            owing = asyncio.ensure_future(owe_event(pool, other.report_id))
            await asyncio.sleep(0.1)
            assert not owing.done()
        await owing
    assert [found.report_id for found in await claim(pool)] == [other.report_id]


async def claim_after_owing(pool: asyncpg.Pool) -> list[Claimed]:
    endpoint_id = await owe(pool, 2)
    return [one for one in await claim(pool) if one.endpoint_id == endpoint_id]


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
        pending = await rows.endpoint(conn, waiting, state="pending")
        await rows.endpoint(conn, waiting, state="suspended")
        other = await rows.authority(conn)
        await rows.endpoint(conn, other)
    assert await release(pool) == 0
    assert await release(pool, other) == 0
    await pool.execute("UPDATE endpoint SET state = 'active' WHERE id = $1", pending)
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
        await conn.add_listener(liveness.WAKE_UP, hear)
        async with liveness.Notifier(pool) as notifier:
            for _ in range(100):
                notifier.poke()
                await asyncio.sleep(0.001)
            await asyncio.sleep(0.1)
    finally:
        await conn.close()
    assert 1 <= heard <= 20


async def test_a_notice_that_fails_harms_nobody(database_url: str) -> None:
    pool = await db.create_pool(database_url, size=1)
    async with liveness.Notifier(pool) as notifier:
        await pool.close()
        notifier.poke()
        await asyncio.sleep(0.05)
        notifier.poke()
