"""What an answer to "who is responsible here?" costs over HTTP, against an empty endpoint.

A web process of the real application on an embedded PostgreSQL, with one more endpoint that asks
for a key like all others and answers nothing but a constant. One connection asks both in turns; the
ratio of the medians is what routing adds to a request. The last line is JSON.
"""

from __future__ import annotations

import argparse
import asyncio
import http.client
import json
import secrets
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

import uvicorn
from pydantic import SecretStr

from api import db, embedded, schemas
from api.activation import activate
from api.app import create_app
from api.artefacts import Artefacts
from api.auth import Role, create_key
from api.routes.wiring import Calling
from api.routing import load_rules
from api.settings import Settings
from boundaries import sample
from boundaries.build import build_dataset
from scripts.demo import free_port, golden, temporary_folder

ROUNDS: Final = 3_000
WARM: Final = 300


def main() -> int:
    """Print the figures."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--rounds", type=int, default=ROUNDS)
    parser.add_argument("--serve", nargs=3, help=argparse.SUPPRESS)
    asked = parser.parse_args()
    if asked.serve:
        _serve(*asked.serve)
        return 0
    with temporary_folder() as folder:
        try:
            dsn = embedded.ensure(folder / "postgres")
            key = asyncio.run(prepare(folder, dsn))
            with _serving(dsn, folder) as port:
                found = _measure(port, key, asked.rounds)
        finally:
            embedded.stop(folder / "postgres")
    print(
        f"empty {found['empty_us']:.0f} us, locate {found['locate_us']:.0f} us: "
        f"{found['ratio']:.2f} x"
    )
    print(json.dumps(found))
    return 0


async def prepare(folder: Path, dsn: str) -> str:
    """Put the example country in force on an empty database; the secret of an app's key."""
    await db.migrate(dsn)
    now = datetime.now(UTC)  # noqa: TID251 - the edge
    build_dataset(sample.layer_files(), folder / "bench", built_at=now, proof_points=7_000)
    artefacts = Artefacts(folder / "datasets")
    rules = load_rules(None)
    await activate(folder / "bench", rules=rules, artefacts=artefacts, dsn=dsn, commit=True)
    conn = await db.connect(dsn)
    try:
        key = await create_key(conn, role=Role.APP, label="bench", random_bytes=secrets.token_bytes)
    finally:
        await conn.close()
    return key.secret


def _serve(dsn: str, folder: str, port: str) -> None:
    app = create_app(
        # Limited, as any; but never refused.
        Settings(database_url=SecretStr(dsn), data_dir=Path(folder), rate_key="1000000/minute")
    )

    @app.get("/empty")
    async def empty(_caller: Calling) -> schemas.Health:
        return schemas.Health(status="alive")

    uvicorn.run(app, port=int(port), log_config=None, lifespan="on")


@contextmanager
def _serving(dsn: str, folder: Path) -> Iterator[int]:
    port = free_port()
    command = [sys.executable, "-m", "scripts.bench_http", "--serve", dsn, str(folder), str(port)]
    with (folder / "serve.log").open("wb") as log:
        server = subprocess.Popen(command, stdout=log, stderr=log)  # noqa: S603 - our own command
        try:
            wait_for(port, server)
            yield port
        finally:
            server.terminate()
            server.wait(timeout=10)


def wait_for(port: int, server: subprocess.Popen[bytes]) -> None:
    """Return once the web process is ready; raise `RuntimeError` if it never is."""
    for _ in range(300):
        if server.poll() is not None:
            raise RuntimeError("the web process ended; see its log")
        try:
            connection = http.client.HTTPConnection("127.0.0.1", port, timeout=5)
            connection.request("GET", "/readyz")
            if connection.getresponse().status == 200:
                return
        except OSError:
            time.sleep(0.1)
    raise RuntimeError("the web process did not become ready")


def _measure(port: int, key: str, rounds: int) -> dict[str, float]:
    places = [report for report in golden() if report.code]
    paths = [f"/v1/locate?lon={one.lon}&lat={one.lat}&category=pothole" for one in places]
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=10)
    headers = {"Authorization": f"Bearer {key}"}
    times: dict[str, list[int]] = {"empty": [], "locate": []}
    for n in range(WARM + rounds):
        for name, path in (("empty", "/empty"), ("locate", paths[n % len(paths)])):
            start = time.perf_counter_ns()
            connection.request("GET", path, headers=headers)
            answer = connection.getresponse()
            body = answer.read()
            took = time.perf_counter_ns() - start
            if answer.status != 200:
                raise RuntimeError(f"{path} answered {answer.status}: {body[:200]!r}")
            if n >= WARM:
                times[name].append(took)
    empty_us, locate_us = (statistics.median(times[name]) / 1e3 for name in ("empty", "locate"))
    return {"empty_us": empty_us, "locate_us": locate_us, "ratio": locate_us / empty_us}


if __name__ == "__main__":
    sys.exit(main())
