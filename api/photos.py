"""Photos on their way: taken in, made, stored, put on reports, told to councils, and swept away.

It promises that what is acknowledged of an upload is kept, that a photo is shown only when all of
it is stored, that a council which has a report hears of each photo of it, and that what comes to
no report within a day is removed. Who may do what is the caller's question.
"""

from __future__ import annotations

import asyncio
import tempfile
from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import BinaryIO, Final
from uuid import UUID

import asyncpg
import structlog

from api import db, errors
from api.delivery.channels.webhook import DECISION_TOLD
from api.delivery.outbox import owe_event
from api.intake import PRINTABLE
from api.objects import Objects
from api.pictures import Picture, Pictures
from api.schemas import MOST_PHOTOS
from api.store import events, photos, reroutes

# Of an upload, written at a time: what a broken line may cost, and what each upload holds in memory
PART_BYTES: Final = 256 * 1024
SWEEP_EVERY_S: Final = 600.0
BATCH: Final = 100
SIZES: Final = ("full", "thumb")

log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class Studio:
    """What it takes to make photos of uploads, and to keep them."""

    pool: asyncpg.Pool
    objects: Objects
    pictures: Pictures


@dataclass(frozen=True, slots=True)
class Made:
    """A photo that is stored. `picture` is None if it was before this was asked."""

    photo_id: UUID
    picture: Picture | None


def object_name(photo_id: UUID, size: str) -> str:
    """Where a photo is in the object store."""
    return f"{photo_id}/{size}.jpg"


async def open_upload(
    studio: Studio,
    *,
    photo_id: UUID,
    api_key_id: UUID,
    idempotency_key: str | None,
    length: int,
    metadata: str | None = None,
) -> asyncpg.Record:
    """The row of a new upload, or of the one that this key was used for before.

    Raises `IdempotencyKeyInvalid`, and `IdempotencyKeyReused` for an upload of another length.
    """
    check_key(idempotency_key)
    async with db.acquire(studio.pool) as conn:
        row = await photos.open_photo(
            conn,
            photo_id=photo_id,
            api_key_id=api_key_id,
            idempotency_key=idempotency_key,
            length=length,
            metadata=metadata,
        )
    if row["length"] != length:
        raise errors.IdempotencyKeyReused(
            "this Idempotency-Key was used for another photo; take a new key for a new photo"
        )
    if row["gone"]:
        raise _gone()
    return row


def check_key(idempotency_key: str | None) -> None:
    """Raise `IdempotencyKeyInvalid` unless it is one, or none."""
    if idempotency_key is not None and not PRINTABLE.fullmatch(idempotency_key):
        raise errors.IdempotencyKeyInvalid(
            "Idempotency-Key takes 1 to 255 printable ASCII characters"
        )


async def take(
    studio: Studio,
    body: AsyncIterator[bytes],
    *,
    photo_id: UUID,
    api_key_id: UUID,
    idempotency_key: str | None,
) -> Made:
    """A photo that comes whole, in one request.

    Raises `PhotoRefused`, `PhotosUnavailable`, what `open_upload` raises, and what the body does.
    """
    check_key(idempotency_key)
    with tempfile.TemporaryFile() as file:
        async for chunk in body:
            file.write(chunk)
        if file.tell() == 0:
            raise errors.PhotoRefused("the body is empty; send the bytes of the photo")
        row = await open_upload(
            studio,
            photo_id=photo_id,
            api_key_id=api_key_id,
            idempotency_key=idempotency_key,
            length=file.tell(),
        )
        picture = None if row["stored_at"] else await _store(studio, row["id"], file)
    return Made(row["id"], picture)


async def append(studio: Studio, body: AsyncIterator[bytes], *, photo_id: UUID, at: int) -> int:
    """Store what comes of an upload from byte `at` on; returns how much there is then.

    What has come when the body stalls is stored before that is raised. No connection is held while
    nothing comes. Raises `UploadOffsetWrong` as soon as somebody else has stored bytes in this
    place, and for more bytes than the upload has.
    """
    waiting = bytearray()
    stalled: errors.UploadStalled | None = None
    try:
        async for chunk in body:
            waiting += chunk
            while len(waiting) >= PART_BYTES:
                await _append_part(studio, photo_id, at, bytes(waiting[:PART_BYTES]))
                del waiting[:PART_BYTES]
                at += PART_BYTES
    except errors.UploadStalled as error:
        stalled = error
    if waiting:
        await _append_part(studio, photo_id, at, bytes(waiting))
    if stalled is not None:
        raise stalled
    return at + len(waiting)


async def _append_part(studio: Studio, photo_id: UUID, at: int, content: bytes) -> None:
    async with db.acquire(studio.pool) as conn:
        if not await photos.append_part(conn, photo_id, at=at, content=content):
            raise wrong_offset()


def wrong_offset() -> errors.UploadOffsetWrong:
    """What to say to bytes that do not follow."""
    return errors.UploadOffsetWrong(
        "other bytes have come, or fewer; ask with HEAD how many there are, and go on from there"
    )


