"""How far is the nearest border? What "within GPS accuracy of another authority" needs.

Looks at the edges in the cells around a point, in metres on a plane that touches the ellipsoid
there; over a kilometre that is right to well within 1 %. It promises every other area of a layer
whose border comes within the given distance, nearest first, and builds no geometry objects.
"""

from __future__ import annotations

from math import ceil, cos, radians, sqrt
from typing import Final

from georouter.codec import Compiled
from georouter.compiler import FIN_NARROW, FIN_WIDE, RECORD, SUB
from georouter.geometry import SCALE
from georouter.model import Layer, NearBorder

_MASK: Final = (1 << 24) - 1
_CHILDREN: Final = SUB - 1

FARTHEST_M: Final = 10_000.0
"""A plane is good enough up to here."""


def metres_per_degree(lat: float) -> tuple[float, float]:
    """Of longitude and of latitude at a latitude in degrees, on WGS 84.

    The radii of curvature of the ellipsoid (Snyder 1987, "Map Projections: A Working Manual",
    USGS Professional Paper 1395, equations 4-18 and 4-20), times pi/180.
    """
    squared_sine = 1.0 - cos(radians(lat)) ** 2
    curve = 1.0 - 0.00669437999014 * squared_sine
    prime_vertical = 6378137.0 / sqrt(curve)
    meridian = 6378137.0 * (1.0 - 0.00669437999014) / (curve * sqrt(curve))
    return radians(prime_vertical * cos(radians(lat))), radians(meridian)


class Nearest:
    """Searches the edges of one compiled index."""

    def __init__(self, compiled: Compiled) -> None:
        self._grid = compiled.grid
        arrays = compiled.arrays
        self._top, self._sub = arrays["top"].data, arrays["sub"].data
        self._records, self._palettes = arrays["records"].data, arrays["palettes"].data
        self._narrow = self._records.cast("B").cast("h")
        # which areas of which layer a palette's mask names
        self._others: dict[tuple[str, int, int], tuple[int, ...]] = {}

    def borders(
        self, *, lon: float, lat: float, layer: Layer, within_m: float, covering: tuple[int, ...]
    ) -> tuple[NearBorder, ...]:
        """Areas of `layer` not in `covering` with a border within `within_m`, nearest first."""
        if not 0.0 <= within_m <= FARTHEST_M:
            raise ValueError(f"within_m must be between 0 and {FARTHEST_M:.0f} metres")
        lon_m, lat_m = metres_per_degree(lat)
        x_m, y_m = lon_m / SCALE, lat_m / SCALE
        px, py = lon * SCALE - self._grid.x0, lat * SCALE - self._grid.y0
        reach_x, reach_y = ceil(within_m / max(x_m, 1e-9)) + 1, ceil(within_m / y_m) + 1
        box = (int(px) - reach_x, int(py) - reach_y, int(px) + reach_x, int(py) + reach_y)
        best: dict[int, float] = {}
        limit = within_m * within_m
        for record, x, y in self._records_in(box):
            at = (px - x, py - y, x_m, y_m)
            near = (box[0] - x, box[1] - y, box[2] - x, box[3] - y)
            self._measure(record, near, at, layer, covering, best, limit)
        found = [(sqrt(squared), area) for area, squared in best.items()]
        return tuple(NearBorder(area, distance) for distance, area in sorted(found))

    def _records_in(self, box: tuple[int, int, int, int]) -> list[tuple[int, int, int]]:
        """The records of the cells that the box meets, and the centres of those cells.

        All of it in units from the corner of the grid.
        """
        grid, top, sub = self._grid, self._top, self._sub
        shift = grid.shifts[0]
        half = (1 << shift) >> 1
        west, south, east, north = box
        found: list[tuple[int, int, int]] = []
        pending: list[tuple[int, int, int, int]] = []  # children's position, level, corner
        for row in range(max(0, south >> shift), min(grid.rows - 1, north >> shift) + 1):
            for column in range(max(0, west >> shift), min(grid.columns - 1, east >> shift) + 1):
                word = top[row * grid.columns + column]
                if word >= RECORD:
                    found.append((word - RECORD, (column << shift) + half, (row << shift) + half))
                elif word >= SUB:
                    pending.append((word & _CHILDREN, 1, column << shift, row << shift))
        while pending:
            first, level, x, y = pending.pop()
            shift = grid.shifts[level]
            half = (1 << shift) >> 1
            bits = grid.shifts[level - 1] - shift
            last = (1 << bits) - 1
            left, right = max(0, (west - x) >> shift), min(last, (east - x) >> shift)
            for row in range(max(0, (south - y) >> shift), min(last, (north - y) >> shift) + 1):
                at = first + (row << bits)
                for column in range(left, right + 1):
                    word = sub[at + column]
                    if word >= SUB:
                        cell_x, cell_y = x + (column << shift), y + (row << shift)
                        if word >= RECORD:
                            found.append((word - RECORD, cell_x + half, cell_y + half))
                        else:
                            pending.append((word & _CHILDREN, level + 1, cell_x, cell_y))
        return found

    def _measure(  # noqa: C901 - split up it would call functions per edge
        self,
        record: int,
        box: tuple[int, int, int, int],
        point: tuple[float, float, float, float],
        layer: Layer,
        covering: tuple[int, ...],
        best: dict[int, float],
        limit: float,
    ) -> None:
        """Put the squared distances to the borders of other areas in `best` where they are less."""
        records = self._records
        west, south, east, north = box
        px, py, x_m, y_m = point
        palette = records[record]
        at = record + 2
        for _ in range((records[record + 1] >> 24) & 0xFF):
            head, start = records[at], at + 1
            at = start + ((head >> 24) & 0x7F) * (2 if head < 0 else 1)
            others = [
                area for area in self._named(palette, head & _MASK, layer) if area not in covering
            ]
            if not others:
                continue
            chain = (records[start:at] if head < 0 else self._narrow[2 * start : 2 * at]).tolist()
            fin = FIN_WIDE if head < 0 else FIN_NARROW
            xs, ys = chain[::2], chain[1::2]
            if max(xs) < west or min(xs) > east or max(ys) < south or min(ys) > north:
                continue
            nearest = limit
            ax = ay = 0.0
            previous_y = fin  # no edge leads to the first vertex, nor to or from a fin's far end
            for x, y in zip(xs, ys, strict=True):
                bx, by = (x - px) * x_m, (y - py) * y_m
                if fin not in (previous_y, y):
                    run, rise = bx - ax, by - ay
                    along = -(ax * run + ay * rise)
                    length = run * run + rise * rise
                    if along <= 0.0 or length == 0.0:
                        squared = ax * ax + ay * ay
                    elif along >= length:
                        squared = bx * bx + by * by
                    else:
                        across = ax * rise - ay * run
                        squared = across * across / length
                    nearest = min(nearest, squared)
                ax, ay, previous_y = bx, by, y
            if nearest < limit:
                for area in others:
                    if nearest < best.get(area, limit):
                        best[area] = nearest

    def _named(self, palette: int, mask: int, layer: Layer) -> tuple[int, ...]:
        key = (layer.name, palette, mask)
        found = self._others.get(key)
        if found is None:
            size = self._palettes[palette - 1]
            near = size & 0xFF
            start = palette - 1 - (size >> 8) - near
            local = self._palettes[start : start + near].tolist()
            found = self._others[key] = tuple(
                area
                for bit, area in enumerate(local)
                if mask >> bit & 1 and layer.first <= area < layer.stop
            )
        return found
