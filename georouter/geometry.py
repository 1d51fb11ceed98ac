"""Coordinates, the canonical grid, and the exact predicates that decide a point near an edge.

Canonical polygons have every vertex on a grid of 1e-7 degrees; a vertex is the pair of integers
(`lon * 1e7`, `lat * 1e7`), and as a float it is that integer divided by 1e7. A point belongs to an
area when the canonical polygon *covers* it: inside or exactly on the border.

The tie rule, stated once: a point on a shared border belongs to every area that touches it there;
areas are numbered by layer, then by ascending code, and where one answer is wanted the lowest
number wins. So the answer is the same every time and in every process.
"""

from __future__ import annotations

import math
from fractions import Fraction

from georouter.model import InvalidCoordinate

SCALE = 10_000_000
"""Grid units per degree: a unit is at most 11.1 mm, so snapping moves a vertex at most 5.6 mm
along each axis."""


def check_coordinate(lon: float, lat: float) -> None:
    """Raise `InvalidCoordinate` unless both are finite degrees in range."""
    for field, value, limit in (("lon", lon, 180.0), ("lat", lat, 90.0)):
        if not math.isfinite(value):
            raise InvalidCoordinate(field, f"{field} must be a finite number of degrees")
        if not -limit <= value <= limit:
            raise InvalidCoordinate(
                field,
                f"{field} must be between {-limit:g} and {limit:g} degrees (WGS 84), not {value!r}",
            )


def side(px: float, py: float, x1: float, y1: float, x2: float, y2: float) -> int:
    """Exact sign of the cross product (edge start - point) x (edge end - point).

    Positive when the point is to the left of the directed edge, 0 when on its line. The float
    result is taken when it exceeds its own error bound (Shewchuk 1997, the constant rounded up);
    otherwise it is computed in rationals.
    """
    left = (x1 - px) * (y2 - py)
    right = (y1 - py) * (x2 - px)
    cross = left - right
    if abs(cross) > 1e-15 * (abs(left) + abs(right)):
        return 1 if cross > 0 else -1
    exact = (Fraction(x1) - Fraction(px)) * (Fraction(y2) - Fraction(py)) - (
        Fraction(y1) - Fraction(py)
    ) * (Fraction(x2) - Fraction(px))
    return (exact > 0) - (exact < 0)


def meets_ray(  # noqa: PLR0911 - one case a line
    px: float, py: float, x1: float, y1: float, x2: float, y2: float
) -> bool | None:
    """Whether the ray from the point towards +x crosses the edge; None when the point is on it.

    The half-open rule of ray crossing (an edge owns its lower end) makes each vertex count once.
    A fin is an edge whose far end is at infinity; it is always right of the point.
    """
    if x1 < px and x2 < px:
        return False
    if (x2 == px and y2 == py) or (x1 == px and y1 == py):
        return None
    if y1 == py and y2 == py:
        return None if min(x1, x2) <= px <= max(x1, x2) else False
    if (y1 <= py) == (y2 <= py):
        return False
    if x1 > px and x2 > px:
        return True
    sign = side(px, py, x1, y1, x2, y2)
    if sign == 0:
        return None
    return (sign > 0) == (y2 > y1)
