"""What endpoints ask for: the parts of the running process, and the caller behind the request.

The composition root makes one `Wiring` and leaves it on the application; nothing else is shared.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from email.message import Message
from typing import Annotated

import asyncpg
from fastapi import Depends, FastAPI, Header, Request, Security
from fastapi.security import HTTPAuthorizationCredentials, HTTPBearer

from api import auth, db
from api.delivery.liveness import Notifier
from api.errors import MediaTypeUnsupported
from api.links import PhotoLinks
from api.metrics import Metrics
from api.photos import Studio
from api.rates import Rates
from api.routing import LiveRouting
from api.settings import Settings
from api.streams import Streams
from api.vault import Vault


@dataclass(frozen=True, slots=True)
class Wiring:
    """The parts of one running web process."""

    settings: Settings
    pool: asyncpg.Pool
    live: LiveRouting
    notifier: Notifier
    random_bytes: Callable[[int], bytes]
    metrics: Metrics
    vault: Vault
    clock: Callable[[], float]
    studio: Studio
    links: PhotoLinks
    streams: Streams
    rates: Rates


def attach(app: FastAPI, wiring: Wiring) -> None:
    """Leave the parts where the endpoints find them."""
    app.state.wiring = wiring


# `async` although they await nothing: the framework would run them in a thread each.
async def _wired(request: Request) -> Wiring:
    wiring: Wiring = request.app.state.wiring
    return wiring


Wired = Annotated[Wiring, Depends(_wired)]

# For the documentation only: it would answer in words of its own, `auth.identify` does in ours.
_bearer = HTTPBearer(
    auto_error=False,
    scheme_name="ApiKey",
    description="An API key: `grk_` and 43 characters. Its role is app, council or operator.",
)


async def _calling(
    request: Request,
    wired: Wired,
    _documented: Annotated[HTTPAuthorizationCredentials | None, Security(_bearer)],
) -> auth.Caller:
    async with db.acquire(wired.pool) as conn:
        return await auth.identify(conn, request.headers.get("authorization"))


Calling = Annotated[auth.Caller, Depends(_calling)]


async def json_only(request: Request) -> None:
    """Raise `MediaTypeUnsupported` unless the body is declared as JSON.

    The framework would report such a body as one that is no object.
    """
    header = Message()
    header["content-type"] = request.headers.get("content-type", "application/octet-stream")
    kind = header.get_content_type()
    if kind != "application/json" and not (
        kind.startswith("application/") and kind.endswith("+json")
    ):
        raise MediaTypeUnsupported(
            f"the body came as {kind}; send JSON with Content-Type: application/json"
        )


async def json_if_any(request: Request) -> None:
    """The same where there is a body at all."""
    if request.headers.get("content-length", "0") != "0" or "transfer-encoding" in request.headers:
        await json_only(request)


IfNoneMatch = Annotated[str | None, Header(description="The `ETag` of the answer that you have.")]


def names(if_none_match: str | None, etag: str) -> bool:
    """Whether the header lists the tag; weakly compared, as RFC 9110 wants it here."""
    if if_none_match is None:
        return False
    tags = [tag.strip().removeprefix("W/") for tag in if_none_match.split(",")]
    return etag in tags or tags == ["*"]
