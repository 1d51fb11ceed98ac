"""The web application on a real socket, over the example country, for clients that are not ours.

It runs in a thread with an event loop of its own, so that a test may block on it.
"""

from __future__ import annotations

import secrets
import threading
import time
from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from ipaddress import IPv4Network
from pathlib import Path
from typing import Any

import uvicorn
from fastapi import FastAPI
from pydantic import SecretStr

from api import auth, db
from api.activation import activate
from api.app import create_app
from api.artefacts import Artefacts
from api.routing import load_rules
from api.settings import Settings
from boundaries import sample
from boundaries.build import build_dataset
from scripts.demo import free_port
from tests.support.app import KEY

BUILT_AT = datetime(2026, 1, 1, tzinfo=UTC)
ROLES = ("app", "council", "operator")


@dataclass(frozen=True, slots=True)
class Web:
    """Where it listens, a key of each role, and the authority that the council's key is of."""

    base: str
    keys: Mapping[str, str]
    authority: str
    app: FastAPI

    def headers(self, role: str | None) -> dict[str, str]:
        return {"Authorization": f"Bearer {self.keys[role]}"} if role else {}


async def prepare(dsn: str, folder: Path) -> tuple[dict[str, str], str]:
    """Put the example country in force; keys by role, and the id of the council's authority."""
    out = folder / "built"
    build_dataset(sample.layer_files(), out, built_at=BUILT_AT, proof_points=200)
    rules = load_rules(None)
    artefacts = Artefacts(folder / "datasets")
    await activate(out, rules=rules, artefacts=artefacts, dsn=dsn, commit=True)
    conn = await db.connect(dsn)
    try:
        authority = await conn.fetchval(
            "SELECT authority_id FROM authority_code WHERE code LIKE 'D06%' ORDER BY code LIMIT 1"
        )
        keys = {}
        for role in ROLES:
            key = await auth.create_key(
                conn,
                role=auth.Role(role),
                label=role,
                authority_id=authority if role == "council" else None,
                random_bytes=secrets.token_bytes,
            )
            keys[role] = key.secret
    finally:
        await conn.close()
    return keys, str(authority)


@contextmanager
def listening(app: Any, port: int) -> Iterator[None]:
    """Serve an application with its lifespan, in a thread."""
    server = uvicorn.Server(
        uvicorn.Config(app, host="127.0.0.1", port=port, log_config=None, lifespan="on")
    )
    thread = threading.Thread(target=server.run, name=f"web on {port}")
    thread.start()
    try:
        while not server.started and thread.is_alive():
            time.sleep(0.01)
        assert thread.is_alive(), "the web application did not start"
        yield
    finally:
        server.should_exit = True
        thread.join()


@asynccontextmanager
async def web(dsn: str, folder: Path, **settings: Any) -> AsyncIterator[Web]:
    """The application over the example country, on a port of loopback."""
    keys, authority = await prepare(dsn, folder)
    port = free_port()
    given = {
        "data_dir": folder,
        "database_pool": 5,
        "delivery_mode": "live",
        "egress_allow": (IPv4Network("127.0.0.0/8"),),
        "secret_keys": SecretStr(KEY),
        "photos": "memory:///",
        "port": port,
        "rate_key": "1000000/second",
        **settings,
    }
    app = create_app(Settings(**given), dsn=dsn)
    with listening(app, port):
        yield Web(f"http://127.0.0.1:{port}", keys, authority, app)
