"""From registration to rotation: a real worker, real sockets, councils that answer or do not."""

from __future__ import annotations

import asyncio
import json
import re
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from ipaddress import ip_network
from typing import Any
from uuid import UUID

import asyncpg
import pytest
from pydantic import SecretStr
from standardwebhooks.webhooks import Webhook, WebhookVerificationError

from api import db
from api.delivery import outbox, verification
from api.delivery.worker import run_worker
from api.settings import Settings
from api.store import probes, reroutes, sealed
from api.vault import Vault, new_key
from tests.support.app import KEY, SHIRE, WEST, Api, serving, slug
from tests.support.rows import DECISION
from tests.support.stub_authority import OK, Answer, Received, StubAuthority
from tests.support.stub_mail import StubMail

OPEN311 = {"api_key": "their key", "default_service": "POT"}
SERVICES = b'[{"service_code": "POT", "service_name": "Potholes"}]'


@pytest.fixture
async def stub() -> AsyncIterator[StubAuthority]:
    async with StubAuthority() as stub:
        yield stub


def settings_for(dsn: str, **more: Any) -> Settings:
    facts: dict[str, Any] = {
        "database_url": SecretStr(dsn),
        "egress_allow": (ip_network("127.0.0.0/8"),),
        "delivery_timeout_s": 2.0,
        "delivery_mode": "live",
        "secret_keys": SecretStr(KEY),
    }
    return Settings(**(facts | more))


@asynccontextmanager
async def working(dsn: str, **more: Any) -> AsyncIterator[None]:
    """A worker without jitter: what failed is tried again at once."""
    stop = asyncio.Event()
    async with asyncio.TaskGroup() as tasks:
        tasks.create_task(
            run_worker(
                settings_for(dsn, **more),
                stop=stop,
                jitter=lambda: 0.0,
                idle_s=0.1,
                release_s=0.05,
                probe_s=0.02,
            )
        )
        try:
            yield
        finally:
            stop.set()


async def shown(api: Api, path: str) -> dict[str, Any]:
    found: dict[str, Any] = (await api.get(path, key="council")).json()
    return found


async def eventually(holds: Callable[[], Awaitable[Any]], timeout_s: float = 10.0) -> None:
    async with asyncio.timeout(timeout_s):
        while True:
            if await holds():
                return
            await asyncio.sleep(0.02)


async def until(api: Api, path: str, timeout_s: float = 10.0, **wanted: Any) -> dict[str, Any]:
    """Wait for an endpoint to be shown with this `state`, `verification` or `last_test`."""
    async with asyncio.timeout(timeout_s):
        while True:
            found = await shown(api, path)
            have = {
                "state": found["state"],
                "verification": (found["verification"] or {}).get("state"),
                "last_test": (found["last_test"] or {}).get("state"),
            }
            if all(have[name] == value for name, value in wanted.items()):
                return found
            await asyncio.sleep(0.02)


async def pending(api: Api, url: str, **fields: Any) -> tuple[str, str]:
    """A new endpoint's path and secret."""
    answer = await api.register(key="council", url=url, verified=False, **fields)
    assert answer.status_code == 201, answer.text
    assert answer.json()["state"] == "pending"
    return answer.headers["location"], answer.json()["secret"]


async def actions(pool: asyncpg.Pool) -> list[str]:
    rows = await pool.fetch("SELECT action FROM audit WHERE action LIKE 'endpoint.%' ORDER BY id")
    return [row["action"] for row in rows]


def endpoint_id(path: str) -> UUID:
    return UUID(path.rsplit("/", 1)[1])


# --- the challenge --------------------------------------------------------------------------------


