"""Rate limits: on every answer, across processes, and while the database is away."""

from __future__ import annotations

import asyncio
import os
import secrets
from collections.abc import AsyncIterator, Iterator
from contextlib import ExitStack
from ipaddress import ip_network
from pathlib import Path
from typing import Any

import asyncpg
import httpx
import pytest
from limits import parse

from api import auth, db
from api.rates import Counts
from api.store import rates
from scripts.demo import free_port, georouter_process
from tests.support.app import IN_WEST, KEY, Api, serving, slug

PHONE, OTHER_PHONE = "81.2.69.160", "2a00:1450:4009:81f::200e"
LIMITS: dict[str, Any] = {
    "rate_key": "9/hour",
    "rate_address": "5/hour",
    "rate_reports": "2/hour",
    # The client of the tests is on this machine, and says what a proxy would.
    "trusted_proxies": (ip_network("127.0.0.0/8"),),
}


@pytest.fixture
async def limited(database_url: str, pool: asyncpg.Pool) -> AsyncIterator[Api]:
    async with serving(database_url, pool, clock=lambda: 1_800_000_000.0, **LIMITS) as api:
        yield api


async def ask(api: Api, *, phone: str = PHONE, key: str = "app") -> httpx.Response:
    headers = {**api.headers(key), "X-Forwarded-For": phone}
    return await api.client.get("/v1/categories", headers=headers)


async def test_every_answer_says_what_is_left(limited: Api) -> None:
    first, second = await ask(limited), await ask(limited)
    assert first.headers["ratelimit-policy"] == '"key";q=9;w=3600, "address";q=5;w=3600'
    assert first.headers["ratelimit"] == '"key";r=8;t=3601, "address";r=4;t=3601'
    assert second.headers["ratelimit"] == '"key";r=7;t=3601, "address";r=3;t=3601'
    refused = await limited.client.get("/v1/categories", headers={"X-Forwarded-For": PHONE})
    assert (slug(refused), refused.headers["ratelimit"]) == ("key-missing", '"address";r=2;t=3601')


async def test_an_address_is_refused_and_told_until_when(limited: Api) -> None:
    for _ in range(5):
        assert (await ask(limited)).status_code == 200
    refused = await ask(limited)
    assert (refused.status_code, slug(refused)) == (429, "too-many-requests")
    assert refused.headers["ratelimit"] == '"key";r=4;t=3601, "address";r=0;t=3601'
    assert refused.headers["retry-after"] == "3601"
    assert (await ask(limited, phone=OTHER_PHONE)).status_code == 200
    assert (await ask(limited, phone="127.0.0.1")).status_code == 200
    assert (await limited.client.get("/readyz")).headers.get("ratelimit") is None


async def test_a_key_is_refused_wherever_it_comes_from(limited: Api) -> None:
    for n in range(9):
        assert (await ask(limited, phone=f"81.2.69.{n}")).status_code == 200
    assert (await ask(limited, phone="81.2.69.9")).status_code == 429
    assert (await ask(limited, phone="81.2.69.9", key="other app")).status_code == 200


async def test_posts_of_reports_have_a_limit_of_their_own(limited: Api) -> None:
    body = {**IN_WEST, "category": "pothole", "description": "a hole"}

    async def post(key: str = "app") -> httpx.Response:
        headers = {**limited.headers(key), "X-Forwarded-For": PHONE}
        return await limited.client.post("/v1/reports", json=body, headers=headers)

    assert [(await post()).status_code for _ in range(3)] == [201, 201, 429]
    assert '"reports";q=2;w=3600' in (await post()).headers["ratelimit-policy"]
    assert (await ask(limited)).status_code == 200


async def test_a_batch_counts_as_the_reports_in_it(limited: Api) -> None:
    report = {**IN_WEST, "category": "pothole", "description": "a hole"}
    headers = {**limited.headers("app"), "X-Forwarded-For": PHONE}

    async def send(count: int) -> httpx.Response:
        items = [{"idempotency_key": f"{count}-{n}", "report": report} for n in range(count)]
        return await limited.client.post(
            "/v1/reports:batch", json={"items": items}, headers=headers
        )

    taken = await send(3)  # more than are left, but a queue is not cut in two
    assert [one["status"] for one in taken.json()["items"]] == [201] * 3
    assert (await send(1)).status_code == 429
    posted = await limited.client.post("/v1/reports", json=report, headers=headers)
    assert posted.status_code == 429


async def test_a_server_that_speaks_for_many_is_limited_by_its_key_only(limited: Api) -> None:
    await limited.pool.execute("UPDATE api_key SET address_limited = false WHERE label = 'app'")
    assert (await ask(limited)).status_code == 200
    await limited.app.state.wiring.rates.refresh(limited.pool)
    for n in range(8):
        answer = await ask(limited)
        assert answer.headers["ratelimit"] == f'"key";r={7 - n};t=3601'
    assert (await ask(limited)).status_code == 429


