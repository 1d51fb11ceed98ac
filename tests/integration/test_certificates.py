"""Certificates: who gets one, that it is complete, and that whatever is changed since is found."""

from __future__ import annotations

import asyncio
import json
import secrets
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any
from uuid import UUID, uuid4

import asyncpg
import httpx
import pytest

from api import certificates, db, evidence
from api.delivery import outbox
from api.delivery.policy import Deferred, Delivered, NotOurs, Outcome, after
from api.errors import SigningKeyUnreadable
from api.store import evidence as log
from api.store import sealed
from api.store.events import add_event
from api.vault import Vault, new_key
from tests.support.app import IN_SHIRE, KEY, SHIRE, WEST, Api, slug, started

ROOT = Path(__file__).parents[2]
MODERN = Vault([KEY], where="test")


async def attempt(pool: asyncpg.Pool, *outcomes: Outcome) -> None:
    """Make attempts at all that is owed, with these outcomes one after the other."""
    async with db.acquire(pool) as conn:
        for outcome in outcomes:
            await conn.execute("UPDATE delivery SET due_at = now() WHERE state = 'pending'")
            await conn.execute("UPDATE endpoint SET failures = 0, open_until = NULL")
            for one in await outbox.claim(conn, worker=1, limit=9, lease_s=60, per_endpoint=9):
                following = after(outcome, attempt=1, age_s=0, jitter=0, rejections=0)
                async with conn.transaction():
                    assert await outbox.settle(conn, one, outcome, following)


REFUSED = Deferred(status=503, answer="busy", why="answered 503")
TAKEN = Delivered(status=200, answer='{"reference": "HM-1"}', reference="HM-1")


async def delivered(api: Api, pool: asyncpg.Pool, **fields: Any) -> str:
    """A report that West took at the second attempt; its id."""
    await api.register()
    report_id: str = (await api.post_report(**fields)).json()["id"]
    await attempt(pool, REFUSED, TAKEN)
    return report_id


async def certificate(api: Api, report_id: str, *, key: str = "app") -> dict[str, Any]:
    response = await api.get(f"/v1/reports/{report_id}/certificate", key=key)
    assert response.status_code == 200, response.text
    document: dict[str, Any] = evidence.read(response.content).document
    assert evidence.check(document) == []
    return document


async def page(api: Api, report_id: str, **headers: str) -> httpx.Response:
    path = f"/v1/reports/{report_id}/certificate"
    return await api.client.get(path, headers={**api.headers("app"), **headers})


# --- what it says ---------------------------------------------------------------------------------


async def test_it_says_when_it_was_received_tried_and_accepted(
    api: Api, pool: asyncpg.Pool
) -> None:
    report_id = await delivered(
        api,
        pool,
        description="Twll wrth Tŷ'r Ŵyl",
        observed_at="2026-11-02T08:15:00Z",
        accuracy_m=5,
        answers={"depth_cm": 6, "cycle_route": True},
    )
    shown = (await api.get(f"/v1/reports/{report_id}")).json()
    document = await certificate(api, report_id)
    report = document["report"]
    assert report["received_at"] == shown["received_at"]
    assert report["observed_at"] == "2026-11-02T08:15:00.000000Z"
    assert report["description"] == "Twll wrth Tŷ'r Ŵyl"
    assert report["answers"] == {"depth_cm": 6.0, "cycle_route": True}
    assert report["place"] == {"lon": 0.5, "lat": 50.5, "accuracy_m": 5.0}
    assert document["decision"]["authority"]["name"] == "West"
    assert document["decision"]["dataset"] == "squares-1"
    assert document["content"]["sha256"] == document["events"][0]["detail"]["content_sha256"]
    tried = document["attempts"]
    assert [(one["outcome"], one["status"]) for one in tried] == [
        ("deferred", 503),
        ("delivered", 200),
    ]
    [accepted] = document["accepted"]
    assert accepted["at"] == tried[1]["finished_at"]
    assert accepted["reference"] == "HM-1"
    assert accepted["answer_sha256"] == evidence.sha256('{"reference": "HM-1"}')
    assert [event["kind"] for event in document["events"]] == ["received", *["attempted"] * 2]
    assert "busy" not in json.dumps(document)