async def test_a_webhook_is_active_when_it_has_answered(
    api: Api, pool: asyncpg.Pool, database_url: str, stub: StubAuthority, capfd: Any
) -> None:
    posted = [(await api.post_report(description=f"hole {n}")).json() for n in range(3)]
    path, secret = await pending(api, stub.url())
    assert (await shown(api, path))["verification"]["state"] == "waiting"
    assert (await api.post_report()).json()["forwarding"] == "held"
    async with working(database_url):
        endpoint = await until(api, path, state="active")
        await stub.wait_for(4)
    assert endpoint["verification"] == {
        "state": "passed",
        "at": endpoint["verification"]["at"],
        "status": 200,
        "error": None,
    }
    [challenge] = stub.challenges
    message = Webhook(secret).verify(challenge.body, dict(challenge.headers))
    assert (message["type"], message["sequence"]) == ("endpoint.challenge", 0)
    assert re.fullmatch("[A-Z2-7]{16}", message["data"]["challenge"])
    ids = [json.loads(one.body)["data"]["report"]["id"] for one in stub.received]
    assert set(ids) > {one["id"] for one in posted}
    assert await actions(pool) == ["endpoint.registered", "endpoint.activated"]
    # Its secret is nowhere but in the answer to the registration, nor is the challenge.
    said = "".join(capfd.readouterr())
    listed = json.dumps(await shown(api, path.rsplit("/", 1)[0]))
    stored = str(
        await pool.fetch("SELECT to_jsonb(endpoint), to_jsonb(audit) FROM endpoint, audit")
    )
    for where in (said, listed, stored):
        assert secret not in where
    assert message["data"]["challenge"] not in said + listed


async def bare(request: Received, writer: asyncio.StreamWriter) -> None:
    text = json.loads(request.body)["data"]["challenge"].encode()
    writer.write(b"HTTP/1.1 200 X\r\ncontent-length: %d\r\n\r\n%b\n" % (len(text) + 1, text))
    await writer.drain()


async def test_the_bare_text_is_an_answer_and_500s_are_tried_again(
    api: Api, database_url: str, stub: StubAuthority
) -> None:
    stub.echoes = False
    stub.answer("/intake", Answer(500), Answer(cut=True), bare, OK)
    path, _ = await pending(api, stub.url())
    async with working(database_url):
        await until(api, path, state="active", verification="passed")
    assert len(stub.received) == 3
    assert len({one.headers["webhook-id"] for one in stub.received}) == 1
    assert len({one.body for one in stub.received}) == 1


@pytest.mark.parametrize(
    ("answer", "error"),
    [
        (Answer(200, b'{"challenge": "AAAAAAAAAAAAAAAA"}'), "but not with the challenge"),
        (Answer(200, b'{"challenge": ["x"], "\xff": 1}'), "but not with the challenge"),
        (Answer(200, b"<html>Welcome</html>"), "but not with the challenge"),
        (Answer(302, headers={"location": "/echo"}), "answered 302"),
        (Answer(409), "answered 409"),
        (Answer(410), "answered 410"),
    ],
)
async def test_any_other_answer_is_none(
    api: Api, database_url: str, stub: StubAuthority, answer: Answer, error: str
) -> None:
    stub.echoes = False
    stub.answer("/intake", answer)
    stub.answer("/echo", bare)
    held = await api.post_report()
    path, _ = await pending(api, stub.url())
    async with working(database_url):
        endpoint = await until(api, path, verification="failed")
        assert endpoint["state"] == "pending"
        assert error in endpoint["verification"]["error"]
        assert endpoint["verification"]["status"] == answer.status
        assert [one.path for one in stub.received] == ["/intake"] * 5
        assert (await api.get(held.json()["links"]["self"])).json()["state"] == "held"
        # It can ask again.
        stub.echoes = True
        await api.rest()
        assert (await api.post(f"{path}/verify", key="council")).status_code == 202
        await until(api, path, state="active")
        again = await api.post(f"{path}/verify", key="council")
        assert (again.status_code, slug(again)) == (409, "endpoint-unfit")


async def test_a_challenge_has_its_time(
    api: Api, pool: asyncpg.Pool, database_url: str, stub: StubAuthority
) -> None:
    path, _ = await pending(api, stub.url())
    async with db.acquire(pool) as conn:
        [late] = await probes.claim(conn, limit=9, lease_s=60)
        await conn.execute("UPDATE endpoint_probe SET expires_at = now(), due_at = now()")
        async with conn.transaction():
            assert not await settle(conn, late)
        assert await probes.claim(conn, limit=9, lease_s=60) == []
    endpoint = await shown(api, path)
    assert endpoint["verification"]["state"] == "failed"
    assert endpoint["verification"]["error"] == "its time is over"
    await api.rest()
    await api.post(f"{path}/verify", key="council")
    async with working(database_url):
        await until(api, path, state="active")


