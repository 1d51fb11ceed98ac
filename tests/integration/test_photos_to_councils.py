"""What councils get of photos, over every channel, with the worker as it runs."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from email.message import EmailMessage
from ipaddress import ip_network
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs

import asyncpg
import pytest
from pydantic import SecretStr, TypeAdapter

from api import db
from api.background import run_background
from api.delivery import outbox
from api.delivery.channels.webhook import payload
from api.delivery.worker import linked
from api.links import PhotoLinks
from api.settings import Settings
from api.vault import Vault
from api.webhook_schemas import Message
from tests.integration.test_photos import BASE, Album
from tests.support.app import KEY, SHIRE, WEST, serving
from tests.support.pictures import opened
from tests.support.stub_authority import OK, Answer, Received, StubAuthority
from tests.support.stub_mail import StubMail

BESIDE = {"lon": 0.9999, "lat": 50.5}  # 7 m west of the border, in West
SERVICES = {"services": {"pothole": "POT"}}


@pytest.fixture
async def album(database_url: str, pool: asyncpg.Pool, tmp_path: Path) -> AsyncIterator[Album]:
    mail = {"smtp_host": "127.0.0.1", "smtp_from": "reports@georouter.test"}
    async with serving(
        database_url, pool, photos=tmp_path.as_uri(), public_url=BASE, **mail
    ) as api:
        yield Album(api, tmp_path)


@asynccontextmanager
async def working(album: Album, dsn: str, **more: Any) -> AsyncIterator[None]:
    stop = asyncio.Event()
    settings = Settings(
        database_url=SecretStr(dsn),
        egress_allow=(ip_network("127.0.0.0/8"),),
        dataset_poll_s=0.05,
        delivery_mode="live",
        secret_keys=SecretStr(KEY),
        photos=album.folder.as_uri(),
        public_url=BASE,
        **more,
    )
    async with asyncio.TaskGroup() as tasks:
        tasks.create_task(run_background(settings, stop=stop, open_version=album.api.shelf.open))
        try:
            yield
        finally:
            stop.set()


async def until(true: Callable[[], object]) -> None:
    async with asyncio.timeout(10):
        while not true():  # noqa: ASYNC110 - the event is in another task's socket or folder
            await asyncio.sleep(0.02)


def message(received: Received) -> dict[str, Any]:
    TypeAdapter[Any](Message).validate_json(received.body)
    found: dict[str, Any] = json.loads(received.body)
    return found


def photos_in(received: Received) -> list[str]:
    return [one["id"] for one in message(received)["data"]["photos"]]


async def test_a_council_gets_links_that_open(album: Album, database_url: str) -> None:
    async with StubAuthority() as stub, working(album, database_url):
        await album.api.register(WEST, url=stub.url())
        pair = [await album.photo(), await album.photo()]
        await album.report(*pair)
        [received] = await stub.wait_for(1)
        told = message(received)["data"]["photos"]
        assert sorted(one["id"] for one in told) == sorted(pair)
        for one in told:
            assert (one["width"], one["height"]) == (200, 150)
            assert one["content_type"] == "image/jpeg"
            assert opened((await album.fetch(one["url"])).content).size == (200, 150)
            assert (await album.fetch(one["url"] + "&size=thumb")).status_code == 200
        await album.report()
        assert photos_in((await stub.wait_for(2))[1]) == []
    # Who has the database has no link.
    stored = await album.api.pool.fetch("SELECT delivery::text FROM delivery")
    assert "signature=" not in str(stored)


async def test_a_photo_that_comes_later_is_told_to_who_has_the_report(
    album: Album, database_url: str
) -> None:
    async with StubAuthority() as stub, working(album, database_url):
        await album.api.register(WEST, url=stub.url("/west"))
        await album.api.register(SHIRE, url=stub.url("/shire"))
        first, later = await album.photo(), await album.photo()
        report = await album.report(first)
        await stub.wait_for(1)
        for _ in range(2):
            assert (await album.attach(report, later)).status_code == 200
        _, updated = await stub.wait_for(2)
        said = message(updated)
        assert (updated.path, said["type"], said["sequence"]) == ("/west", "report.updated", 2)
        assert said["data"]["report"] == {"id": report}
        assert said["data"]["decision"]["state"] == "certain"
        assert photos_in(updated) == [first, later]
        assert (await album.fetch(said["data"]["photos"][1]["url"])).status_code == 200


async def test_whoever_gets_the_report_in_the_end_gets_all_photos(
    album: Album, database_url: str
) -> None:
    async with StubAuthority() as stub, working(album, database_url):
        answer = {"not_ours": True, "responsible": SHIRE}
        held = asyncio.Event()

        async def refuse(_: Received, writer: asyncio.StreamWriter) -> None:
            await held.wait()
            body = json.dumps(answer).encode()
            head = f"HTTP/1.1 422 X\r\nconnection: close\r\ncontent-length: {len(body)}\r\n\r\n"
            writer.write(head.encode() + body)

        stub.answer("/west", refuse)
        stub.answer("/shire", OK)
        await album.api.register(WEST, url=stub.url("/west"))
        await album.api.register(SHIRE, url=stub.url("/shire"))
        first, later = await album.photo(), await album.photo()
        report = await album.report(first, **BESIDE)
        await stub.wait_for(1)
        await album.attach(report, later)  # while West thinks about it
        held.set()
        await until(lambda: stub.at("/shire"))
        [got] = stub.at("/shire")
        assert message(got)["type"] == "report.created"
        assert photos_in(got) == [first, later]
        # West never hears of the later one: it is not theirs.
        assert [photos_in(one) for one in stub.at("/west")] == [[first]]


async def test_a_held_report_comes_with_what_came_meanwhile(
    album: Album, database_url: str
) -> None:
    report, one = await album.report(), await album.photo()
    await album.attach(report, one)
    assert await album.api.pool.fetchval("SELECT count(*) FROM delivery") == 0
    async with StubAuthority() as stub, working(album, database_url):
        await album.api.register(WEST, url=stub.url())
        [received] = await stub.wait_for(1)
        assert message(received)["type"] == "report.created"
        assert photos_in(received) == [one]


async def test_nobody_who_registers_just_now_misses_a_photo(album: Album) -> None:
    """Releases race with photos: each council gets the photo with the report or after it."""
    for _ in range(12):
        report, one = await album.report(), await album.photo()
        async with db.acquire(album.api.pool) as conn:
            await album.api.register(WEST, url=f"http://127.0.0.1:9/{report}", verified=False)
            await conn.execute(
                "UPDATE endpoint SET state = 'active' WHERE url LIKE $1", f"%{report}"
            )
            released, attached = await asyncio.gather(
                outbox.release_held(conn), album.attach(report, one)
            )
            if not released:
                await outbox.release_held(conn)
        assert attached.status_code == 200
        async with db.acquire(album.api.pool) as conn:
            claimed = [
                found
                for _ in range(2)
                for found in await outbox.claim(
                    conn, worker=1, limit=50, lease_s=60.0, per_endpoint=50
                )
            ]
        mine = [json.loads(payload(found)) for found in claimed if str(found.report_id) == report]
        waiting = await album.api.pool.fetchval(
            "SELECT count(*) FROM delivery WHERE report_id = $1 AND sequence = 2", report
        )
        [created] = [one for one in mine if one["type"] == "report.created"]
        with_it = [photo["id"] for photo in created["data"]["photos"]]
        assert with_it == [one] or (with_it == [] and waiting == 1)
        await album.api.pool.execute(
            "UPDATE endpoint SET state = 'deleted', ended_at = now() WHERE url LIKE $1",
            f"%{report}",
        )


async def test_every_try_sends_the_same_bytes(album: Album) -> None:
    links = PhotoLinks(BASE, Vault([KEY], where="here"))
    await album.api.register(WEST)
    report = await album.report(await album.photo())
    tries = []
    for _ in range(3):
        async with db.acquire(album.api.pool) as conn:
            tries += await outbox.claim(conn, worker=1, limit=50, lease_s=60.0, per_endpoint=50)
            await conn.execute("UPDATE delivery SET due_at = now() WHERE sequence = 1")
            # What comes between two tries is a message of its own.
            await album.attach(report, await album.photo())
            await conn.execute("UPDATE delivery SET due_at = 'infinity' WHERE sequence > 1")
    assert [one.attempt for one in tries] == [1, 2, 3]
    assert len({one.first_tried_at for one in tries}) == 1
    assert len({payload(linked(one, links)) for one in tries}) == 1
    assert b"signature=" in payload(linked(tries[0], links))
    # Owed anew, it has the photos by then, and links that count from then.
    await album.api.pool.execute(
        """
        UPDATE delivery SET owed_at = clock_timestamp() WHERE sequence = 1;
        UPDATE attempt SET started_at = started_at - interval '2 minutes';
        """
    )
    async with db.acquire(album.api.pool) as conn:
        [again] = await outbox.claim(conn, worker=1, limit=50, lease_s=60.0, per_endpoint=50)
    assert (len(tries[0].photos), len(again.photos)) == (1, 3)
    assert again.first_tried_at > tries[0].first_tried_at


async def test_an_update_of_the_decision_has_the_photos_too(album: Album) -> None:
    await album.api.register(WEST)
    one = await album.photo()
    report = await album.report(one, lon=1.0, lat=50.5)
    await album.api.pool.execute("UPDATE delivery SET state = 'delivered', settled_at = now()")
    answered = await album.api.post(f"/v1/reports/{report}/answer", key="app", chosen=WEST)
    assert answered.status_code == 200, answered.text
    async with db.acquire(album.api.pool) as conn:
        [claimed] = await outbox.claim(conn, worker=1, limit=50, lease_s=60.0, per_endpoint=50)
    said = json.loads(payload(claimed))
    assert (said["type"], [photo["id"] for photo in said["data"]["photos"]]) == (
        "report.updated",
        [one],
    )


async def test_open311_gets_the_first_as_media_url(album: Album, database_url: str) -> None:
    async with StubAuthority() as stub, working(album, database_url):
        stub.answer("/v2/requests.json", Answer(200, b'[{"service_request_id": "A-1"}]'))
        config = {"api_key": "k", **SERVICES}
        await album.api.register(WEST, channel="open311", url=stub.url("/v2"), config=config)
        first, second = await album.photo(), await album.photo()
        await album.report(first, second)
        await until(lambda: stub.at("/v2/requests.json"))
        [received] = stub.at("/v2/requests.json")
        [url] = parse_qs(received.body.decode())["media_url"]
        assert f"/v1/photos/{first}/file?" in url
        assert (await album.fetch(url)).status_code == 200


def reports_in(mail: StubMail) -> list[EmailMessage]:
    """Without the challenge, which may have been sent before the test was active by itself."""
    return [
        one
        for one in mail.messages()
        if "street report" in str(one["Subject"]) and "Confirm" not in str(one["Subject"])
    ]


async def test_mail_has_the_links(album: Album, database_url: str) -> None:
    async with StubMail() as mail:
        more = {
            "smtp_host": "127.0.0.1",
            "smtp_port": mail.port,
            "smtp_tls": "none",
            "smtp_from": "reports@georouter.test",
        }
        async with working(album, database_url, **more):
            answer = await album.api.register(
                WEST, channel="mail", url="mailto:highways@council.example"
            )
            assert answer.status_code == 201, answer.text
            one = await album.photo()
            await album.report(one)
            await until(lambda: reports_in(mail))
        [found] = reports_in(mail)
        body = found.get_body(("plain",))
        assert body is not None
        [line] = [row for row in body.get_content().splitlines() if row.startswith("Photo: ")]
        assert (await album.fetch(line.removeprefix("Photo: "))).status_code == 200
        rich = found.get_body(("html",))
        assert rich is not None
        assert f'<a href="{BASE}/v1/photos/{one}/file?expires=' in rich.get_content()


async def test_a_worker_sweeps(album: Album, database_url: str) -> None:
    left = await album.photo()
    await album.age(left, 26)
    async with working(album, database_url):
        await until(lambda: not album.files())
