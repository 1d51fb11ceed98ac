"""Photos over the API: taken, put on reports, shown to whom they should be, and swept away."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl, urlsplit
from uuid import UUID, uuid4

import asyncpg
import httpx
import pytest
from pydantic import SecretStr

from api import db, photos, vault
from api.links import LINK_LASTS_S
from api.objects import open_objects
from api.settings import Settings
from api.store import photos as rows
from tests.support.app import KEY, WEST, Api, Shelf, serving, slug, started
from tests.support.pictures import MARK, TYPES, encoded, exif, marked, opened, pixels

BASE = "https://georouter.test"
JPEG = encoded(pixels(200, 150))


@dataclass
class Album:
    """The application with a folder for photos."""

    api: Api
    folder: Path

    async def post(
        self, data: bytes = JPEG, *, key: str = "app", kind: str = "image/jpeg", label: str = ""
    ) -> httpx.Response:
        headers = {**self.api.headers(key), "Content-Type": kind}
        if label:
            headers["Idempotency-Key"] = label
        return await self.api.client.post("/v1/photos", content=data, headers=headers)

    async def photo(self, data: bytes = JPEG, *, key: str = "app") -> str:
        posted = await self.post(data, key=key)
        assert posted.status_code == 201, posted.text
        return str(posted.json()["id"])

    async def report(self, *photo_ids: str, **fields: Any) -> str:
        posted = await self.api.post_report(photos=list(photo_ids), **fields)
        assert posted.status_code == 201, posted.text
        return str(posted.json()["id"])

    async def attach(self, report: str, photo: str, *, key: str = "app") -> httpx.Response:
        return await self.api.post(f"/v1/reports/{report}/photos", key=key, photo=photo)

    async def shown(self, report: str, *, key: str = "app") -> list[dict[str, Any]]:
        answer = await self.api.get(f"/v1/reports/{report}", key=key)
        assert answer.status_code == 200, answer.text
        found: list[dict[str, Any]] = answer.json()["photos"]
        return found

    async def fetch(self, url: str) -> httpx.Response:
        """By link alone, without a key."""
        return await self.api.client.get(url.removeprefix(BASE))

    def files(self) -> list[str]:
        return sorted(
            str(path.relative_to(self.folder)) for path in self.folder.rglob("*") if path.is_file()
        )

    async def age(self, photo: str, hours: int) -> None:
        await self.api.pool.execute(
            "UPDATE photo SET expires_at = expires_at - $2 * interval '1 hour' WHERE id = $1",
            photo,
            hours,
        )

    async def sweep(self) -> int:
        objects = open_objects(Settings(photos=self.folder.as_uri()))
        return await photos.sweep(self.api.pool, objects)


@pytest.fixture
async def album(database_url: str, pool: asyncpg.Pool, tmp_path: Path) -> AsyncIterator[Album]:
    folder = tmp_path / "photos"
    async with serving(database_url, pool, photos=folder.as_uri(), public_url=BASE) as api:
        yield Album(api, folder)


# --- taking ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", TYPES)
async def test_a_photo_is_taken_and_stored_without_what_it_says_of_anybody(
    album: Album, kind: str
) -> None:
    answer = await album.post(marked(kind), kind=TYPES[kind])
    assert answer.status_code == 201, answer.text
    taken = answer.json()
    assert (taken["width"], taken["height"]) == (640, 480)
    assert taken["hint"] == {"lon": -2.5, "lat": 53.5}
    assert album.files() == [f"{taken['id']}/{size}.jpg" for size in ("full", "thumb")]
    for name in album.files():
        assert MARK not in (album.folder / name).read_bytes()
    # Neither the hint nor the original is in the database.
    row = await album.api.pool.fetchval(
        "SELECT (to_jsonb(photo) - '{created_at,expires_at,stored_at,attached_at}'::text[])::text "
        "FROM photo"
    )
    assert "53.5" not in row
    assert await album.api.pool.fetchval("SELECT count(*) FROM photo_part") == 0


async def test_what_a_photo_is_called_does_not_matter(album: Album) -> None:
    assert (await album.post(encoded(kind="PNG"), kind="image/jpeg")).status_code == 201
    assert (await album.post(encoded(kind="WEBP"), kind="image/x-unheard-of")).status_code == 201
    for kind in ("application/json", "text/html", ""):
        refused = await album.post(kind=kind)
        assert (refused.status_code, slug(refused)) == (415, "unsupported-media-type")


async def test_what_is_no_photo_is_refused_with_a_remedy_and_leaves_nothing(album: Album) -> None:
    for data, remedy in (
        (b"%PDF-1.7", "save it as JPEG"),
        (JPEG[:-300], "send the file again"),
        (b"", "send the bytes"),
    ):
        refused = await album.post(data, label="k-1")
        assert (refused.status_code, slug(refused)) == (422, "photo-refused")
        assert remedy in refused.json()["detail"]
    assert not album.files()
    # The key is free for what is one.
    assert (await album.post(label="k-1")).status_code == 201


async def test_a_photo_has_a_size_of_its_own(
    database_url: str, pool: asyncpg.Pool, tmp_path: Path
) -> None:
    async with serving(
        database_url,
        pool,
        photos=tmp_path.as_uri(),
        photo_max_bytes=len(JPEG),
        max_body_bytes=1000,
    ) as api:
        album = Album(api, tmp_path)
        assert (await album.post()).status_code == 201
        too_large = await album.post(JPEG + b"x")
        assert (too_large.status_code, slug(too_large)) == (413, "body-too-large")
        report = await api.post_report(description="x" * 1000)
        assert (report.status_code, slug(report)) == (413, "body-too-large")


async def test_a_repeated_photo_is_the_same_one(album: Album) -> None:
    first, again = [await album.post(label="k-1") for _ in range(2)]
    assert first.status_code == again.status_code == 201
    assert first.json()["id"] == again.json()["id"]
    other = await album.post(encoded(pixels(99, 99)), label="k-1")
    assert (other.status_code, slug(other)) == (422, "idempotency-key-reused")
    elsewhere = await album.post(label="k-1", key="other app")
    assert elsewhere.json()["id"] != first.json()["id"]
    assert (await album.post()).json()["id"] != (await album.post()).json()["id"]
    wrong = await album.post(label="x" * 256)
    assert (wrong.status_code, slug(wrong)) == (400, "invalid-idempotency-key")


async def test_many_at_once_with_one_key_are_one(album: Album) -> None:
    answers = await asyncio.gather(*(album.post(label="k-1") for _ in range(6)))
    assert {one.status_code for one in answers} == {201}
    assert len({one.json()["id"] for one in answers}) == 1
    assert len(album.files()) == 2


async def test_apps_only(album: Album) -> None:
    for key in ("council", "operator"):
        refused = await album.post(key=key)
        assert (refused.status_code, slug(refused)) == (403, "forbidden")
    nobody = await album.api.client.post("/v1/photos", content=JPEG)
    assert slug(nobody) == "key-missing"


async def test_a_store_that_cannot_be_reached_is_said_and_passes(album: Album) -> None:
    album.folder.rename(album.folder.with_name("away"))
    album.folder.write_text("in the way")
    failed = await album.post(label="k-1")
    assert (failed.status_code, slug(failed)) == (503, "photos-unavailable")
    assert failed.headers["retry-after"]
    album.folder.unlink()
    album.folder.with_name("away").rename(album.folder)
    assert (await album.post(label="k-1")).status_code == 201


# --- on a report ----------------------------------------------------------------------------------


async def test_a_report_has_its_photos_with_it(album: Album) -> None:
    ids = [await album.photo() for _ in range(3)]
    report = await album.report(*ids)
    found = await album.shown(report)
    assert {one["id"] for one in found} == set(ids)
    for one in found:
        assert (one["state"], one["width"], one["height"]) == ("stored", 200, 150)
        assert one["public_url"] is None
        assert opened((await album.fetch(one["url"])).content).size == (200, 150)
    # The reporter knows what they have sent: no event for what came with it.
    events = (await album.api.get(f"/v1/reports/{report}")).json()["events"]
    assert [one["kind"] for one in events] == ["received"]


async def test_photos_that_are_not_to_be_had_stop_the_report(album: Album) -> None:
    other = await album.photo(key="other app")
    used = await album.photo()
    await album.report(used)
    old = await album.photo()
    await album.age(old, 25)
    before = await album.api.rows()
    good = await album.photo()
    for bad in (other, used, old, str(uuid4())):
        refused = await album.api.post_report(photos=[good, bad], idempotency_key="k-1")
        assert (refused.status_code, slug(refused)) == (422, "validation-failed")
        assert refused.json()["errors"][0]["field"] == "photos"
    assert await album.api.rows() == before
    for wrong in ([good, good], [good, used, old, other], ["x"], None):
        refused = await album.api.post_report(photos=wrong)
        assert (refused.status_code, slug(refused)) == (422, "validation-failed")
    # Nothing of all this has taken the good one, or the key.
    answer = await album.api.post_report(photos=[good], idempotency_key="k-1")
    assert answer.status_code == 201


async def test_a_repeated_report_keeps_its_photos(album: Album) -> None:
    one = await album.photo()
    answers = await asyncio.gather(
        *(album.api.post_report(photos=[one], idempotency_key="k-1") for _ in range(6))
    )
    assert {answer.status_code for answer in answers} == {201}
    assert len({answer.json()["id"] for answer in answers}) == 1
    assert [answer.headers.get("idempotency-replayed") for answer in answers].count("true") == 5
    other = await album.api.post_report(idempotency_key="k-1")
    assert slug(other) == "idempotency-key-reused"
    assert len(await album.shown(answers[0].json()["id"])) == 1


async def test_of_two_reports_one_gets_the_photo(album: Album) -> None:
    pair = [await album.photo(), await album.photo()]
    answers = await asyncio.gather(
        *(album.api.post_report(photos=pair[::way]) for way in (1, -1) for _ in range(3))
    )
    assert sorted(answer.status_code for answer in answers) == [201, 422, 422, 422, 422, 422]
    assert (await album.api.rows())["report"] == 1


async def test_a_photo_may_come_after_the_report(album: Album) -> None:
    await album.api.register(WEST)
    report, one = await album.report(), await album.photo()
    for _ in range(2):  # the same again changes nothing
        answer = await album.attach(report, one)
        assert answer.status_code == 200, answer.text
        assert [photo["id"] for photo in answer.json()["photos"]] == [one]
        assert [event["kind"] for event in answer.json()["events"]] == ["received", "photo"]
    owed = await album.api.pool.fetch("SELECT event FROM delivery WHERE sequence > 1")
    assert [row["event"]["type"] for row in owed] == ["report.updated"]


async def test_who_may_put_what_on_which_report(album: Album) -> None:
    report, second = await album.report(), await album.report()
    one = await album.photo()
    theirs = await album.photo(key="other app")
    for key in ("council", "operator"):
        assert slug(await album.attach(report, one, key=key)) == "forbidden"
    assert slug(await album.attach(report, theirs, key="other app")) == "not-found"
    assert slug(await album.attach(str(uuid4()), one)) == "not-found"
    for unknown in (theirs, str(uuid4())):
        refused = await album.attach(report, unknown)
        assert (refused.status_code, slug(refused)) == (422, "validation-failed")
    assert (await album.attach(report, one)).status_code == 200
    moved = await album.attach(second, one)
    assert (moved.status_code, slug(moved)) == (409, "photo-attached")
    late = await album.photo()
    await album.age(late, 25)
    assert slug(await album.attach(report, late)) == "validation-failed"


async def test_a_report_has_three_photos_at_most(album: Album) -> None:
    report = await album.report(await album.photo())
    more = [await album.photo() for _ in range(5)]
    answers = await asyncio.gather(*(album.attach(report, one) for one in more))
    assert sorted(answer.status_code for answer in answers) == [200, 200, 409, 409, 409]
    assert {slug(one) for one in answers if one.status_code == 409} == {"photos-enough"}
    assert len(await album.shown(report)) == 3


# --- who sees them --------------------------------------------------------------------------------


async def test_a_file_is_served_as_a_picture_and_nothing_else(album: Album) -> None:
    big = encoded(pixels(900, 600), exif=exif(orientation=6))
    [shown] = await album.shown(await album.report(await album.photo(big)))
    full, thumb = [await album.fetch(shown["url"] + more) for more in ("", "&size=thumb")]
    assert opened(full.content).size == (600, 900)
    assert opened(thumb.content).size == (213, 320)
    for answer in (full, thumb):
        assert answer.status_code == 200
        assert answer.headers["content-type"] == "image/jpeg"
        assert answer.headers["x-content-type-options"] == "nosniff"
        assert answer.headers["content-disposition"].startswith("inline; filename=")
        assert answer.headers["cache-control"].startswith("private")
    assert (await album.fetch(shown["url"] + "&size=huge")).status_code == 422


async def test_links_are_for_those_who_may_see_the_report(album: Album) -> None:
    report = await album.report(await album.photo())
    for key in ("app", "council", "operator"):
        [shown] = await album.shown(report, key=key)
        assert shown["url"].startswith(f"{BASE}/v1/photos/")
    for key in ("other app", "other council"):
        assert slug(await album.api.get(f"/v1/reports/{report}", key=key)) == "not-found"


async def test_a_link_is_of_one_photo_and_ends(album: Album) -> None:
    first, second = await album.photo(), await album.photo()
    shown = {one["id"]: one["url"] for one in await album.shown(await album.report(first, second))}
    good = shown[first]
    query = dict(parse_qsl(urlsplit(good).query))
    for bad in (
        good.replace(first, second),
        good.replace(query["expires"], str(int(query["expires"]) + 1)),
        good.replace(query["signature"], "A" * 43),
        good.replace(query["signature"], query["signature"][:-1]),
        good.replace(query["signature"], "%C3%BC"),
        good.replace(first, str(uuid4())),
    ):
        refused = await album.fetch(bad)
        assert (refused.status_code, slug(refused)) == (404, "not-found")
    assert (await album.fetch(good.partition("?")[0])).status_code == 422
    assert (await album.fetch(good)).status_code == 200


async def test_links_end_after_seven_days_and_outlive_a_new_key(
    database_url: str, pool: asyncpg.Pool, tmp_path: Path
) -> None:
    folder = tmp_path.as_uri()
    async with serving(database_url, pool, photos=folder, public_url=BASE) as api:
        album = Album(api, tmp_path)
        [shown] = await album.shown(await album.report(await album.photo()))
    url, signed_at = shown["url"], int(dict(parse_qsl(urlsplit(shown["url"]).query))["expires"])
    signed_at -= LINK_LASTS_S
    newer, shelf = vault.new_key(), Shelf()
    shelf.put("squares-1")
    for keys, after_s, expected in (
        (f"{newer},{KEY}", 0, (200, None)),
        (newer, 0, (404, "not-found")),
        (KEY, LINK_LASTS_S - 1, (200, None)),
        (KEY, LINK_LASTS_S, (410, "link-expired")),
    ):
        async with started(
            database_url,
            shelf,
            clock=lambda now=signed_at + after_s: now,
            photos=folder,
            secret_keys=SecretStr(keys),
        ) as (_, client):
            answer = await client.get(url.removeprefix(BASE))
            said = slug(answer) if answer.status_code != 200 else None
            assert (answer.status_code, said) == expected


async def test_a_photo_is_public_only_if_the_reporter_agreed(album: Album) -> None:
    mine, agreed = await album.photo(), await album.photo()
    loose = await album.photo()
    secret = await album.report(mine)
    public = await album.report(agreed, photos_public=True)
    [shown] = await album.shown(public)
    assert shown["public_url"] == f"{BASE}/v1/photos/{agreed}/public"
    answer = await album.fetch(shown["public_url"])
    assert (answer.status_code, answer.headers["content-type"]) == (200, "image/jpeg")
    assert answer.headers["cache-control"].startswith("private")
    assert opened((await album.fetch(shown["public_url"] + "?size=thumb")).content)
    for one in (mine, loose, str(uuid4())):
        refused = await album.fetch(f"/v1/photos/{one}/public")
        assert (refused.status_code, slug(refused)) == (404, "not-found")
    # What follows later is as public as the report.
    late = await album.photo()
    await album.attach(public, late)
    assert (await album.fetch(f"/v1/photos/{late}/public")).status_code == 200
    await album.attach(secret, loose)
    assert (await album.fetch(f"/v1/photos/{loose}/public")).status_code == 404


# --- the sweep ------------------------------------------------------------------------------------


async def test_what_comes_to_no_report_is_swept_and_nothing_else(album: Album) -> None:
    kept, left, fresh = [await album.photo() for _ in range(3)]
    report = await album.report(kept)
    for one in (kept, left):
        await album.age(one, 26)
    await album.age(fresh, 24)  # over, but perhaps just being stored
    assert await album.sweep() == 1
    assert {name.partition("/")[0] for name in album.files()} == {kept, fresh}
    assert await album.api.pool.fetchval("SELECT count(*) FROM photo") == 2
    assert await album.sweep() == 0
    assert (await album.fetch((await album.shown(report))[0]["url"])).status_code == 200


async def test_a_sweep_that_was_killed_is_done_by_the_next(album: Album) -> None:
    left = await album.photo()
    await album.age(left, 26)
    (album.folder / left / "full.jpg").unlink()  # it got so far
    assert await album.sweep() == 1
    assert not album.files()
    assert await album.api.pool.fetchval("SELECT count(*) FROM photo") == 0


async def test_a_sweep_is_a_batch_and_several_may_sweep(
    album: Album, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(photos, "BATCH", 2)
    for _ in range(5):
        await album.age(await album.photo(), 26)
    assert await album.sweep() == 2
    await asyncio.gather(*(album.sweep() for _ in range(4)))
    while await album.sweep():
        pass
    assert not album.files()


async def test_erased_photos_are_gone_at_once_and_from_the_store_with_the_sweep(
    album: Album,
) -> None:
    report = await album.report(await album.photo(), await album.photo(), photos_public=True)
    urls = [one["url"] for one in await album.shown(report)]
    other = await album.report(await album.photo())
    async with db.acquire(album.api.pool) as conn:
        assert await rows.erase_photos(conn, UUID(report)) == 2
    assert await album.shown(report) == []
    for url in urls:
        assert (await album.fetch(url)).status_code == 404
    assert await album.sweep() == 2
    assert len(album.files()) == 2
    assert len(await album.shown(other)) == 1
