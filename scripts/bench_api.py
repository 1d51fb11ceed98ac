"""What it costs to take a report in with everything on, against the least that could be called so.

One web process of the real application on an embedded PostgreSQL and, in the same process with the
same pool, a bare FastAPI endpoint that does one INSERT; a load process asks both in short rounds by
turns. The same for `GET /v1/locate` against an endpoint that checks the key and answers a constant.
Then reports until the process's memory has had the time to grow. The last line is JSON.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import statistics
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict
from datetime import datetime
from pathlib import Path
from typing import Any, Final
from uuid import UUID, uuid4

import uvicorn
from fastapi import FastAPI
from pydantic import BaseModel, SecretStr
from starlette.types import Receive, Scope, Send

from api import db, embedded, schemas
from api.app import create_app
from api.routes.wiring import Calling, Wiring
from api.settings import Settings
from scripts.bench_http import prepare, wait_for
from scripts.demo import free_port, golden, temporary_folder
from scripts.load import FRESH, Burst, Came, spell

CONNECTIONS: Final = 16
MARKS: Final = (0.1, 0.5, 1.0)
# No two alike, as those of people: the same text again and again would be marked as spam.
DESCRIPTION: Final = (
    "Deep hole in the left lane, about 40 cm wide, opposite the bus stop. " * 3 + FRESH.decode()
)


def main() -> int:
    """Print the figures."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--rounds", type=int, default=12, help="of each of the four")
    parser.add_argument("--seconds", type=float, default=2.0, help="of a round")
    parser.add_argument("--requests", type=int, default=100_000, help="to watch the memory over")
    parser.add_argument("--serve", nargs=3, help=argparse.SUPPRESS)
    asked = parser.parse_args()
    if asked.serve:
        _serve(*asked.serve)
        return 0
    with temporary_folder() as folder:
        try:
            dsn = embedded.ensure(folder / "postgres")
            key = asyncio.run(_prepare(folder, dsn))
            with _serving(dsn, folder) as (port, pid), _load() as load:
                texts = _texts(key)
                figures = _compare(load, port, texts, rounds=asked.rounds, seconds=asked.seconds)
                figures["rss_mb"] = _watch_memory(load, port, pid, texts, asked.requests)
        finally:
            embedded.stop(folder / "postgres")
    print(json.dumps(figures))
    return 0


# --- the parts ------------------------------------------------------------------------------------


def _texts(key: str) -> dict[str, list[str]]:
    places = [report for report in golden() if report.code]
    reports = [
        {
            "lon": one.lon,
            "lat": one.lat,
            "category": "pothole",
            "description": DESCRIPTION,
            "accuracy_m": 5.0,
        }
        for one in places
    ]
    paths = [f"/v1/locate?lon={one.lon}&lat={one.lat}&category=pothole" for one in places]
    return {
        "bare": [spell("POST", "/bare", body=one) for one in reports],
        "report": [spell("POST", "/v1/reports", key, one, label=True) for one in reports],
        "empty": [spell("GET", "/empty", key)],
        "locate": [spell("GET", path, key) for path in paths],
    }


def _compare(
    load: _Load, port: int, texts: Mapping[str, list[str]], *, rounds: int, seconds: float
) -> dict[str, Any]:
    for name in texts:
        load.ask(Burst(port, CONNECTIONS, texts[name], seconds=seconds))  # warm
    came: dict[str, list[Came]] = {name: [] for name in texts}
    for _ in range(rounds):
        for name, found in came.items():
            found.append(load.ask(Burst(port, CONNECTIONS, texts[name], seconds=seconds)))
    figures: dict[str, Any] = {"connections": CONNECTIONS, "rounds": rounds}
    for name, found in came.items():
        figures[f"{name}_per_s"] = round(statistics.median(one.per_s for one in found), 1)
        figures[f"{name}_p50_ms"] = round(statistics.median(one.p50_ms for one in found), 2)
        figures[f"{name}_p99_ms"] = round(statistics.median(one.p99_ms for one in found), 2)
        print(
            f"{name:>7}: {figures[f'{name}_per_s']:7.1f}/s, "
            f"p50 {figures[f'{name}_p50_ms']:.1f} ms, p99 {figures[f'{name}_p99_ms']:.1f} ms"
        )
    # Of neighbours: what else the machine does is the same for both.
    for ratio, ours, theirs in (
        ("post_reports_ratio", "report", "bare"),
        ("locate_ratio", "locate", "empty"),
    ):
        pairs = zip(came[ours], came[theirs], strict=True)
        figures[ratio] = round(
            statistics.median(one.per_s / other.per_s for one, other in pairs), 3
        )
        print(f"{ratio}: {figures[ratio]:.2f}")
    return figures


