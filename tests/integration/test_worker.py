from __future__ import annotations

import asyncio
import os
import signal
import sys
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from ipaddress import ip_network
from uuid import UUID

import asyncpg
import pytest
from pydantic import SecretStr
from standardwebhooks.webhooks import Webhook

from api import db, embedded
from api.delivery import liveness, outbox
from api.delivery.channels import webhook
from api.delivery.worker import run_worker
from api.settings import Settings
from tests.support import rows
from tests.support.app import KEY
from tests.support.postgres import FAST, cluster_folder
from tests.support.stub_authority import OK, Answer, Received, StubAuthority

PROGRAM = """
import asyncio
from api.delivery.worker import run_worker
from api.settings import Settings
asyncio.run(run_worker(Settings()))
"""


@pytest.fixture
async def stub() -> AsyncIterator[StubAuthority]:
    async with StubAuthority() as stub:
        yield stub


def settings_for(dsn: str, *, lease_s: float = 60.0, timeout_s: float = 2.0) -> Settings:
    return Settings(
        database_url=SecretStr(dsn),
        egress_allow=(ip_network("127.0.0.0/8"),),
        delivery_lease_s=lease_s,
        delivery_timeout_s=timeout_s,
        delivery_mode="live",
        secret_keys=SecretStr(KEY),
    )


@asynccontextmanager
async def working(settings: Settings, *, release_s: float = 0.05) -> AsyncIterator[None]:
    """A worker in this process, with no jitter: what is deferred is due at once."""
    stop = asyncio.Event()
    async with asyncio.TaskGroup() as tasks:
        tasks.create_task(
            run_worker(settings, stop=stop, jitter=lambda: 0.0, idle_s=0.2, release_s=release_s)
        )
        try:
            yield
        finally:
            stop.set()


async def owe(pool: asyncpg.Pool, url: str, *, channel: str = "webhook") -> UUID:
    async with db.acquire(pool) as conn:
        authority_id = await rows.authority(conn)
        endpoint_id = await rows.endpoint(conn, authority_id, url=url, channel=channel)
        return await rows.delivery(conn, authority_id, endpoint_id)


async def state(
    pool: asyncpg.Pool, delivery_id: UUID, wanted: str, *, timeout_s: float = 5.0
) -> asyncpg.Record:
    """Wait for a delivery to be in this state."""
    async with asyncio.timeout(timeout_s):
        while True:
            row = await pool.fetchrow("SELECT * FROM delivery WHERE id = $1", delivery_id)
            if row["state"] == wanted:
                return row
            await asyncio.sleep(0.01)


async def test_a_delivery_arrives_once_and_signed(
    pool: asyncpg.Pool, database_url: str, stub: StubAuthority
) -> None:
    stub.answer("/intake", Answer(201, b'{"reference": "DOG-1"}'))
    async with working(settings_for(database_url)):
        delivery_id = await owe(pool, stub.url())
        row = await state(pool, delivery_id, "delivered")
        await asyncio.sleep(0.3)
    assert (row["attempts"], row["reference"]) == (1, "DOG-1")
    [request] = stub.received
    assert request.headers["webhook-id"] == str(delivery_id)
    assert request.headers["content-type"] == "application/json"
    message = Webhook(rows.SECRET).verify(request.body, dict(request.headers))
    report_id, authority_id = await pool.fetchrow("SELECT id, authority_id FROM report")
    assert message == {
        "type": "report.created",
        "schema_version": 1,
        "timestamp": "2027-01-15T08:00:00.123456Z",
        "sequence": 1,
        "data": {
            "report": {
                "id": str(report_id),
                "category": "pothole",
                "description": "A hole as deep as a bucket, by № 7",
                "answers": {},
                "lon": 2.5,
                "lat": 55.25,
                "accuracy_m": None,
                "observed_at": None,
                "received_at": "2027-01-15T08:00:00.123456Z",
                "spam_suspected": [],
            },
            "authority": {"id": str(authority_id), "name": "Dogger Council"},
            "decision": {
                "state": "certain",
                "rule": "covering-area",
                "reason": "the point lies inside Dogger",
                "question": None,
                "candidates": [],
                "dataset": "sample-1",
            },
            "photos": [],
            "contact": None,
        },
    }


