"""Writes what the public may see of reports into a file, CSV or GeoParquet.

The same columns as `GET /v1/reports`, by the same models, so nothing else can get out. Memory is
that of a page, however many reports there are; the file appears whole or not at all.
"""

from __future__ import annotations

import csv
import json
import os
import struct
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import Any, Final

import asyncpg
import pyarrow as pa
import pyarrow.parquet as pq

from api import schemas
from api.store import places

PAGE: Final = 5000
_MOMENT: Final = pa.timestamp("us", tz="UTC")
COLUMNS: Final = {
    "id": pa.string(),
    "category": pa.string(),
    "authority": pa.string(),
    "authority_code": pa.string(),
    "state": pa.string(),
    "status": pa.string(),
    "description": pa.string(),
    "reports": pa.int32(),
    "received_at": _MOMENT,
    "updated_at": _MOMENT,
    "lon": pa.float64(),
    "lat": pa.float64(),
}
# GeoParquet 1.1.0; without a CRS it is longitude and latitude on WGS 84.
_GEO: Final = {
    "version": "1.1.0",
    "primary_column": "geometry",
    "columns": {"geometry": {"encoding": "WKB", "geometry_types": ["Point"]}},
}
# A spreadsheet takes a cell that begins so for a formula, and would run it.
_FORMULA: Final = ("=", "+", "-", "@", "\t", "\r")

Row = dict[str, Any]
Write = Callable[[Sequence[Row]], object]


class ExportRefused(Exception):  # noqa: N818 - reads as the sentence it is
    """A file that cannot be made; the message says what to do."""


async def export(
    conn: asyncpg.Connection, out: Path, wanted: places.Wanted, *, page: int = PAGE
) -> int:
    """Write the reports, the newest first; returns how many. Raises `ExportRefused`."""
    written = _writer(out)
    partial = out.with_name(f".{out.name}.partial-{os.getpid()}")
    count = 0
    try:
        with written(partial) as write:
            async for rows in _pages(conn, wanted, page):
                write(rows)
                count += len(rows)
        with partial.open("rb") as file:
            os.fsync(file.fileno())
        partial.rename(out)
    finally:
        partial.unlink(missing_ok=True)
    return count


def _writer(out: Path) -> Callable[[Path], AbstractContextManager[Write]]:
    """How to write such a file; refuses what cannot be made."""
    writers = {".csv": _csv, ".parquet": _parquet}
    if out.suffix not in writers:
        raise ExportRefused(f"{out} must end with one of {', '.join(writers)}")
    if out.exists():
        raise ExportRefused(f"{out} exists already; remove it or choose another --out")
    if not out.parent.is_dir():
        raise ExportRefused(f"there is no folder {out.parent}; make it")
    return writers[out.suffix]


async def _pages(
    conn: asyncpg.Connection, wanted: places.Wanted, page: int
) -> AsyncIterator[list[Row]]:
    after = None
    while rows := await places.list_reports(conn, wanted, after=after, limit=page):
        yield [_row(row) for row in rows]
        after = (rows[-1]["received_at"], rows[-1]["id"])


def _row(row: asyncpg.Record) -> Row:
    feature = schemas.Feature.of(row)
    lon, lat = feature.geometry.coordinates
    return {"id": str(feature.id), **feature.properties.model_dump(), "lon": lon, "lat": lat}


@contextmanager
def _csv(path: Path) -> Iterator[Write]:
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(COLUMNS)
        yield lambda rows: writer.writerows(
            [[_cell(row[name]) for name in COLUMNS] for row in rows]
        )


def _cell(value: object) -> object:
    if isinstance(value, str):
        return f"'{value}" if value.startswith(_FORMULA) else value
    return value.isoformat().replace("+00:00", "Z") if hasattr(value, "isoformat") else value


@contextmanager
def _parquet(path: Path) -> Iterator[Write]:
    schema = pa.schema(
        [*COLUMNS.items(), ("geometry", pa.binary())], metadata={"geo": json.dumps(_GEO)}
    )

    def write(rows: Sequence[Row]) -> None:
        with_points = [{**row, "geometry": _point(row["lon"], row["lat"])} for row in rows]
        writer.write_table(pa.Table.from_pylist(with_points, schema))

    with pq.ParquetWriter(path, schema) as writer:
        yield write


def _point(lon: float, lat: float) -> bytes:
    """A point as well-known binary: little-endian, geometry type 1."""
    return struct.pack("<BIdd", 1, 1, lon, lat)
