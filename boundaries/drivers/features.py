"""Features as services give them, into a GeoParquet file that keeps their coordinate system.

Coordinates are taken as they are; nothing is repaired or projected. The same features give the same
bytes, so that the cache sees when a service has nothing new.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from boundaries.drivers.remote import RemoteError, one_line

Ring = npt.NDArray[np.float64]


def write_features(
    path: Path,
    attributes: Sequence[Mapping[str, Any]],
    geometries: Sequence[Any],
    *,
    crs: str,
    where: str,
) -> Path:
    """Write GeoParquet; `crs` is such as EPSG:27700. Raises `RemoteError`, which says `where`."""
    import geopandas
    import pyarrow as pa
    import pyproj.exceptions

    column = np.empty(len(geometries), dtype=object)
    column[:] = geometries
    try:
        frame = geopandas.GeoDataFrame(list(attributes), geometry=column, crs=crs)
        frame.to_parquet(path)
    except pyproj.exceptions.CRSError:
        raise RemoteError(f"{where} is in {crs}, which nobody knows") from None
    except (pa.ArrowException, ValueError, TypeError) as error:
        raise RemoteError(f"{where} gives features that make no table: {one_line(error)}") from None
    return path


def from_esri(geometry: Mapping[str, Any] | None, where: str) -> Any:
    """A polygon of Esri's rings or a line of its paths; None where there is none.

    Raises `RemoteError`, which says `where`.
    """
    import shapely

    if not geometry:
        return None
    try:
        if "rings" in geometry:
            return _polygons([_points(ring) for ring in geometry["rings"]], where)
        if "paths" in geometry:
            lines = [shapely.linestrings(_points(path)) for path in geometry["paths"]]
            return lines[0] if len(lines) == 1 else shapely.multilinestrings(lines)
    except (shapely.errors.GEOSException, TypeError, ValueError, IndexError) as error:
        raise RemoteError(f"{where}: its geometry is none: {one_line(error)}") from None
    kinds = ", ".join(geometry)
    raise RemoteError(f"{where}: a geometry of {kinds} is neither polygons nor plain lines")


def _points(points: Any) -> Ring:
    """The plane coordinates, without heights and measures."""
    return np.asarray(points or np.empty((0, 2)), dtype=np.float64)[:, :2]


def _polygons(rings: Sequence[Ring], where: str) -> Any:
    """Outer rings run clockwise, holes the other way, in any order: each hole is given its ring.

    A hole belongs to the smallest outer ring around it, since islands may lie in lakes.
    """
    import shapely

    # fewer than three corners enclose no ground
    turns = [(_twice_the_area(ring), shapely.linearrings(ring)) for ring in rings if len(ring) > 3]
    outer = np.array([ring for area, ring in turns if area <= 0], dtype=object)
    holes = np.array([ring for area, ring in turns if area > 0], dtype=object)
    shells = shapely.polygons(outer)
    inside: list[list[Any]] = [[] for _ in outer]
    if len(holes):
        sizes = shapely.area(shells)
        hole, shell = shapely.STRtree(shells).query(shapely.polygons(holes), predicate="covered_by")
        for n in range(len(holes)):
            around = shell[hole == n]
            if not len(around):
                raise RemoteError(f"{where}: a ring runs as a hole and lies in no other ring")
            inside[around[np.argmin(sizes[around])]].append(holes[n])
    parts = [
        shapely.polygons(ring, within or None) for ring, within in zip(outer, inside, strict=True)
    ]
    return parts[0] if len(parts) == 1 else shapely.multipolygons(parts)


def _twice_the_area(ring: Ring) -> float:
    """Below 0 where it runs clockwise."""
    x, y = (ring - ring[0]).T  # near the origin nothing is lost to rounding
    return float(np.dot(x[:-1], y[1:]) - np.dot(x[1:], y[:-1]))
