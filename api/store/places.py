"""The SQL of what the public may see of reports: near a place, in a box, and since when.

All of it reads `public_report`, which alone says what that is. Descriptions come as they were
written; whoever shows them masks them.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import asyncpg

from georouter.nearest import metres_per_degree

Box = tuple[float, float, float, float]
"""West, south, east, north, in degrees."""


@dataclass(frozen=True, slots=True)
class Wanted:
    """Which reports. None stands for all."""

    box: Box | None = None
    category: str | None = None
    authority: str | None = None
    closed: bool | None = None
    received_from: datetime | None = None
    received_to: datetime | None = None
    updated_since: datetime | None = None


async def find_near(
    conn: asyncpg.Connection, *, lon: float, lat: float, category: str, radius_m: float, limit: int
) -> Sequence[asyncpg.Record]:
    """Open reports of a category within `radius_m` (1 m to 10 km), the nearest first.

    In metres on a plane that touches the ellipsoid at the point.
    """
    lon_m, lat_m = metres_per_degree(lat)
    rows: Sequence[asyncpg.Record] = await conn.fetch(
        """
        SELECT * FROM (
            SELECT id, received_at, lon, lat, category, description, status, reports,
                   -- Not by squares: of what is nearly nothing they are less than can be written,
                   -- and an error.
                   point((lon - $1) * $3, (lat - $2) * $4) <-> point(0, 0) AS distance_m
            FROM public_report
            WHERE point(lon, lat) <@ box(point($1 - $6 / $3, $2 - $6 / $4),
                                         point($1 + $6 / $3, $2 + $6 / $4))
              AND category = $5 AND NOT closed
        ) AS near
        WHERE distance_m <= $6
        ORDER BY distance_m, id
        LIMIT $7
        """,
        lon,
        lat,
        lon_m,
        lat_m,
        category,
        radius_m,
        limit,
    )
    return rows


async def list_reports(
    conn: asyncpg.Connection, wanted: Wanted, *, after: Sequence[Any] | None, limit: int
) -> Sequence[asyncpg.Record]:
    """Reports, the newest first, beyond the pair (received_at, id) `after`.

    What comes in meanwhile is newer than all pages to come, so each report is seen once.
    """
    at, report_id = after or (None, None)
    west, south, east, north = wanted.box or (None, None, None, None)
    rows: Sequence[asyncpg.Record] = await conn.fetch(
        """
        SELECT public_report.id, received_at, updated_at, lon, lat, category, description, status,
               closed, reports, authority.name AS authority_name,
               (SELECT min(code) FROM authority_code
                WHERE authority_code.authority_id = authority.id) AS authority_code
        FROM public_report JOIN authority ON authority.id = authority_id
        WHERE ($1::float8 IS NULL OR point(lon, lat) <@ box(point($1, $2), point($3, $4)))
          AND ($5::text IS NULL OR category = $5)
          AND ($6::text IS NULL OR authority_id IN (
                  SELECT authority_id FROM authority_code WHERE code = $6))
          AND ($7::bool IS NULL OR closed = $7)
          AND ($8::timestamptz IS NULL OR received_at >= $8)
          AND ($9::timestamptz IS NULL OR received_at < $9)
          AND ($10::timestamptz IS NULL OR updated_at >= $10)
          AND ($11::timestamptz IS NULL OR (received_at, public_report.id) < ($11, $12::uuid))
        ORDER BY received_at DESC, public_report.id DESC
        LIMIT $13
        """,
        west,
        south,
        east,
        north,
        wanted.category,
        wanted.authority,
        wanted.closed,
        wanted.received_from,
        wanted.received_to,
        wanted.updated_since,
        at,
        report_id,
        limit,
    )
    return rows