async def test_no_worker_is_needed_for_it_to_be_complete_and_asking_twice_adds_nothing(
    api: Api, pool: asyncpg.Pool
) -> None:
    report_id = await delivered(api, pool)
    assert await pool.fetchval("SELECT count(*) FROM report_event WHERE n > 1") == 0
    heads = {(await certificate(api, report_id))["head"] for _ in range(3)}
    assert len(heads) == 1
    async with db.acquire(pool) as conn:
        assert await log.log_attempts(conn) == 0


async def test_an_attempt_that_runs_is_told_of(api: Api, pool: asyncpg.Pool) -> None:
    await api.register()
    report_id = (await api.post_report()).json()["id"]
    async with db.acquire(pool) as conn:
        await outbox.claim(conn, worker=1, limit=1, lease_s=60, per_endpoint=1)
    document = await certificate(api, report_id)
    assert (document["under_way"], document["attempts"], document["accepted"]) == (1, [], [])


async def test_who_took_it_and_passed_it_on_has_known_of_it(api: Api, pool: asyncpg.Pool) -> None:
    report_id = await delivered(api, pool)
    await api.register(SHIRE, url="http://127.0.0.1:9/shire")
    update = {"update_id": "1", "state": "closed", "reason": "not_responsible"}
    update["responsible"] = SHIRE
    west = f"/v1/authorities/{api.authorities[WEST]}/reports/{report_id}/updates"
    assert (await api.post(west, key="council", **update)).status_code == 201
    async with db.acquire(pool) as conn, conn.transaction():
        # As the worker does when it routes again.
        await conn.execute("DELETE FROM reroute")
        await conn.execute("UPDATE report SET authority_id = $1", api.authorities[SHIRE])
        await conn.execute(
            "INSERT INTO delivery (report_id, endpoint_id) "
            "SELECT $1, id FROM endpoint WHERE authority_id = $2",
            UUID(report_id),
            api.authorities[SHIRE],
        )
    await attempt(pool, NotOurs(status=422, answer="", why="x", named=None))
    document = await certificate(api, report_id, key="operator")
    assert [one["authority"]["name"] for one in document["accepted"]] == ["West"]
    assert [one["outcome"] for one in document["attempts"]] == ["deferred", "delivered", "not_ours"]


async def test_a_rehearsal_and_news_are_no_acceptance(api: Api, pool: asyncpg.Pool) -> None:
    await api.register()
    report_id = (await api.post_report()).json()["id"]
    await attempt(pool, Delivered(status=None, answer="dry run", nothing_sent=True))
    document = await certificate(api, report_id)
    assert document["attempts"][0]["nothing_sent"] is True
    assert document["accepted"] == []


async def test_a_reporter_sees_attempts_in_words(api: Api, pool: asyncpg.Pool) -> None:
    report_id = await delivered(api, pool)
    await certificate(api, report_id)
    shown = (await api.get(f"/v1/reports/{report_id}")).json()["events"]
    assert [event["message"] for event in shown] == [
        None,
        "Sent to West: not taken yet (answer 503)",
        "Sent to West: taken (answer 200), their number HM-1",
    ]
    assert [event["outcome"] for event in shown] == [None, "deferred", "delivered"]
    assert "127.0.0.1" not in json.dumps(shown)


# --- who, and how ---------------------------------------------------------------------------------