async def test_challenges_have_a_limit(api: Api, monkeypatch: pytest.MonkeyPatch) -> None:
    """Neither by asking again nor by registering anew can strangers be sent mail without end."""
    monkeypatch.setattr(probes, "CHALLENGES_A_DAY_OF_AUTHORITY", 13)
    url = "http://127.0.0.1:9/not-mine"
    path, _ = await pending(api, url)
    soon = await api.post(f"{path}/verify", key="council")
    assert (soon.status_code, slug(soon)) == (429, "challenged-too-often")
    assert 50 <= int(soon.headers["retry-after"]) <= 60
    for _ in range(9):
        await api.rest(0.1)
        assert (await api.post(f"{path}/verify", key="council")).status_code == 202
    await api.rest(0.1)
    late = await api.post(f"{path}/verify", key="council")
    assert late.status_code == 429
    assert 22.9 * 3600 < int(late.headers["retry-after"]) < 23.1 * 3600
    # a code may be given all the same, right or wrong
    assert (await api.post(f"{path}/verify", key="council", code="A" * 16)).status_code == 422

    for _ in range(3):
        assert (await api.delete(path, key="council")).status_code == 204
        path, _ = await pending(api, url)
    assert (await api.delete(path, key="council")).status_code == 204
    more = await api.register(key="council", url=url, verified=False)
    assert (more.status_code, slug(more)) == (429, "challenged-too-often")
    assert (await api.register(SHIRE, url=url, verified=False)).status_code == 201
    await api.rest(24)
    assert (await api.register(key="council", url=url, verified=False)).status_code == 201


def test_five_tries_take_about_ten_minutes() -> None:
    waits = verification.SCHEDULE_S["challenge"]
    assert (len(waits) + 1, sum(waits) / 2) == (5, 600.0)


async def test_an_open311_server_shows_its_services(
    api: Api, database_url: str, stub: StubAuthority
) -> None:
    stub.answer("/v2/services.json", Answer(200, b"<html>Sign in</html>"), Answer(200, SERVICES))
    path, secret = await pending(api, stub.url("/v2"), channel="open311", config=OPEN311)
    assert secret is None
    async with working(database_url):
        await until(api, path, state="active")
        await api.post(f"{path}/test")
        await until(api, path, last_test="passed")
    assert [(one.method, one.path) for one in stub.received] == [("GET", "/v2/services.json")] * 3


async def test_a_mailbox_gives_back_the_code(
    database_url: str, pool: asyncpg.Pool, stub: StubAuthority
) -> None:
    del stub
    async with StubMail() as mail:
        smtp = {
            "smtp_host": "127.0.0.1",
            "smtp_port": mail.port,
            "smtp_tls": "none",
            "smtp_from": "reports@georouter.example",
        }
        async with serving(database_url, pool, **smtp) as api, working(database_url, **smtp):

            async def code(count: int) -> str:
                async def came() -> bool:
                    return len(mail.received) == count

                await eventually(came)
                text = mail.messages()[-1].get_content().replace("\r\n", "\n")
                [found] = re.findall("^[A-Z2-7]{16}$", text, re.MULTILINE)
                return str(found)

            path, _ = await pending(api, "mailto:roads@west.example", channel="mail")
            first = await code(1)
            assert mail.recipients == ["roads@west.example"]
            assert (await shown(api, path))["state"] == "pending"
            wrong = await api.post(f"{path}/verify", key="council", code="A" * 16)
            assert (wrong.status_code, slug(wrong)) == (422, "validation-failed")
            await api.rest()
            assert (await api.post(f"{path}/verify", key="council")).status_code == 202
            second = await code(2)
            # Only the one that was asked for last counts, and only in its time.
            assert (await api.post(f"{path}/verify", key="council", code=first)).status_code == 422
            await pool.execute("UPDATE endpoint_probe SET expires_at = now()")
            late = await api.post(f"{path}/verify", key="council", code=second)
            assert late.status_code == 422
            await pool.execute("UPDATE endpoint_probe SET expires_at = now() + interval '1 hour'")
            right = await api.post(f"{path}/verify", key="council", code=second.lower())
            assert (right.status_code, right.json()["state"]) == (200, "active")
            assert right.json()["verification"]["state"] == "passed"
            await api.post(f"{path}/test", key="council")
            await until(api, path, last_test="passed")
            assert mail.messages()[-1]["Subject"] == "Test: street reports for West"
            hook = await api.register(verified=False)
            path = hook.headers["location"]
            assert (await api.post(f"{path}/verify", code=second)).status_code == 422
    assert await actions(pool) == [
        "endpoint.registered",
        "endpoint.challenged",
        "endpoint.activated",
        "endpoint.tested",
        "endpoint.registered",
    ]


