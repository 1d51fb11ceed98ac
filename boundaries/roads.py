"""Special roads as layers: the ground of trunk roads and red routes, and the body that mends each.

Lines are buffered in metres on a plane through the middle of the data; polygons are taken as they
are. It promises one area per road number and body, with codes that no council has; whether the body
is right is the source's affair.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
import pyproj
import shapely

from boundaries.readers import LINES_AND_POLYGONS, Features, Geometries, SourceError, read_rows
from georouter.model import Road

DEFAULT_BUFFER_M: Final = 15.0
"""Half the width that counts as on the road, from its centre line: what FixMyStreet takes for
National Highways and Traffic Scotland."""


@dataclass(frozen=True, slots=True)
class RoadsLayer:
    """A roads layer as read: an area per stretch, and what each stands for by its code."""

    features: Features
    roads: dict[str, Road]


def read_roads(
    path: Path,
    *,
    body: tuple[str, str] | None = None,
    buffer_m: float = DEFAULT_BUFFER_M,
) -> RoadsLayer:
    """Read the roads of a file; `body` is the code and name of the one that mends them all.

    Without it the fields for codes and names are taken to be the body's. The road's number is in a
    field `road`; where there is none, in the name field. Raises `SourceError`.
    """
    rows = read_rows(path, kinds=LINES_AND_POLYGONS, also=["road"])
    numbers = rows.also.get("road", rows.names)
    missing = [n for n, number in enumerate(numbers) if not number]
    if missing:
        raise SourceError(f"{path}: row {missing[0] + 1} has no road number; complete the field")
    ground = _buffered(rows.geometries, buffer_m)
    stretches: dict[tuple[str, str], list[int]] = {}
    names: dict[str, str] = {}
    for n, number in enumerate(numbers):
        code, name = body or (rows.codes[n], rows.names[n])
        names[code] = name
        stretches.setdefault((code, number), []).append(n)
    roads = {
        f"{code} {number}": Road(number=number, body=code, body_name=names[code])
        for code, number in sorted(stretches)
    }
    ordered = sorted(roads)
    merged = np.empty(len(ordered), dtype=object)
    for position, area in enumerate(ordered):
        road = roads[area]
        merged[position] = shapely.union_all(ground[stretches[road.body, road.number]])
    return RoadsLayer(
        features=Features(
            codes=tuple(ordered),
            # with the body's name, so that the index, and its digest, differ by all that decides
            names=tuple(f"{roads[area].number}, {roads[area].body_name}" for area in ordered),
            geometries=merged,
            origin={**rows.origin, "buffer_m": buffer_m},
        ),
        roads=roads,
    )


def _buffered(geometries: Geometries, buffer_m: float) -> Geometries:
    """Lines as ground, in degrees; polygons unchanged."""
    ground = geometries.copy()
    lines = np.isin(shapely.get_type_id(ground), [1, 5])
    if lines.any():
        west, south, east, north = shapely.total_bounds(ground)
        plane = pyproj.Transformer.from_crs(
            "EPSG:4326",
            f"+proj=aeqd +lon_0={(west + east) / 2} +lat_0={(south + north) / 2} +ellps=WGS84",
            always_xy=True,
        )
        flat = shapely.transform(
            ground[lines], _both(plane, pyproj.enums.TransformDirection.FORWARD)
        )
        wide = shapely.buffer(flat, buffer_m, quad_segs=4)
        ground[lines] = shapely.transform(
            wide, _both(plane, pyproj.enums.TransformDirection.INVERSE)
        )
    return ground


def _both(plane: Any, direction: Any) -> Any:
    def convert(xy: Any) -> Any:
        return np.column_stack(plane.transform(xy[:, 0], xy[:, 1], direction=direction))

    return convert
