"""The web application over an invented country of squares, driven in this process.

Two bodies: West, unitary, and Shire, a county with the district Vale below it; they meet at
longitude 1.
"""

from __future__ import annotations

import secrets
import time
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from datetime import datetime
from ipaddress import IPv4Network
from typing import Any
from uuid import UUID

import asyncpg
import httpx
import shapely
from fastapi import FastAPI
from pydantic import SecretStr

from api import auth, db, vault
from api.app import create_app
from api.delivery import outbox
from api.settings import Settings
from api.store import authorities, datasets, probes
from boundaries.dataset import Dataset, DatasetError
from georouter.compiler import compile_index
from georouter.geometry import SCALE
from georouter.index import Index
from tests.support.polygons import layer

WEST, SHIRE, VALE = "X06000001", "X10000001", "X07000001"
IN_WEST: Mapping[str, Any] = {"lon": 0.5, "lat": 50.5}
IN_SHIRE: Mapping[str, Any] = {"lon": 1.5, "lat": 50.5}
ON_BORDER: Mapping[str, Any] = {"lon": 1.0, "lat": 50.5}
AT_SEA: Mapping[str, Any] = {"lon": 9.0, "lat": 50.5}
# Every request to here is allowed as an endpoint; nobody listens, and nobody sends.
KEY = vault.new_key()
INTAKE = "http://127.0.0.1:9/intake"


@dataclass(frozen=True, slots=True)
class Square:
    layer: str
    code: str
    name: str
    west: float
    east: float


SQUARES = (
    Square("highway", WEST, "West", 0.0, 1.0),
    Square("highway", SHIRE, "Shire", 1.0, 2.0),
    Square("district", WEST, "West", 0.0, 1.0),
    Square("district", VALE, "Vale", 1.0, 2.0),
)


def index_of(squares: tuple[Square, ...] = SQUARES) -> Index:
    """An index of squares between latitudes 50 and 51."""
    layers = []
    for name in dict.fromkeys(one.layer for one in squares):
        mine = {one.code: one for one in squares if one.layer == name}
        shapes = {
            code: shapely.box(
                round(one.west * SCALE), 50 * SCALE, round(one.east * SCALE), 51 * SCALE
            )
            for code, one in mine.items()
        }
        names = tuple(mine[code].name for code in sorted(mine))
        layers.append(replace(layer(name, shapes), names=names))
    return Index(compile_index(layers))


@dataclass
class Shelf:
    """Datasets by version, instead of an artefact store."""

    datasets: dict[str, Dataset] = field(default_factory=dict)

    def put(self, version: str, squares: tuple[Square, ...] = SQUARES) -> Dataset:
        dataset = Dataset(version, {"version": version}, index_of(squares))
        self.datasets[version] = dataset
        return dataset

    async def open(self, version: str, _manifest: Mapping[str, Any]) -> Dataset:
        try:
            return self.datasets[version]
        except KeyError:
            raise DatasetError(f"{version} is not on the shelf") from None


async def activate(
    conn: asyncpg.Connection, dataset: Dataset, *, from_at: datetime | None = None
) -> datasets.Activation:
    return await datasets.activate_dataset(
        conn,
        from_at=from_at,
        version=dataset.version,
        manifest=dataset.manifest,
        areas=dataset.authorities,
    )


