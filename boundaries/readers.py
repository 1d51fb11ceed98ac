"""Reads one layer of boundaries from a file: codes, names and WGS 84 polygons.

Promises either a whole layer or a `SourceError` of one sentence that names the file, the fault and
the remedy. It finds the code and name fields by pattern and says what it took. It repairs nothing
and knows nothing of the index; `build` does both.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import numpy as np
import numpy.typing as npt

Geometries = npt.NDArray[Any]
"""Shapely geometries as a numpy object array."""

_CODE_FIELD: Final = (r"code", r"gss_?(code)?", r"[a-z]+\d\dcd")
_NAME_FIELD: Final = (r"name", r"[a-z]+\d\dnm")
_PATTERNS: Final = {"code": _CODE_FIELD, "name": _NAME_FIELD}
_DENSIFY_M: Final = 500.0

POLYGONS: Final = frozenset({"Polygon", "MultiPolygon"})
LINES_AND_POLYGONS: Final = POLYGONS | {"LineString", "MultiLineString"}


class SourceError(Exception):
    """A boundary file that cannot be used as it is; the message says what to do."""

    finding = "unreadable_file"
    """The kind of finding that it is in a validation."""


class UnclosedRingError(SourceError):
    """A boundary file with a ring that is none."""

    finding = "unclosed_ring"


class SourceNotFoundError(SourceError):
    """A boundary file that does not exist."""


@dataclass(frozen=True, slots=True)
class Features:
    """One layer as read: an area per row, ascending by code, in WGS 84 degrees.

    `origin` records where it came from, for the manifest: file, sha256, fields, CRS, the operation
    that led to WGS 84 and its accuracy in metres. `rows` has the codes of several rows, with the
    name that each row gives.
    """

    codes: tuple[str, ...]
    names: tuple[str, ...]
    geometries: Geometries
    origin: dict[str, Any]
    rows: dict[str, tuple[str, ...]] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Rows:
    """A file as read, row by row, in WGS 84 degrees.

    `columns` has the text of the fields asked for, by what they are for; of those that may be
    missing, the ones that are there.
    """

    columns: dict[str, list[str]]
    geometries: Geometries
    origin: dict[str, Any]


def read_features(
    path: Path,
    *,
    code_field: str | None = None,
    name_field: str | None = None,
    keep_empty: bool = False,
) -> Features:
    """Read GeoParquet, GeoPackage, GeoJSON or what else GDAL knows, in WGS 84, ETRS89 or BNG.

    Rows of one code are put together. An area without a geometry is refused, or with `keep_empty`
    has an empty polygon. Raises `SourceError`.
    """
    rows = read_rows(
        path,
        kinds=POLYGONS,
        fields={"code": code_field, "name": name_field},
        keep_empty=keep_empty,
    )
    given = rows.columns["code"], rows.columns["name"]
    codes, names, geometries = _one_row_per_code(*given, rows.geometries)
    several: dict[str, tuple[str, ...]] = {}
    if len(codes) < len(given[0]):
        for code, name in zip(*given, strict=True):
            several[code] = (*several.get(code, ()), name)
    several = {code: some for code, some in several.items() if len(some) > 1}
    return Features(tuple(codes), tuple(names), geometries, rows.origin, several)


def read_rows(
    path: Path,
    *,
    kinds: frozenset[str],
    fields: Mapping[str, str | None],
    also: Sequence[str] = (),
    keep_empty: bool = False,
) -> Rows:
    """Read the rows of a file, whose geometries must be of these kinds. Raises `SourceError`.

    `fields` says by what each is for which are wanted; a `code` or `name` that is None is found by
    its pattern. Those in `also` may be missing. With `keep_empty` so may geometries, which are
    empty polygons then.
    """
    if not path.is_file():
        raise SourceNotFoundError(f"{path} does not exist or is no file")
    frame = _read_frame(path)
    found = {role: _field(path, frame, wanted, role) for role, wanted in fields.items()}
    found |= {field: field for field in also if field in frame.columns}
    columns = {
        role: [_text(value) for value in frame[field].tolist()] for role, field in found.items()
    }
    if "code" in found and "" in columns["code"]:
        row = columns["code"].index("") + 1
        raise SourceError(f"{path}: row {row} has no value in {found['code']!r}; give it a code")
    geometries = np.asarray(frame.geometry.values, dtype=object)
    if keep_empty:
        geometries = _without_none(geometries)
    _check_rows(path, columns.get("code"), geometries, kinds, keep_empty=keep_empty)
    geometries, operation, accuracy_m = _to_wgs84(path, frame.crs, geometries)
    return Rows(
        columns=columns,
        geometries=geometries,
        origin={
            "file": path.name,
            "sha256": _sha256(path),
            **{
                role if role.endswith("_field") else f"{role}_field": found[role] for role in fields
            },
            "crs": frame.crs.to_string() if frame.crs.to_authority() else frame.crs.name,
            "operation": operation,
            "accuracy_m": accuracy_m,
        },
    )


def _read_frame(path: Path) -> Any:
    import geopandas
    import pyarrow as pa
    import pyogrio.errors
    import shapely

    parquet = path.suffix.lower() in {".parquet", ".geoparquet"}
    try:
        frame = geopandas.read_parquet(path) if parquet else geopandas.read_file(path)
    except (pa.ArrowException, pyogrio.errors.DataSourceError, OSError) as error:
        kind = "GeoParquet" if parquet else "a boundary format (GeoPackage, GeoJSON, ...)"
        raise SourceError(f"{path} cannot be read as {kind}: {_one_line(error)}") from None
    except shapely.errors.GEOSException as error:
        # a ring that is not closed, or too short: the one thing that GEOS refuses to hold
        raise UnclosedRingError(
            f"{path} has a ring that is not closed or has too few points: {_one_line(error)}; "
            "close it, e.g. with `ogr2ogr -makevalid`"
        ) from None
    except ValueError as error:  # geopandas: no geo metadata, or a geometry GEOS does not accept
        raise SourceError(f"{path} is no usable boundary file: {_one_line(error)}") from None
    pa.default_memory_pool().release_unused()  # Arrow keeps as much as the file was large
    if not hasattr(frame, "geometry") or not len(frame):
        raise SourceError(f"{path} holds no features with a geometry")
    return frame


def _field(path: Path, frame: Any, wanted: str | None, role: str) -> str:
    columns = [str(column) for column in frame.columns if column != frame.geometry.name]
    patterns = _PATTERNS.get(role, ())
    option = f"--{role}-field" if patterns else role
    listed = ", ".join(columns) or "none"
    if wanted is not None:
        if wanted not in columns:
            raise SourceError(f"{path} has no field {wanted!r}; choose {option} from: {listed}")
        return wanted
    for pattern in patterns:
        found = [column for column in columns if re.fullmatch(pattern, column, re.IGNORECASE)]
        if len(found) == 1:
            return found[0]
        if found:
            choices = ", ".join(found)
            raise SourceError(f"{path} has several {role} fields; choose {option} from: {choices}")
    raise SourceError(
        f"{path} has no field that looks like a {role}; choose {option} from: {listed}"
    )


def _without_none(geometries: Geometries) -> Geometries:
    """Missing geometries, and empty ones of any kind, as empty polygons."""
    import shapely

    empty = shapely.is_missing(geometries) | shapely.is_empty(geometries)
    geometries = geometries.copy()
    geometries[empty] = shapely.Polygon()
    return geometries


def _check_rows(
    path: Path,
    codes: Sequence[str] | None,
    geometries: Geometries,
    kinds: frozenset[str],
    *,
    keep_empty: bool,
) -> None:
    import shapely

    for row, geometry in enumerate(geometries):
        which = f"row {row + 1}" if codes is None else f"area {codes[row]!r}"
        if not keep_empty and (geometry is None or geometry.is_empty):
            raise SourceError(f"{path}: {which} has no geometry; remove it or complete it")
        if geometry.geom_type not in kinds:
            wanted = "boundaries must be polygons"
            if kinds != POLYGONS:
                wanted = "roads must be lines or polygons"
            raise SourceError(f"{path}: {which} is a {geometry.geom_type}; {wanted}")
    if not np.isfinite(shapely.bounds(geometries[~shapely.is_empty(geometries)])).all():
        raise SourceError(f"{path} has coordinates that are not finite numbers")


def _to_wgs84(path: Path, crs: Any, geometries: Geometries) -> tuple[Geometries, str, float]:
    """The polygons in WGS 84 degrees, how that was done, and how exact it is in metres.

    British National Grid goes through OSTN15, the definitive transformation (Ordnance Survey,
    "Transformations and OSGM15", 2018): pyproj's wheel has no such grid and is off by metres.
    """
    import shapely

    if crs is None:
        raise SourceError(
            f"{path} does not say its coordinate reference system; "
            "add it, e.g. with `ogr2ogr -a_srs EPSG:4326`"
        )
    if shapely.has_z(geometries).any():  # a copy of a whole country is not made for nothing
        geometries = shapely.force_2d(geometries)
    authority = crs.to_authority(min_confidence=70)
    if authority in {("EPSG", "4326"), ("OGC", "CRS84"), ("EPSG", "4258")}:
        west, south, east, north = shapely.total_bounds(geometries)
        if west < -180 or east > 180 or south < -90 or north > 90:
            raise SourceError(
                f"{path} says it is in degrees ({authority[0]}:{authority[1]}), but its "
                f"coordinates reach {west:.0f} {south:.0f} {east:.0f} {north:.0f}; correct its CRS"
            )
        return geometries, "none (already WGS 84 or ETRS89)", 0.0
    if authority == ("EPSG", "27700"):
        return (
            _from_national_grid(path, geometries),
            "OSGB36 to ETRS89 by OSTN15 (convertbng)",
            0.01,
        )
    raise SourceError(
        f"{path} is in {crs.name!r}, which is not supported; "
        "reproject it to EPSG:4326, e.g. with `ogr2ogr -t_srs EPSG:4326`"
    )


def _from_national_grid(path: Path, geometries: Geometries) -> Geometries:
    import shapely
    from convertbng import cutil

    # a straight line on the grid is none in degrees: over 500 m they part by less than a centimetre
    dense = shapely.segmentize(geometries, _DENSIFY_M)
    grid = shapely.get_coordinates(dense)
    lon, lat = cutil.convert_osgb36_to_ll(
        np.ascontiguousarray(grid[:, 0]), np.ascontiguousarray(grid[:, 1])
    )
    outside = ~(np.isfinite(lon) & np.isfinite(lat))
    if outside.any():
        easting, northing = grid[int(np.argmax(outside))]
        raise SourceError(
            f"{path}: easting {easting:.0f}, northing {northing:.0f} is outside the ground that "
            "OSTN15 covers (Great Britain and its waters); correct it or remove that area"
        )
    return np.asarray(shapely.set_coordinates(dense, np.column_stack([lon, lat])), dtype=object)


def _one_row_per_code(
    codes: Sequence[str], names: Sequence[str], geometries: Geometries
) -> tuple[list[str], list[str], Geometries]:
    import shapely

    rows: dict[str, list[int]] = {}
    for row, code in enumerate(codes):
        rows.setdefault(code, []).append(row)
    ordered = sorted(rows)
    merged = np.empty(len(ordered), dtype=object)
    for n, code in enumerate(ordered):
        parts = geometries[rows[code]]
        merged[n] = parts[0] if len(parts) == 1 else shapely.union_all(shapely.make_valid(parts))
    return ordered, [names[rows[code][0]] for code in ordered], merged


def _text(value: object) -> str:
    """A field's value as text; missing ones (None, NaN) as nothing."""
    return "" if value is None or value != value else str(value).strip()  # noqa: PLR0124 - NaN


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _one_line(error: Exception) -> str:
    return " ".join(str(error).split())[:200] or type(error).__name__
