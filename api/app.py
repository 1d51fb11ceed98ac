"""The web process: puts the parts together and serves them.

`create_app` is its composition root. Nothing is opened before the application's lifespan begins:
then the pool, the dataset in force, its poll and the notifier, in this order; it fails to start
only for a database that is not there or lacks migrations, not for a missing dataset.
"""

from __future__ import annotations

import asyncio
import secrets
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from importlib.metadata import version
from pathlib import Path
from typing import Any

from fastapi import FastAPI
from fastapi_offline import FastAPIOffline
from starlette.datastructures import Headers
from starlette.exceptions import HTTPException
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from api import db, errors, telemetry
from api.delivery.liveness import Notifier
from api.metrics import Metrics
from api.routes import (
    audit,
    authorities,
    batch,
    categories,
    certificates,
    deliveries,
    endpoints,
    health,
    locate,
    metrics,
    notices,
    public,
    reports,
    triage,
    updates,
    webhooks,
)
from api.routes.wiring import Wiring, attach
from api.routing import LiveRouting, load_rules
from api.settings import Settings
from api.vault import open_vault
from boundaries.dataset import Dataset, open_dataset

# Of a Content-Length; Python refuses to read thousands of them.
MAX_DIGITS = 18

DESCRIPTION = """
Routes a citizen's street report to the authority that mends that yard of tarmac, and forwards it
without losing or doubling it.

Coordinates are WGS 84 degrees, longitude first; times are RFC 3339 in UTC. Failures are problem
documents (RFC 9457) whose `type` is stable.
"""


def create_app(
    settings: Settings,
    *,
    dsn: str | None = None,
    open_folder: Callable[[Path], Dataset] = open_dataset,
    random_bytes: Callable[[int], bytes] = secrets.token_bytes,
    clock: Callable[[], float] = time.time,
) -> FastAPI:
    """Make the web application; raises `RulesError`.

    `dsn` names the database where the caller knows it already; otherwise the settings do. Starting
    it raises `DatabaseUnavailable`, `SchemaOutdated`, `EmbeddedPostgresError` or `VaultUnusable`.
    """
    telemetry.configure()
    rules = load_rules(settings.rules)

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        vault = await asyncio.to_thread(open_vault, settings)
        # In a thread: an embedded server takes a second to start.
        database = await asyncio.to_thread(db.resolve_dsn, settings) if dsn is None else dsn
        async with await db.create_pool(database, size=settings.database_pool) as pool:
            async with db.acquire(pool) as conn:
                await db.check_schema(conn)
            live = LiveRouting(rules=rules, clock=clock, open_folder=open_folder)
            await live.refresh(pool)
            async with Notifier(pool) as notifier, asyncio.TaskGroup() as tasks:
                poll = tasks.create_task(live.poll(pool, every_s=settings.dataset_poll_s))
                figures = Metrics(pool, clock=time.monotonic)
                wiring = Wiring(settings, pool, live, notifier, random_bytes, figures, vault, clock)
                attach(app, wiring)
                try:
                    yield
                finally:
                    poll.cancel()

    app: FastAPI = FastAPIOffline(
        title="georouter",
        version=version("georouter"),
        description=DESCRIPTION,
        lifespan=lifespan,
        webhooks=webhooks.router,
        redirect_slashes=False,
    )
    for resource in (
        locate,
        categories,
        public,
        reports,
        batch,
        certificates,
        authorities,
        endpoints,
        deliveries,
        notices,
        audit,
        updates,
        triage,
        health,
        metrics,
    ):
        app.include_router(resource.router)
    errors.install(app, also={db.DatabaseUnavailable: errors.DATABASE_UNAVAILABLE})
    app.add_middleware(
        BodyLimit, limit=settings.max_body_bytes, of_batches=settings.max_batch_bytes
    )
    app.add_middleware(telemetry.Correlation, on_error=errors.respond, random_bytes=random_bytes)
    _describe(app)
    return app


class BodyLimit:
    """ASGI middleware: refuses a body over `limit` bytes, announced or not, before it is parsed.

    `of_batches` is the limit of batches. The framework's own answers in plain text when the length
    is announced.
    """

    def __init__(self, app: ASGIApp, *, limit: int, of_batches: int) -> None:
        self.app = app
        self.limit = limit
        self.of_batches = of_batches

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request."""
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        limit = self.of_batches if scope["path"] == batch.PATH else self.limit
        too_large = HTTPException(413, f"a body has at most {limit} bytes here")
        announced = Headers(scope=scope).get("content-length", "0")
        if len(announced) > MAX_DIGITS or not announced.isdecimal() or int(announced) > limit:
            await errors.respond(scope, too_large)(scope, receive, send)
            return
        received = 0

        async def receive_within_limit() -> Message:
            nonlocal received
            message = await receive()
            received += len(message.get("body", b""))
            if received > limit:
                # Of this class, because the framework passes it on from where it reads the body.
                raise too_large
            return message

        await self.app(scope, receive_within_limit, send)


def _describe(app: FastAPI) -> None:
    """Complete the OpenAPI description with the schema that all problem responses refer to."""
    generate = app.openapi

    def openapi() -> dict[str, Any]:
        document = generate()
        document["components"]["schemas"]["Problem"] = errors.SCHEMA
        return document

    app.openapi = openapi  # type: ignore[method-assign]  # as FastAPI documents
