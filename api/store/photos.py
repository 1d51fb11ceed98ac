"""The SQL of photos: `photo`, the parts of uploads in `photo_part`, and what belongs to whom.

A part is stored only if it follows on what has come, so of several that send at once each byte is
one's. What is not on a report when its time is over can no longer be put on one, and may be
removed.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from uuid import UUID

import asyncpg

from api.schemas import MOST_PHOTOS

# `gone`: neither shown nor changed any more, and soon removed.
_SHOWN = """
    id, api_key_id, length, received, metadata, expires_at, stored_at, width, height, report_id,
    attached_at, attached_at IS NULL AND expires_at <= now() AS gone
"""


async def open_photo(
    conn: asyncpg.Connection,
    *,
    photo_id: UUID,
    api_key_id: UUID,
    idempotency_key: str | None,
    length: int,
    metadata: str | None = None,
) -> asyncpg.Record:
    """A new upload, or the one that this key was used for before."""
    made = await conn.fetchrow(
        f"""
        INSERT INTO photo (id, api_key_id, idempotency_key, length, metadata)
        VALUES ($1, $2, $3, $4, $5)
        ON CONFLICT (api_key_id, idempotency_key) DO NOTHING
        RETURNING {_SHOWN}
        """,
        photo_id,
        api_key_id,
        idempotency_key,
        length,
        metadata,
    )
    if made is not None:
        return made
    found = await conn.fetchrow(
        f"SELECT {_SHOWN} FROM photo WHERE api_key_id = $1 AND idempotency_key = $2",
        api_key_id,
        idempotency_key,
    )
    if found is None:  # removed between the two
        return await open_photo(
            conn,
            photo_id=photo_id,
            api_key_id=api_key_id,
            idempotency_key=idempotency_key,
            length=length,
            metadata=metadata,
        )
    return found


async def find_photo(conn: asyncpg.Connection, photo_id: UUID) -> asyncpg.Record | None:
    """A photo, or its upload."""
    return await conn.fetchrow(f"SELECT {_SHOWN} FROM photo WHERE id = $1", photo_id)


async def append_part(conn: asyncpg.Connection, photo_id: UUID, *, at: int, content: bytes) -> bool:
    """Store the next bytes of an upload; False if they do not follow on what has come.

    One statement: what `received` says is there, whatever dies when.
    """
    done = await conn.execute(
        """
        WITH follows AS (
            UPDATE photo SET received = received + length($3::bytea)
            WHERE id = $1 AND received = $2 AND received + length($3::bytea) <= length
              AND stored_at IS NULL AND expires_at > now()
            RETURNING id
        )
        INSERT INTO photo_part (photo_id, at, bytes) SELECT id, $2, $3 FROM follows
        """,
        photo_id,
        at,
        content,
    )
    return bool(done == "INSERT 0 1")


async def read_parts(conn: asyncpg.Connection, photo_id: UUID) -> AsyncIterator[bytes]:
    """What has come of an upload, part by part. Call it in a transaction."""
    rows = conn.cursor(
        "SELECT bytes FROM photo_part WHERE photo_id = $1 ORDER BY at", photo_id, prefetch=4
    )
    async for row in rows:
        yield row["bytes"]


async def set_stored(
    conn: asyncpg.Connection, photo_id: UUID, *, report_id: UUID | None, width: int, height: int
) -> bool:
    """Note that a photo is in the object store. The row of its report must be locked.

    False if that is noted already, or it is gone, or on another report than `report_id` by now.
    """
    stored: bool = await conn.fetchval(
        """
        WITH stored AS (
            UPDATE photo
            SET stored_at = now(), width = $3, height = $4, received = length, metadata = NULL,
                attached_at = CASE WHEN report_id IS NOT NULL THEN clock_timestamp() END
            WHERE id = $1 AND stored_at IS NULL AND expires_at > now()
              AND report_id IS NOT DISTINCT FROM $2
            RETURNING id
        ), emptied AS (
            DELETE FROM photo_part WHERE photo_id IN (SELECT id FROM stored)
        )
        SELECT EXISTS (SELECT FROM stored)
        """,
        photo_id,
        report_id,
        width,
        height,
    )
    return stored


# --- on a report ----------------------------------------------------------------------------------


async def lock_photo(conn: asyncpg.Connection, photo_id: UUID) -> asyncpg.Record | None:
    """Lock a photo's row, after its report's. Call it in a transaction."""
    return await conn.fetchrow(f"SELECT {_SHOWN} FROM photo WHERE id = $1 FOR UPDATE", photo_id)


async def attach_photo(conn: asyncpg.Connection, photo_id: UUID, report_id: UUID) -> bool:
    """Put a locked photo on a locked report; False if that has as many as it may."""
    done = await conn.execute(
        """
        UPDATE photo
        SET report_id = $2,
            attached_at = CASE WHEN stored_at IS NOT NULL THEN clock_timestamp() END
        WHERE id = $1
          AND (SELECT count(*) FROM photo
               WHERE report_id = $2 AND (attached_at IS NOT NULL OR expires_at > now())) < $3
        """,
        photo_id,
        report_id,
        MOST_PHOTOS,
    )
    return bool(done == "UPDATE 1")


async def lock_holder(conn: asyncpg.Connection, report_id: UUID) -> asyncpg.Record | None:
    """Lock a report for a photo to be told; None if nobody has it just now. In a transaction.

    Whoever is just releasing it from `held` is waited for, and is seen by the next statement.
    """
    await conn.execute("SELECT FROM report WHERE id = $1 FOR NO KEY UPDATE", report_id)
    await conn.execute("SELECT FROM held WHERE report_id = $1 FOR UPDATE", report_id)
    return await conn.fetchrow(
        """
        SELECT authority_id, decision
        FROM report
        WHERE id = $1
          AND NOT EXISTS (SELECT FROM reroute WHERE report_id = report.id)
          AND NOT EXISTS (SELECT FROM triage WHERE report_id = report.id)
        """,
        report_id,
    )


async def list_photos(conn: asyncpg.Connection, report_id: UUID) -> Sequence[asyncpg.Record]:
    """A report's photos in order, those that are still to come at the end."""
    rows: Sequence[asyncpg.Record] = await conn.fetch(
        """
        SELECT id, width, height, stored_at,
               EXISTS (SELECT FROM public_photo WHERE public_photo.id = photo.id) AS public
        FROM photo
        WHERE report_id = $1 AND (attached_at IS NOT NULL OR expires_at > now())
        ORDER BY attached_at, created_at, id
        """,
        report_id,
    )
    return rows


