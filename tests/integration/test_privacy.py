"""What is kept of people: for as long as the settings say, handed out, and erased for good."""

from __future__ import annotations

import asyncio
import hashlib
import json
import os
import secrets
import subprocess
import sys
import zipfile
from dataclasses import replace
from pathlib import Path
from typing import Any
from uuid import UUID

import asyncpg
import pytest

from api import db, privacy
from api.objects import open_objects
from api.photos import object_name
from api.settings import Settings
from api.store import privacy as store
from api.vault import Vault
from tests.support.app import KEY, WEST, Api, slug

ROOT = Path(__file__).parents[2]
VAULT = Vault([KEY], where="test")
KEEP = privacy.retention_of(Settings())
JO = {"name": "Jo Bloggs", "email": "jo@example.org", "phone": "+44 7700 900123"}
WHAT = "The hole before my house, 12 High Street. Ring Jo"


async def follow(
    api: Api, report_id: str, *, kind: str = "reporter", contact: dict[str, str] | None = None
) -> str:
    """Somebody who follows a report; the token of their link."""
    token = secrets.token_urlsafe(32)
    await api.pool.execute(
        """
        INSERT INTO follower (report_id, kind, token_sha256, token, contact, contact_hmac)
        VALUES ($1, $2, $3, $4, $5, sha256($3))
        """,
        UUID(report_id),
        kind,
        hashlib.sha256(token.encode()).digest(),
        VAULT.seal(token),
        VAULT.seal(json.dumps(contact or JO)),
    )
    return token


async def photo(api: Api, report_id: str) -> UUID:
    return await api.pool.fetchval(
        """
        INSERT INTO photo (id, api_key_id, length, stored_at, width, height, report_id, attached_at)
        SELECT gen_random_uuid(), api_key_id, 1, now(), 1, 1, id, now() FROM report WHERE id = $1
        RETURNING id
        """,
        UUID(report_id),
    )


async def sent(api: Api, report_id: str) -> None:
    """An attempt at sending a report, long since in the log."""
    await api.pool.execute(
        """
        INSERT INTO attempt (delivery_id, n, finished_at, outcome, answer, logged)
        SELECT id, 1, now(), 'delivered', 'Dear Jo, thank you', true
        FROM delivery WHERE report_id = $1
        """,
        UUID(report_id),
    )


async def post(api: Api, **fields: Any) -> str:
    answer = await api.post_report(description=WHAT, **fields)
    assert answer.status_code == 201
    return str(answer.json()["id"])


async def everything(pool: asyncpg.Pool) -> str:
    """All that is in the database, as text, but for the counts of requests."""
    tables = await pool.fetch(
        """
        SELECT relname FROM pg_class
        WHERE relkind = 'r' AND relnamespace = 'public'::regnamespace AND relname <> 'rate_count'
        """
    )
    rows = [
        await pool.fetchval(f"SELECT coalesce(string_agg(t::text, E'\n'), '') FROM {name} AS t")
        for (name,) in tables
    ]
    return "\n".join(rows)


async def age(api: Api, days: float) -> None:
    await api.pool.execute(
        "UPDATE report SET received_at = received_at - $1 * interval '1 day'", days
    )


async def close(api: Api, report_id: str, state: str = "fixed") -> None:
    answer = await api.post(
        f"/v1/authorities/{api.authorities[WEST]}/reports/{report_id}/updates",
        update_id=secrets.token_hex(),
        state=state,
    )
    assert answer.status_code == 201


async def purged(api: Api, **shorter: int) -> dict[str, int]:
    """What a purge does; and a dry run said the same, and a second purge finds nothing."""
    retention = replace(KEEP, **shorter)
    async with db.acquire(api.pool) as conn:
        due = dict(await store.count_due(conn, retention))
        done = dict(await privacy.purge(conn, retention))
        assert done == due
        assert not any((await privacy.purge(conn, retention)).values())
    return {what: count for what, count in done.items() if count}


# --- how long -------------------------------------------------------------------------------------


async def test_nothing_is_purged_before_its_time(api: Api) -> None:
    await api.register()
    report_id = await post(api)
    await follow(api, report_id)
    await photo(api, report_id)
    await sent(api, report_id)
    assert await purged(api) == {}


