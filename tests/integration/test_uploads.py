"""tus 1.0.0, by requests written from its specification."""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterator, Mapping
from datetime import UTC, datetime, timedelta
from email.utils import parsedate_to_datetime
from pathlib import Path
from typing import Any
from uuid import UUID, uuid4

import asyncpg
import httpx
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from api import errors, photos
from api.routes import photos as photo_routes
from tests.integration.test_photos import Album
from tests.support.app import Api, serving, slug
from tests.support.pictures import encoded, exif, pixels

PATH = "/v1/photos/uploads"
PHOTO = encoded(pixels(300, 200), exif=exif(gps=(-2.5, 53.5)))
CHUNK = {"Content-Type": "application/offset+octet-stream"}


class Client:
    """An app that speaks tus."""

    def __init__(self, api: Api, key: str = "app") -> None:
        self.api = api
        self.key = key

    async def ask(
        self,
        method: str,
        path: str = PATH,
        *,
        version: str | None = "1.0.0",
        content: Any = b"",
        **headers: str,
    ) -> httpx.Response:
        given: Mapping[str, str] = {
            **self.api.headers(self.key),
            **({"Tus-Resumable": version} if version else {}),
            **{name.replace("_", "-"): value for name, value in headers.items()},
        }
        answer = await self.api.client.request(method, path, content=content, headers=given)
        assert answer.headers["tus-resumable"] == "1.0.0"
        assert answer.headers["cache-control"] == "no-store"
        return answer

    async def begin(self, size: int = len(PHOTO), **headers: str) -> str:
        answer = await self.ask("POST", Upload_Length=str(size), **headers)
        assert answer.status_code == 201, answer.text
        return answer.headers["location"]

    async def send(self, upload: str, at: int, content: Any, **headers: str) -> httpx.Response:
        return await self.ask(
            "PATCH",
            upload,
            content=content,
            Upload_Offset=str(at),
            **{"Content_Type": CHUNK["Content-Type"], **headers},
        )

    async def offset(self, upload: str) -> int:
        answer = await self.ask("HEAD", upload)
        assert answer.status_code == 200
        return int(answer.headers["upload-offset"])


@pytest.fixture
async def album(database_url: str, pool: asyncpg.Pool, tmp_path: Path) -> AsyncIterator[Album]:
    async with serving(database_url, pool, photos=tmp_path.as_uri()) as api:
        yield Album(api, tmp_path)


@pytest.fixture
def client(album: Album) -> Client:
    return Client(album.api)


async def test_what_is_spoken(client: Client) -> None:
    answer = await client.api.client.options(PATH)  # without a key or a version
    assert answer.status_code == 204
    assert answer.headers["tus-resumable"] == answer.headers["tus-version"] == "1.0.0"
    assert answer.headers["tus-extension"] == "creation,expiration,termination"
    assert answer.headers["tus-max-size"] == "12000000"


async def test_an_upload_in_pieces(album: Album, client: Client) -> None:
    begun = await client.ask(
        "POST", Upload_Length=str(len(PHOTO)), Upload_Metadata="filename d29ybGQ=,is_confidential"
    )
    assert begun.status_code == 201
    upload = begun.headers["location"]
    assert upload == f"{PATH}/{begun.json()['id']}"
    ends = parsedate_to_datetime(begun.headers["upload-expires"])
    assert timedelta(hours=23) < ends - datetime.now(UTC) < timedelta(hours=25)  # noqa: TID251
    at = 0
    for piece in (PHOTO[:1000], PHOTO[1000:1001], PHOTO[1001:]):
        head = await client.ask("HEAD", upload)
        assert head.status_code == 200
        assert (head.headers["upload-offset"], head.headers["upload-length"]) == (
            str(at),
            str(len(PHOTO)),
        )
        assert head.headers["upload-metadata"] == "filename d29ybGQ=,is_confidential"
        assert not head.content
        answer = await client.send(upload, at, piece)
        at += len(piece)
        assert (answer.status_code, answer.headers["upload-offset"]) == (204, str(at))
        assert answer.headers["upload-expires"] == begun.headers["upload-expires"]
    assert answer.headers["photo-hint"] == "-2.5,53.5"
    # What it is called is forgotten, the hint too.
    head = await client.ask("HEAD", upload)
    assert head.headers["upload-offset"] == str(len(PHOTO))
    assert "upload-metadata" not in head.headers
    assert "photo-hint" not in head.headers
    again = await client.send(upload, len(PHOTO), b"")
    assert again.status_code == 204
    [shown] = await album.shown(await album.report(begun.json()["id"]))
    assert (shown["state"], shown["width"], shown["height"]) == ("stored", 300, 200)
    assert await album.api.pool.fetchval("SELECT count(*) FROM photo_part") == 0