@pytest.mark.parametrize("suffix", ["certificate", "certificate.pdf"])
async def test_it_is_for_who_may_read_the_report(api: Api, suffix: str) -> None:
    report_id = (await api.post_report()).json()["id"]
    for key in ("app", "council", "operator"):
        assert (await api.get(f"/v1/reports/{report_id}/{suffix}", key=key)).status_code == 200
    unknown = await api.get(f"/v1/reports/{uuid4()}/{suffix}", key="operator")
    for key in ("other app", "other council"):
        refused = await api.get(f"/v1/reports/{report_id}/{suffix}", key=key)
        assert (refused.status_code, slug(refused)) == (404, "not-found")
        assert refused.json() == unknown.json()
    none = await api.client.get(f"/v1/reports/{report_id}/{suffix}")
    assert slug(none) == "key-missing"


async def test_json_or_a_page_to_print(api: Api, pool: asyncpg.Pool) -> None:
    report_id = await delivered(api, pool, description="stream endstream %%EOF 中文 🕳️ ŵ")
    plain = await page(api, report_id)
    asked = await page(api, report_id, Accept="application/pdf")
    direct = await api.get(f"/v1/reports/{report_id}/certificate.pdf")
    assert plain.headers["content-type"] == "application/json"
    for response, suffix in ((plain, "json"), (asked, "pdf"), (direct, "pdf")):
        name = f'attachment; filename="certificate-{report_id}.{suffix}"'
        assert response.headers["content-disposition"] == name
        assert response.headers["cache-control"] == "no-store"
        read = evidence.read(response.content)
        assert (read.findings, evidence.check(read.document)) == ((), [])
        assert read.document["head"] == plain.json()["head"]
    for response in (asked, direct):
        assert response.headers["content-type"] == "application/pdf"
        assert response.content.startswith(b"%PDF-")


async def test_the_keys_are_for_everybody(api: Api) -> None:
    assert (await api.client.get("/keys")).json() == {"items": []}
    report_id = (await api.post_report()).json()["id"]
    documents = await asyncio.gather(*(certificate(api, report_id) for _ in range(4)))
    [key] = (await api.client.get("/keys")).json()["items"]
    assert {one["signature"]["public_key"] for one in documents} == {key["public_key"]}
    assert key["retired_at"] is None


async def test_of_processes_that_sign_first_one_makes_the_key(pool: asyncpg.Pool) -> None:
    async def key() -> str:
        async with db.acquire(pool) as conn, conn.transaction():
            made = await certificates.signing_key(conn, MODERN, random_bytes=secrets.token_bytes)
            return evidence.public_key(made)

    assert len(set(await asyncio.gather(*(key() for _ in range(8))))) == 1


async def test_the_key_is_sealed_and_sealed_again(api: Api, pool: asyncpg.Pool) -> None:
    report_id = (await api.post_report()).json()["id"]
    before = await certificate(api, report_id)
    newer = new_key()
    async with db.acquire(pool) as conn:
        stored = await conn.fetchval("SELECT private_key FROM signing_key")
        assert stored.startswith("sealed:")
        done = await sealed.reseal(conn, Vault([newer, KEY], where="both"))
        assert (done.changed, done.unreadable) == (2, 0)  # and the private link of a report
        key = await certificates.signing_key(conn, Vault([newer], where="new"), random_bytes=bytes)
        assert evidence.public_key(key) == before["signature"]["public_key"]
        with pytest.raises(SigningKeyUnreadable):
            await certificates.signing_key(conn, MODERN, random_bytes=bytes)
    refused = await api.get(f"/v1/reports/{report_id}/certificate")
    assert (refused.status_code, slug(refused)) == (503, "signing-key-unreadable")
    assert stored not in refused.text


async def test_a_new_key_leaves_old_certificates_good(api: Api, pool: asyncpg.Pool) -> None:
    report_id = (await api.post_report()).json()["id"]
    before = await certificate(api, report_id)
    async with db.acquire(pool) as conn:
        await certificates.renew_signing_key(conn, MODERN, random_bytes=lambda n: b"x" * n)
        after_it = await certificate(api, report_id)
        assert after_it["signature"]["public_key"] != before["signature"]["public_key"]
        for document in (before, after_it):
            compared = await certificates.verify(conn, document)
            assert compared is not None
            assert compared.findings == ()
        # What an old key signs after its time is found.
        await conn.execute("UPDATE signing_key SET retired_at = '2020-01-01'")
        compared = await certificates.verify(conn, before)
    assert compared is not None
    assert [one.code for one in compared.findings] == ["key"]


