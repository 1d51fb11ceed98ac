"""Phones on a bad line: reports with photos through connections that are slow, break and hang.

Each phone does as the app guide says: it sends until it is answered, the same under the same key,
and at times once more although it was answered; its clock may be wrong by weeks. It promises to
count: what is stored must be each report once, as it was written, with its photo whole. Figures
are one line of JSON; it fails if one of them is not as it must be.
"""

from __future__ import annotations

import argparse
import asyncio
import hashlib
import io
import json
import random
import sys
import time
from collections import Counter
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, Final

import httpx
import numpy as np
from PIL import Image

from api import db, embedded
from scripts.bad_line import BadLine
from scripts.bench_http import prepare
from scripts.demo import free_port, georouter_process, temporary_folder, wait_until_ready

AT_ONCE: Final = 24
NOON: Final = datetime(2026, 11, 1, 12, tzinfo=UTC)
AGAIN: Final = {408, 409, 429}
BLOCK: Final = 40
PLACE: Final = {"lon": 2.12, "lat": 54.71, "category": "pothole"}


def main() -> int:
    """Run a service and phones; print the figures."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--reports", type=int, default=1000)
    parser.add_argument("--seed", type=int, default=1)
    asked = parser.parse_args()
    with temporary_folder() as folder:
        try:
            dsn = embedded.ensure(folder / "postgres")
            port = free_port()
            key = asyncio.run(prepare(folder, dsn))
            environment = {
                "PATH": "/usr/bin:/bin",
                "GEOROUTER_DATABASE_URL": dsn,
                "GEOROUTER_DATA_DIR": str(folder),
                "GEOROUTER_PORT": str(port),
            }
            with georouter_process("serve", environment, folder / "serve.log"):
                figures = asyncio.run(_run(dsn, folder, port, key, asked.reports, asked.seed))
        finally:
            embedded.stop(folder / "postgres")
    print(json.dumps(figures))  # noqa: T201 - it prints its figures
    return 0 if as_it_must_be(figures) else 1


async def _run(
    dsn: str, folder: Path, port: int, key: str, reports: int, seed: int
) -> dict[str, Any]:
    async with httpx.AsyncClient(base_url=f"http://127.0.0.1:{port}") as client:
        await wait_until_ready(client, folder / "serve.log")
    return await report_all(
        dsn=dsn, photos=folder / "photos", port=port, key=key, reports=reports, seed=seed
    )


async def report_all(
    *, dsn: str, photos: Path, port: int, key: str, reports: int, seed: int, patience_s: float = 10
) -> dict[str, Any]:
    """Have so many phones report to the service on `port`; what came of it, counted."""
    chance = random.Random(seed)  # noqa: S311 - chances, not secrets
    started = time.perf_counter()
    async with BadLine(port, chance) as line:
        phones = [Phone(n, line, key, chance, patience_s) for n in range(reports)]
        waiting = iter(phones)

        async def some() -> None:
            for phone in waiting:
                await phone.report()

        async with asyncio.TaskGroup() as tasks:
            for _ in range(AT_ONCE):
                tasks.create_task(some())
    took = time.perf_counter() - started
    return {
        "reports": reports,
        **await _count(dsn, photos, phones),
        "seconds": round(took, 1),
        "requests": sum(phone.requests for phone in phones),
        "unanswered": sum(phone.unanswered for phone in phones),
        "connections": dict(line.fates),
    }


def as_it_must_be(figures: Mapping[str, Any]) -> bool:
    """Whether every report is there once, as written, with its photo whole."""
    kinds = ("stored", "acknowledged", "as_written", "photos_whole")
    return figures["other_rows"] == 0 and all(figures[k] == figures["reports"] for k in kinds)


class Phone:
    """One report and its photo. `receipt` is what it was told."""

    def __init__(
        self, n: int, line: BadLine, key: str, chance: random.Random, patience_s: float
    ) -> None:
        self.n = n
        self.requests = 0
        self.unanswered = 0
        self.receipt: dict[str, Any] = {}
        self.observed_at = NOON + timedelta(days=chance.randint(-60, 60), seconds=n)
        self._line = line
        self._headers = {"Authorization": f"Bearer {key}"}
        self._chance = chance
        self._patience_s = patience_s

    @property
    def description(self) -> str:
        """What the report says."""
        return f"hole number {self.n}"

    async def report(self) -> None:
        """Send the report and its photo, by one of the two ways for photos."""
        async with httpx.AsyncClient(
            base_url=f"http://127.0.0.1:{self._line.port}",
            headers=self._headers,
            timeout=self._patience_s,
            # Each request takes its chances with a connection of its own.
            limits=httpx.Limits(max_keepalive_connections=0),
            trust_env=False,
        ) as client:
            content = await asyncio.to_thread(draw, self.n)
            if self.n % 2:
                await self._post(client, await self._upload_whole(client, content))
            else:
                at = await self._begin(client, content)
                await self._post(client, at.rpartition("/")[2])
                await self._upload_in_parts(client, at, content)

    async def _post(self, client: httpx.AsyncClient, photo: str) -> None:
        report = {
            **PLACE,
            "description": self.description,
            "observed_at": self.observed_at.isoformat(),
            "photos": [photo],
        }
        label = {"Idempotency-Key": f"report {self.n}"}
        while True:
            answer = await self._insist(client, "POST", "/v1/reports", json=report, headers=label)
            if self.receipt and answer.json() != self.receipt:
                raise RuntimeError(f"report {self.n} was answered otherwise the second time")
            self.receipt = answer.json()
            if self._chance.random() < 0.7:
                return

    async def _upload_whole(self, client: httpx.AsyncClient, content: bytes) -> str:
        label = {"Idempotency-Key": f"photo {self.n}", "Content-Type": "image/jpeg"}
        answer = await self._insist(client, "POST", "/v1/photos", content=content, headers=label)
        return str(answer.json()["id"])

    async def _begin(self, client: httpx.AsyncClient, content: bytes) -> str:
        answer = await self._insist(
            client,
            "POST",
            "/v1/photos/uploads",
            headers={
                "Tus-Resumable": "1.0.0",
                "Upload-Length": str(len(content)),
                "Idempotency-Key": f"photo {self.n}",
            },
        )
        return answer.headers["Location"]

    async def _upload_in_parts(self, client: httpx.AsyncClient, at: str, content: bytes) -> None:
        tus = {"Tus-Resumable": "1.0.0"}
        while True:
            there = await self._insist(client, "HEAD", at, headers=tus)
            offset = int(there.headers["Upload-Offset"])
            if offset == len(content):
                return
            part = {
                **tus,
                "Upload-Offset": str(offset),
                "Content-Type": "application/offset+octet-stream",
            }
            await self._try(client, "PATCH", at, content=content[offset:], headers=part)

    async def _insist(
        self, client: httpx.AsyncClient, method: str, path: str, **sent: Any
    ) -> httpx.Response:
        """The answer in the end; raises for one that trying again does not change."""
        while True:
            answer = await self._try(client, method, path, **sent)
            if answer is not None and answer.status_code < 500 and answer.status_code not in AGAIN:
                return answer.raise_for_status()
            await asyncio.sleep(self._chance.uniform(0, 0.5))

    async def _try(
        self, client: httpx.AsyncClient, method: str, path: str, **sent: Any
    ) -> httpx.Response | None:
        self.requests += 1
        try:
            return await client.request(method, path, **sent)
        except httpx.TransportError:
            self.unanswered += 1
            return None


async def _count(dsn: str, photos: Path, phones: list[Phone]) -> dict[str, int]:
    """What is stored of what the phones have sent; `other_rows` is what nobody has."""
    conn = await db.connect(dsn)
    try:
        rows = await conn.fetch(
            """
            SELECT report.id, idempotency.key, description, observed_at, photo.id AS photo
            FROM report
            LEFT JOIN idempotency ON idempotency.report_id = report.id
            LEFT JOIN photo ON photo.report_id = report.id AND stored_at IS NOT NULL
            """
        )
        sent = {f"report {phone.n}": phone for phone in phones}
        found: Counter[str] = Counter(
            stored=0, acknowledged=0, as_written=0, photos_whole=0, other_rows=0
        )
        for row in rows:
            phone = sent.pop(row["key"], None)
            if phone is None:
                found["other_rows"] += 1
                continue
            found["stored"] += 1
            found["acknowledged"] += phone.receipt.get("id") == str(row["id"])
            written = (phone.description, phone.observed_at)
            found["as_written"] += (row["description"], row["observed_at"]) == written
            file = photos / str(row["photo"]) / "full.jpg"
            found["photos_whole"] += file.is_file() and shows(file.read_bytes(), phone.n)
        return dict(found)
    finally:
        await conn.close()


# --- photos that say whose they are ---------------------------------------------------------------


def draw(n: int) -> bytes:
    """A JPEG of 64 squares, light or dark by the number's digest, with noise that makes it long."""
    noise = np.random.default_rng(n).integers(-40, 40, (8 * BLOCK, 8 * BLOCK, 3))
    light = np.kron(_bits(n), np.ones((BLOCK, BLOCK)))[..., None] * 120 + 70
    out = io.BytesIO()
    Image.fromarray((light + noise).astype(np.uint8)).save(out, "JPEG", quality=92)
    return out.getvalue()


def shows(jpeg: bytes, n: int) -> bool:
    """Whether this is the photo of that number, all of it."""
    with Image.open(io.BytesIO(jpeg)) as image:
        grey = np.asarray(image.convert("L"), dtype=float)
    means = grey.reshape(8, BLOCK, 8, BLOCK).mean(axis=(1, 3))
    return bool(np.array_equal(means > 130, _bits(n) == 1))


def _bits(n: int) -> Any:
    digest = hashlib.sha256(str(n).encode()).digest()[:8]
    return np.unpackbits(np.frombuffer(digest, dtype=np.uint8)).reshape(8, 8)


if __name__ == "__main__":
    sys.exit(main())