async def test_no_address_is_stored_as_it_is(limited: Api) -> None:
    await ask(limited)
    await ask(limited, phone=OTHER_PHONE)
    await limited.app.state.wiring.rates.refresh(limited.pool)
    names = [row["name"] for row in await limited.pool.fetch("SELECT name FROM rate_count")]
    assert len([name for name in names if name.startswith("address:")]) == 2
    assert not any(PHONE in name or "2a00" in name for name in names)


async def test_counts_of_processes_add_up_and_none_is_lost_with_the_database(
    pool: asyncpg.Pool, database_url: str
) -> None:
    rate = parse("100/minute")
    now = 1_800_000_000.0
    one, other = Counts(), Counts()
    for _ in range(30):
        one.count("x", rate, now=now)
        other.count("x", rate, now=now)
    await one.merge(pool, now=now)
    await other.merge(pool, now=now)
    assert other.quota("x", rate, now=now, limit="x").remaining == 40
    assert one.quota("x", rate, now=now, limit="x").remaining == 70  # until it asks again
    one.count("x", rate, now=now)
    await one.merge(pool, now=now)
    assert one.quota("x", rate, now=now, limit="x").remaining == 39

    async with await db.create_pool(database_url, size=1) as gone:
        gone.terminate()
        one.count("x", rate, now=now)
        with pytest.raises(db.DatabaseUnavailable):
            await one.merge(gone, now=now)
    assert one.quota("x", rate, now=now, limit="x").remaining == 38
    await one.merge(pool, now=now)
    assert await pool.fetchval("SELECT hits FROM rate_count") == 62

    # In the next window the last one still weighs, for a process too that has never seen it.
    third = Counts()
    third.count("x", rate, now=now + 75)
    await third.merge(pool, now=now + 75)
    assert third.quota("x", rate, now=now + 75, limit="x").remaining == 100 - int(62 * 0.75) - 1
    async with db.acquire(pool) as conn:
        await rates.remove_expired(conn)
    assert await pool.fetchval("SELECT count(*) FROM rate_count") == 2  # they are of the future


@pytest.fixture
def ports(database_url: str, tmp_path: Path) -> Iterator[list[int]]:
    """Two web processes."""
    environment = {
        "PATH": os.defpath,
        "PYTHONPATH": str(Path(__file__).parents[2]),
        "GEOROUTER_DATABASE_URL": database_url,
        "GEOROUTER_DATA_DIR": str(tmp_path / "data"),
        "GEOROUTER_SECRET_KEYS": KEY,
        "GEOROUTER_RATE_ADDRESS": "20/day",
        "GEOROUTER_TRUSTED_PROXIES": '["127.0.0.0/8"]',
    }
    ports: list[int] = []
    with ExitStack() as stack:
        for n in range(2):
            ports.append(free_port())
            mine = {**environment, "GEOROUTER_PORT": str(ports[n])}
            stack.enter_context(georouter_process("serve", mine, tmp_path / f"web-{n}.log"))
        yield ports
    for n in range(2):
        assert "Traceback" not in (tmp_path / f"web-{n}.log").read_text()


async def test_two_processes_share_a_limit(ports: list[int], pool: asyncpg.Pool) -> None:
    async with db.acquire(pool) as conn:
        key = await auth.create_key(
            conn, role=auth.Role.APP, label="app", random_bytes=secrets.token_bytes
        )
    headers = {"Authorization": f"Bearer {key.secret}", "X-Forwarded-For": PHONE}
    async with httpx.AsyncClient(trust_env=False, timeout=20.0) as client:

        async def ask(n: int) -> int:
            url = f"http://127.0.0.1:{ports[n % 2]}/v1/categories"
            return (await client.get(url, headers=headers)).status_code

        for port in ports:
            async with asyncio.timeout(60):
                while True:
                    try:
                        await client.get(f"http://127.0.0.1:{port}/livez")
                        break
                    except httpx.TransportError:
                        await asyncio.sleep(0.1)
        assert [await ask(n) for n in range(14)] == [200] * 14
        await until_counted(pool, 14)
        # Each has 13 left by its own count. With one request more it hears of the others'.
        assert [await ask(n) for n in range(2)] == [200] * 2
        await until_counted(pool, 16)
        # What may come too much: what each believes to be left, at the same moment.
        burst = [await ask(n) for n in range(20)].count(200)
        assert 4 <= burst <= 9
        await until_counted(pool, 16 + burst)
        await asyncio.sleep(1.0)  # for the totals to be read back
        assert [await ask(n) for n in range(2)] == [429] * 2


async def until_counted(pool: asyncpg.Pool, hits: int) -> None:
    async with asyncio.timeout(20):
        while hits > await pool.fetchval(  # noqa: ASYNC110 - the event is in another process
            "SELECT coalesce(sum(hits), 0) FROM rate_count WHERE name LIKE 'address:%'"
        ):
            await asyncio.sleep(0.05)
