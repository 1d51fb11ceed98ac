"""Checks of one layer: its codes, each area by itself, and how areas lie to each other.

Promises findings for canonical polygons, empty ones among them, and for the polygons as they were
read. It changes nothing.
"""

from __future__ import annotations

import csv
import re
import tomllib
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Final

import numpy as np
import shapely

from boundaries.canonical import faults
from boundaries.findings import Finding, Repair, found
from boundaries.metres import lengths_m, square_metres
from boundaries.readers import Features, Geometries, SourceError, SourceNotFoundError
from boundaries.seams import SliverLimits, seams
from georouter.nearest import metres_per_degree

_GSS: Final = re.compile(r"[A-Z]\d{8}")
_GSS_TABLE: Final = Path(__file__).with_name("gss.toml")
_CODE_COLUMN: Final = re.compile(r"gss(_?code|_\d{4})?|code|[a-z]+\d\dcd", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class Limits:
    """From where on something is reported.

    `ground` (west, south, east, north) is where areas are expected; it tells swapped axes. 500 m
    layers have about 0.5 vertices per km of border, 20 m ones 7, full resolution 50.
    """

    slivers: SliverLimits = field(default_factory=SliverLimits)
    tiny_m2: float = 10_000.0
    far_km: float = 200.0
    vertices_per_km: float = 2.0
    change_percent: float = 5.0
    ground: tuple[float, float, float, float] = (-14.0, 49.0, 4.0, 62.0)

    def with_slivers(self, *, m2: float | None = None, width_m: float | None = None) -> Limits:
        """The same with other limits for slivers; None leaves one as it is."""
        given = {"m2": m2, "width_m": width_m}
        chosen = {name: value for name, value in given.items() if value is not None}
        return replace(self, slivers=replace(self.slivers, **chosen))


def check_read(layer: str, features: Features) -> Iterator[Finding]:
    """What is wrong with a layer as it was read, before anything is repaired."""
    for code, names in features.rows.items():
        differ = sorted(set(names))
        said = f", named {' and '.join(map(repr, differ))}" if len(differ) > 1 else ""
        yield found(
            "duplicate_code", layer, f"{len(names)} rows have the code {code}{said}", area=code
        )
    for n in np.nonzero(~shapely.is_valid(features.geometries))[0].tolist():
        code = features.codes[n]
        for reason, at in faults(features.geometries[n]):
            yield found("invalid_ring", layer, f"{code}: {reason}", area=code, at=at)


def check_repairs(layer: str, repairs: Sequence[Repair], limits: Limits) -> Iterator[Finding]:
    """Repairs that decided on ground."""
    for one in repairs:
        if one.moved_m2 >= limits.slivers.m2:
            yield found(
                "doubtful_repair",
                layer,
                f"{one.area}: {one.reason}; made valid, but that can be done in two ways, which "
                f"differ by {one.moved_m2:,.0f} m²",
                area=one.area,
                at=None if one.lon is None or one.lat is None else (one.lon, one.lat),
                area_m2=one.moved_m2,
            )


def check_layer(
    layer: str, features: Features, limits: Limits, *, known: frozenset[str] | None = None
) -> Iterator[Finding]:
    """What is wrong with a layer of canonical polygons; `known` has the codes of authorities."""
    full = ~shapely.is_empty(features.geometries)
    codes = tuple(code for code, kept in zip(features.codes, full, strict=True) if kept)
    geometries = features.geometries[full]
    yield from _codes(layer, features.codes, known)
    if not codes:
        return
    yield from _axes(layer, codes, geometries, limits)
    yield from _antimeridian(layer, codes, geometries)
    yield from _tiny(layer, codes, geometries, limits)
    yield from _far(layer, codes, geometries, limits)
    yield from _coarse(layer, geometries, limits)
    yield from seams(layer, codes, geometries, limits.slivers)


def read_authorities(path: Path) -> frozenset[str]:
    """The codes in a CSV of authorities, all columns of codes together. Raises `SourceError`."""
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            rows = list(csv.DictReader(file))
    except FileNotFoundError:
        raise SourceNotFoundError(f"{path} does not exist or is no file") from None
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise SourceError(f"{path} cannot be read as CSV: {error}") from None
    columns = [name for name in (rows[0] if rows else ()) if _CODE_COLUMN.fullmatch(name or "")]
    if not columns:
        raise SourceError(f"{path} has no column of codes; name it gss or code")
    return frozenset(row[name] for row in rows for name in columns if row[name])


def _codes(layer: str, codes: Sequence[str], known: frozenset[str] | None) -> Iterator[Finding]:
    """Codes that are not in the table; without one, those that are no GSS codes, by beginning."""
    if known is not None:
        for code in codes:
            if code not in known:
                yield found(
                    "unknown_code", layer, f"{code} is not in the table of authorities", area=code
                )
        return
    if sum(bool(_GSS.fullmatch(code)) for code in codes) * 2 < len(codes):
        return  # codes of another kind altogether
    kinds = tomllib.loads(_GSS_TABLE.read_text(encoding="utf-8"))["codes"]
    odd: dict[str, list[str]] = defaultdict(list)
    for code in codes:
        if not (_GSS.fullmatch(code) and code[:3] in kinds):
            odd[code[:3]].append(code)
    for some in odd.values():
        rest = f" and {len(some) - 1} more that begin so" if len(some) > 1 else ""
        yield found(
            "unknown_code",
            layer,
            f"{some[0]}{rest}: no GSS code of a kind of area in boundaries/gss.toml",
            area=some[0],
            others=some[1:],
        )


def _axes(
    layer: str, codes: Sequence[str], geometries: Geometries, limits: Limits
) -> Iterator[Finding]:
    ground = shapely.box(*limits.ground)
    boxes = shapely.envelope(geometries)
    turned = shapely.transform(boxes, lambda degrees: degrees[:, ::-1])
    wrong = np.nonzero(~shapely.intersects(ground, boxes) & shapely.covers(ground, turned))[0]
    if len(wrong):
        first = wrong[0]
        rest = f" and {len(wrong) - 1} more" if len(wrong) > 1 else ""
        yield found(
            "swapped_axes",
            layer,
            f"{codes[first]}{rest}: longitude and latitude are the wrong way round; "
            "swap them, e.g. with `ogr2ogr -swapxy`",
            area=codes[first],
            others=[codes[n] for n in wrong[1:].tolist()],
            at=shapely.get_coordinates(geometries[first])[0],
        )


def _antimeridian(layer: str, codes: Sequence[str], geometries: Geometries) -> Iterator[Finding]:
    parts, owner = shapely.get_parts(geometries, return_index=True)
    west, _, east, _ = shapely.bounds(parts).T
    for n in np.nonzero(east - west > 180)[0].tolist():
        code = codes[owner[n]]
        yield found(
            "antimeridian",
            layer,
            f"{code}: a polygon is wider than half the globe; cut it at 180 degrees",
            area=code,
            at=shapely.get_coordinates(parts[n])[0],
        )


def _tiny(
    layer: str, codes: Sequence[str], geometries: Geometries, limits: Limits
) -> Iterator[Finding]:
    areas = square_metres(geometries)
    for n in np.nonzero(areas < limits.tiny_m2)[0].tolist():
        point = shapely.point_on_surface(geometries[n])
        yield found(
            "tiny_area",
            layer,
            f"{codes[n]} has {areas[n]:,.2f} m² only",
            area=codes[n],
            at=(point.x, point.y),
            area_m2=areas[n],
        )


def _far(
    layer: str, codes: Sequence[str], geometries: Geometries, limits: Limits
) -> Iterator[Finding]:
    """Parts whose box, grown by half the limit, meets no chain of boxes to most of the areas."""
    parts, owner = shapely.get_parts(geometries, return_index=True)
    boxes = shapely.envelope(parts)
    _, south, _, north = shapely.total_bounds(boxes)
    lon_m, lat_m = metres_per_degree(max(-80.0, min(80.0, (south + north) / 2)))
    plane = shapely.transform(boxes, lambda degrees: degrees * (lon_m / 1000, lat_m / 1000))
    grown = shapely.buffer(shapely.union_all(plane), limits.far_km / 2, quad_segs=4)
    lumps = shapely.get_parts(grown)
    part, lump = shapely.STRtree(lumps).query(plane, predicate="intersects")
    most = np.bincount(lump, minlength=len(lumps)).argmax()
    told: set[tuple[int, int]] = set()
    for n, where in zip(part.tolist(), lump.tolist(), strict=True):
        if where == most or (owner[n], where) in told:
            continue
        told.add((owner[n], where))
        code = codes[owner[n]]
        away = shapely.distance(plane[n], shapely.union_all(plane[part[lump == most]].tolist()))
        yield found(
            "far_from_rest",
            layer,
            f"{code}: a part lies {away:,.0f} km from the rest",
            area=code,
            at=shapely.get_coordinates(parts[n])[0],
        )


def _coarse(layer: str, geometries: Geometries, limits: Limits) -> Iterator[Finding]:
    kilometres = float(lengths_m(geometries).sum()) / 1000
    density = int(shapely.get_num_coordinates(geometries).sum()) / kilometres
    if density < limits.vertices_per_km:
        yield found(
            "coarse_resolution",
            layer,
            f"borders have {density:.1f} vertices per km, and should have "
            f"{limits.vertices_per_km:g} or more; take a finer edition, such as BGC or BFC",
        )
