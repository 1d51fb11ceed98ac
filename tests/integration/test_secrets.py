"""Secrets are sealed in the database, and in no answer, log line or payload. And dry runs."""

from __future__ import annotations

import asyncio
import subprocess
import sys
from contextlib import AsyncExitStack
from ipaddress import ip_network
from pathlib import Path
from typing import Any

import asyncpg
import pytest
from pydantic import SecretStr

from api import db
from api.delivery.worker import run_worker
from api.settings import Settings
from api.store.sealed import reseal
from api.vault import Vault, new_key
from tests.support import rows
from tests.support.app import KEY, WEST, Api, slug
from tests.support.stub_authority import Answer, StubAuthority

API_KEY = "c0unc1l-key-that-nobody-may-see"
OPEN311 = {"api_key": API_KEY, "services": {"pothole": "POT"}}
ROOT = Path(__file__).parents[2]


async def dump(pool: asyncpg.Pool) -> str:
    """All rows of all tables as text."""
    tables = await pool.fetch(
        "SELECT table_name FROM information_schema.tables WHERE table_schema = 'public'"
    )
    texts = []
    for (name,) in tables:
        texts += [row[0] for row in await pool.fetch(f'SELECT x::text FROM "{name}" AS x')]
    return "\n".join(texts)


async def work(
    settings: Settings, seconds: float = 1.0, *, settled: asyncpg.Pool | None = None
) -> None:
    """A worker for a while, and until nothing is owed any more in this database."""
    stop = asyncio.Event()
    async with asyncio.TaskGroup() as tasks:
        tasks.create_task(
            run_worker(settings, stop=stop, jitter=lambda: 0.0, idle_s=0.1, poll_s=0.1)
        )
        await asyncio.sleep(seconds)
        owed = "SELECT count(*) FROM delivery WHERE state IN ('pending', 'leased')"
        async with asyncio.timeout(30):
            while settled is not None and await settled.fetchval(owed):  # noqa: ASYNC110 - its turn
                await asyncio.sleep(0.05)
        stop.set()


def settings_for(dsn: str, **more: Any) -> Settings:
    facts: dict[str, Any] = {
        "database_url": SecretStr(dsn),
        "egress_allow": (ip_network("127.0.0.0/8"),),
        "delivery_timeout_s": 1.0,
        "delivery_mode": "live",
        "secret_keys": SecretStr(KEY),
    }
    return Settings(**(facts | more))


async def test_secrets_are_nowhere_in_the_clear(
    api: Api, pool: asyncpg.Pool, database_url: str, capfd: pytest.CaptureFixture[str]
) -> None:
    async with StubAuthority() as stub:
        stub.answer("/v2/requests.json", Answer(400, f"bad key {API_KEY}".encode()))
        webhook = (await api.register(url=stub.url())).json()
        answer = await api.register(channel="open311", url=stub.url("/v2"), config=OPEN311)
        assert answer.status_code == 201, answer.text
        open311 = answer.json()
        assert open311["secret"] is None
        assert open311["config"] == {"services": {"pothole": "POT"}}
        twice = await api.register(channel="open311", url=stub.url("/v2"), config=OPEN311)
        assert slug(twice) == "endpoint-exists"
        wrong = await api.register(
            channel="open311", url=stub.url("/v2"), config={**OPEN311, "api_kez": API_KEY}
        )
        assert slug(wrong) == "validation-failed"
        report = (await api.post_report()).json()
        await work(settings_for(database_url))
        assert [one.path for one in stub.received].count("/intake") == 1
        assert any(API_KEY.encode() in one.body for one in stub.received)
        payloads = [one.body for one in stub.at("/intake")]
    base = f"/v1/authorities/{api.authorities[WEST]}"
    shown = [
        (await api.get(path, key="council")).text
        for path in (f"{base}/endpoints", f"{base}/deliveries", report["links"]["self"])
    ]
    written = "\n".join(capfd.readouterr())
    everything = [await dump(pool), written, twice.text, wrong.text, open311, *shown, *payloads]
    assert "sealed:" in everything[0]
    assert "worker_started" in written
    for secret in (webhook["secret"], API_KEY, KEY):
        for place in everything:
            assert secret not in str(place)