async def test_a_blackhole_needs_no_challenge(api: Api) -> None:
    await api.post_report()
    answer = await api.register(channel="blackhole", url="blackhole:", verified=False)
    endpoint = answer.json()
    assert (endpoint["state"], endpoint["released"]) == ("active", 1)
    assert endpoint["verification"] is None


async def test_in_a_dry_run_it_stays_pending_and_says_why(
    database_url: str, pool: asyncpg.Pool, stub: StubAuthority
) -> None:
    async with (
        serving(database_url, pool, delivery_mode="dry_run") as api,
        working(database_url, delivery_mode="dry_run"),
    ):
        path, _ = await pending(api, stub.url())
        await asyncio.sleep(0.5)
        endpoint = await shown(api, path)
    assert endpoint["state"] == "pending"
    assert endpoint["verification"]["state"] == "waiting"
    assert "dry run" in endpoint["verification"]["error"]
    assert stub.challenges == []


# --- races ----------------------------------------------------------------------------------------


async def settle(conn: asyncpg.Connection, probe: probes.Probe) -> bool:
    return await probes.settle(conn, probe, outcome="passed", delay_s=None, status=200, error=None)


async def test_only_the_latest_try_of_the_latest_challenge_counts(
    api: Api, pool: asyncpg.Pool
) -> None:
    path, _ = await pending(api, "http://127.0.0.1:9/x")
    async with db.acquire(pool) as conn, conn.transaction():
        [dead] = await probes.claim(conn, limit=9, lease_s=60)
        assert await probes.claim(conn, limit=9, lease_s=60) == []
        await conn.execute("UPDATE endpoint_probe SET due_at = now()")
        [before] = await probes.claim(conn, limit=9, lease_s=60)
        assert (before.attempt, before.id) == (2, dead.id)
        assert not await settle(conn, dead)
    await api.rest()
    await api.post(f"{path}/verify")
    async with db.acquire(pool) as conn, conn.transaction():
        assert not await settle(conn, before)
        [latest] = await probes.claim(conn, limit=9, lease_s=60)
        assert latest.text != before.text
        assert await settle(conn, latest)
        assert not await settle(conn, latest)
    assert (await shown(api, path))["state"] == "active"


async def test_a_deletion_and_an_activation_at_the_same_time(api: Api, pool: asyncpg.Pool) -> None:
    """Whichever locks the endpoint first: in the end it is deleted, and nothing is owed to it."""
    path, _ = await pending(api, "http://127.0.0.1:9/x")
    await api.post_report()
    async with pool.acquire() as conn:
        [probe] = await probes.claim(conn, limit=9, lease_s=60)
        transaction = conn.transaction()
        await transaction.start()
        assert await settle(conn, probe)
        async with asyncio.TaskGroup() as tasks:
            deletion = tasks.create_task(api.delete(path))
            await asyncio.sleep(0.2)
            assert not deletion.done()
            await transaction.commit()
    assert deletion.result().status_code == 204
    path, _ = await pending(api, "http://127.0.0.1:9/x")
    async with pool.acquire() as conn:
        [probe] = await probes.claim(conn, limit=9, lease_s=60)
        async with pool.acquire() as other:
            transaction = other.transaction()
            await transaction.start()
            await other.execute("SELECT FROM endpoint WHERE id = $1 FOR UPDATE", endpoint_id(path))
            async with conn.transaction():
                racing = asyncio.ensure_future(settle(conn, probe))
                await asyncio.sleep(0.2)
                assert not racing.done()
                await other.execute("DELETE FROM endpoint_probe")
                await other.execute("UPDATE endpoint SET state = 'deleted', ended_at = now()")
                await transaction.commit()
                assert not await racing
    states = await pool.fetch("SELECT DISTINCT state FROM endpoint")
    assert [row["state"] for row in states] == ["deleted"]
    assert (await api.rows())["held"] == 1


