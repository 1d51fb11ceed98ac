"""Seeded points, and an invented coverage, for the benchmark and the long check of the index.

Points come as people report (around postcodes), near borders, and exactly on what is hard: ends of
edges, shared borders, and the floats next to them. Everything is drawn from the generator given, so
that a run can be repeated. Nothing here knows the index.
"""

from __future__ import annotations

import csv
import gzip
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import shapely

from boundaries.prove import Points

Geometries = npt.NDArray[Any]

METRES = 111_320.0
"""Per degree of latitude; of longitude times the cosine of the latitude."""


def postcodes(path: Path) -> Points:
    """Where people live: the points of a gzipped CSV with columns lon and lat."""
    with gzip.open(path, "rt", encoding="utf-8", newline="") as file:
        return np.array([(float(row["lon"]), float(row["lat"])) for row in csv.DictReader(file)])


def population_like(
    centres: Points, n: int, random: np.random.Generator, *, spread_m: float = 100.0
) -> Points:
    """Points scattered around `centres` with a standard deviation of `spread_m`."""
    middle = centres[random.integers(0, len(centres), n)]
    return _moved(middle, random.normal(0, spread_m, (n, 2)))


def anywhere(geometries: Geometries, n: int, random: np.random.Generator) -> Points:
    """Uniform over the box around the polygons."""
    west, south, east, north = shapely.total_bounds(geometries)
    return np.column_stack([random.uniform(west, east, n), random.uniform(south, north, n)])


class Borders:
    """The edges of some polygons, to draw points from."""

    def __init__(self, geometries: Geometries) -> None:
        rings = shapely.get_rings(shapely.get_parts(geometries))
        vertices, ring = shapely.get_coordinates(rings, return_index=True)
        first = np.nonzero(ring[1:] == ring[:-1])[0]
        self._from, self._to = vertices[first], vertices[first + 1]
        metres = (self._to - self._from) * _metres_per_degree(self._from)
        self._length = np.cumsum(np.hypot(metres[:, 0], metres[:, 1]))

    def near(self, n: int, random: np.random.Generator, *, within_m: float = 50.0) -> Points:
        """Uniform along the borders and over the disc of `within_m` around each place."""
        edge = np.searchsorted(self._length, random.random(n) * self._length[-1])
        edge = np.minimum(edge, len(self._length) - 1)
        start, end = self._from[edge], self._to[edge]
        radius = within_m * np.sqrt(random.random(n))
        turn = random.random(n) * 2 * np.pi
        away = np.column_stack([radius * np.cos(turn), radius * np.sin(turn)])
        return _moved(start + (end - start) * random.random((n, 1)), away)

    def shared(self, n: int, random: np.random.Generator) -> Points:
        """On borders between two polygons: vertices, middles and other points of edges.

        All borders where none is shared.
        """
        ends = np.hstack([self._from, self._to])
        swap = (ends[:, 0] > ends[:, 2]) | ((ends[:, 0] == ends[:, 2]) & (ends[:, 1] > ends[:, 3]))
        ends[swap] = ends[swap][:, [2, 3, 0, 1]]
        ends = ends[np.lexsort(ends.T)]
        shared = ends[1:][(ends[1:] == ends[:-1]).all(axis=1)]
        picked = (shared if len(shared) else ends)[random.integers(0, len(shared) or len(ends), n)]
        start, end = picked[:, :2], picked[:, 2:]
        along = np.choose(
            random.integers(0, 3, n), [np.zeros(n), np.full(n, 0.5), random.random(n)]
        )
        return np.asarray(start + (end - start) * along[:, None])


def ulp_beside(points: Points) -> Points:
    """The four floats next to each point: west, east, south and north of it."""
    moved = [points.copy() for _ in range(4)]
    for number, (axis, towards) in enumerate(
        ((0, -np.inf), (0, np.inf), (1, -np.inf), (1, np.inf))
    ):
        moved[number][:, axis] = np.nextafter(points[:, axis], towards)
    return np.concatenate(moved)


def invented_coverage(rows: int, columns: int, random: np.random.Generator) -> Geometries:
    """A coverage of `rows` x `columns` jittered hexagons with rough borders, row by row.

    It lies on the box around Great Britain, west to east and south to north, each hexagon as large
    as if there were 200 x 200. A border between two is one path of 16 or 32 pieces (its middle
    displaced, then the middles of its halves, and so on), so that neighbours have the same vertices
    and a polygon has 128: 5 million for 40,000 polygons.
    """
    width, height = 10.0 / 200, 11.0 / 200
    # a wall of bricks: brick (r, c) has three corners below and three above, at columns k, k+1, k+2
    row, column = np.mgrid[0 : rows + 1, 0 : 2 * columns + 2]
    tip = np.where((row + column) % 2 == 0, 1.0, -1.0) / 6
    corners = np.stack([-8.2 + column * width / 2, 49.9 + (row + tip) * height], axis=2)
    corners += random.uniform(-0.12, 0.12, corners.shape) * [width, height]
    along = _rough(corners[:, :-1], corners[:, 1:], 4, random)
    up = _rough(corners[:-1], corners[1:], 5, random)
    r, c = (at.reshape(-1) for at in np.mgrid[0:rows, 0:columns])
    k = 2 * c + r % 2
    sides = [
        along[r, k],
        along[r, k + 1],
        up[r, k + 2],
        along[r + 1, k + 1][:, ::-1],
        along[r + 1, k][:, ::-1],
        up[r, k][:, ::-1],
    ]
    ring = np.concatenate([side[:, :-1] for side in sides], axis=1)
    return np.asarray(shapely.polygons(np.concatenate([ring, ring[:, :1]], axis=1)), dtype=object)


def _rough(start: Points, end: Points, halvings: int, random: np.random.Generator) -> Points:
    """Paths of 2^halvings pieces: from ends of shape (..., 2), of shape (..., pieces + 1, 2).

    Moving each middle by up to 0.11 of its piece keeps a path away from itself and its neighbours.
    """
    path = np.stack([start, end], axis=-2)
    for _ in range(halvings):
        piece = np.diff(path, axis=-2)
        across = np.stack([-piece[..., 1], piece[..., 0]], axis=-1)
        middle = path[..., :-1, :] + piece / 2
        middle += across * random.uniform(-0.11, 0.11, (*middle.shape[:-1], 1))
        finer = np.empty((*path.shape[:-2], path.shape[-2] + middle.shape[-2], 2))
        finer[..., ::2, :], finer[..., 1::2, :] = path, middle
        path = finer
    return path


def _moved(points: Points, metres: npt.NDArray[np.float64]) -> Points:
    return np.asarray(points + metres / _metres_per_degree(points))


def _metres_per_degree(points: Points) -> Points:
    return METRES * np.column_stack([np.cos(np.radians(points[:, 1])), np.ones(len(points))])