async def test_a_failure_is_tried_again_with_the_same_id_and_body(
    pool: asyncpg.Pool, database_url: str, stub: StubAuthority
) -> None:
    stub.answer("/intake", Answer(500, b"oops"), Answer(cut=True), OK)
    async with working(settings_for(database_url)):
        delivery_id = await owe(pool, stub.url())
        await state(pool, delivery_id, "delivered")
    assert len(stub.received) == 3
    for header in ("webhook-id", "content-length"):
        assert len({request.headers[header] for request in stub.received}) == 1
    assert len({request.body for request in stub.received}) == 1
    attempts = await pool.fetch("SELECT outcome, status, answer, error FROM attempt ORDER BY n")
    assert [tuple(row) for row in attempts[::2]] == [
        ("deferred", 500, "oops", "answered 500"),
        ("delivered", 200, "", None),
    ]
    assert (attempts[1]["outcome"], attempts[1]["status"]) == ("deferred", None)
    assert "RemoteProtocolError" in attempts[1]["error"]


async def test_a_notice_is_heard(
    pool: asyncpg.Pool, database_url: str, stub: StubAuthority
) -> None:
    stop = asyncio.Event()
    async with asyncio.TaskGroup() as tasks, liveness.Notifier(pool) as notifier:
        # It looks by itself only after a minute.
        tasks.create_task(
            run_worker(settings_for(database_url), stop=stop, idle_s=60, release_s=60)
        )
        await asyncio.sleep(0.3)
        delivery_id = await owe(pool, stub.url())
        notifier.poke()
        await state(pool, delivery_id, "delivered")
        stop.set()


async def test_an_endpoint_that_comes_later_gets_what_was_held(
    pool: asyncpg.Pool, database_url: str, stub: StubAuthority
) -> None:
    async with db.acquire(pool) as conn:
        authority_id = await rows.authority(conn)
        for _ in range(3):
            await rows.report(conn, authority_id, held=True)
    async with working(settings_for(database_url)):
        await asyncio.sleep(0.1)
        assert stub.received == []
        async with db.acquire(pool) as conn:
            await rows.endpoint(conn, authority_id, url=stub.url())
        await stub.wait_for(3)
    assert await pool.fetchval("SELECT count(*) FROM held") == 0


async def test_a_hung_endpoint_delays_nobody(
    pool: asyncpg.Pool, database_url: str, stub: StubAuthority
) -> None:
    stub.answer("/hung", Answer(delay_s=60))
    async with db.acquire(pool) as conn:
        authority_id = await rows.authority(conn)
        endpoint_id = await rows.endpoint(conn, authority_id, url=stub.url("/hung"))
        for _ in range(60):
            await rows.delivery(conn, authority_id, endpoint_id, due_in_s=-60)
    async with working(settings_for(database_url, timeout_s=1.0)):
        await stub.wait_for(1)
        start = time.monotonic()
        await state(pool, await owe(pool, stub.url()), "delivered")
        assert time.monotonic() - start < 0.9


async def test_stopping_finishes_what_is_in_flight(
    pool: asyncpg.Pool, database_url: str, stub: StubAuthority
) -> None:
    stub.answer("/intake", Answer(delay_s=0.3))
    delivery_id = await owe(pool, stub.url())
    async with working(settings_for(database_url)):
        await stub.wait_for(1)
        later = await owe(pool, stub.url("/later"))
    await state(pool, delivery_id, "delivered")
    assert len(stub.at("/intake")) == 1
    # This one was claimed before the stop, or is still pending: never left leased.
    assert (await pool.fetchval("SELECT state FROM delivery WHERE id = $1", later)) != "leased"


@asynccontextmanager
async def worker_process(settings: Settings) -> AsyncIterator[asyncio.subprocess.Process]:
    assert settings.database_url is not None
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        "-c",
        PROGRAM,
        env={
            "PATH": os.defpath,
            "PYTHONPATH": os.pathsep.join(sys.path),
            "GEOROUTER_DATABASE_URL": settings.database_url.get_secret_value(),
            "GEOROUTER_EGRESS_ALLOW": '["127.0.0.0/8"]',
            "GEOROUTER_DELIVERY_MODE": "live",
            "GEOROUTER_SECRET_KEYS": KEY,
            "GEOROUTER_DELIVERY_LEASE_S": str(settings.delivery_lease_s),
            "GEOROUTER_DELIVERY_TIMEOUT_S": str(settings.delivery_timeout_s),
        },
        stdout=asyncio.subprocess.DEVNULL,
    )
    try:
        yield process
    finally:
        if process.returncode is None:
            process.kill()
        await process.wait()