async def is_public(conn: asyncpg.Connection, photo_id: UUID) -> bool:
    """Whether anybody may see a photo."""
    found: bool = await conn.fetchval(
        "SELECT EXISTS (SELECT FROM public_photo WHERE id = $1)", photo_id
    )
    return found


# --- the end --------------------------------------------------------------------------------------


async def end_upload(conn: asyncpg.Connection, photo_id: UUID) -> bool:
    """End an upload, or a photo that is on no report; False if it is on one, or there is none.

    What there is of it is removed in a while, after whoever may be storing it just now.
    """
    done = await conn.execute(
        """
        UPDATE photo SET expires_at = least(expires_at, now()), idempotency_key = NULL
        WHERE id = $1 AND report_id IS NULL
        """,
        photo_id,
    )
    return bool(done == "UPDATE 1")


async def refuse_upload(conn: asyncpg.Connection, photo_id: UUID) -> None:
    """End an upload that no photo can be made of, whether it is on a report or not."""
    await conn.execute(
        """
        UPDATE photo
        SET expires_at = least(expires_at, now()), idempotency_key = NULL, report_id = NULL
        WHERE id = $1 AND stored_at IS NULL
        """,
        photo_id,
    )


async def erase_photos(conn: asyncpg.Connection, report_id: UUID) -> int:
    """Take a report's photos off it, to be removed with the next sweep; returns how many."""
    done = await conn.execute(
        """
        UPDATE photo
        SET expires_at = '-infinity', idempotency_key = NULL, report_id = NULL, attached_at = NULL
        WHERE report_id = $1
        """,
        report_id,
    )
    return int(done.removeprefix("UPDATE "))


async def find_adrift(conn: asyncpg.Connection, *, limit: int) -> Sequence[UUID]:
    """Uploads and photos that may be removed: their time has been over for an hour.

    An hour, so that nobody is storing one any more.
    """
    rows = await conn.fetch(
        """
        SELECT id FROM photo
        WHERE attached_at IS NULL AND expires_at < now() - interval '1 hour'
        ORDER BY expires_at LIMIT $1
        """,
        limit,
    )
    return [row["id"] for row in rows]


async def remove_photos(conn: asyncpg.Connection, photo_ids: Sequence[UUID]) -> None:
    """Remove rows of `find_adrift`, with the parts of their uploads."""
    await conn.execute(
        "DELETE FROM photo WHERE id = ANY ($1) AND attached_at IS NULL AND expires_at < now()",
        list(photo_ids),
    )
