"""The rings of ground on which agreements count, found by place.

Answers which of them a point is on or near, and how deep inside or how far away it is. They are few
and small, and change without a dataset being built, so they are kept apart from the index: in a
table of squares, a look at which is all that a point far from any of them costs.
"""

from __future__ import annotations

from collections.abc import Iterable
from math import floor, sqrt
from typing import Final, NamedTuple

from georouter.geometry import meets_ray
from georouter.model import Agreement
from georouter.nearest import metres_per_degree

FARTHEST_M: Final = 1000.0
"""How far from a ring it can still be found."""

_SQUARE: Final = 0.02  # degrees


class Ground(NamedTuple):
    """An agreement whose ring is near: `distance_m` is 0 inside it, `depth_m` is 0 outside."""

    agreement: Agreement
    distance_m: float
    depth_m: float


class Grounds:
    """The agreements that have a ring."""

    def __init__(self, agreements: Iterable[Agreement]) -> None:
        self._squares: dict[tuple[int, int], list[Agreement]] = {}
        for agreement in agreements:
            if agreement.ring:
                for square in _squares(agreement.ring):
                    self._squares.setdefault(square, []).append(agreement)

    def near(self, *, lon: float, lat: float, within_m: float) -> list[Ground]:
        """The agreements whose ring the point is in or within `within_m` metres of.

        In the order of the file, the rings that cover the point first.
        """
        found: list[Ground] = []
        for agreement in self._squares.get((floor(lon / _SQUARE), floor(lat / _SQUARE)), ()):
            inside, edge_m = _measure(agreement.ring, lon, lat)
            if inside:
                found.append(Ground(agreement, 0.0, edge_m))
            elif edge_m <= min(within_m, FARTHEST_M):
                found.append(Ground(agreement, edge_m, 0.0))
        return sorted(found, key=lambda ground: ground.distance_m)


def _squares(ring: tuple[tuple[float, float], ...]) -> Iterable[tuple[int, int]]:
    """The squares that come within `FARTHEST_M` of the ring's bounding box."""
    lons, lats = [lon for lon, _ in ring], [lat for _, lat in ring]
    lon_m, lat_m = metres_per_degree(max(map(abs, lats)))
    aside, along = FARTHEST_M / max(lon_m, 1.0), FARTHEST_M / lat_m
    for column in range(
        floor((min(lons) - aside) / _SQUARE), floor((max(lons) + aside) / _SQUARE) + 1
    ):
        for row in range(
            floor((min(lats) - along) / _SQUARE), floor((max(lats) + along) / _SQUARE) + 1
        ):
            yield column, row


def _measure(ring: tuple[tuple[float, float], ...], lon: float, lat: float) -> tuple[bool, float]:
    """Whether the ring covers the point, and how far its nearest edge is in metres."""
    lon_m, lat_m = metres_per_degree(lat)
    inside, nearest = False, float("inf")
    for (x1, y1), (x2, y2) in zip(ring, (*ring[1:], ring[0]), strict=True):
        meets = meets_ray(lon, lat, x1, y1, x2, y2)
        if meets is None:
            return True, 0.0
        inside ^= meets
        ax, ay = (x1 - lon) * lon_m, (y1 - lat) * lat_m
        run, rise = (x2 - x1) * lon_m, (y2 - y1) * lat_m
        length = run * run + rise * rise
        share = 0.0 if length == 0.0 else min(1.0, max(0.0, -(ax * run + ay * rise) / length))
        nearest = min(nearest, (ax + share * run) ** 2 + (ay + share * rise) ** 2)
    return inside, sqrt(nearest)
