"""`/v1/photos`: upload a photo in one request, and see one by its link.

What breaks off here begins anew; `uploads` has the way for lines that break.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Annotated, Any, Final, Literal
from uuid import UUID

from fastapi import APIRouter, Header, Query, Request, Response
from starlette.requests import ClientDisconnect

from api import db, errors, photos, schemas
from api.auth import Caller, Role, require_role
from api.routes.wiring import Calling, Wired, Wiring
from api.store import photos as rows

router = APIRouter(prefix="/v1/photos", tags=["photos"])

# How long a phone may say nothing in the middle of a body
PATIENCE_S: Final = 30.0
JPEG: dict[str, Any] = {
    "content": {"image/jpeg": {"schema": {"type": "string", "format": "binary"}, "example": "..."}}
}
UPLOADED: dict[str, Any] = {
    "requestBody": {
        "required": True,
        "content": {
            "image/*": {
                "schema": {"type": "string", "format": "binary"},
                "example": "the bytes of a JPEG, PNG, WebP or HEIC",
            }
        },
    }
}
IdempotencyKey = Annotated[
    str | None,
    Header(
        description="1 to 255 printable ASCII characters, new for each photo, the same for each "
        "retry: a repeated request is then answered with the same photo."
    ),
]


@router.post(
    "",
    operation_id="postPhoto",
    summary="Upload a photo",
    status_code=201,
    response_description="Stored",
    openapi_extra=UPLOADED,
    responses=errors.documented(
        errors.IdempotencyKeyInvalid,
        errors.RoleForbidden,
        errors.UploadStalled,
        errors.UploadGone,
        errors.BODY_TOO_LARGE,
        errors.MediaTypeUnsupported,
        errors.VALIDATION_FAILED,
        errors.PhotoRefused,
        errors.IdempotencyKeyReused,
        errors.PhotosUnavailable,
        *errors.KEYED,
    ),
)
async def post_photo(
    request: Request, wired: Wired, caller: Calling, idempotency_key: IdempotencyKey = None
) -> schemas.PhotoTaken:
    """Take a photo whole, before its report, with it or after it.

    JPEG, PNG, WebP or HEIC, by its content. It is turned upright, made 2048 pixels wide or high at
    most, and stripped of everything but its pixels; the original is not kept. On a line that may
    break, use `/v1/photos/uploads`.
    """
    require_role(caller, Role.APP)
    kind = request.headers.get("content-type", "")
    if not kind.lower().startswith("image/"):
        raise errors.MediaTypeUnsupported("send the photo itself with Content-Type: image/jpeg")
    made = await photos.take(
        wired.studio,
        chunks(request),
        photo_id=UUID(bytes=wired.random_bytes(16), version=4),
        api_key_id=caller.key_id,
        idempotency_key=idempotency_key,
    )
    wired.notifier.poke()
    return await _taken(wired, made)


async def _taken(wired: Wiring, made: photos.Made) -> schemas.PhotoTaken:
    async with db.acquire(wired.pool) as conn:
        row = await rows.find_photo(conn, made.photo_id)
    if row is None:
        raise errors.UploadGone("the photo has been removed meanwhile; upload it again")
    hint = made.picture.hint if made.picture is not None else None
    return schemas.PhotoTaken(
        id=row["id"],
        width=row["width"],
        height=row["height"],
        expires_at=row["expires_at"],
        hint=schemas.PhotoHint(lon=hint[0], lat=hint[1]) if hint is not None else None,
    )


async def chunks(request: Request) -> AsyncIterator[bytes]:
    """The body as it comes. Raises `UploadStalled` where it stops coming, or breaks off."""
    stream = request.stream()
    while True:
        try:
            async with asyncio.timeout(PATIENCE_S):
                chunk = await anext(stream, None)
        except TimeoutError:
            raise errors.UploadStalled(
                f"nothing has come for {PATIENCE_S:.0f} s; go on when the line is better"
            ) from None
        except ClientDisconnect:
            raise errors.UploadStalled("the connection has broken") from None
        if chunk is None:
            return
        yield chunk


async def own_photo(wired: Wiring, caller: Caller, photo_id: UUID) -> Any:
    """The row of an upload of the caller's. Raises `RoleForbidden`, `NotFound` or `UploadGone`."""
    require_role(caller, Role.APP)
    async with db.acquire(wired.pool) as conn:
        row = await rows.find_photo(conn, photo_id)
    if row is None or row["api_key_id"] != caller.key_id:
        raise errors.NotFound("there is no such upload, or it is another app's")
    if row["gone"]:
        raise errors.UploadGone("this upload was ended, or its 24 hours are over; begin a new one")
    return row


Size = Annotated[
    Literal["full", "thumb"], Query(description="2048 or 320 pixels wide or high at most.")
]


@router.get(
    "/{photo_id}/file",
    operation_id="getPhotoFile",
    summary="A photo, by a signed link",
    response_class=Response,
    responses={
        200: {"description": "The photo", **JPEG},
        **errors.documented(
            errors.NotFound,
            errors.LinkExpired,
            errors.VALIDATION_FAILED,
            errors.PhotosUnavailable,
            errors.DATABASE_UNAVAILABLE,
            errors.INTERNAL_ERROR,
        ),
    },
)
async def get_photo_file(
    photo_id: UUID,
    wired: Wired,
    expires: Annotated[int, Query(ge=0, le=2**53)],
    signature: Annotated[str, Query(max_length=100)],
    size: Size = "full",
) -> Response:
    """Show a photo to whoever has a link that we signed. Links come with the report."""
    if not wired.links.is_ours(photo_id, expires=expires, signature=signature):
        raise _nothing()
    if wired.links.is_over(expires):
        raise errors.LinkExpired("ask for the report again: it comes with a new link")
    async with db.acquire(wired.pool) as conn:
        row = await rows.find_photo(conn, photo_id)
    if row is None or row["attached_at"] is None:
        raise _nothing()
    return await _file(wired, photo_id, size)


@router.get(
    "/{photo_id}/public",
    operation_id="getPublicPhoto",
    summary="A photo that anybody may see",
    response_class=Response,
    responses={
        200: {"description": "The photo", **JPEG},
        **errors.documented(
            errors.NotFound,
            errors.VALIDATION_FAILED,
            errors.PhotosUnavailable,
            errors.DATABASE_UNAVAILABLE,
            errors.INTERNAL_ERROR,
        ),
    },
)
async def get_public_photo(photo_id: UUID, wired: Wired, size: Size = "full") -> Response:
    """Show a photo whose reporter has agreed to it, with `photos_public`."""
    async with db.acquire(wired.pool) as conn:
        if not await rows.is_public(conn, photo_id):
            raise _nothing()
    return await _file(wired, photo_id, size)


async def _file(wired: Wiring, photo_id: UUID, size: str) -> Response:
    content = await wired.studio.objects.get(photos.object_name(photo_id, size))
    if content is None:
        raise _nothing()
    return Response(
        content,
        media_type="image/jpeg",
        headers={
            "X-Content-Type-Options": "nosniff",
            "Content-Disposition": f'inline; filename="{photo_id}-{size}.jpg"',
            "Cache-Control": "private, max-age=3600",
        },
    )


def _nothing() -> errors.NotFound:
    return errors.NotFound("there is no such photo, or it is not yours to see")