async def test_a_secret_that_cannot_be_opened_waits_and_stops_nobody(
    pool: asyncpg.Pool, database_url: str
) -> None:
    async with StubAuthority() as stub:
        async with db.acquire(pool) as conn:
            authority_id = await rows.authority(conn)
            sealed = Vault([new_key()], where="other").seal(rows.SECRET)
            lost = await rows.endpoint(conn, authority_id, url=stub.url("/lost"), secret=sealed)
            plain = await rows.endpoint(conn, authority_id, url=stub.url("/plain"))
            await rows.delivery(conn, authority_id, lost)
            await rows.delivery(conn, authority_id, plain)
        await work(settings_for(database_url), 0.5)
        assert [one.path for one in stub.received] == ["/plain"]
    states = await pool.fetch("SELECT state FROM delivery ORDER BY state")
    assert [row["state"] for row in states] == ["delivered", "pending"]
    errors = await pool.fetch("SELECT DISTINCT error FROM attempt WHERE outcome = 'deferred'")
    [(error,)] = errors
    assert "GEOROUTER_SECRET_KEYS" in error
    assert sealed not in error


async def test_rotation_seals_all_once(pool: asyncpg.Pool) -> None:
    old, new = new_key(), new_key()
    before = Vault([old], where="old")
    async with db.acquire(pool) as conn:
        authority_id = await rows.authority(conn)
        for n in range(150):
            plain = f"{rows.SECRET}{n}" if n % 3 else ""
            secret = before.seal(plain) if n % 2 else plain
            state = "active" if n % 5 else "paused"
            await rows.endpoint(conn, authority_id, secret=secret, state=state)
        gone = Vault([new_key()], where="gone").seal("x")
        await rows.endpoint(conn, authority_id, secret=gone)
        both = Vault([new, old], where="both")
        done = await reseal(conn, both)
        assert (done.changed, done.unreadable) == (100, 1)
        again = await reseal(conn, both)
        assert (again.changed, again.unreadable) == (0, 1)
        stored = {row["secret"] for row in await conn.fetch("SELECT secret FROM endpoint")}
    after = Vault([new], where="new")
    opened = {after.open(one) for one in stored - {gone}}
    assert opened == {f"{rows.SECRET}{n}" if n % 3 else "" for n in range(150)}
    assert not any(one.startswith("whsec_") for one in stored)


async def test_the_commands(pool: asyncpg.Pool, database_url: str, tmp_path: Path) -> None:
    def cli(*arguments: str, **settings: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, "-m", "scripts.cli", *arguments],
            cwd=ROOT,
            env={
                "PATH": "/usr/bin:/bin",
                "GEOROUTER_DATABASE_URL": database_url,
                "GEOROUTER_DATA_DIR": str(tmp_path),
                **settings,
            },
            capture_output=True,
            text=True,
            check=False,
        )

    async with db.acquire(pool) as conn:
        await rows.endpoint(conn, await rows.authority(conn))
    migrated = cli("migrate")
    assert "1 secrets sealed" in migrated.stderr
    assert (tmp_path / "secret.key").stat().st_mode & 0o777 == 0o600
    key = cli("secrets", "key").stdout.strip()
    rotated = cli("secrets", "rotate", GEOROUTER_SECRET_KEYS=key)
    assert "1 secrets sealed" in rotated.stderr
    (tmp_path / "secret.key").unlink()
    assert cli("secrets", "rotate", GEOROUTER_SECRET_KEYS=key).returncode == 0
    lost = cli("secrets", "rotate")
    assert (lost.returncode, lost.stdout) == (1, "")
    assert "not at hand" in lost.stderr
    broken = cli("secrets", "rotate", GEOROUTER_SECRET_KEYS="hunter2")
    assert broken.returncode == 1
    assert "hunter2" not in broken.stderr


# --- registration by channel ----------------------------------------------------------------------