async def test_a_worker_killed_in_the_middle_loses_nothing(
    pool: asyncpg.Pool, database_url: str, stub: StubAuthority
) -> None:
    settings = settings_for(database_url, lease_s=60.0, timeout_s=50.0)
    stub.answer("/intake", Answer(delay_s=60), OK)
    delivery_id = await owe(pool, stub.url())
    async with worker_process(settings) as process:
        await stub.wait_for(1)
        async with working(settings):
            process.kill()
            await process.wait()
            assert await pool.fetchval("SELECT state FROM delivery") == "leased"
            await state(pool, delivery_id, "delivered")  # waits for five seconds, not for the lease
    assert [request.headers["webhook-id"] for request in stub.received] == [str(delivery_id)] * 2
    outcomes = await pool.fetch("SELECT outcome FROM attempt ORDER BY n")
    assert [row["outcome"] for row in outcomes] == [None, "delivered"]


async def test_a_worker_that_loses_its_session_goes_on_under_a_new_id(
    pool: asyncpg.Pool, database_url: str, stub: StubAuthority
) -> None:
    sessions = """
        SELECT pid, objid::int AS id FROM pg_locks
        WHERE locktype = 'advisory' AND classid = $1::int::oid AND objsubid = 2 AND granted
          AND database = (SELECT oid FROM pg_database WHERE datname = current_database())
    """
    stub.answer("/slow", Answer(delay_s=2.5), OK)
    async with working(settings_for(database_url, timeout_s=10.0)):
        slow = await owe(pool, stub.url("/slow"))
        await stub.wait_for(1)
        [before] = await pool.fetch(sessions, liveness.WORKER_LOCK_CLASS)
        leased_by = "SELECT leased_by FROM delivery WHERE id = $1"
        assert await pool.fetchval(leased_by, slow) == before["id"]
        await pool.execute("SELECT pg_terminate_backend($1)", before["pid"])
        # What was in flight is claimed again, and its first attempt, still under way, is fenced.
        row = await state(pool, slow, "delivered")
        assert (row["attempts"], row["leased_by"] == before["id"]) == (2, False)
        [after] = await pool.fetch(sessions, liveness.WORKER_LOCK_CLASS)
        assert after["id"] != before["id"]
        await asyncio.sleep(2)
    assert [request.headers["webhook-id"] for request in stub.received] == [str(slow)] * 2
    outcomes = await pool.fetch("SELECT outcome FROM attempt ORDER BY n")
    assert [row["outcome"] for row in outcomes] == [None, "delivered"]
    [counted] = await pool.fetch("SELECT * FROM attempt_count")
    assert tuple(counted) == ("webhook", "delivered", 1)


async def test_a_hundred_hung_endpoints_delay_nobody(
    pool: asyncpg.Pool, database_url: str, stub: StubAuthority
) -> None:
    stub.answer("/hung", Answer(delay_s=60))
    async with db.acquire(pool) as conn:
        authority_id = await rows.authority(conn)
        hung = [await rows.endpoint(conn, authority_id, url=stub.url("/hung")) for _ in range(100)]
        healthy = await rows.endpoint(conn, authority_id, url=stub.url())
        for n in range(40):
            report_id = await rows.report(conn, authority_id)
            # Those that hang are due for longer, and have more than one worker has slots.
            await conn.execute(
                """
                INSERT INTO delivery (report_id, endpoint_id, due_at)
                SELECT $1::uuid, unnest($2::uuid[]), now() - interval '1 minute' WHERE $4 < 8
                UNION ALL SELECT $1, $3::uuid, now()
                """,
                report_id,
                hung,
                healthy,
                n,
            )
    settings = settings_for(database_url, timeout_s=30.0)
    assert settings.worker_concurrency < len(hung)
    async with working(settings):
        for row in await pool.fetch("SELECT id FROM delivery WHERE endpoint_id = $1", healthy):
            await state(pool, row["id"], "delivered", timeout_s=25)
        # Nobody had given up on those that hang by then: they were sent beside them.
        assert await pool.fetchval("SELECT count(*) FROM attempt WHERE outcome = 'deferred'") == 0
        tried = "SELECT count(DISTINCT endpoint_id) FROM delivery WHERE attempts > 0"
        assert await pool.fetchval(tried) == 101
        # They would be waited for.
        await pool.execute("UPDATE endpoint SET state = 'paused'")
        await stub.hang_up()


