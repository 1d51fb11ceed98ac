"""Uploads over real sockets, to real processes that are killed: what was taken is there."""

from __future__ import annotations

import asyncio
import os
import signal
import socket
import subprocess
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

import asyncpg
import httpx
import pytest

from api import db
from api.photos import PART_BYTES
from tests.support.app import KEY, Api, serving
from tests.support.pictures import encoded, opened, pixels

ROOT = Path(__file__).parents[2]
PATH = "/v1/photos/uploads"


@dataclass
class Process:
    """A web process: `georouter serve`."""

    port: int
    process: subprocess.Popen[bytes]
    key: str

    @property
    def base(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def headers(self, **more: str) -> dict[str, str]:
        given = {"Authorization": f"Bearer {self.key}", "Tus-Resumable": "1.0.0"}
        return given | {name.replace("_", "-"): value for name, value in more.items()}

    async def ask(
        self, method: str, path: str, *, content: bytes = b"", **headers: str
    ) -> httpx.Response:
        async with httpx.AsyncClient(base_url=self.base, timeout=60, trust_env=False) as client:
            return await client.request(
                method, path, content=content, headers=self.headers(**headers)
            )

    async def begin(self, size: int) -> str:
        answer = await self.ask("POST", PATH, Upload_Length=str(size))
        assert answer.status_code == 201, answer.text
        return str(answer.headers["location"])

    async def offset(self, upload: str) -> int:
        answer = await self.ask("HEAD", upload)
        assert answer.status_code == 200
        return int(answer.headers["upload-offset"])

    async def send(self, upload: str, at: int, content: bytes) -> httpx.Response:
        return await self.ask(
            "PATCH",
            upload,
            content=content,
            Upload_Offset=str(at),
            Content_Type="application/offset+octet-stream",
        )

    async def half(
        self, method: str, path: str, content: bytes, announced: int, **more: str
    ) -> asyncio.StreamWriter:
        """Begin a request and send part of its body, no more."""
        _, writer = await asyncio.open_connection("127.0.0.1", self.port)
        lines = [f"{method} {path} HTTP/1.1", "host: test", f"content-length: {announced}"]
        lines += [f"{name}: {value}" for name, value in self.headers(**more).items()]
        writer.write("\r\n".join([*lines, "", ""]).encode() + content)
        await writer.drain()
        return writer

    async def half_patch(self, upload: str, at: int, content: bytes) -> asyncio.StreamWriter:
        return await self.half(
            "PATCH",
            upload,
            content,
            len(content) + 1000,
            Upload_Offset=str(at),
            Content_Type="application/offset+octet-stream",
        )

    def kill(self) -> None:
        self.process.send_signal(signal.SIGKILL)
        self.process.wait()


@pytest.fixture
async def api(database_url: str, pool: asyncpg.Pool) -> AsyncIterator[Api]:
    async with serving(database_url, pool) as api:
        yield api


@asynccontextmanager
async def process(api: Api, dsn: str, folder: Path) -> AsyncIterator[Process]:
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    started = subprocess.Popen(  # noqa: ASYNC220 - it does not wait
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
    try:
        web = Process(port, started, api.keys["app"])
        async with asyncio.timeout(60):
            while True:
                try:
                    await web.ask("GET", "/healthz")
                    break
                except httpx.TransportError:
                    await asyncio.sleep(0.1)
        yield web
    finally:
        web.kill()


async def stored(api: Api, upload: str, at_least: int) -> int:
    """How much is stored, once it is so much."""
    photo_id = upload.rpartition("/")[2]
    async with asyncio.timeout(20):
        while True:
            async with db.acquire(api.pool) as conn:
                found: int = await conn.fetchval(
                    "SELECT received FROM photo WHERE id = $1", photo_id
                )
            if found >= at_least:
                return found
            await asyncio.sleep(0.02)


async def test_on_a_line_that_breaks_an_upload_gets_there(
    api: Api, database_url: str, tmp_path: Path
) -> None:
    photo = encoded(pixels(1000, 800), quality=95)
    assert len(photo) > 2 * PART_BYTES + 700
    async with process(api, database_url, tmp_path) as web:
        upload = await web.begin(len(photo))
        for _ in range(2):
            at = await web.offset(upload)
            sent = photo[at : at + PART_BYTES + 700]
            writer = await web.half_patch(upload, at, sent)
            await stored(api, upload, at + PART_BYTES)
            writer.close()
            # What came after the last whole part is stored if the process had it already.
            assert at + PART_BYTES <= await web.offset(upload) <= at + len(sent)
        while (at := await web.offset(upload)) < len(photo):
            # 409 where the rest of a broken request was stored just now
            assert (await web.send(upload, at, photo[at:])).status_code in {204, 409}
        photo_id = upload.rpartition("/")[2]
        made = (tmp_path / "photos" / photo_id / "full.jpg").read_bytes()
        assert opened(made).size == (1000, 800)
        whole = await web.ask("POST", "/v1/photos", content=photo, Content_Type="image/jpeg")
        same = tmp_path / "photos" / whole.json()["id"] / "full.jpg"
        assert same.read_bytes() == made


async def test_a_line_that_hangs_keeps_nobody_from_going_on(
    api: Api, database_url: str, tmp_path: Path
) -> None:
    photo = encoded(pixels(400, 300))
    async with process(api, database_url, tmp_path) as web:
        upload = await web.begin(len(photo))
        hanging = await web.half_patch(upload, 0, photo[:1000])
        # The phone has another line by now; what hangs in the first is not yet stored.
        at = await web.offset(upload)
        assert (await web.send(upload, at, photo[at:])).status_code == 204
        hanging.write(photo[1000:2000])  # and now comes back to life
        await hanging.drain()
        hanging.close()
        assert await web.offset(upload) == len(photo)


async def test_a_killed_process_loses_what_it_had_not_stored_and_no_more(
    api: Api, database_url: str, tmp_path: Path
) -> None:
    photo = encoded(pixels(1000, 800), quality=95)
    async with (
        process(api, database_url, tmp_path) as first,
        process(api, database_url, tmp_path) as second,
    ):
        upload = await first.begin(len(photo))
        assert (await first.send(upload, 0, photo[:5000])).status_code == 204
        writer = await first.half_patch(upload, 5000, photo[5000 : 5000 + PART_BYTES + 700])
        there = await stored(api, upload, 5000 + PART_BYTES)
        first.kill()
        writer.close()
        # The other goes on where the first was, and knows where that is.
        assert await second.offset(upload) == there == 5000 + PART_BYTES
        assert (await second.send(upload, there, photo[there:])).status_code == 204
        posted = await second.ask(
            "POST", "/v1/photos", content=photo, Content_Type="image/jpeg", Idempotency_Key="k"
        )
        assert posted.status_code == 201
    one, other = upload.rpartition("/")[2], posted.json()["id"]
    assert one != other
    made = [(tmp_path / "photos" / name / "full.jpg").read_bytes() for name in (one, other)]
    assert made[0] == made[1]


async def test_killed_in_the_middle_of_a_photo_the_same_again_is_one(
    api: Api, database_url: str, tmp_path: Path
) -> None:
    photo = encoded(pixels(3000, 2000), quality=90)
    headers = {"Content_Type": "image/jpeg", "Idempotency_Key": "k"}
    async with process(api, database_url, tmp_path) as first:
        writer = await first.half("POST", "/v1/photos", photo, len(photo), **headers)
        async with asyncio.timeout(20):
            while not await api.pool.fetchval("SELECT count(*) FROM photo"):  # noqa: ASYNC110
                await asyncio.sleep(0.005)
        first.kill()  # while it makes the photo, or stores it
        writer.close()
    async with process(api, database_url, tmp_path) as second:
        answer = await second.ask("POST", "/v1/photos", content=photo, **headers)
        assert answer.status_code == 201
    assert await api.pool.fetchval("SELECT count(*) FROM photo") == 1
    [folder] = (tmp_path / "photos").iterdir()
    assert folder.name == answer.json()["id"]
    assert {"full.jpg", "thumb.jpg"} <= {path.name for path in folder.iterdir()}