async def finish(studio: Studio, photo_id: UUID) -> Made:
    """Make the photo of an upload that has come whole, unless it is made.

    Any number of processes may do so at once: they store the same. Raises `PhotoRefused`,
    `PhotosUnavailable` or `UploadGone`.
    """
    while True:
        with tempfile.TemporaryFile() as file:
            async with db.acquire(studio.pool) as conn, conn.transaction():
                row = await photos.find_photo(conn, photo_id)
                if row is None or row["gone"]:
                    raise _gone()
                if row["stored_at"] is not None:
                    return Made(photo_id, None)
                async for part in photos.read_parts(conn, photo_id):
                    file.write(part)
            # Fewer: somebody else has made it meanwhile, and removed the parts.
            if file.tell() == row["length"]:
                return Made(photo_id, await _store(studio, photo_id, file))


async def _store(studio: Studio, photo_id: UUID, upload: BinaryIO) -> Picture:
    try:
        picture = await studio.pictures.develop(upload)
    except errors.PhotoRefused:
        async with db.acquire(studio.pool) as conn:
            await photos.refuse_upload(conn, photo_id)
        raise
    for size, content in zip(SIZES, (picture.full, picture.thumb), strict=True):
        await studio.objects.put(object_name(photo_id, size), content)
    while not await _note_stored(studio, photo_id, picture):
        async with db.acquire(studio.pool) as conn:
            row = await photos.find_photo(conn, photo_id)
        if row is None or row["gone"]:
            await _remove(studio.objects, photo_id)
            raise _gone()
        if row["stored_at"] is not None:
            break
    return picture


async def _note_stored(studio: Studio, photo_id: UUID, picture: Picture) -> bool:
    async with db.acquire(studio.pool) as conn, conn.transaction():
        row = await photos.find_photo(conn, photo_id)
        report_id = row["report_id"] if row is not None else None
        if report_id is not None:
            # before the photo, as all who lock both
            await photos.lock_holder(conn, report_id)
        stored = await photos.set_stored(
            conn, photo_id, report_id=report_id, width=picture.width, height=picture.height
        )
        if stored and report_id is not None:
            await _tell(conn, report_id, photo_id)
    return stored


def _gone() -> errors.UploadGone:
    return errors.UploadGone("this upload was ended, or its 24 hours are over; begin a new one")


async def attach(
    conn: asyncpg.Connection, report_id: UUID, photo_id: UUID, *, api_key_id: UUID
) -> bool:
    """Put a photo on a report that was posted before; whether that was news.

    One that is still coming is told when all of it is there. Raises `NotFound`, `FieldRefused`,
    `PhotoAttached` or `PhotosEnough`. Call it in a transaction.
    """
    report = await reroutes.lock_report(conn, report_id)
    if report is None or report["api_key_id"] != api_key_id:
        raise errors.NotFound("there is no such report, or another app posted it")
    row = await photos.lock_photo(conn, photo_id)
    if row is None or row["api_key_id"] != api_key_id or row["gone"]:
        raise errors.FieldRefused("photo", UNKNOWN)
    if row["report_id"] == report_id:
        return False
    if row["report_id"] is not None:
        raise errors.PhotoAttached("the photo is on another report; upload it again for this one")
    if not await photos.attach_photo(conn, photo_id, report_id):
        raise errors.PhotosEnough(f"a report has at most {MOST_PHOTOS} photos")
    if row["stored_at"] is not None:
        await _tell(conn, report_id, photo_id)
    return True


UNKNOWN: Final = (
    "is no upload of yours that is on no report yet; uploads that are on none are removed after "
    "24 hours"
)


async def _tell(conn: asyncpg.Connection, report_id: UUID, photo_id: UUID) -> None:
    """Say that a report has a photo more: to its reporter, and to the council that has it.

    Councils that are owed the report later are sent the photo with it.
    """
    holder = await photos.lock_holder(conn, report_id)
    await events.add_event(
        conn, report_id, kind="photo", detail={"photo": str(photo_id)}, key=f"photo:{photo_id}"
    )
    if holder is not None:
        told = {name: holder["decision"].get(name) for name in DECISION_TOLD}
        data = {"report": {"id": str(report_id)}, "decision": told}
        message = {"type": "report.updated", "data": data}
        await owe_event(conn, report_id, message, authority_id=holder["authority_id"])


# --- the sweep ------------------------------------------------------------------------------------


async def sweep(pool: asyncpg.Pool, objects: Objects) -> int:
    """Remove what came to no report in time, a batch; returns how much that was.

    The objects before their row: killed in between, the next sweep finds the row again.
    """
    async with db.acquire(pool) as conn:
        adrift = await photos.find_adrift(conn, limit=BATCH)
    for photo_id in adrift:
        await _remove(objects, photo_id)
    async with db.acquire(pool) as conn:
        await photos.remove_photos(conn, adrift)
    return len(adrift)


async def _remove(objects: Objects, photo_id: UUID) -> None:
    for size in SIZES:
        await objects.delete(object_name(photo_id, size))


async def run_sweeps(
    pool: asyncpg.Pool, objects: Objects, *, every_s: float = SWEEP_EVERY_S
) -> None:
    """Sweep for ever."""
    while True:
        count = 0
        try:
            count = await sweep(pool, objects)
            if count:
                log.info("photos_swept", count=count)
        except (db.DatabaseUnavailable, errors.PhotosUnavailable) as error:
            log.warning("sweep_failed", error=type(error).__name__)
        except Exception:
            # A loop that ended would leave everything lying about.
            log.exception("sweep_failed")
        if count < BATCH:
            await asyncio.sleep(every_s)