def _watch_memory(
    load: _Load, port: int, pid: int, texts: Mapping[str, list[str]], requests: int
) -> dict[str, float]:
    """Resident megabytes of the web process after so many requests, reports and questions."""
    found, done = {}, 0
    mixed = [one for pair in zip(texts["report"], texts["locate"], strict=True) for one in pair]
    for mark in (int(requests * share) for share in MARKS):
        if mark > done:
            load.ask(Burst(port, CONNECTIONS, mixed, requests=mark - done))
            done = mark
            found[str(mark)] = round(_rss_mb(pid), 1)
            print(f"after {mark} requests: {found[str(mark)]} MB")
    return found


def _rss_mb(pid: int) -> float:
    pages = int(Path(f"/proc/{pid}/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") / 1e6


# --- what they stand on ---------------------------------------------------------------------------


class _Load:
    """The load process."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self._process = process

    def ask(self, burst: Burst) -> Came:
        """Make a burst; every answer must be a success."""
        assert self._process.stdin is not None  # noqa: S101 - both are pipes
        assert self._process.stdout is not None  # noqa: S101
        self._process.stdin.write(json.dumps(asdict(burst)) + "\n")
        self._process.stdin.flush()
        line = self._process.stdout.readline()
        if not line:
            raise RuntimeError("the load process ended")
        came = Came(**json.loads(line))
        if came.odd is not None:
            raise RuntimeError(f"not all were answered well, such as {came.odd}")
        return came


@contextmanager
def _load() -> Iterator[_Load]:
    command = [sys.executable, "-m", "scripts.load"]
    process = subprocess.Popen(  # noqa: S603 - our own command
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    try:
        yield _Load(process)
    finally:
        process.terminate()
        process.wait(timeout=10)


async def _prepare(folder: Path, dsn: str) -> str:
    """The sample country with an endpoint for each authority, and a table for the bare endpoint."""
    secret = await prepare(folder, dsn)
    conn = await db.connect(dsn)
    try:
        await conn.execute(
            """
            INSERT INTO endpoint (authority_id, channel, url, secret, state, created_by)
            SELECT authority.id, 'webhook', 'https://intake.example/' || authority.id, 'unused',
                   'active', api_key.id
            FROM authority CROSS JOIN api_key
            """
        )
        await conn.execute(
            """
            CREATE TABLE bare (
                id          uuid PRIMARY KEY,
                lon         float8 NOT NULL,
                lat         float8 NOT NULL,
                category    text NOT NULL,
                description text NOT NULL,
                accuracy_m  float8,
                received_at timestamptz NOT NULL DEFAULT now()
            )
            """
        )
    finally:
        await conn.close()
    return secret


class _BareIn(BaseModel):
    lon: float
    lat: float
    category: str
    description: str
    accuracy_m: float | None = None


class _BareOut(BaseModel):
    id: UUID
    received_at: datetime


def _serve(dsn: str, folder: str, port: str) -> None:
    # Counted for each request as ever, and never reached.
    rate = "1000000/second"
    settings = Settings(database_url=SecretStr(dsn), data_dir=Path(folder), rate_key=rate)
    app = create_app(settings)

    @app.get("/empty")
    async def empty(_caller: Calling) -> schemas.Health:
        return schemas.Health(status="alive")

    bare = FastAPI()

    @bare.post("/bare", status_code=201)
    async def insert(body: _BareIn) -> _BareOut:
        wiring: Wiring = app.state.wiring
        async with wiring.pool.acquire() as conn:
            row = await conn.fetchrow(
                """
                INSERT INTO bare (id, lon, lat, category, description, accuracy_m)
                VALUES ($1, $2, $3, $4, $5, $6) RETURNING id, received_at
                """,
                uuid4(),
                body.lon,
                body.lat,
                body.category,
                body.description,
                body.accuracy_m,
            )
        return _BareOut(**row)

    async def both(scope: Scope, receive: Receive, send: Send) -> None:
        # Beside the application, not in it: none of its middleware is around the bare endpoint.
        await (bare if scope.get("path") == "/bare" else app)(scope, receive, send)

    uvicorn.run(both, port=int(port), log_config=None, lifespan="on")


@contextmanager
def _serving(dsn: str, folder: Path) -> Iterator[tuple[int, int]]:
    port = free_port()
    command = [sys.executable, "-m", "scripts.bench_api", "--serve", dsn, str(folder), str(port)]
    with (folder / "serve.log").open("wb") as log:
        server = subprocess.Popen(command, stdout=log, stderr=log)  # noqa: S603 - our own command
        try:
            wait_for(port, server)
            yield port, server.pid
        finally:
            server.terminate()
            server.wait(timeout=10)


if __name__ == "__main__":
    sys.exit(main())