async def test_a_suspended_endpoint_comes_back_by_a_challenge(
    api: Api, pool: asyncpg.Pool, database_url: str, stub: StubAuthority
) -> None:
    path = (await api.register(url=stub.url())).headers["location"]
    await pool.execute("UPDATE endpoint SET state = 'suspended', failures = 5")
    assert (await api.post_report()).json()["forwarding"] == "held"
    for refused in ("pause", "resume", "test"):
        assert slug(await api.post(f"{path}/{refused}")) == "endpoint-unfit"
    same = await api.register(url=stub.url())
    assert slug(same) == "endpoint-exists"
    await api.rest()
    await api.post(f"{path}/verify")
    async with working(database_url):
        await until(api, path, state="active")
        await stub.wait_for(1)


# --- pausing --------------------------------------------------------------------------------------


async def test_a_paused_endpoint_keeps_its_backlog(
    api: Api, pool: asyncpg.Pool, database_url: str, stub: StubAuthority
) -> None:
    path = (await api.register(url=stub.url())).headers["location"]
    assert (await api.post(f"{path}/pause", key="council")).json()["state"] == "paused"
    assert (await api.post(f"{path}/pause", key="council")).json()["state"] == "paused"
    receipts = [(await api.post_report(description=f"{n}")).json() for n in range(4)]
    assert {one["forwarding"] for one in receipts} == {"queued"}
    await pool.execute(
        "UPDATE delivery SET created_at = created_at - interval '100 hours', "
        "due_at = due_at - interval '100 hours'"
    )
    stub.answer("/intake", Answer(500), OK)
    async with working(database_url):
        await asyncio.sleep(0.5)
        assert stub.received == []
        # One at a time, to see the order; the oldest first, and older than 72 h is no reason to
        # give up at the first failure.
        await pool.execute("UPDATE endpoint SET failures = 1")
        resumed = await api.post(f"{path}/resume", key="council")
        assert resumed.json()["state"] == "active"
        await stub.wait_for(5)
        await eventually(
            lambda: pool.fetchval("SELECT every(state = 'delivered') FROM delivery"),
        )
    assert await pool.fetchval("SELECT count(*) FROM held") == 0
    assert await actions(pool) == [
        "endpoint.registered",
        "endpoint.activated",
        "endpoint.paused",
        "endpoint.resumed",
    ]


async def test_a_backlog_is_claimed_the_oldest_first(api: Api, pool: asyncpg.Pool) -> None:
    ids = [(await api.post_report(description=f"{n}")).json()["id"] for n in range(5)]
    held = [(await api.post_report(description=f"{n}")).json()["id"] for n in range(5)]
    # As if the former had come back from elsewhere later
    await pool.execute(
        "UPDATE held SET since = now() + interval '1 s' WHERE report_id::text = ANY ($1)", ids
    )
    path = (await api.register(verified=True)).headers["location"]
    await api.post(f"{path}/pause")
    late = (await api.post_report()).json()["id"]
    async with db.acquire(pool) as conn:
        assert await outbox.claim(conn, worker=1, limit=50, lease_s=60, per_endpoint=50) == []
    await api.post(f"{path}/resume")
    seen = []
    for _ in range(11):
        async with db.acquire(pool) as conn:
            [one] = await outbox.claim(conn, worker=1, limit=1, lease_s=60, per_endpoint=50)
        seen.append(str(one.report_id))
    assert seen == [*held, *ids, late]


