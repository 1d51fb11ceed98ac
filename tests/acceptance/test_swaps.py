"""Ten swaps under load: two web processes, real sockets, and an operator.

Two datasets give the same ground to different councils. Apps ask and report without a pause while
datasets are activated and rolled back; no request may fail, no answer may mix the two, and both
processes follow. What was seen is printed.
"""

from __future__ import annotations

import asyncio
import json
import os
import secrets
import sys
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import asyncpg
import httpx
import pytest

from api import activation, auth, db
from api.artefacts import Artefacts
from api.routing import load_rules
from boundaries.build import build_dataset
from scripts.demo import free_port, georouter_process
from tests.support.app import KEY

ROOT = Path(__file__).parents[2]
POLL_S = 0.5
# What is promised is five seconds; a machine that tests may be busier than any that serves.
BOUND_S = 20.0
PAUSE_S = 0.05  # of an app, so that there is something left for those who swap
SWAPS = ("b", "rollback", "b", "a", "rollback", "a", "b", "rollback", "b", "a")
BY_COMMAND = (0, 1)  # the first two by the commands, which take a second to start
PLACE = {"lon": 0.5, "lat": 50.5, "category": "pothole"}
OWNERS = {"a": ("X06000001", "Westshire"), "b": ("X06000002", "Eastshire")}


@dataclass
class Seen:
    """What the apps were answered."""

    served: Counter[str] = field(default_factory=Counter)
    faults: list[str] = field(default_factory=list)
    posted: dict[str, str] = field(default_factory=dict)  # version by report
    first: dict[tuple[int, str], float] = field(default_factory=dict)  # by port and version


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("swaps")
    for name, (code, title) in OWNERS.items():
        ring = [[0, 50], [1, 50], [1, 51], [0, 51], [0, 50]]
        feature = {
            "type": "Feature",
            "properties": {"code": code, "name": title},
            "geometry": {"type": "Polygon", "coordinates": [ring]},
        }
        file = folder / f"{name}.geojson"
        file.write_text(json.dumps({"type": "FeatureCollection", "features": [feature]}))
        build_dataset(
            {"highway": file, "district": file},
            folder / name,
            built_at=datetime(2026, 11, 23, tzinfo=UTC),
            proof_points=1_000,
        )
    return {name: folder / name for name in OWNERS}


@pytest.fixture
def environment(database_url: str, tmp_path: Path) -> dict[str, str]:
    return {
        "PATH": os.defpath,
        "PYTHONPATH": str(ROOT),
        "GEOROUTER_DATABASE_URL": database_url,
        "GEOROUTER_DATA_DIR": str(tmp_path / "data"),
        "GEOROUTER_SECRET_KEYS": KEY,
        "GEOROUTER_DATASET_POLL_S": str(POLL_S),
        "GEOROUTER_RATE_KEY": "off",
    }


@pytest.fixture
def ports(environment: dict[str, str], tmp_path: Path) -> Iterator[list[int]]:
    """Two web processes."""
    ports: list[int] = []
    with ExitStack() as stack:
        for n in range(2):
            ports.append(free_port())
            mine = {**environment, "GEOROUTER_PORT": str(ports[n])}
            stack.enter_context(georouter_process("serve", mine, tmp_path / f"web-{n}.log"))
        yield ports
    for n in range(2):
        assert "Traceback" not in (tmp_path / f"web-{n}.log").read_text()


@dataclass(frozen=True, slots=True)
class Operator:
    """Puts datasets in force: by `georouter boundaries ...`, or by what that calls."""

    environment: dict[str, str]

    async def swap(self, version: str | None, *, by_command: bool) -> str:
        """Activate a version, or roll back; returns the version that is in force then."""
        if by_command:
            done = await self.run(*(("activate", version) if version else ("rollback",)))
            assert done["changed"]
            return str(done["version"])
        if version is None:
            activated = await activation.roll_back(**self.place)
        else:
            activated = await activation.activate(version, **self.place)
        assert activated.changed
        return activated.version

    @property
    def place(self) -> dict[str, Any]:
        return {
            "rules": load_rules(None),
            "artefacts": Artefacts(Path(self.environment["GEOROUTER_DATA_DIR"]) / "datasets"),
            "dsn": self.environment["GEOROUTER_DATABASE_URL"],
            "commit": True,
        }

    async def run(self, *arguments: str) -> dict[str, Any]:
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "scripts.cli", "boundaries", *arguments, "--json", "--commit"),
            env=self.environment,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
        )
        out, err = await process.communicate()
        assert process.returncode == 0, err.decode()
        answer: dict[str, Any] = json.loads(out)
        return answer


