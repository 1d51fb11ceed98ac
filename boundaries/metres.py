"""Square metres and widths of polygons in degrees.

Areas are exact on the ellipsoid, as far as lines are straight in degrees; widths are taken on a
plane that fits at the polygon's middle, which does for what is small enough to be a sliver.
"""

from __future__ import annotations

from math import sqrt
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import shapely

from boundaries.readers import Geometries
from georouter.nearest import metres_per_degree

_AXIS_M: Final = 6378137.0
_SQUARED_ECCENTRICITY: Final = 0.00669437999014


def square_metres(geometries: Geometries) -> npt.NDArray[np.float64]:
    """The areas on WGS 84, by the cylindrical equal-area projection.

    Snyder 1987, "Map Projections: A Working Manual", equations 3-12, 10-14 and 10-15.
    """
    e = sqrt(_SQUARED_ECCENTRICITY)

    def project(degrees: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
        sine = np.sin(np.radians(degrees[:, 1]))
        q = (1 - e * e) * (
            sine / (1 - e * e * sine * sine) - np.log((1 - e * sine) / (1 + e * sine)) / (2 * e)
        )
        return np.column_stack([_AXIS_M * np.radians(degrees[:, 0]), _AXIS_M * q / 2])

    # one by one: the coordinates of a whole country are not held twice
    return np.array([shapely.area(shapely.transform(one, project)) for one in geometries.flat])


def lengths_m(geometries: Geometries) -> npt.NDArray[np.float64]:
    """The lengths of lines or borders, each on a plane that fits at its middle."""
    return np.array([shapely.length(_plane(one)) for one in geometries.flat])


def mean_width_m(polygon: Any, area_m2: float) -> float:
    """Twice the area by the length of the border: the width of a strip."""
    return 2 * area_m2 / max(float(shapely.length(_plane(polygon))), 1e-9)


def width_m(polygon: Any) -> float:
    """The width at the widest place: the diameter of the largest circle inside, to 0.1 m."""
    circle = shapely.maximum_inscribed_circle(_plane(polygon), tolerance=0.05)
    return 2 * float(shapely.length(circle))


def _plane(geometry: Any) -> Any:
    _, south, _, north = shapely.bounds(geometry)
    if not np.isfinite(south):
        return geometry
    return shapely.transform(
        geometry, lambda degrees: degrees * metres_per_degree((south + north) / 2)
    )
