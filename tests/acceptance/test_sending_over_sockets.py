"""Reports over real sockets to two web processes at once: one report for each key, whoever dies."""

from __future__ import annotations

import asyncio
import os
import secrets
import socket
import subprocess
import sys
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import asyncpg
import httpx
import pytest

from api import auth, db, vault
from api.activation import activate
from api.artefacts import Artefacts
from api.routing import load_rules
from boundaries import sample
from boundaries.build import build_dataset

ROOT = Path(__file__).parents[2]
KEY = vault.new_key()
REPORT = {"lon": 2.12, "lat": 54.71, "category": "pothole", "description": "a hole"}
CONTACT = {"name": "Jo Field", "email": "jo@example.org", "phone": "020 7946 0000"}


@dataclass
class Web:
    """A `georouter serve`, and a client of it that has as many connections as it needs."""

    process: subprocess.Popen[bytes]
    client: httpx.AsyncClient

    async def post(self, key: str, **fields: Any) -> httpx.Response:
        headers = {"Idempotency-Key": key}
        return await self.client.post("/v1/reports", json={**REPORT, **fields}, headers=headers)

    async def batch(self, keys: list[str], **fields: Any) -> list[dict[str, Any]]:
        items = [{"idempotency_key": key, "report": {**REPORT, **fields}} for key in keys]
        response = await self.client.post("/v1/reports:batch", json={"items": items})
        assert response.status_code == 200, response.text
        answers: list[dict[str, Any]] = response.json()["items"]
        return answers

    def kill(self) -> None:
        self.process.kill()
        self.process.wait()


@asynccontextmanager
async def serving(dsn: str, folder: Path, key: str) -> AsyncIterator[Web]:
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    process = subprocess.Popen(  # noqa: ASYNC220 - it does not wait
        [sys.executable, "-m", "scripts.cli", "serve"],
        cwd=ROOT,
        env={
            "PATH": os.defpath,
            "PYTHONPATH": str(ROOT),
            "GEOROUTER_DATABASE_URL": dsn,
            "GEOROUTER_DATA_DIR": str(folder),
            "GEOROUTER_PORT": str(port),
            "GEOROUTER_SECRET_KEYS": KEY,
        },
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    client = httpx.AsyncClient(
        base_url=f"http://127.0.0.1:{port}",
        headers={"Authorization": f"Bearer {key}"},
        timeout=60,
        trust_env=False,
    )
    web = Web(process, client)
    try:
        async with asyncio.timeout(60):
            while True:
                try:
                    await client.get("/healthz")
                    break
                except httpx.TransportError:
                    await asyncio.sleep(0.1)
        yield web
    finally:
        await client.aclose()
        web.kill()


@pytest.fixture
async def webs(database_url: str, tmp_path: Path) -> AsyncIterator[tuple[Web, Web]]:
    built_at = datetime(2027, 1, 15, tzinfo=UTC)
    folder = tmp_path / "sample"
    build_dataset(sample.layer_files(), folder, built_at=built_at, proof_points=7_000)
    artefacts = Artefacts(tmp_path / "datasets")
    rules = load_rules(None)
    await activate(folder, rules=rules, artefacts=artefacts, dsn=database_url, commit=True)
    conn = await db.connect(database_url)
    try:
        key = await auth.create_key(
            conn, role=auth.Role.APP, label="app", random_bytes=secrets.token_bytes
        )
    finally:
        await conn.close()
    async with AsyncExitStack() as stack:
        first = await stack.enter_async_context(serving(database_url, tmp_path, key.secret))
        second = await stack.enter_async_context(serving(database_url, tmp_path, key.secret))
        yield first, second


async def test_fifty_sends_of_one_key_are_one_report(
    webs: tuple[Web, Web], pool: asyncpg.Pool
) -> None:
    answers = await asyncio.gather(
        *(webs[n % 2].post("k", contact=CONTACT) for n in range(50)),
    )
    assert {answer.status_code for answer in answers} == {201}
    assert len({answer.text for answer in answers}) == 1
    assert sum("idempotency-replayed" not in answer.headers for answer in answers) == 1
    receipt = answers[0].json()

    # The same for who says "mine too", and for batches that meet single posts.
    joined = await asyncio.gather(
        *(webs[n % 2].post("too", duplicate_of=receipt["id"]) for n in range(50)),
    )
    assert len({answer.text for answer in joined}) == 1
    assert joined[0].json()["reports"] == 2
    keys = [f"k-{n}" for n in range(5)]
    batches, singles = await asyncio.gather(
        asyncio.gather(*(webs[n % 2].batch(keys, contact=CONTACT) for n in range(10))),
        asyncio.gather(*(webs[n % 2].post(keys[n % 5], contact=CONTACT) for n in range(50))),
    )
    for n in range(5):
        receipts = [one[n]["receipt"] for one in batches]
        receipts += [one.json() for one in singles[n::5]]
        assert all(one == receipts[0] for one in receipts)
    assert await pool.fetchval("SELECT count(*) FROM report") == 6
    assert await pool.fetchval("SELECT count(*) FROM follower") == 7
    assert await pool.fetchval("SELECT count(*) FROM contact_key") == 1
    assert await pool.fetchval("SELECT count(DISTINCT contact_hmac) FROM follower") == 1


async def test_a_batch_that_is_cut_off_goes_on_at_another_process(
    webs: tuple[Web, Web], pool: asyncpg.Pool
) -> None:
    keys = [f"k-{n}" for n in range(50)]
    dying, living = webs
    cut = asyncio.ensure_future(dying.batch(keys, contact=CONTACT))
    async with asyncio.timeout(60):
        while True:
            if await pool.fetchval("SELECT count(*) FROM report") >= 5:
                break
    dying.kill()
    with pytest.raises(httpx.TransportError):
        await cut
    before = {row["id"] for row in await pool.fetch("SELECT id FROM report")}
    assert 5 <= len(before) < 50
    answers = await living.batch(keys, contact=CONTACT)
    assert [one["status"] for one in answers] == [201] * 50
    # The session that died may have committed one more after we looked.
    assert {one["replayed"] for one in answers} == {True, False}
    ids = {one["receipt"]["id"] for one in answers}
    assert len(ids) == 50
    assert {str(one) for one in before} <= ids
    assert await pool.fetchval("SELECT count(*) FROM report") == 50
