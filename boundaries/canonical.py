"""Makes polygons canonical: on the grid of 1e-7 degrees and valid, saying what had to be repaired.

Promises the same result for the same input, and for each polygon that was not valid a reason, a
place and how much ground the repair decided on.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import shapely

from boundaries.findings import Repair
from boundaries.metres import square_metres
from boundaries.readers import Geometries
from georouter.compiler import CompileError
from georouter.geometry import SCALE

_MOST_REPAIRS: Final = 8


def canonical(geometries: Geometries) -> tuple[Geometries, list[int]]:
    """The canonical polygons, and the positions of those that needed repair.

    Every vertex is moved to the grid of 1e-7 degrees (at most 5.6 mm along each axis). A polygon
    that is not valid then is made valid by GEOS and moved to the grid again, until it stays valid;
    where a few rounds do not get there, snap rounding does (GEOS `set_precision`).
    """
    snapped = _snap(geometries)
    invalid = np.nonzero(~shapely.is_valid(snapped))[0]
    repaired = invalid.tolist()
    for _ in range(_MOST_REPAIRS):
        if not len(invalid):
            break
        fixed = shapely.make_valid(snapped[invalid], method="structure", keep_collapsed=False)
        snapped[invalid] = _snap(polygons_only(fixed))
        invalid = invalid[~shapely.is_valid(snapped[invalid])]
    if len(invalid):
        fixed = shapely.set_precision(shapely.make_valid(snapped[invalid]), 1 / SCALE)
        snapped[invalid] = _snap(polygons_only(fixed))
    if not shapely.is_valid(snapped).all():
        where = shapely.is_valid_reason(snapped[~shapely.is_valid(snapped)][0])
        raise CompileError(f"a polygon cannot be made valid on the grid of 1e-7 degrees: {where}")
    return snapped, repaired


def repairs(
    codes: Sequence[str], before: Geometries, after: Geometries, repaired: Sequence[int]
) -> list[Repair]:
    """What `canonical` did to the polygons that needed repair."""
    told = []
    for n in repaired:
        drawn = _snap(before[n : n + 1])[0]
        (reason, at), *_ = faults(drawn)
        moved = shapely.symmetric_difference(shapely.make_valid(drawn), after[n])
        (moved_m2,) = square_metres(polygons_only(np.array([moved], dtype=object)))
        lon, lat = at or (None, None)
        told.append(Repair(codes[n], reason, lon, lat, round(float(moved_m2), 2)))
    return told


def faults(geometry: Any) -> list[tuple[str, tuple[float, float] | None]]:
    """Why a geometry is not valid: the first reason of each of its parts, and where."""
    parts = shapely.get_parts(geometry)
    wrong = parts[~shapely.is_valid(parts)]
    if not len(wrong) and not shapely.is_valid(geometry):
        wrong = [geometry]  # its parts get in each other's way
    return [_fault(one) for one in wrong]


def _fault(geometry: Any) -> tuple[str, tuple[float, float] | None]:
    said = str(shapely.is_valid_reason(geometry))
    place = re.fullmatch(r"(.*?)\s*\[(\S+) (\S+)\]", said)
    if place is None:
        return said.lower(), None
    return place[1].lower(), (round(float(place[2]), 7), round(float(place[3]), 7))


def _snap(geometries: Geometries) -> Geometries:
    def to_grid(degrees: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
        return np.rint(degrees * SCALE) / SCALE

    return np.asarray(shapely.transform(geometries, to_grid), dtype=object)


def polygons_only(geometries: Geometries) -> Geometries:
    """What an operation left over as lines and points is dropped."""
    kept = np.empty(len(geometries), dtype=object)
    for n, geometry in enumerate(geometries):
        kept[n] = shapely.MultiPolygon(polygons_of(geometry))  # empty when nothing is left
    return kept


def polygons_of(geometry: Any) -> list[Any]:
    """The polygons that a geometry is made of."""
    parts = shapely.get_parts(shapely.get_parts(geometry))
    return [part for part in parts if part.geom_type == "Polygon" and not part.is_empty]