@dataclass(frozen=True, slots=True)
class App:
    """Asks one web process without a pause, and judges each answer."""

    port: int
    key: str
    owners: dict[str, str]  # code by version
    seen: Seen

    async def ask(self, path: str, *, post: bool) -> None:
        async with httpx.AsyncClient(
            base_url=f"http://127.0.0.1:{self.port}",
            headers={"Authorization": f"Bearer {self.key}"},
            timeout=20,
        ) as client:
            while True:
                try:
                    if post:
                        body = {**PLACE, "description": "a hole"}
                        response = await client.post(path, json=body)
                    else:
                        query = PLACE if path == "/v1/locate" else None
                        response = await client.get(path, params=query)
                except httpx.HTTPError as error:
                    self.seen.faults.append(f"{path}: {error!r}")
                    return
                self._judge(path, response, post=post)
                await asyncio.sleep(PAUSE_S)

    def _judge(self, path: str, response: httpx.Response, *, post: bool) -> None:
        self.seen.served[path] += 1
        if response.status_code != (201 if post else 200):
            self.seen.faults.append(f"{path}: {response.status_code} {response.text}")
            return
        answer = response.json()
        if path == "/v1/locate" or post:
            decision = answer["decision"] if post else answer
            version, code = decision["dataset"], decision["authority"]["code"]
            self.seen.first.setdefault((self.port, version), time.time())
            if self.owners.get(version) != code or decision["candidates"][0]["code"] != code:
                self.seen.faults.append(f"{path}: {version} and {code} in one answer")
            if post:
                self.seen.posted[answer["id"]] = version


async def test_ten_swaps_under_load_drop_nothing_and_mix_nothing(
    folders: dict[str, Path],
    environment: dict[str, str],
    ports: list[int],
    pool: asyncpg.Pool,
    capsys: pytest.CaptureFixture[str],
) -> None:
    operator = Operator(environment)
    versions = {}
    for name in ("b", "a"):
        done = await activation.activate(folders[name], **operator.place)
        versions[name] = done.version
    async with db.acquire(pool) as conn:
        key = await auth.create_key(
            conn, role=auth.Role.APP, label="app", random_bytes=secrets.token_bytes
        )
    owners = {versions[name]: code for name, (code, _) in OWNERS.items()}
    seen = Seen()
    await ready(ports)
    latencies: list[float] = []
    async with asyncio.TaskGroup() as tasks:
        load = [
            tasks.create_task(App(port, key.secret, owners, seen).ask(path, post=post))
            for port in ports
            for path, post in (
                ("/v1/locate", False),
                ("/v1/locate", False),
                ("/v1/reports", True),
                ("/v1/dataset", False),
                ("/readyz", False),
            )
        ]
        for n, swap in enumerate(SWAPS):
            seen.first.clear()
            version = await operator.swap(versions.get(swap), by_command=n in BY_COMMAND)
            # as the database's clock has it, which is this machine's
            recorded = await pool.fetchval("SELECT max(from_at) FROM activation")
            began = recorded.timestamp()
            latencies += [await followed(seen, port, version) - began for port in ports]
        for one in load:
            one.cancel()
    assert seen.faults == []
    assert all(seen.served[path] > 50 for path in ("/v1/locate", "/v1/reports", "/v1/dataset"))
    stored = await pool.fetch(
        "SELECT report.id::text, version, decision -> 'authority' ->> 'code' AS code "
        "FROM report JOIN dataset ON dataset.id = dataset_id"
    )
    assert {row["id"]: row["version"] for row in stored}.items() >= seen.posted.items()
    assert all(owners[row["version"]] == row["code"] for row in stored)
    assert {row["version"] for row in stored} == set(owners)
    with capsys.disabled():
        print(  # noqa: T201 - what was seen
            f"\n{len(SWAPS)} swaps in 2 processes, {seen.served.total()} requests served "
            f"({seen.served['/v1/locate']} locate, {seen.served['/v1/reports']} reports), "
            f"0 faults; followed within {max(latencies):.2f} s, "
            f"{sum(latencies) / len(latencies):.2f} s on average, polling every {POLL_S} s"
        )


async def ready(ports: list[int]) -> None:
    async with httpx.AsyncClient() as client, asyncio.timeout(60):
        for port in ports:
            while True:
                try:
                    if (await client.get(f"http://127.0.0.1:{port}/readyz")).status_code == 200:
                        break
                except httpx.TransportError:
                    pass
                await asyncio.sleep(0.1)


async def followed(seen: Seen, port: int, version: str) -> float:
    """When a process first answered by this version, in Unix seconds."""
    async with asyncio.timeout(BOUND_S):
        while (port, version) not in seen.first:  # noqa: ASYNC110 - what comes is not ours to set
            await asyncio.sleep(0.01)
    return seen.first[port, version]