@dataclass
class Api:
    """A running application with a key of each role, and its database."""

    app: FastAPI
    client: httpx.AsyncClient
    pool: asyncpg.Pool
    shelf: Shelf
    keys: Mapping[str, str]
    authorities: Mapping[str, UUID]

    async def post_report(
        self,
        *,
        key: str = "app",
        idempotency_key: str | None = None,
        **fields: Any,
    ) -> httpx.Response:
        body = {**IN_WEST, "category": "pothole", "description": "a hole", **fields}
        headers = self.headers(key)
        if idempotency_key is not None:
            headers["Idempotency-Key"] = idempotency_key
        return await self.client.post("/v1/reports", json=body, headers=headers)

    def headers(self, key: str) -> dict[str, str]:
        return {"Authorization": f"Bearer {self.keys[key]}"}

    async def get(self, path: str, *, key: str = "app", **query: Any) -> httpx.Response:
        return await self.client.get(path, params=query, headers=self.headers(key))

    async def register(
        self,
        code: str = WEST,
        *,
        key: str = "operator",
        url: str = INTAKE,
        verified: bool = True,
        **fields: Any,
    ) -> httpx.Response:
        """Register an endpoint and, if `verified`, make it active as a passed challenge does.

        What is held for it is released, as a worker would; the answer still says "pending".
        """
        response = await self.client.post(
            f"/v1/authorities/{self.authorities[code]}/endpoints",
            json={"channel": "webhook", "url": url, **fields},
            headers=self.headers(key),
        )
        if verified and response.status_code == 201:
            async with db.acquire(self.pool) as conn, conn.transaction():
                await probes.activate(conn, UUID(response.json()["id"]), api_key_id=None)
                await conn.execute(
                    "UPDATE endpoint_probe SET due_at = NULL, outcome = 'passed' "
                    "WHERE endpoint_id = $1",
                    response.json()["id"],
                )
                await outbox.release_held(conn, authority_id=self.authorities[code])
        return response

    async def post(self, path: str, *, key: str = "operator", **body: Any) -> httpx.Response:
        """POST a body, or none if no field is given."""
        headers = self.headers(key)
        return await self.client.post(path, json=body or None, headers=headers)

    async def patch(self, path: str, *, key: str = "operator", **body: Any) -> httpx.Response:
        return await self.client.patch(path, json=body, headers=self.headers(key))

    async def delete(self, path: str, *, key: str = "operator") -> httpx.Response:
        return await self.client.delete(path, headers=self.headers(key))

    async def rest(self, hours: float = 1.0) -> None:
        """Let so much time pass for whatever counts what was done lately."""
        await self.pool.execute("UPDATE audit SET at = at - $1 * interval '1 hour'", hours)

    async def rows(self) -> dict[str, int]:
        """How many rows each table has that a report could leave something in."""
        tables = ("report", "idempotency", "held", "delivery", "endpoint")
        return {name: await self.pool.fetchval(f"SELECT count(*) FROM {name}") for name in tables}


@asynccontextmanager
async def started(
    dsn: str, shelf: Shelf, *, clock: Callable[[], float] = time.time, **settings: Any
) -> AsyncIterator[tuple[FastAPI, httpx.AsyncClient]]:
    """The application between start and stop, and a client of it."""
    app = create_app(
        Settings(
            **{
                "database_pool": 5,
                "dataset_poll_s": 0.05,
                "egress_allow": (IPv4Network("127.0.0.0/8"),),
                "delivery_mode": "live",
                "secret_keys": SecretStr(KEY),
                "photos": "memory:///",
                **settings,
            }
        ),
        dsn=dsn,
        open_version=shelf.open,
        clock=clock,
    )
    transport = httpx.ASGITransport(app)
    async with (
        app.router.lifespan_context(app),
        httpx.AsyncClient(transport=transport, base_url="http://api.test") as client,
    ):
        yield app, client


@asynccontextmanager
async def serving(dsn: str, pool: asyncpg.Pool, **settings: Any) -> AsyncIterator[Api]:
    """The application with dataset "squares-1" in force and a key of each kind."""
    shelf = Shelf()
    async with db.acquire(pool) as conn:
        await activate(conn, shelf.put("squares-1"))
        ids = {row["code"]: row["id"] for row in await authorities.authorities_by_code(conn)}
        keys = {}
        for name, role, code in (
            ("app", auth.Role.APP, None),
            ("other app", auth.Role.APP, None),
            ("council", auth.Role.COUNCIL, WEST),
            ("other council", auth.Role.COUNCIL, SHIRE),
            ("operator", auth.Role.OPERATOR, None),
        ):
            key = await auth.create_key(
                conn,
                role=role,
                label=name,
                authority_id=ids[code] if code else None,
                random_bytes=secrets.token_bytes,
            )
            keys[name] = key.secret
    async with started(dsn, shelf, **settings) as (app, client):
        yield Api(app, client, pool, shelf, keys, ids)


def slug(response: httpx.Response) -> str:
    """The problem's slug, the rest of the document being as it should."""
    assert response.headers["content-type"] == "application/problem+json"
    problem = response.json()
    assert problem["status"] == response.status_code
    assert problem["title"]
    assert problem["detail"]
    assert response.headers["x-request-id"]
    return str(problem["type"].removeprefix("urn:georouter:problem:"))