async def test_every_version_but_one_is_refused(client: Client) -> None:
    upload = await client.begin()
    for method, path in (("POST", PATH), ("HEAD", upload), ("PATCH", upload), ("DELETE", upload)):
        for version in (None, "0.2.2", "1.0", "1.0.00"):
            answer = await client.ask(method, path, version=version, Upload_Length="9")
            assert answer.status_code == 412
            assert answer.headers["tus-version"] == "1.0.0"
            if method != "HEAD":
                assert slug(answer) == "unsupported-tus-version"


@pytest.mark.parametrize("given", [None, "", "-1", "1.5", "x", "0", "1" * 30, "\u0661"])
async def test_a_length_that_is_none(client: Client, given: str | None) -> None:
    headers = {} if given is None else {"Upload-Length": given.encode()}
    answer = await client.api.client.post(
        PATH, headers={**client.api.headers("app"), "Tus-Resumable": "1.0.0", **headers}
    )
    assert (answer.status_code, slug(answer)) == (400, "invalid-upload-header")


@pytest.mark.parametrize("given", ["a b c", "a\tb", "a YQ=,,b", ",", "a " + "A" * 3000, "ü"])
async def test_metadata_that_is_none(client: Client, given: str) -> None:
    answer = await client.api.client.post(
        PATH,
        headers={
            **client.api.headers("app"),
            "Tus-Resumable": "1.0.0",
            "Upload-Length": "9",
            "Upload-Metadata": given.encode(),
        },
    )
    assert (answer.status_code, slug(answer)) == (400, "invalid-upload-header")


async def test_what_came_before_a_line_broke_is_kept(album: Album, client: Client) -> None:
    upload = await client.begin()

    async def breaking() -> AsyncIterator[bytes]:
        yield PHOTO[:100]
        yield PHOTO[100:150]
        raise errors.UploadStalled("the connection has broken")

    studio = album.api.app.state.wiring.studio
    photo_id = UUID(upload.rpartition("/")[2])
    with pytest.raises(errors.UploadStalled):
        await photos.append(studio, breaking(), photo_id=photo_id, at=0)
    assert await client.offset(upload) == 150
    # What came late of a line that somebody has gone on from is not.
    assert (await client.send(upload, 150, PHOTO[150:200])).status_code == 204
    with pytest.raises(errors.UploadOffsetWrong):
        await photos.append(studio, breaking(), photo_id=photo_id, at=150)
    assert await client.offset(upload) == 200