@pytest.mark.parametrize(
    ("body", "field"),
    [
        ({"channel": "open311", "url": "https://a.example/v2", "config": {}}, "config.api_key"),
        ({"channel": "open311", "url": "https://a.example/v2"}, "config"),
        (
            {"channel": "open311", "url": "https://a.example/v2", "config": {"api_key": "k"}},
            "config",
        ),
        (
            {"channel": "open311", "url": "https://a.example/v2?x=1", "config": OPEN311},
            "url",
        ),
        (
            {
                "channel": "open311",
                "url": "https://a.example/v2",
                "config": {**OPEN311, "services": {"pothole": ""}},
            },
            "config.services.pothole",
        ),
        ({"channel": "mail", "url": "highways@council.example"}, "url"),
        ({"channel": "mail", "url": "mailto:a@b.example,c@d.example"}, "url"),
        ({"channel": "mail", "url": "mailto:a@b.example?bcc=c@d.example"}, "url"),
        ({"channel": "mail", "url": "mailto:a%0d%0a@b.example"}, "url"),
        # this service has no mail server
        ({"channel": "mail", "url": "mailto:a@b.example"}, "channel"),
        ({"channel": "webhook", "config": {"api_key": "k"}}, "config.api_key"),
    ],
)
async def test_what_a_channel_does_not_take(api: Api, body: dict[str, Any], field: str) -> None:
    answer = await api.register(**body)
    assert (answer.status_code, slug(answer)) == (422, "validation-failed")
    assert field in [one["field"] for one in answer.json()["errors"]]
    assert (await api.rows())["endpoint"] == 0


async def test_a_blackhole_is_the_operators(api: Api, pool: asyncpg.Pool) -> None:
    body = {"channel": "blackhole", "url": "blackhole:"}
    assert slug(await api.register(key="council", **body)) == "forbidden"
    assert (await api.register(**body)).json()["secret"] is None
    assert await pool.fetchval("SELECT secret FROM endpoint") == ""


# --- dry run --------------------------------------------------------------------------------------


async def test_a_dry_run_sends_nothing_and_says_so(
    api: Api, pool: asyncpg.Pool, database_url: str, capfd: pytest.CaptureFixture[str]
) -> None:
    async with StubAuthority() as stub:
        await api.register(url=stub.url())
        await api.register(channel="open311", url=stub.url("/v2"), config=OPEN311)
        report = (await api.post_report()).json()
        delivered = await pool.fetchval("SELECT id FROM delivery LIMIT 1")
        await pool.execute(
            "INSERT INTO service_request (delivery_id, reference, next_poll_at) "
            "VALUES ($1, 'X', now())",
            delivered,
        )
        # Without the keys as well
        await pool.execute("UPDATE endpoint SET secret = 'sealed:x'")
        dry = {"delivery_mode": Settings().delivery_mode, "secret_keys": SecretStr("none")}
        await work(settings_for(database_url).model_copy(update=dry), 0.5, settled=pool)
        assert stub.received == []
    assert "DRY RUN" in capfd.readouterr().err
    shown = (await api.get(report["links"]["self"])).json()
    assert shown["state"] == "not_sent"
    assert shown["message"] == "Received. This is a rehearsal: nothing is sent to West."
    assert {one["nothing_sent"] for one in shown["deliveries"]} == {True}
    assert {one["state"] for one in shown["deliveries"]} == {"delivered"}
    answers = await pool.fetch("SELECT DISTINCT answer FROM attempt")
    assert [row["answer"] for row in answers] == ["dry run: nothing was sent"]


async def test_the_web_says_that_it_is_a_dry_run(api: Api) -> None:
    async with AsyncExitStack() as stack:
        patch = stack.enter_context(pytest.MonkeyPatch.context())
        wiring = api.app.state.wiring
        dry = wiring.settings.model_copy(update={"delivery_mode": "dry_run"})
        patch.setattr(type(wiring), "__setattr__", object.__setattr__)
        patch.setattr(wiring, "settings", dry)
        ready = (await api.client.get("/readyz")).json()
        assert ready["checks"]["delivery"]["detail"] == "DRY RUN: nothing is sent to anybody"
        receipt = (await api.post_report(idempotency_key="k")).json()
        assert receipt["message"] == "Received. This is a rehearsal: nothing is sent to West."
        assert (await api.post_report(idempotency_key="k")).json() == receipt
        shown = (await api.get(receipt["links"]["self"])).json()
        assert (shown["state"], shown["message"]) == ("held", receipt["message"])
