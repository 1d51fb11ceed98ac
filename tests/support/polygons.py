"""Tiny areas for tests, drawn with letters or listed by vertices, and what GEOS says of them.

Polygons are in whole grid units (1e-7 degrees) until `degrees` makes canonical polygons of them.
"""

from __future__ import annotations

from collections.abc import Mapping
from fractions import Fraction
from itertools import pairwise
from typing import Any

import numpy as np
import numpy.typing as npt
import shapely

from georouter.compiler import LayerRings, compile_index
from georouter.geometry import SCALE
from georouter.index import Index

Areas = Mapping[str, Any]
"""Shapely polygons in grid units by code."""

Points = npt.NDArray[np.float64]
"""Longitude and latitude in degrees, shape (n, 2)."""


def layer(name: str, areas: Areas) -> LayerRings:
    """A layer as the compiler takes it."""
    x: list[int] = []
    y: list[int] = []
    starts, owner = [0], []
    for number, code in enumerate(sorted(areas)):
        for ring in shapely.get_rings(shapely.get_parts(areas[code])):
            units = shapely.get_coordinates(ring).astype(np.int64)
            x += units[:, 0].tolist()
            y += units[:, 1].tolist()
            starts.append(len(x))
            owner.append(number)
    return LayerRings(
        name=name,
        codes=tuple(sorted(areas)),
        names=tuple(f"Area {code}" for code in sorted(areas)),
        x=np.array(x, dtype=np.int64),
        y=np.array(y, dtype=np.int64),
        starts=np.array(starts, dtype=np.int64),
        owner=np.array(owner, dtype=np.int64),
    )


def index_of(**layers: Areas) -> Index:
    """A compiled index with a layer per keyword, in this order."""
    return Index(compile_index([layer(name, areas) for name, areas in layers.items()]))


def degrees(areas: Areas) -> npt.NDArray[Any]:
    """The canonical polygons, ascending by code."""
    shapes = np.array([areas[code] for code in sorted(areas)], dtype=object)
    return np.asarray(shapely.transform(shapes, lambda units: units / SCALE), dtype=object)


def draw(*pictures: str, side: int, x0: int = 0, y0: int = 0) -> dict[str, Any]:
    """The areas of a picture such as "AAB/ACB": rows from north to south, "." is nobody's.

    A letter is `side` units wide and high; the lower left corner is `x0`, `y0`. Pictures of the
    same size laid over each other make areas that overlap.
    """
    cells: dict[str, list[Any]] = {}
    for picture in pictures:
        rows = picture.split("/")
        for row, letters in enumerate(rows):
            for column, code in enumerate(letters):
                x, y = x0 + column * side, y0 + (len(rows) - 1 - row) * side
                if code != ".":
                    cells.setdefault(code, []).append(shapely.box(x, y, x + side, y + side))
    return {code: shapely.union_all(boxes) for code, boxes in cells.items()}


class Drawing:
    """An index of layers drawn with letters; a place in it is a column and a row of the picture.

    Columns and rows count from the upper left corner, so that 0.5, 0.5 is the middle of the first
    letter and 1, 1 the corner that it shares with three others. A layer is one picture, or several
    laid over each other.
    """

    def __init__(
        self,
        *layers: str | tuple[str, ...],
        side: int = 1000,
        x0: int = 20_000_000,
        y0: int = 540_000_000,
    ) -> None:
        pictures = [(one,) if isinstance(one, str) else one for one in layers]
        rows = pictures[0][0].split("/")
        self.width, self.height = len(rows[0]), len(rows)
        self._side, self._x0, self._y0 = side, x0, y0
        self.layers = {
            f"layer {n}": draw(*some, side=side, x0=x0, y0=y0)
            for n, some in enumerate(pictures, start=1)
        }
        self.index = index_of(**self.layers)

    def place(self, column: float, row: float) -> tuple[float, float]:
        """Longitude and latitude."""
        x = self._x0 + column * self._side
        y = self._y0 + (self.height - row) * self._side
        return x / SCALE, y / SCALE

    def covering(self, column: float, row: float) -> str:
        """The codes of the areas that cover a place, of all layers, as one word."""
        lon, lat = self.place(column, row)
        return "".join(self.index.areas[n].code for n in self.index.covering(lon=lon, lat=lat))

    def disagreements(self) -> list[str]:
        """Where the index and GEOS differ: corners, middles of sides and letters, and beside them.

        A place is also left by one unit in the last place, and by half a unit and one of the grid.
        """
        columns = np.arange(-1, 2 * self.width + 2) / 2
        rows = np.arange(-1, 2 * self.height + 2) / 2
        places = np.array([self.place(column, row) for column in columns for row in rows])
        return disagreements(self.index, self.layers, beside(places))


