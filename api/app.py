"""The web process: puts the parts together and serves them.

`create_app` is its composition root. Nothing is opened before the application's lifespan begins:
then the pool, the dataset in force, its polls and the notifier, in this order; it fails to start
only for a database that is not there or lacks migrations, not for a missing dataset.
"""

from __future__ import annotations

import asyncio
import secrets
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from importlib.metadata import version
from typing import Any

from fastapi import FastAPI
from fastapi_offline import FastAPIOffline
from starlette.datastructures import Headers
from starlette.exceptions import HTTPException
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from api import db, errors, telemetry
from api.artefacts import Artefacts
from api.delivery.liveness import Notifier
from api.links import PhotoLinks
from api.metrics import Metrics
from api.objects import open_objects
from api.photos import Studio
from api.pictures import Pictures
from api.rates import RateLimit, Rates
from api.routes import (
    audit,
    authorities,
    batch,
    categories,
    certificates,
    dataset,
    deliveries,
    endpoints,
    events,
    health,
    hiding,
    locate,
    metrics,
    notices,
    photos,
    public,
    reports,
    tracking,
    triage,
    updates,
    uploads,
    webhooks,
)
from api.routes.wiring import Wiring, attach
from api.routing import LiveRouting, OpenVersion, load_rules
from api.settings import Settings
from api.streams import Streams
from api.vault import open_vault

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
    open_version: OpenVersion | None = None,
    random_bytes: Callable[[int], bytes] = secrets.token_bytes,
    clock: Callable[[], float] = time.time,
) -> FastAPI:
    """Make the web application; raises `RulesError`, and `DatasetError` for the store's URL.

    `dsn` names the database where the caller knows it already; otherwise the settings do, and so
    they do the artefact store in the place of `open_version`. Starting it raises
    `DatabaseUnavailable`, `SchemaOutdated`, `EmbeddedPostgresError`, `VaultUnusable` or
    `ObjectStoreUnusable`.
    """
    telemetry.configure()
    rules = load_rules(settings.rules)
    opener = open_version or Artefacts.of(settings).open

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        vault = await asyncio.to_thread(open_vault, settings)
        objects = await asyncio.to_thread(open_objects, settings)
        # In a thread: an embedded server takes a second to start.
        database = await asyncio.to_thread(db.resolve_dsn, settings) if dsn is None else dsn
        async with await db.create_pool(database, size=settings.database_pool) as pool:
            async with db.acquire(pool) as conn:
                await db.check_schema(conn)
            live = LiveRouting(rules=rules, clock=clock, open_version=opener)
            await live.refresh(pool)
            async with Notifier(pool) as notifier, asyncio.TaskGroup() as tasks:
                poll = tasks.create_task(live.poll(pool, every_s=settings.dataset_poll_s))
                mine = Rates.of(settings, vault=vault, clock=clock)
                counting = tasks.create_task(mine.run(pool))
                prepare = tasks.create_task(live.prepare(pool, every_s=settings.dataset_poll_s))
                figures = Metrics(pool, clock=time.monotonic, dataset=live.figures)
                studio = Studio(pool, objects, Pictures())
                links = PhotoLinks(settings.link_base, vault, clock)
                streams = Streams(pool, limit=settings.max_streams)
                feed = tasks.create_task(streams.run())
                wiring = Wiring(
                    settings,
                    pool,
                    live,
                    notifier,
                    random_bytes,
                    figures,
                    vault,
                    clock,
                    studio,
                    links,
                    streams,
                    mine,
                )
                attach(app, wiring)
                try:
                    with streams.ended_by(app.state.on_stop):
                        yield
                finally:
                    feed.cancel()
                    poll.cancel()
                    prepare.cancel()
                    counting.cancel()

    app: FastAPI = FastAPIOffline(
        title="georouter",
        version=version("georouter"),
        description=DESCRIPTION,
        lifespan=lifespan,
        webhooks=webhooks.router,
        redirect_slashes=False,
    )
    # Called by who runs the server, as soon as it stops: a server waits for answers under way.
    app.state.on_stop = []
    for resource in (
        locate,
        categories,
        public,
        dataset,
        reports,
        batch,
        events,
        tracking,
        certificates,
        uploads,
        photos,
        authorities,
        endpoints,
        deliveries,
        notices,
        audit,
        updates,
        hiding,
        triage,
        health,
        metrics,
    ):
        app.include_router(resource.router)
    errors.install(app, also={db.DatabaseUnavailable: errors.DATABASE_UNAVAILABLE})
    app.add_middleware(
        BodyLimit,
        limit=settings.max_body_bytes,
        of_batches=settings.max_batch_bytes,
        of_photos=settings.photo_max_bytes,
    )
    app.add_middleware(RateLimit)
    app.add_middleware(telemetry.Correlation, on_error=errors.respond, random_bytes=random_bytes)
    app.add_middleware(uploads.Tus)  # around all others: what it asks of answers, it asks of theirs
    _describe(app)
    return app


class BodyLimit:
    """ASGI middleware: refuses a body over `limit` bytes, announced or not, before it is parsed.

    `of_batches` and `of_photos` are the limits where those are sent. The framework's own answers in
    plain text when the length is announced.
    """

    def __init__(self, app: ASGIApp, *, limit: int, of_batches: int, of_photos: int) -> None:
        self.app = app
        self.limit = limit
        self.of_batches = of_batches
        self.of_photos = of_photos

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request."""
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        limit = self.of_photos if scope["path"].startswith("/v1/photos") else self.limit
        if scope["path"] == batch.PATH:
            limit = self.of_batches
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