async def test_a_service_without_the_key_takes_reports_all_the_same(
    api: Api, database_url: str
) -> None:
    report_id = (await api.post_report()).json()["id"]
    await certificate(api, report_id)
    other = new_key()
    async with started(database_url, api.shelf, secret_keys=other) as (_, client):
        path = f"/v1/reports/{report_id}/certificate"
        refused = await client.get(path, headers=api.headers("app"))
        assert slug(refused) == "signing-key-unreadable"
        assert (await client.get("/keys")).status_code == 200
        assert (
            await client.get(path.removesuffix("/certificate"), headers=api.headers("app"))
        ).is_success


# --- the log is held against it -------------------------------------------------------------------

TAMPERING = {
    "a time": ("UPDATE report_event SET at = at - interval '3 days' WHERE n = 1", "event 1"),
    "a kind": ("UPDATE report_event SET kind = 'spam' WHERE n = 2", "event 2"),
    "an authority": ("UPDATE report_event SET authority_id = NULL WHERE n = 2", "event 2"),
    "a detail": (
        "UPDATE report_event SET detail = detail || '{\"status\": 500}' WHERE n = 3",
        "event 3",
    ),
    "a key": ("UPDATE report_event SET key = 'x' WHERE n = 3", "event 3"),
    "a hash": ("UPDATE report_event SET hash = sha256('x') WHERE n = 2", "event 2"),
    "a link": ("UPDATE report_event SET previous_hash = sha256('x') WHERE n = 3", "event 3"),
    "the order": (
        """
        UPDATE report_event SET n = 9 WHERE n = 2;
        UPDATE report_event SET n = 2 WHERE n = 3;
        UPDATE report_event SET n = 3 WHERE n = 9
        """,
        "event 2",
    ),
    "the first": ("DELETE FROM report_event WHERE n = 1", "event 2"),
    "the middle": ("DELETE FROM report_event WHERE n = 2", "event 3"),
    "the last": ("DELETE FROM report_event WHERE n = 3", "event 3"),
    "all": ("DELETE FROM report_event", "event 1"),
    "the text": ("UPDATE report SET description = 'a crack'", "content"),
    "the place": ("UPDATE report SET lon = lon + 0.000001", "content"),
    "the answers": ("UPDATE report SET answers = '{\"depth_cm\": 1}'", "content"),
    "the receipt": ("UPDATE report SET received_at = now()", "received_at"),
}


async def tamper(conn: asyncpg.Connection, statement: str) -> None:
    """As a superuser can, with the triggers off."""
    async with conn.transaction():
        await conn.execute("SET LOCAL session_replication_role = replica")
        await conn.execute(statement)


@pytest.mark.parametrize("what", TAMPERING)
async def test_what_is_changed_in_the_database_is_found(
    api: Api, pool: asyncpg.Pool, what: str
) -> None:
    statement, where = TAMPERING[what]
    report_id = await delivered(api, pool)
    document = await certificate(api, report_id)
    await api.post_report(**IN_SHIRE)
    async with db.acquire(pool) as conn:
        clean = await certificates.verify(conn, document)
        assert clean is not None
        assert clean.findings == ()
        assert [one.findings async for one in certificates.walk(conn)] == [()]
        mine = f" WHERE report_id = '{report_id}' AND"
        await tamper(conn, statement.replace(" WHERE", mine))
        compared = await certificates.verify(conn, document)
        assert compared is not None
        walked = [one async for batch in certificates.walk(conn, batch=1) for one in batch.findings]
    assert where in [one.where for one in compared.findings]
    # Without a certificate too, but for a last event that somebody else than a worker wrote.
    assert UUID(report_id) in [one for one, _ in walked]


