"""The SQL of rate limits: `rate_count`, and which keys are not limited by address."""

from __future__ import annotations

from collections.abc import Sequence

import asyncpg


async def add_counts(
    conn: asyncpg.Connection, counts: Sequence[tuple[str, int, int, int]]
) -> Sequence[asyncpg.Record]:
    """Add to counts of (name, window, hits, Unix second of its end); returns what each is by then.

    With those of the windows before. The counts come sorted: two processes must not wait for each
    other's rows.
    """
    names, windows, hits, ends = zip(*counts, strict=True) if counts else ((), (), (), ())
    rows: Sequence[asyncpg.Record] = await conn.fetch(
        """
        WITH mine AS (
            SELECT * FROM unnest($1::text[], $2::bigint[], $3::integer[], $4::float8[])
                AS one (name, n, hits, ends)
        ), added AS (
            INSERT INTO rate_count (name, n, hits, expires_at)
            SELECT name, n, hits, to_timestamp(ends) FROM mine ORDER BY name, n
            ON CONFLICT (name, n) DO UPDATE SET hits = rate_count.hits + excluded.hits
            RETURNING name, n, hits, expires_at
        )
        SELECT name, n, hits, extract(epoch FROM expires_at) AS ends FROM added
        UNION ALL
        SELECT rate_count.name, rate_count.n, rate_count.hits,
               extract(epoch FROM rate_count.expires_at)
        FROM mine JOIN rate_count ON rate_count.name = mine.name AND rate_count.n = mine.n - 1
        """,
        list(names),
        list(windows),
        list(hits),
        list(ends),
    )
    return rows


async def list_exempt(conn: asyncpg.Connection) -> Sequence[str]:
    """Digests, in hex, of the keys that are not limited by address."""
    rows = await conn.fetch(
        """
        SELECT encode(secret_sha256, 'hex') AS digest FROM api_key
        WHERE NOT address_limited AND (revoked_at IS NULL OR revoked_at > now())
        """
    )
    return [row["digest"] for row in rows]


async def remove_expired(conn: asyncpg.Connection) -> None:
    """Remove what counts no more."""
    await conn.execute("DELETE FROM rate_count WHERE expires_at <= now()")