async def test_sigterm_ends_the_process_well(
    pool: asyncpg.Pool, database_url: str, stub: StubAuthority
) -> None:
    stub.answer("/intake", Answer(delay_s=0.3))
    delivery_id = await owe(pool, stub.url())
    async with worker_process(settings_for(database_url)) as process:
        await stub.wait_for(1)
        process.send_signal(signal.SIGTERM)
        assert await process.wait() == 0
    await state(pool, delivery_id, "delivered")


async def test_a_restart_of_postgres_loses_nothing(stub: StubAuthority) -> None:
    async def restart(_: Received, writer: asyncio.StreamWriter) -> None:
        """Answer when the database that the answer belongs into is gone."""
        await asyncio.to_thread(embedded.stop, folder)
        writer.write(b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\nconnection: close\r\n\r\n")

    with cluster_folder() as folder:
        dsn = embedded.ensure(folder, options=FAST)
        await db.migrate(dsn)
        stub.answer("/restart", restart)
        async with await db.create_pool(dsn, size=2) as pool:
            first = await owe(pool, stub.url("/restart"))
        async with working(settings_for(dsn)):
            await stub.wait_for(1)
            await asyncio.sleep(0.3)
            await asyncio.to_thread(embedded.ensure, folder, options=FAST)
            async with await db.create_pool(dsn, size=2) as pool:
                assert (await state(pool, first, "delivered"))["attempts"] == 1
                await state(pool, await owe(pool, stub.url("/after")), "delivered")
    assert len(stub.received) == 2


async def test_a_worker_waits_for_its_database_but_not_for_its_schema(
    empty_database_url: str,
) -> None:
    stop = asyncio.Event()
    nowhere = settings_for("postgresql://postgres:x@/postgres?host=/nonexistent")
    async with asyncio.timeout(5), asyncio.TaskGroup() as tasks:
        waiting = tasks.create_task(run_worker(nowhere, stop=stop))
        await asyncio.sleep(0.3)
        assert not waiting.done()
        stop.set()
    with pytest.raises(db.SchemaOutdated):
        await run_worker(settings_for(empty_database_url), stop=asyncio.Event())


def test_a_lease_shorter_than_a_send_is_refused() -> None:
    with pytest.raises(ValueError, match="must be longer than GEOROUTER_DELIVERY_TIMEOUT_S"):
        settings_for("postgresql://", lease_s=2.0, timeout_s=2.0)


async def test_a_crash_in_a_channel_is_deferred_and_stops_nobody(
    pool: asyncpg.Pool,
    database_url: str,
    stub: StubAuthority,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    build = webhook.payload

    def crash(claimed: outbox.Claimed) -> bytes:
        if claimed.url.endswith("/crash") and claimed.attempt == 1:
            raise KeyError("secret text")
        return build(claimed)

    monkeypatch.setattr(webhook, "payload", crash)
    async with working(settings_for(database_url)):
        crashing = await owe(pool, stub.url("/crash"))
        unknown = await owe(pool, stub.url(), channel="pigeon")
        await state(pool, await owe(pool, stub.url("/other")), "delivered")
        await state(pool, crashing, "delivered")
    error = "SELECT error FROM attempt WHERE delivery_id = $1 AND n = 1"
    assert await pool.fetchval(error, crashing) == "KeyError"
    unsure = "SELECT unsure FROM attempt WHERE delivery_id = $1 AND n = 1"
    assert await pool.fetchval(unsure, crashing)
    assert not await pool.fetchval(unsure, unknown)
    assert await pool.fetchval(error, unknown) == "there is no channel 'pigeon'"


def test_times_are_in_utc_with_all_digits() -> None:
    assert outbox.rfc3339(datetime(2027, 1, 1, tzinfo=UTC)) == "2027-01-01T00:00:00.000000Z"