async def test_a_chain_that_is_rewritten_whole_betrays_itself_to_a_certificate(
    api: Api, pool: asyncpg.Pool
) -> None:
    report_id = await delivered(api, pool)
    document = await certificate(api, report_id)
    async with db.acquire(pool) as conn:
        await tamper(
            conn,
            """
            DO $$
            DECLARE e report_event; before bytea;
            BEGIN
                FOR e IN SELECT * FROM report_event ORDER BY n LOOP
                    e.at := e.at + interval '3 days';
                    e.previous_hash := CASE WHEN e.n > 1 THEN before END;
                    before := sha256(convert_to(report_event_text(e), 'UTF8'));
                    UPDATE report_event
                    SET at = e.at, previous_hash = e.previous_hash, hash = before WHERE n = e.n;
                END LOOP;
                UPDATE report SET received_at = received_at + interval '3 days';
            END
            $$
            """,
        )
        assert [one.findings async for one in certificates.walk(conn)] == [()]
        compared = await certificates.verify(conn, document)
    assert compared is not None
    rewritten = [one.where for one in compared.findings if one.code == "rewritten"]
    assert rewritten == ["event 1", "event 2", "event 3"]


async def test_later_events_and_an_erased_text_are_no_finding(api: Api, pool: asyncpg.Pool) -> None:
    report_id = await delivered(api, pool)
    document = await certificate(api, report_id)
    async with db.acquire(pool) as conn:
        await add_event(conn, UUID(report_id), kind="status", detail={"state": "fixed"})
        await conn.execute("UPDATE report SET description = '', content_salt = NULL")
        compared = await certificates.verify(conn, document)
        assert compared is not None
        assert (compared.findings, compared.later) == ((), 1)
        assert [one.findings async for one in certificates.walk(conn)] == [()]
    erased = await certificate(api, report_id)
    assert (erased["content"], erased["report"]["description"]) == (None, "")


async def test_a_walk_goes_over_all_in_batches(api: Api, pool: asyncpg.Pool) -> None:
    for n in range(7):
        await api.post_report(description=f"hole {n}")
    async with db.acquire(pool) as conn:
        await tamper(conn, "UPDATE report_event SET kind = 'spam'")
        batches = [one async for one in certificates.walk(conn, batch=3)]
    assert [(one.reports, one.events, len(one.findings)) for one in batches] == [
        (3, 3, 3),
        (3, 3, 3),
        (1, 1, 1),
    ]


# --- the command ----------------------------------------------------------------------------------


@pytest.fixture
def cli(database_url: str, tmp_path: Path) -> Callable[..., Any]:
    def run(*arguments: str, **settings: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, "-m", "scripts.cli", *arguments],
            cwd=ROOT,
            env={
                "PATH": "/usr/bin:/bin",
                "COLUMNS": "200",
                "GEOROUTER_DATABASE_URL": database_url,
                "GEOROUTER_DATA_DIR": str(tmp_path / "data"),
                "GEOROUTER_SECRET_KEYS": KEY,
                **settings,
            },
            capture_output=True,
            text=True,
            check=False,
        )

    async def started(*arguments: str, **settings: str) -> subprocess.CompletedProcess[str]:
        return await asyncio.to_thread(run, *arguments, **settings)

    return started