async def test_a_backlog_does_not_fall_upon_an_endpoint_all_at_once(
    api: Api, pool: asyncpg.Pool, database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(outbox, "RELEASE_BATCH", 2)
    for n in range(5):
        await api.post_report(description=f"{n}")
    path, _ = await pending(api, "http://127.0.0.1:9/x")
    await pool.execute("UPDATE endpoint SET state = 'active' WHERE id = $1", endpoint_id(path))
    stop = asyncio.Event()
    async with asyncio.TaskGroup() as tasks:
        tasks.create_task(
            run_worker(settings_for(database_url), stop=stop, idle_s=0.05, release_s=60)
        )
        await eventually(lambda: pool.fetchval("SELECT count(*) = 3 FROM held"))
        await asyncio.sleep(0.5)
        stop.set()
    assert await pool.fetchval("SELECT count(*) FROM held") == 3


# --- filters --------------------------------------------------------------------------------------


async def test_categories_that_nobody_wants_are_held(api: Api, pool: asyncpg.Pool) -> None:
    litter = (await api.register(url="http://127.0.0.1:9/l", categories=["litter"])).headers
    hole = await api.post_report()
    assert hole.json()["forwarding"] == "held"
    detail = (await api.get(f"/v1/authorities/{api.authorities[WEST]}", key="council")).json()
    assert detail["held"] == 1
    assert (await api.post_report(category="litter")).json()["forwarding"] == "queued"
    async with db.acquire(pool) as conn:
        assert await outbox.release_held(conn) == 0
    changed = await api.patch(litter["location"], key="council", categories=["litter", "pothole"])
    assert changed.json()["categories"] == ["litter", "pothole"]
    async with db.acquire(pool) as conn:
        assert await outbox.release_held(conn) == 1
    assert (await api.get(hole.json()["links"]["self"])).json()["state"] == "queued"
    await api.register(url="http://127.0.0.1:9/all")
    assert (await api.post_report(category="graffiti")).json()["forwarding"] == "queued"
    counts = await pool.fetch(
        "SELECT count(*) AS n FROM endpoint JOIN delivery ON endpoint.id = endpoint_id "
        "GROUP BY endpoint.id ORDER BY n"
    )
    assert [row["n"] for row in counts] == [1, 2]


async def test_a_report_that_comes_back_is_owed_when_it_is_wanted(
    api: Api, pool: asyncpg.Pool
) -> None:
    path = (await api.register()).headers["location"]
    report = UUID((await api.post_report()).json()["id"])
    other = (await api.post_report(lon=1.5)).json()["decision"]["authority"]["id"]
    await api.patch(path, categories=["litter"])

    async def give(to: UUID) -> None:
        async with db.acquire(pool) as conn, conn.transaction():
            await conn.execute("SELECT FROM report WHERE id = $1 FOR UPDATE", report)
            dataset_id = await conn.fetchval("SELECT dataset_id FROM report LIMIT 1")
            await reroutes.hand_over(
                conn, report, decision=DECISION, dataset_id=dataset_id, authority_id=to
            )

    await give(UUID(other))
    await give(api.authorities[WEST])
    assert await pool.fetchval("SELECT authority_id FROM held WHERE report_id = $1", report)
    await api.patch(path, categories=None)
    async with db.acquire(pool) as conn:
        assert await outbox.release_held(conn) == 1
    state = await pool.fetchval("SELECT state FROM delivery WHERE report_id = $1", report)
    assert state == "pending"


async def test_events_go_to_who_wants_them(api: Api, pool: asyncpg.Pool) -> None:
    await api.register(url="http://127.0.0.1:9/all")
    path = (await api.register(url="http://127.0.0.1:9/few", events=["report.created"])).headers
    report = UUID((await api.post_report()).json()["id"])
    event: Mapping[str, Any] = {"type": "report.updated", "data": {}}
    async with db.acquire(pool) as conn:
        assert await outbox.owe_event(conn, report, event) == 1
    await api.patch(path["location"], events=["report.created", "report.updated"])
    async with db.acquire(pool) as conn:
        assert await outbox.owe_event(conn, report, event) == 2


@pytest.mark.parametrize(
    ("change", "field"),
    [
        ({"categories": ["pigeons"]}, "categories.0"),
        ({"categories": []}, "categories"),
        ({"events": ["report.updated"]}, "events"),
        ({"events": ["report.eaten"]}, "events.0"),
        ({"config": OPEN311}, "config"),
        ({"url": "https://elsewhere.example"}, "url"),
    ],
)
async def test_changes_that_are_refused(api: Api, change: dict[str, Any], field: str) -> None:
    path = (await api.register()).headers["location"]
    before = await shown(api, path)
    answer = await api.patch(path, key="council", **change)
    assert (answer.status_code, slug(answer)) == (422, "validation-failed")
    assert [one["field"] for one in answer.json()["errors"]] == [field]
    assert await shown(api, path) == before


async def test_an_open311_endpoint_gets_another_key(api: Api, pool: asyncpg.Pool) -> None:
    url = "http://127.0.0.1:9/v2"
    path = (await api.register(channel="open311", url=url, config=OPEN311)).headers["location"]
    vault = Vault([KEY], where="test")

    async def key() -> str:
        return vault.open(await pool.fetchval("SELECT secret FROM endpoint"))

    same = await api.patch(path, config={"default_service": "GEN"}, fallback=True)
    assert (same.json()["config"], same.json()["fallback"]) == ({"default_service": "GEN"}, True)
    assert await key() == "their key"
    await api.patch(path, config={**OPEN311, "api_key": "another key"})
    assert await key() == "another key"
    assert (await shown(api, path))["fallback"] is True
    assert "another key" not in str(await pool.fetch("SELECT detail FROM audit"))


# --- secrets and tests ----------------------------------------------------------------------------


async def test_two_secrets_sign_for_a_while(
    api: Api, pool: asyncpg.Pool, database_url: str, stub: StubAuthority, capfd: Any
) -> None:
    answer = await api.register(url=stub.url())
    path, old = answer.headers["location"], answer.json()["secret"]
    rotated = await api.post(f"{path}/rotate", key="council", old_secret_for_hours=2)
    new = rotated.json()["secret"]
    assert rotated.headers["cache-control"] == "no-store"
    ends = datetime.fromisoformat(rotated.json()["old_secret_until"])
    assert timedelta(minutes=119) < ends - datetime.now(UTC) < timedelta(minutes=121)  # noqa: TID251
    await api.post_report()
    async with working(database_url):
        [both] = await stub.wait_for(1)
        for secret in (old, new):
            Webhook(secret).verify(both.body, dict(both.headers))
        stored = await pool.fetchrow("SELECT secret, old_secret FROM endpoint")
        assert all(one.startswith("sealed:") for one in stored)
        await pool.execute("UPDATE endpoint SET old_secret_until = now()")
        await api.post_report()
        _, after = await stub.wait_for(2)
        Webhook(new).verify(after.body, dict(after.headers))
        with pytest.raises(WebhookVerificationError):
            Webhook(old).verify(after.body, dict(after.headers))
        await eventually(lambda: pool.fetchval("SELECT old_secret IS NULL FROM endpoint"))
    endpoint = await shown(api, path)
    assert endpoint["old_secret_until"] is None
    said = "".join(capfd.readouterr()) + json.dumps(endpoint)
    assert old not in said
    assert new not in said
    at_once = await api.post(f"{path}/rotate", old_secret_for_hours=0)
    assert at_once.json()["old_secret_until"] is None
    default = await api.post(f"{path}/rotate")
    assert default.json()["old_secret_until"] is not None
    hole = await api.register(channel="blackhole", url="blackhole:")
    assert slug(await api.post(f"{hole.headers['location']}/rotate")) == "endpoint-unfit"


async def test_the_old_secret_is_sealed_anew_as_well(api: Api, pool: asyncpg.Pool) -> None:
    answer = await api.register()
    await api.post(f"{answer.headers['location']}/rotate")
    key = new_key()
    async with db.acquire(pool) as conn:
        done = await sealed.reseal(conn, Vault([key, KEY], where="both"))
    assert (done.changed, done.unreadable) == (2, 0)
    stored = await pool.fetchval("SELECT old_secret FROM endpoint")
    assert Vault([key], where="new").open(stored) == answer.json()["secret"]


async def test_a_test_message(
    api: Api, database_url: str, stub: StubAuthority, pool: asyncpg.Pool
) -> None:
    stub.answer("/intake", Answer(503), OK)
    answer = await api.register(url=stub.url())
    path, secret = answer.headers["location"], answer.json()["secret"]
    await api.post(f"{path}/pause")
    async with working(database_url):
        asked = await api.post(f"{path}/test", key="council")
        assert asked.status_code == 202
        assert asked.json()["last_test"]["state"] == "waiting"
        failed = await until(api, path, last_test="failed")
        assert (failed["last_test"]["status"], failed["last_test"]["error"]) == (
            503,
            "answered 503",
        )
        await api.post(f"{path}/test", key="council")
        await until(api, path, last_test="passed")
    assert len(stub.received) == 2
    message = Webhook(secret).verify(stub.received[1].body, dict(stub.received[1].headers))
    assert (message["type"], message["data"]) == ("endpoint.test", {})
    assert (await actions(pool)).count("endpoint.tested") == 2
    path, _ = await pending(api, stub.url("/other"))
    assert slug(await api.post(f"{path}/test")) == "endpoint-unfit"