async def test_contacts_go_some_time_after_closing(api: Api) -> None:
    open_, closed, again = [await post(api) for _ in range(3)]
    for report_id in (open_, closed, again):
        await follow(api, report_id)
    await age(api, 300)
    await close(api, closed)
    await close(api, again)
    await close(api, again, "reopened")
    assert await purged(api) == {}
    # An event's time cannot be changed, so the time that is waited is.
    assert await purged(api, contact_days=0) == {"follower": 1}
    rows = await api.pool.fetch(
        "SELECT report_id, token FROM follower WHERE contact IS NULL AND contact_hmac IS NULL"
    )
    assert [str(row["report_id"]) for row in rows] == [closed]
    assert rows[0]["token"]  # the link goes on telling how the report is getting on


async def test_nobodys_contact_is_kept_longer_than_two_years(api: Api) -> None:
    await follow(api, await post(api))
    await age(api, 729)
    assert "follower" not in await purged(api)
    await age(api, 2)
    assert await purged(api) == {"follower": 1}


async def test_photos_addresses_and_answers_go_in_their_time(api: Api) -> None:
    await api.register()
    report_id = await post(api)
    await sent(api, report_id)
    found = await photo(api, report_id)
    await age(api, 731)
    await api.pool.execute("UPDATE report_trace SET at = at - interval '25 hours'")
    await api.pool.execute("UPDATE attempt SET finished_at = now() - interval '366 days'")
    assert await purged(api) == {"photo": 1, "report_trace": 1, "attempt": 1}
    row = await api.pool.fetchrow("SELECT report_id, expires_at < now() FROM photo")
    assert tuple(row) == (None, True)  # for the sweep
    assert await api.pool.fetchval("SELECT answer FROM attempt") is None
    assert found


async def test_an_answer_that_is_not_in_the_log_yet_is_kept(api: Api) -> None:
    await api.register()
    await sent(api, await post(api))
    await api.pool.execute(
        "UPDATE attempt SET finished_at = now() - interval '366 days', logged = false"
    )
    assert await purged(api) == {}


