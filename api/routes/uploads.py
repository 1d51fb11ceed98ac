"""`/v1/photos/uploads`: photos over lines that break, by tus 1.0.0.

The core protocol with creation, expiration and termination. `Tus` beside it sees to what the
protocol asks of every answer. What is stored of an upload is in the database, so any web process
goes on where another stopped.
"""

from __future__ import annotations

import re
from email.utils import format_datetime
from typing import Annotated, Any, Final
from uuid import UUID

import asyncpg
from fastapi import APIRouter, Depends, Header, Request, Response
from starlette.datastructures import Headers, MutableHeaders
from starlette.exceptions import HTTPException
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from api import db, errors, photos, schemas
from api.auth import Role, require_role
from api.routes.photos import IdempotencyKey, chunks, own_photo
from api.routes.wiring import Calling, Wired
from api.store import photos as rows

PATH: Final = "/v1/photos/uploads"
VERSION: Final = "1.0.0"
EXTENSIONS: Final = "creation,expiration,termination"
CHUNK_TYPE: Final = "application/offset+octet-stream"
# More digits Python may refuse to read.
NUMBER: Final = re.compile(r"[0-9]{1,18}", re.ASCII)
METADATA: Final = re.compile(
    r"[!-+\--~]+( [A-Za-z0-9+/]*={0,2})?(,[!-+\--~]+( [A-Za-z0-9+/]*={0,2})?)*"
)
METADATA_CHARS: Final = 2000