async def test_a_line_that_hangs_is_given_up(
    album: Album, client: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(photo_routes, "PATIENCE_S", 0.05)
    upload = await client.begin()

    async def hanging() -> AsyncIterator[bytes]:
        yield PHOTO[:100]
        await asyncio.sleep(60)

    for path, method, more in (
        (upload, "PATCH", {"Upload-Offset": "0", **CHUNK}),
        ("/v1/photos", "POST", {"Content-Type": "image/jpeg"}),
    ):
        headers = {**album.api.headers("app"), "Tus-Resumable": "1.0.0", **more}
        answer = await album.api.client.request(method, path, content=hanging(), headers=headers)
        assert (answer.status_code, slug(answer)) == (408, "upload-stalled")
    assert await client.offset(upload) == 100


async def test_too_large(client: Client) -> None:
    answer = await client.ask("POST", Upload_Length="12000001")
    assert (answer.status_code, slug(answer)) == (413, "body-too-large")
    upload = await client.begin(10)
    answer = await client.send(upload, 0, b"x" * 11)
    assert (answer.status_code, slug(answer)) == (413, "body-too-large")
    assert await client.offset(upload) == 0

    async def unannounced() -> AsyncIterator[bytes]:
        yield b"x" * 6
        yield b"x" * 6

    answer = await client.send(upload, 0, unannounced())
    assert (answer.status_code, slug(answer)) == (409, "upload-offset-wrong")
    assert await client.offset(upload) == 0


async def test_bytes_that_do_not_follow(client: Client) -> None:
    upload = await client.begin()
    assert (await client.send(upload, 0, PHOTO[:100])).status_code == 204
    for at in (0, 99, 101, len(PHOTO)):
        answer = await client.send(upload, at, PHOTO[at:])
        assert (answer.status_code, slug(answer)) == (409, "upload-offset-wrong")
    for at in ("", "-1", "x", "1e2"):
        answer = await client.ask(
            "PATCH", upload, content=b"x", Upload_Offset=at, Content_Type=CHUNK["Content-Type"]
        )
        assert (answer.status_code, slug(answer)) == (400, "invalid-upload-header")
    answer = await client.send(upload, 100, PHOTO[100:], Content_Type="image/jpeg")
    assert (answer.status_code, slug(answer)) == (415, "unsupported-media-type")
    assert await client.offset(upload) == 100


async def test_an_upload_is_its_app_s(album: Album, client: Client) -> None:
    upload = await client.begin()
    stranger = Client(album.api, "other app")
    for method in ("HEAD", "PATCH", "DELETE"):
        for path in (upload, f"{PATH}/{uuid4()}"):
            answer = await stranger.ask(
                method, path, Upload_Offset="0", Content_Type=CHUNK["Content-Type"]
            )
            assert answer.status_code == 404
    council = Client(album.api, "council")
    assert slug(await council.ask("POST", Upload_Length="9")) == "forbidden"
    assert slug(await council.send(upload, 0, b"x")) == "forbidden"
    answer = await album.api.client.head(upload, headers={"Tus-Resumable": "1.0.0"})
    assert answer.status_code == 401
    assert answer.headers["tus-resumable"] == "1.0.0"


async def test_a_phone_that_lost_the_answer_gets_the_same_upload(client: Client) -> None:
    answers = await asyncio.gather(
        *(client.ask("POST", Upload_Length="1000", Idempotency_Key="k") for _ in range(5))
    )
    assert {one.status_code for one in answers} == {201}
    [upload] = {one.headers["location"] for one in answers}
    await client.send(upload, 0, b"x" * 10)
    again = await client.ask("POST", Upload_Length="1000", Idempotency_Key="k")
    assert (again.headers["location"], again.headers["upload-offset"]) == (upload, "10")
    other = await client.ask("POST", Upload_Length="1001", Idempotency_Key="k")
    assert (other.status_code, slug(other)) == (422, "idempotency-key-reused")


async def test_one_that_is_ended_is_gone(album: Album, client: Client) -> None:
    upload = await client.begin(Idempotency_Key="k")
    await client.send(upload, 0, PHOTO[:500])
    assert (await client.ask("DELETE", upload)).status_code == 204
    for method in ("HEAD", "PATCH", "DELETE"):
        answer = await client.ask(
            method, upload, Upload_Offset="500", Content_Type=CHUNK["Content-Type"]
        )
        assert answer.status_code == 410
    assert await client.begin(Idempotency_Key="k") != upload
    # A photo too, as long as it is on no report.
    whole = await client.begin()
    await client.send(whole, 0, PHOTO)
    await client.ask("DELETE", whole)
    photo = whole.rpartition("/")[2]
    assert (await album.api.post_report(photos=[photo])).status_code == 422
    await album.age(photo, 2)
    await album.age(upload.rpartition("/")[2], 2)
    assert await album.sweep() == 2
    assert not album.files()
    assert await album.api.pool.fetchval("SELECT count(*) FROM photo_part") == 0
    kept = await client.begin()
    await client.send(kept, 0, PHOTO)
    await album.report(kept.rpartition("/")[2])
    answer = await client.ask("DELETE", kept)
    assert (answer.status_code, slug(answer)) == (409, "photo-attached")


async def test_its_time_is_a_day(album: Album, client: Client) -> None:
    upload = await client.begin(Idempotency_Key="k")
    await client.send(upload, 0, PHOTO[:500])
    await album.age(upload.rpartition("/")[2], 24)
    assert (await client.ask("HEAD", upload)).status_code == 410
    assert slug(await client.send(upload, 500, PHOTO[500:])) == "upload-gone"
    again = await client.ask("POST", Upload_Length=str(len(PHOTO)), Idempotency_Key="k")
    assert (again.status_code, slug(again)) == (410, "upload-gone")


async def test_what_is_no_photo_is_refused_with_its_last_byte(album: Album, client: Client) -> None:
    upload = await client.begin(500)
    assert (await client.send(upload, 0, PHOTO[:499])).status_code == 204
    answer = await client.send(upload, 499, b"x")
    assert (answer.status_code, slug(answer)) == (422, "photo-refused")
    assert "send the file again" in answer.json()["detail"]
    assert (await client.ask("HEAD", upload)).status_code == 410
    assert not album.files()


async def test_methods_that_a_client_cannot_send(client: Client) -> None:
    upload = await client.begin()
    answer = await client.ask(
        "POST",
        upload,
        content=PHOTO,
        X_HTTP_Method_Override="PATCH",
        Upload_Offset="0",
        Content_Type=CHUNK["Content-Type"],
    )
    assert (answer.status_code, answer.headers["upload-offset"]) == (204, str(len(PHOTO)))
    answer = await client.ask("POST", upload, X_HTTP_Method_Override="DELETE")
    assert answer.status_code == 204


async def test_of_two_that_send_at_once_each_byte_is_one_s(
    album: Album, client: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(photos, "PART_BYTES", 1000)
    big = encoded(pixels(400, 300, seed=2))
    upload = await client.begin(len(big))

    def dribble(seed: int, content: bytes) -> AsyncIterator[bytes]:
        chance = random.Random(seed)

        async def pieces() -> AsyncIterator[bytes]:
            at = 0
            while at < len(content):
                size = chance.randrange(1, 5000)
                yield content[at : at + size]
                at += size
                await asyncio.sleep(0)

        return pieces()

    while (at := await client.offset(upload)) < len(big):
        answers = await asyncio.gather(
            *(client.send(upload, at, dribble(seed, big[at:])) for seed in range(4))
        )
        assert {one.status_code for one in answers} <= {204, 409}
    [shown] = await album.shown(await album.report(upload.rpartition("/")[2]))
    alone = await album.photo(big)
    assert (album.folder / shown["id"] / "full.jpg").read_bytes() == (
        album.folder / alone / "full.jpg"
    ).read_bytes()


@given(data=st.data())
@settings(
    max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
async def test_whatever_breaks_where_what_has_come_is_what_was_sent(
    album: Album, client: Client, data: st.DataObject
) -> None:
    content = random.Random(data.draw(st.integers(0, 9))).randbytes(data.draw(st.integers(2, 3000)))
    size = data.draw(st.sampled_from([1, 7, 256, 10_000]))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(photos, "PART_BYTES", size)
        # One byte more is to come, so that it is not made into a photo.
        upload = await client.begin(len(content) + 1)
        at = 0
        for _ in range(data.draw(st.integers(1, 6))):
            start = data.draw(st.one_of(st.just(at), st.integers(0, len(content))))
            piece = content[start : start + data.draw(st.integers(0, 1500))]
            answer = await client.send(upload, start, piece)
            assert answer.status_code == (204 if start == at else 409)
            at += len(piece) if start == at else 0
            assert await client.offset(upload) == at
    stored = await album.api.pool.fetch(
        "SELECT at, bytes FROM photo_part WHERE photo_id = $1 ORDER BY at",
        upload.rpartition("/")[2],
    )
    assert b"".join(row["bytes"] for row in stored) == content[:at]
    ends = [row["at"] + len(row["bytes"]) for row in stored]
    assert [row["at"] for row in stored] == [0, *ends][: len(stored)]


async def test_a_photo_that_is_still_coming_follows_its_report(
    album: Album, client: Client
) -> None:
    first, second = await client.begin(), await client.begin()
    ids = [one.rpartition("/")[2] for one in (first, second)]
    await client.send(first, 0, PHOTO[:100])
    report = await album.report(ids[0])
    assert (await album.attach(report, ids[1])).status_code == 200
    shown = await album.shown(report)
    assert [(one["state"], one["url"]) for one in shown] == [("uploading", None)] * 2
    assert (await client.send(first, 100, PHOTO[100:])).status_code == 204
    shown = await album.shown(report)
    assert [one["state"] for one in shown] == ["stored", "uploading"]
    assert (await album.fetch(shown[0]["url"].partition("8080")[2])).status_code == 200
    events = (await album.api.get(f"/v1/reports/{report}")).json()["events"]
    assert [one["kind"] for one in events] == ["received", "photo"]
    # One that never comes is no photo of the report's any more, and takes no place.
    await album.age(ids[1], 26)
    assert [one["id"] for one in await album.shown(report)] == [ids[0]]
    assert await album.sweep() == 1
    for _ in range(2):
        assert (await album.attach(report, await album.photo())).status_code == 200


async def test_one_whose_maker_died_is_made_when_it_is_asked_for(
    album: Album, client: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    upload = await client.begin()

    async def die(*_: object) -> None:
        raise RuntimeError("killed")

    with monkeypatch.context() as patch:
        patch.setattr(photos, "finish", die)
        assert (await client.send(upload, 0, PHOTO)).status_code == 500
    assert not album.files()
    heads = await asyncio.gather(*(client.ask("HEAD", upload) for _ in range(3)))
    assert {one.headers["upload-offset"] for one in heads} == {str(len(PHOTO))}
    assert len(album.files()) == 2
    [shown] = await album.shown(await album.report(upload.rpartition("/")[2]))
    assert shown["state"] == "stored"