async def test_a_purge_of_many_goes_in_batches_and_one_at_a_time(
    api: Api, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(store, "BATCH", 2)
    for _ in range(5):
        await follow(api, await post(api))
    async with db.acquire(api.pool) as one, db.acquire(api.pool) as other:
        async with other.transaction():
            await other.execute("SELECT pg_advisory_xact_lock($1)", store.PURGE_LOCK)
            assert await privacy.purge(one, replace(KEEP, contact_most_days=0)) == {}
        done = await privacy.purge(one, replace(KEEP, contact_most_days=0))
    assert done["follower"] == 5
    noted = await api.pool.fetch("SELECT detail FROM audit WHERE action = 'personal_data.purged'")
    assert sum(row["detail"]["follower"] for row in noted) == 5


# --- one person -----------------------------------------------------------------------------------


async def test_a_person_is_found_by_address_link_and_report(api: Api) -> None:
    first, second, other = [await post(api) for _ in range(3)]
    token = await follow(api, first)
    await follow(api, second, contact={"email": "JO@Example.org"})
    await follow(api, other, contact={"email": "sam@example.org"})
    await follow(api, other, kind="me_too")
    async with db.acquire(api.pool) as conn:

        async def find(who: str) -> tuple[int, set[str]]:
            person = await privacy.find(conn, who, vault=VAULT)
            return len(person.followers), {str(one) for one in person.reports}

        assert await find("jo@example.org") == (3, {first, second})
        assert await find(token) == (1, {first})
        assert await find(f"https://georouter.example/v1/track/{token}") == (1, {first})
        assert await find(other) == (1, {other})
        for unknown in ("nobody@example.org", "x" * 43, "Jo", str(UUID(int=1))):
            with pytest.raises(privacy.NobodyFound):
                await find(unknown)


async def test_a_report_without_a_contact_is_found_by_its_id(api: Api) -> None:
    report_id = await post(api)
    async with db.acquire(api.pool) as conn:
        person = await privacy.find(conn, report_id, vault=VAULT)
        found = await privacy.export(conn, person, vault=VAULT)
    assert (found["following"], len(found["reports"])) == ([], 1)


async def test_erasing_leaves_nothing_and_harms_nothing(api: Api) -> None:
    await api.register()
    report_id = await post(api, idempotency_key="k", answers={"depth_cm": 5})
    kept = await post(api)
    await sent(api, report_id)
    token = await follow(api, report_id)
    await photo(api, report_id)
    me_too = await follow(api, kept, kind="me_too")
    async with db.acquire(api.pool) as conn:
        person = await privacy.find(conn, "jo@example.org", vault=VAULT)
        before = await everything(api.pool)
        planned = await privacy.erase(conn, person, commit=False)
        assert await everything(api.pool) == before
        done = await privacy.erase(conn, person, commit=True)
    assert (done.followers, done.reports) == (planned.followers, planned.reports) == (2, 1)
    assert [one["authority"] for one in done.sent_to] == ["West"]
    after = await everything(api.pool)
    for gone in ("Dear Jo", hashlib.sha256(token.encode()).hexdigest()):
        assert gone in before
        assert gone not in after
    assert hashlib.sha256(me_too.encode()).hexdigest() not in after
    assert before.count("12 High Street") == 2
    assert after.count("12 High Street") == 1  # in the report that is another's

    # The report goes on, and the log is as it was.
    shown = (await api.get(f"/v1/reports/{report_id}")).json()
    assert (shown["answers"], shown["photos"]) == ({"depth_cm": 5}, [])
    listed = (await api.get("/v1/reports")).json()["features"]
    assert {one["properties"]["description"] for one in listed} == {"[erased]", WHAT}
    await close(api, report_id)
    certificate = await api.get(f"/v1/reports/{report_id}/certificate")
    assert certificate.status_code == 200
    retried = await api.post_report(description=WHAT, idempotency_key="k", answers={"depth_cm": 5})
    assert slug(retried) == "idempotency-key-reused"

    async with db.acquire(api.pool) as conn:
        again = await privacy.find(conn, report_id, vault=VAULT)
        assert (await privacy.erase(conn, again, commit=True)).reports == 0


async def test_what_is_done_with_personal_data_is_noted_without_it(api: Api) -> None:
    report_id = await post(api)
    await follow(api, report_id)
    async with db.acquire(api.pool) as conn:
        person = await privacy.find(conn, "jo@example.org", vault=VAULT)
        await privacy.export(conn, person, vault=VAULT)
        await privacy.erase(conn, person, commit=True)
    rows = await api.pool.fetch(
        "SELECT action, target, detail FROM audit WHERE action LIKE 'personal_data.%' ORDER BY id"
    )
    assert [(row["action"], str(row["target"])) for row in rows] == [
        ("personal_data.exported", report_id),
        ("personal_data.erased", report_id),
    ]
    assert [row["detail"] for row in rows] == [{"followers": [str(person.followers[0])]}] * 2


# --- by the command line --------------------------------------------------------------------------


async def test_the_commands(api: Api, database_url: str, tmp_path: Path) -> None:
    environment = {
        **os.environ,  # noqa: TID251 - the user's own, so that PATH and HOME are real
        "GEOROUTER_DATABASE_URL": database_url,
        "GEOROUTER_DATA_DIR": str(tmp_path / "data"),
        "GEOROUTER_SECRET_KEYS": KEY,
        "PYTHONPATH": str(ROOT),
    }

    async def run(*arguments: str) -> tuple[int, str]:
        done = await asyncio.to_thread(
            subprocess.run,
            [sys.executable, "-m", "scripts.cli", "privacy", *arguments],
            cwd=tmp_path,
            env=environment,
            capture_output=True,
            text=True,
            check=False,
        )
        assert "Traceback" not in done.stderr
        return done.returncode, done.stdout

    await api.register()
    report_id = await post(api)
    await sent(api, report_id)
    await follow(api, report_id)
    found = await photo(api, report_id)
    objects = open_objects(Settings(data_dir=tmp_path / "data"))
    await objects.put(object_name(found, "full"), b"a picture")

    code, said = await run("export", "jo@example.org")
    told = json.loads(said)
    assert code == 0
    assert told["following"][0]["contact"] == JO
    assert told["reports"][0]["description"] == WHAT
    assert told["sent_to"][0]["authority"] == "West"
    assert (await run("export", "jo@example.org", "--out", "jo.zip"))[0] == 0
    out = tmp_path / "jo.zip"
    assert out.stat().st_mode & 0o777 == 0o600
    with zipfile.ZipFile(out) as opened:
        assert json.loads(opened.read("data.json"))["reports"] == told["reports"]
        assert opened.read(f"photos/{found}.jpg") == b"a picture"

    assert await run("purge", "--json") == (
        0,
        '{"follower": 0, "photo": 0, "report_trace": 0, "attempt": 0}\n',
    )
    assert (await run("purge", "--commit"))[0] == 0
    code, said = await run("erase", "jo@example.org", "--json")
    assert (code, json.loads(said)["committed"]) == (0, False)
    assert (await run("export", "jo@example.org"))[0] == 0
    code, said = await run("erase", "jo@example.org", "--commit")
    assert code == 0
    assert said.startswith("erased: 1 reports, 1 contacts and links\nWest has report")
    assert (await run("export", "jo@example.org"))[0] == 4