class Tus:
    """ASGI middleware: what tus asks of every request and answer about uploads.

    Clients that cannot send a method name it in `X-HTTP-Method-Override`.
    """

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request."""
        if scope["type"] != "http" or not scope["path"].startswith(PATH):
            await self.app(scope, receive, send)
            return
        meant = Headers(scope=scope).get("x-http-method-override", "").upper()
        if scope["method"] == "POST" and meant in {"PATCH", "DELETE", "HEAD"}:
            scope = {**scope, "method": meant}

        async def send_with_version(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = MutableHeaders(scope=message)
                headers["Tus-Resumable"] = VERSION
                headers["Cache-Control"] = "no-store"
                if message["status"] == 412:
                    headers["Tus-Version"] = VERSION
            await send(message)

        await self.app(scope, receive, send_with_version)


async def _version(
    tus_resumable: Annotated[str | None, Header(description=f"`{VERSION}`.")] = None,
) -> None:
    if tus_resumable != VERSION:
        raise errors.TusVersionUnsupported(f"send Tus-Resumable: {VERSION}")


router = APIRouter(prefix=PATH, tags=["photos"])


def _headers(*names: str) -> dict[str, Any]:
    meanings = {
        "Location": "The upload, and where to send its bytes.",
        "Upload-Offset": "How many bytes have come.",
        "Upload-Length": "How many there are in all.",
        "Upload-Expires": "By then it must be whole and on a report.",
        "Photo-Hint": "With the last byte, if the camera says where it was: `lon,lat`. It is told "
        "this once and kept nowhere.",
        "Tus-Version": f"`{VERSION}`.",
        "Tus-Extension": f"`{EXTENSIONS}`.",
        "Tus-Max-Size": "In bytes.",
    }
    shown = {name: {"description": meanings[name], "schema": {"type": "string"}} for name in names}
    return {"headers": shown}


@router.options(
    "",
    operation_id="describeUploads",
    summary="What of tus is spoken here",
    status_code=204,
    responses={
        204: _headers("Tus-Version", "Tus-Extension", "Tus-Max-Size"),
        **errors.documented(errors.INTERNAL_ERROR),
    },
)
async def describe_uploads(wired: Wired) -> Response:
    """Tell version, extensions and the largest photo, in headers. Takes no key."""
    told = {
        "Tus-Version": VERSION,
        "Tus-Extension": EXTENSIONS,
        "Tus-Max-Size": str(wired.settings.photo_max_bytes),
    }
    return Response(status_code=204, headers=told)


@router.post(
    "",
    operation_id="createUpload",
    summary="Begin an upload that can be resumed",
    status_code=201,
    dependencies=[Depends(_version)],
    response_description="Begun",
    responses={
        201: _headers("Location", "Upload-Offset", "Upload-Expires"),
        **errors.documented(
            errors.UploadHeaderInvalid,
            errors.IdempotencyKeyInvalid,
            errors.RoleForbidden,
            errors.UploadGone,
            errors.TusVersionUnsupported,
            errors.BODY_TOO_LARGE,
            errors.VALIDATION_FAILED,
            errors.IdempotencyKeyReused,
            *errors.KEYED,
        ),
    },
)
async def create_upload(
    response: Response,
    wired: Wired,
    caller: Calling,
    upload_length: Annotated[
        str | None, Header(description="The photo's size in bytes. Required.")
    ] = None,
    upload_metadata: Annotated[
        str | None, Header(description="Given back until the photo is stored; not looked at.")
    ] = None,
    idempotency_key: IdempotencyKey = None,
) -> schemas.UploadOut:
    """Begin; then PATCH the bytes to the `Location`. After a break, HEAD tells where to go on.

    The `id` may be named in a report before all has come; the photo then follows by itself. With
    an `Idempotency-Key`, a repeated request is answered with the same upload.
    """
    require_role(caller, Role.APP)
    length = _number("Upload-Length", upload_length)
    if length == 0:
        raise errors.UploadHeaderInvalid("Upload-Length: a photo has bytes")
    if length > wired.settings.photo_max_bytes:
        raise HTTPException(413, f"a photo has at most {wired.settings.photo_max_bytes} bytes here")
    if upload_metadata and (
        len(upload_metadata) > METADATA_CHARS or not METADATA.fullmatch(upload_metadata)
    ):
        raise errors.UploadHeaderInvalid(
            "Upload-Metadata: send 'name base64' pairs with commas between them, 2000 characters "
            "at most, or leave it out"
        )
    row = await photos.open_upload(
        wired.studio,
        photo_id=UUID(bytes=wired.random_bytes(16), version=4),
        api_key_id=caller.key_id,
        idempotency_key=idempotency_key,
        length=length,
        metadata=upload_metadata,
    )
    response.headers["Location"] = f"{PATH}/{row['id']}"
    response.headers.update(_state(row))
    return schemas.UploadOut(id=row["id"], expires_at=row["expires_at"])


@router.head(
    "/{upload_id}",
    operation_id="showUpload",
    summary="How much of an upload has come",
    dependencies=[Depends(_version)],
    response_class=Response,
    responses={
        200: {**_headers("Upload-Offset", "Upload-Length", "Upload-Expires"), "content": {}},
        **errors.documented(
            errors.RoleForbidden,
            errors.NotFound,
            errors.UploadGone,
            errors.TusVersionUnsupported,
            errors.VALIDATION_FAILED,
            errors.PhotoRefused,
            errors.PhotosUnavailable,
            *errors.KEYED,
        ),
    },
)
async def show_upload(upload_id: UUID, wired: Wired, caller: Calling) -> Response:
    """Tell in headers what is stored. If that is all of it, the photo is made by then."""
    row = await own_photo(wired, caller, upload_id)
    told = {**_state(row), "Upload-Length": str(row["length"])}
    if row["received"] == row["length"]:
        # Whoever was to make it may have died.
        await photos.finish(wired.studio, upload_id)
        wired.notifier.poke()
    elif row["metadata"]:
        told["Upload-Metadata"] = row["metadata"]
    return Response(status_code=200, headers=told)


@router.patch(
    "/{upload_id}",
    operation_id="sendUpload",
    summary="Send the next bytes of an upload",
    status_code=204,
    dependencies=[Depends(_version)],
    openapi_extra={
        "requestBody": {
            "required": True,
            "content": {
                CHUNK_TYPE: {
                    "schema": {"type": "string", "format": "binary"},
                    "example": "the bytes from Upload-Offset on, all that are left or fewer",
                }
            },
        }
    },
    responses={
        204: _headers("Upload-Offset", "Upload-Expires", "Photo-Hint"),
        **errors.documented(
            errors.UploadHeaderInvalid,
            errors.RoleForbidden,
            errors.NotFound,
            errors.UploadStalled,
            errors.UploadOffsetWrong,
            errors.UploadGone,
            errors.TusVersionUnsupported,
            errors.BODY_TOO_LARGE,
            errors.MediaTypeUnsupported,
            errors.VALIDATION_FAILED,
            errors.PhotoRefused,
            errors.PhotosUnavailable,
            *errors.KEYED,
        ),
    },
)
async def send_upload(
    upload_id: UUID,
    request: Request,
    wired: Wired,
    caller: Calling,
    upload_offset: Annotated[
        str | None, Header(description="Where these bytes begin, as HEAD told. Required.")
    ] = None,
) -> Response:
    """Store the bytes as they come, so that a break loses little.

    With the last one the photo is made; 422 then says why it cannot be used, and it is over.
    """
    if request.headers.get("content-type") != CHUNK_TYPE:
        raise errors.MediaTypeUnsupported(f"send the bytes with Content-Type: {CHUNK_TYPE}")
    at = _number("Upload-Offset", upload_offset)
    row = await own_photo(wired, caller, upload_id)
    if at != row["received"]:
        raise photos.wrong_offset()
    length = row["length"]
    if row["stored_at"] is None:
        announced = request.headers.get("content-length", "0")
        if announced.isdecimal() and int(announced) > length - at:
            raise HTTPException(413, f"the upload has {length} bytes by its Upload-Length")
        at = await photos.append(wired.studio, chunks(request), photo_id=upload_id, at=at)
    told = {**_state(row), "Upload-Offset": str(at)}
    if at == length:
        made = await photos.finish(wired.studio, upload_id)
        wired.notifier.poke()
        if made.picture is not None and made.picture.hint is not None:
            told["Photo-Hint"] = "{},{}".format(*made.picture.hint)
    return Response(status_code=204, headers=told)


@router.delete(
    "/{upload_id}",
    operation_id="endUpload",
    summary="End an upload, or take a photo back",
    status_code=204,
    dependencies=[Depends(_version)],
    responses=errors.documented(
        errors.RoleForbidden,
        errors.NotFound,
        errors.PhotoAttached,
        errors.UploadGone,
        errors.TusVersionUnsupported,
        errors.VALIDATION_FAILED,
        *errors.KEYED,
    ),
)
async def end_upload(upload_id: UUID, wired: Wired, caller: Calling) -> Response:
    """End it, whole or not, as long as it is on no report."""
    await own_photo(wired, caller, upload_id)
    async with db.acquire(wired.pool) as conn:
        if not await rows.end_upload(conn, upload_id):
            raise errors.PhotoAttached("the photo is on a report by now, and stays there")
    return Response(status_code=204)


def _state(row: asyncpg.Record) -> dict[str, str]:
    told = {"Upload-Offset": str(row["received"])}
    if row["attached_at"] is None:
        told["Upload-Expires"] = format_datetime(row["expires_at"], usegmt=True)
    return told


def _number(name: str, given: str | None) -> int:
    if given is None or not NUMBER.fullmatch(given):
        raise errors.UploadHeaderInvalid(f"{name} must be there, and be a number of bytes")
    return int(given)
