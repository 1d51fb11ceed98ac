"""The areas of a dataset as GEOS geometries, and their size on the ground.

Answers how many square metres a polygon has, and puts it on a plane on which circles stay circles,
to ask how wide it is. Polygons are in degrees, as canonical polygons are.
"""

from __future__ import annotations

from typing import Any, Final

import numpy as np
import numpy.typing as npt
import shapely

from boundaries.areas import LayerAreas
from boundaries.readers import Geometries
from georouter.geometry import SCALE

Floats = npt.NDArray[np.float64]

_AXIS_M: Final = 6378137.0
_ECCENTRICITY: Final = np.sqrt(0.00669437999014)  # WGS 84


def polygons(areas: LayerAreas) -> Geometries:
    """The canonical polygons, one for each code."""
    degrees = np.column_stack([areas.x, areas.y]) / SCALE
    rings = _begins(areas.ring_part, int(areas.part_area.size))
    parts = _begins(areas.part_area, len(areas.codes))
    offsets = (areas.ring_starts, rings, parts)
    return np.asarray(
        shapely.from_ragged_array(shapely.GeometryType.MULTIPOLYGON, degrees, offsets), dtype=object
    )


def _begins(owner: npt.NDArray[np.int32], owners: int) -> npt.NDArray[np.int64]:
    return np.searchsorted(owner, np.arange(owners + 1)).astype(np.int64)


def square_metres(geometries: Any) -> Floats:
    """The areas of polygons in degrees.

    On the cylinder of equal area around WGS 84 (Snyder 1987, "Map Projections: A Working Manual",
    USGS Professional Paper 1395, equations 3-12 and 10-1 ff.), edges straight there.
    """

    def equal_area(degrees: Floats) -> Floats:
        e = _ECCENTRICITY
        sine = np.sin(np.radians(degrees[:, 1]))
        q = (1 - e * e) * (
            sine / (1 - (e * sine) ** 2) - np.log((1 - e * sine) / (1 + e * sine)) / (2 * e)
        )
        return np.column_stack([_AXIS_M * np.radians(degrees[:, 0]), _AXIS_M * q / 2])

    return np.asarray(shapely.area(shapely.transform(geometries, equal_area)), dtype=np.float64)


def flat(geometries: Any) -> Any:
    """Geometries in degrees on Mercator's plane, on which `plane_metres` says what a metre is."""
    return shapely.transform(geometries, on_plane)


def on_plane(degrees: Floats) -> Floats:
    """Places in degrees, shape (n, 2), on the plane of `flat`."""
    lat = np.radians(np.clip(degrees[:, 1], -89.9, 89.9))
    return np.column_stack([np.radians(degrees[:, 0]), np.arcsinh(np.tan(lat))])


def plane_metres(lat: Any) -> Any:
    """How long a metre is on the plane at a latitude in degrees, right to half a percent."""
    return 1.0 / (_AXIS_M * np.cos(np.radians(lat)))
