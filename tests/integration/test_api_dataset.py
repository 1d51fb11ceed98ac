"""`GET /v1/dataset`, and web processes whose artefacts lie in an object store."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from pathlib import Path

import httpx
import pytest
from pydantic import SecretStr

from api import activation, db
from api.app import create_app
from api.artefacts import Artefacts
from api.routing import load_rules
from api.settings import Settings
from boundaries import sample
from boundaries.build import build_dataset
from boundaries.dataset import open_dataset
from tests.support.app import KEY, Api, Square, activate, slug
from tests.support.fake_s3 import FakeS3

MADE_OF = {
    "title": "Counties",
    "publisher": "Ordnance",
    "edition": "May 2026",
    "licence": "OGL-UK-3.0",
    "attribution": "Contains public data.",
}


async def test_the_dataset_in_force_with_its_sources(api: Api) -> None:
    plain = (await api.get("/v1/dataset", key="council")).json()
    assert (plain["version"], plain["layers"], plain["sources"]) == ("squares-1", [], [])
    dataset = api.shelf.put("squares-2", (Square("highway", "N", "North", 0.0, 2.0),))
    dataset.manifest["layers"] = [
        {"name": "highway", "areas": 1, "source": {**MADE_OF, "sha256": "0"}},
        {"name": "trunk", "areas": 2, "sources": [{"title": "Roads"}, {}], "roads": {}},
    ]
    async with db.acquire(api.pool) as conn:
        await activate(conn, dataset)
        since = await conn.fetchval("SELECT max(from_at) FROM activation")
    await api.app.state.wiring.live.refresh(api.pool)
    response = await api.get("/v1/dataset")
    assert response.status_code == 200
    assert response.headers["cache-control"] == "private, no-cache"
    nothing = dict.fromkeys(MADE_OF)
    shown = response.json()
    assert datetime.fromisoformat(shown.pop("since")) == since
    assert shown == {
        "version": "squares-2",
        "layers": [{"name": "highway", "areas": 1}, {"name": "trunk", "areas": 2}],
        "sources": [
            {"layer": "highway", **MADE_OF},
            {"layer": "trunk", **nothing, "title": "Roads"},
            {"layer": "trunk", **nothing},
        ],
    }
    decision = (await api.get("/v1/locate", lon=0.5, lat=50.5, category="pothole")).json()
    assert decision["dataset"] == shown["version"]


async def test_an_unchanged_dataset_is_not_sent_again(api: Api) -> None:
    async def ask(etag: str) -> httpx.Response:
        headers = {**api.headers("app"), "If-None-Match": etag}
        return await api.client.get("/v1/dataset", headers=headers)

    first = (await api.get("/v1/dataset")).headers["etag"]
    same = await ask(f'"x", W/{first}')
    assert (same.status_code, same.content, same.headers["etag"]) == (304, b"", first)
    # away and back again: the version is the same, since when is not
    for version in ("squares-2", "squares-1"):
        async with db.acquire(api.pool) as conn:
            await activate(conn, api.shelf.put(version))
    await api.app.state.wiring.live.refresh(api.pool)
    changed = await ask(first)
    assert (changed.status_code, changed.json()["version"]) == (200, "squares-1")


async def test_who_may_not_ask_and_when_there_is_none(api: Api) -> None:
    assert slug(await api.client.get("/v1/dataset")) == "key-missing"
    assert slug(await api.get("/v1/dataset", version="x")) == "validation-failed"
    await api.pool.execute("DELETE FROM activation")
    await api.app.state.wiring.live.refresh(api.pool)
    refused = await api.get("/v1/dataset")
    assert (refused.status_code, slug(refused)) == (503, "no-active-dataset")


# --- from an object store -------------------------------------------------------------------------


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    files = sample.layer_files()
    folder = tmp_path_factory.mktemp("datasets")
    for name, layers in {"one": files, "two": dict(reversed(files.items()))}.items():
        build_dataset(
            layers, folder / name, built_at=datetime(2026, 11, 23, tzinfo=UTC), proof_points=1_000
        )
    return {name: folder / name for name in ("one", "two")}


@pytest.fixture
async def s3(monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[FakeS3]:
    async with FakeS3() as s3:
        for name, value in s3.environment.items():
            monkeypatch.setenv(name, value)
        yield s3


@asynccontextmanager
async def machine(dsn: str, data_dir: Path) -> AsyncIterator[httpx.AsyncClient]:
    """A web process on a machine with a data directory of its own."""
    settings = Settings(
        database_url=SecretStr(dsn),
        data_dir=data_dir,
        datasets="s3://bucket",
        dataset_poll_s=0.05,
        database_pool=2,
        secret_keys=SecretStr(KEY),
    )
    app = create_app(settings)
    async with (
        app.router.lifespan_context(app),
        httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://t") as client,
    ):
        yield client


async def told(client: httpx.AsyncClient) -> tuple[int, str]:
    response = await client.get("/readyz")
    return response.status_code, response.json()["checks"]["dataset"]["detail"]


async def becomes(client: httpx.AsyncClient, version: str) -> None:
    async with asyncio.timeout(20):
        while await told(client) != (200, version):  # noqa: ASYNC110 - the event is elsewhere
            await asyncio.sleep(0.02)


async def test_machines_fetch_follow_and_outlive_the_store(
    folders: dict[str, Path],
    s3: FakeS3,
    database_url: str,
    tmp_path: Path,
) -> None:
    version = {name: open_dataset(folder).version for name, folder in folders.items()}
    operator = Artefacts.of(Settings(data_dir=tmp_path / "operator", datasets="s3://bucket"))
    rules = load_rules(None)

    async def put_in_force(name: str | Path) -> None:
        await activation.activate(
            name, rules=rules, artefacts=operator, dsn=database_url, commit=True
        )

    await put_in_force(folders["one"])
    async with machine(database_url, tmp_path / "a") as client:
        assert await told(client) == (200, version["one"])
        # staged, it is fetched before it is needed
        await activation.stage(folders["two"], artefacts=operator, dsn=database_url, commit=True)
        async with asyncio.timeout(20):
            while not (tmp_path / "a" / "datasets" / version["two"]).exists():  # noqa: ASYNC110
                await asyncio.sleep(0.02)
        assert await told(client) == (200, version["one"])
        fetched = s3.count("GET", ".grx")
        await put_in_force(version["two"])
        await becomes(client, version["two"])
        assert s3.count("GET", f"{version['two']}/index.grx") == 2  # the operator's is the other
        assert fetched == 2
    await s3.__aexit__(None, None, None)
    try:
        # with a good copy the store is not missed
        async with machine(database_url, tmp_path / "a") as client:
            assert await told(client) == (200, version["two"])
            here = Artefacts.of(Settings(data_dir=tmp_path / "a", datasets="s3://bucket"))
            for name in ("one", "two"):  # nor by an operator who goes back there
                await activation.roll_back(
                    rules=rules, artefacts=here, dsn=database_url, commit=True, to=version[name]
                )
                await becomes(client, version[name])
        # without one the process lives, is not ready, and says why
        async with machine(database_url, tmp_path / "b") as client:
            assert (await client.get("/healthz")).status_code == 200
            status, detail = await told(client)
            assert status == 503
            assert detail.startswith(
                f"dataset {version['two']} cannot be opened: the store of datasets: "
            )
            assert "georouter_dataset_fault 1.0" in (await client.get("/metrics")).text
            await s3.__aenter__()
            await becomes(client, version["two"])
    finally:
        if not s3.serving:
            await s3.__aenter__()