def beside(points: Points) -> Points:
    """The points, and those a unit in the last place, half a grid unit and one away from them.

    Beside zero a step is 1e-23 (a unit in the last place of 1e-7): GEOS's own predicate multiplies
    distances, and subnormal ones vanish in it.
    """
    steps = [(dx, dy) for dx in (-1.0, 0.0, 1.0) for dy in (-1.0, 0.0, 1.0)]
    ulp = np.maximum(np.spacing(np.abs(points)), 1e-23)
    near = [points + np.array(step) * ulp for step in steps]
    near += [points + np.array(step) * size / SCALE for step in steps for size in (0.5, 1.0)]
    found = np.unique(np.concatenate(near), axis=0)
    return np.asarray(np.clip(found, [-180.0, -90.0], [180.0, 90.0]))


def disagreements(index: Index, layers: Mapping[str, Areas], points: Points) -> list[str]:
    """The points on which the index, one by one or in bulk, and GEOS `covers` differ."""
    shapes = shapely.points(points)
    wrong: list[str] = []
    for found, areas in zip(index.layers, layers.values(), strict=True):
        polygons = degrees(areas)
        shapely.prepare(polygons)
        covered = np.array([shapely.covers(polygon, shapes) for polygon in polygons]).T
        bulk = index.covering_many(points[:, 0], points[:, 1], layer=found.name).tolist()
        for (lon, lat), row, lowest in zip(points.tolist(), covered, bulk, strict=True):
            want = [found.first + n for n in np.nonzero(row)[0].tolist()]
            every = index.covering(lon=lon, lat=lat)
            got = [n for n in every if found.first <= n < found.stop]
            if got != want or lowest != (want[0] if want else -1):
                wrong.append(f"{found.name} at {lon!r}, {lat!r}: {want}, not {got} and {lowest}")
    return wrong


def wedges(count: int, *, radius: int, x: int = 0, y: int = 0) -> dict[str, Any]:
    """Wedges around one vertex, named A01, A02, ... counter-clockwise from the east."""
    turns = 2 * np.pi * np.arange(count + 1) / count
    rim = [
        (x + round(radius * np.cos(turn)), y + round(radius * np.sin(turn)))
        for turn in turns.tolist()
    ]
    return {
        f"A{n + 1:02}": shapely.Polygon([(x, y), rim[n], rim[(n + 1) % count]])
        for n in range(count)
    }


def covers_exactly(polygon: Any, *, lon: float, lat: float) -> bool:
    """What `covers` means, in rational numbers: for the few points where GEOS itself rounds."""
    inside = False
    for ring in shapely.get_rings(shapely.get_parts(polygon)):
        ends = [
            (Fraction(x) - Fraction(lon), Fraction(y) - Fraction(lat))
            for x, y in shapely.get_coordinates(ring).tolist()
        ]
        for (x1, y1), (x2, y2) in pairwise(ends):
            cross = x1 * y2 - x2 * y1
            if cross == 0 and x1 * x2 <= 0 and y1 * y2 <= 0:
                return True
            if (y1 <= 0) != (y2 <= 0) and (cross > 0) == (y2 > y1):
                inside = not inside
    return inside