async def test_verify(api: Api, pool: asyncpg.Pool, cli: Any, tmp_path: Path) -> None:
    report_id = await delivered(api, pool)
    plain, pdf = tmp_path / "c.json", tmp_path / "c.pdf"
    plain.write_bytes((await page(api, report_id)).content)
    pdf.write_bytes((await page(api, report_id, Accept="application/pdf")).content)
    [key] = (await api.client.get("/keys")).json()["items"]
    for file in (plain, pdf):
        good = await cli("verify", str(file))
        assert (good.returncode, "it holds" in good.stderr) == (0, True), good.stderr
        assert report_id in good.stdout
    nowhere = {"GEOROUTER_DATABASE_URL": "postgresql://nobody@127.0.0.1:9/nothing"}
    alone = await cli("verify", str(pdf), "--offline", **nowhere)
    assert alone.returncode == 0
    assert "whose key signed it was not checked" in alone.stderr
    known = await cli("verify", str(pdf), "--offline", "--key", key["public_key"], **nowhere)
    assert (known.returncode, "not checked" in known.stderr) == (0, False)
    stranger = await cli("verify", str(pdf), "--offline", "--key", "00" * 32, **nowhere)
    assert stranger.returncode == 3
    assert (await cli("verify", str(plain), **nowhere)).returncode == 6

    changed = tmp_path / "changed.json"
    text = plain.read_text("utf-8").replace('"status": 503', '"status": 200')
    changed.write_text(text, "utf-8")
    found = json.loads((await cli("verify", str(changed), "--json")).stdout)
    assert {one["code"] for one in found["findings"]} >= {"event", "signature"}
    assert "event 2" in [one["where"] for one in found["findings"]]
    bad = await cli("verify", str(changed))
    assert bad.returncode == 3
    assert "event 2" in bad.stdout

    changed.write_text("{}")
    garbage = await cli("verify", str(changed))
    assert (garbage.returncode, "Traceback" in garbage.stderr) == (1, False)
    for arguments in ((), (str(plain), "--all")):
        assert (await cli("verify", *arguments)).returncode == 2

    async with db.acquire(pool) as conn:
        await tamper(conn, "UPDATE report_event SET at = at - interval '1 day' WHERE n = 1")
    late = await cli("verify", str(pdf))
    assert late.returncode == 3
    assert "event 1" in late.stdout


async def test_verify_a_report_that_is_not_there(
    api: Api, pool: asyncpg.Pool, cli: Any, tmp_path: Path
) -> None:
    file = tmp_path / "c.json"
    file.write_bytes((await page(api, (await api.post_report()).json()["id"])).content)
    async with db.acquire(pool) as conn:
        await tamper(conn, "DELETE FROM report_event; DELETE FROM held; DELETE FROM report")
    assert (await cli("verify", str(file))).returncode == 4
    assert (await cli("verify", str(file), "--offline")).returncode == 0


async def test_verify_all(api: Api, pool: asyncpg.Pool, cli: Any) -> None:
    for n in range(3):
        await api.post_report(description=f"hole {n}")
    good = await cli("verify", "--all")
    assert (good.returncode, good.stdout) == (0, "")
    assert "3 reports, 3 events, 0 findings" in good.stderr
    async with db.acquire(pool) as conn:
        await tamper(conn, "UPDATE report_event SET kind = 'spam'")
    bad = await cli("verify", "--all", "--json")
    lines = [json.loads(line) for line in bad.stdout.splitlines()]
    assert bad.returncode == 3
    assert [one["where"] for one in lines[:-1]] == ["event 1"] * 3
    assert lines[-1] == {"reports": 3, "events": 3, "findings": 3}


async def test_the_signing_keys(api: Api, cli: Any) -> None:
    assert "there is none yet" in (await cli("signing-keys")).stderr
    await certificate(api, (await api.post_report()).json()["id"])
    [first] = (await api.client.get("/keys")).json()["items"]
    listed = await cli("signing-keys", "--json")
    assert json.loads(listed.stdout) == first
    dry = await cli("signing-keys", "--new")
    assert "dry run" in dry.stderr
    assert len((await api.client.get("/keys")).json()["items"]) == 1
    new = await cli("signing-keys", "--new", "--commit")
    assert new.returncode == 0
    newest, oldest = (await api.client.get("/keys")).json()["items"]
    assert oldest["public_key"] == first["public_key"]
    assert oldest["retired_at"] is not None
    assert newest["public_key"] in new.stdout
