"""What a reader would use instead of the index, each as fast as a good engineer would write it.

They answer the same question on the same polygons: the positions of all polygons that cover a
point, or in bulk the lowest one. Polygons are prepared and every locator is built before the first
question, so that a benchmark measures answers only.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from typing import Protocol

import asyncpg
import geopandas
import numpy as np
import numpy.typing as npt
import rtree
import shapely

from boundaries.prove import Points
from boundaries.readers import Geometries

Floats = npt.NDArray[np.float64]
Positions = npt.NDArray[np.int32]


class Lookup(Protocol):
    """The positions of the polygons that cover one point."""

    def __call__(self, *, lon: float, lat: float) -> Sequence[int]:
        """Degrees; in any order."""


Bulk = Callable[[Floats, Floats], Positions]
"""For each point the lowest position of a polygon that covers it, or -1."""


class Shapely:
    """An STRtree for candidates and prepared polygons to decide, in several arrangements.

    Left out is the one-liner `tree.query(point, predicate="intersects")`: it does not use the
    prepared polygons and takes five to fifty times as long.
    """

    def __init__(self, polygons: Geometries) -> None:
        parts, owner = shapely.get_parts(polygons, return_index=True)
        self._kinds = {"whole polygons": (polygons, np.arange(len(polygons)))}
        if len(parts) > len(polygons):
            self._kinds["parts"] = (parts, owner)
        for shapes, _ in self._kinds.values():
            shapely.prepare(shapes)
            within = shapely.point_on_surface(shapes)
            shapely.intersects_xy(shapes, shapely.get_x(within), shapely.get_y(within))

    def single(self) -> dict[str, Lookup]:
        """The arrangements for one point at a time."""
        found: dict[str, Lookup] = {}
        for kind, (shapes, owner) in self._kinds.items():
            found[f"STRtree, {kind}, one by one"] = _one_by_one(shapes, owner)
            found[f"STRtree, {kind}, intersects_xy"] = _candidates_at_once(shapes, owner)
        return found

    def bulk(self) -> dict[str, Bulk]:
        """The vectorised arrangements a reader finds in the manual."""
        return {
            f"STRtree, {kind}, intersects_xy": _tree_then_polygons(shapes, owner)
            for kind, (shapes, owner) in self._kinds.items()
        }

    def tuned_bulk(self) -> dict[str, Bulk]:
        """The same with the points sorted by latitude, the order in which GEOS keeps edges.

        Points that follow each other then meet the same edges, which are in the cache; and sorted
        points need no tree.
        """
        return {
            f"points sorted by latitude, {kind}, intersects_xy": _sorted_points(shapes, owner)
            for kind, (shapes, owner) in self._kinds.items()
        }


def first_answer(polygons: Geometries, *, lon: float, lat: float) -> Sequence[int]:
    """Build the tree and prepare the polygons for one lookup."""
    shapely.prepare(polygons)
    return _candidates_at_once(polygons, np.arange(len(polygons)))(lon=lon, lat=lat)


def _one_by_one(shapes: Geometries, owner: npt.NDArray[np.int64]) -> Lookup:
    query, prepared, owners = shapely.STRtree(shapes).query, shapes.tolist(), owner.tolist()
    point_of = shapely.Point

    def lookup(*, lon: float, lat: float) -> Sequence[int]:
        point = point_of(lon, lat)
        return [owners[n] for n in query(point).tolist() if prepared[n].intersects(point)]

    return lookup


def _candidates_at_once(shapes: Geometries, owner: npt.NDArray[np.int64]) -> Lookup:
    query, points, intersects = shapely.STRtree(shapes).query, shapely.points, shapely.intersects_xy

    def lookup(*, lon: float, lat: float) -> Sequence[int]:
        near = query(points(lon, lat))
        hits: list[int] = owner[near[intersects(shapes[near], lon, lat)]].tolist()
        return hits

    return lookup


def _tree_then_polygons(shapes: Geometries, owner: npt.NDArray[np.int64]) -> Bulk:
    tree = shapely.STRtree(shapes)

    def bulk(lon: Floats, lat: Floats) -> Positions:
        point, polygon = tree.query(shapely.points(lon, lat))
        order = np.argsort(polygon, kind="stable")
        point = point[order]
        starts = np.searchsorted(polygon[order], np.arange(len(shapes) + 1)).tolist()
        lowest = np.full(len(lon), -1, np.int32)
        for n in range(len(shapes) - 1, -1, -1):  # so that the lowest is written last
            near = point[starts[n] : starts[n + 1]]
            if len(near):
                lowest[near[shapely.intersects_xy(shapes[n], lon[near], lat[near])]] = owner[n]
        return lowest

    return bulk


def _sorted_points(shapes: Geometries, owner: npt.NDArray[np.int64]) -> Bulk:
    boxes = shapely.bounds(shapes)

    def bulk(lon: Floats, lat: Floats) -> Positions:
        order = np.argsort(lat)
        x, y = lon[order], lat[order]
        first = np.searchsorted(y, boxes[:, 1]).tolist()
        stop = np.searchsorted(y, boxes[:, 3], "right").tolist()
        found = np.full(len(x), -1, np.int32)
        for n in range(len(shapes) - 1, -1, -1):
            band = x[first[n] : stop[n]]
            near = np.nonzero((band >= boxes[n, 0]) & (band <= boxes[n, 2]))[0] + first[n]
            if len(near):
                found[near[shapely.intersects_xy(shapes[n], x[near], y[near])]] = owner[n]
        lowest = np.empty_like(found)
        lowest[order] = found
        return lowest

    return bulk


def rtree_lookup(polygons: Geometries) -> Lookup:
    """The `rtree` package for candidates, prepared polygons to decide."""
    shapely.prepare(polygons)
    boxes = shapely.bounds(polygons).tolist()
    tree = rtree.index.Index((n, tuple(box), None) for n, box in enumerate(boxes))
    prepared, intersects = polygons.tolist(), shapely.intersects_xy

    def lookup(*, lon: float, lat: float) -> Sequence[int]:
        near = tree.intersection((lon, lat, lon, lat))
        return [n for n in near if intersects(prepared[n], lon, lat)]

    return lookup


def geopandas_lookup(polygons: Geometries) -> Lookup:
    """A spatial join of a table of one point: what many write first."""
    areas = geopandas.GeoDataFrame(geometry=polygons, crs="EPSG:4326")

    def lookup(*, lon: float, lat: float) -> Sequence[int]:
        point = geopandas.GeoDataFrame(geometry=[shapely.Point(lon, lat)], crs=areas.crs)
        hits = geopandas.sjoin(point, areas, predicate="intersects")["index_right"].tolist()
        return [int(n) for n in hits]

    return lookup


async def postgis(
    url: str, polygons: Geometries, points: Points
) -> tuple[list[int], list[list[int]]]:
    """PostGIS over asyncpg: nanoseconds and answer per point; polygons subdivided and indexed.

    Everything goes into a temporary table, so the database is left as it was.
    """
    connection = await asyncpg.connect(url)
    try:
        await connection.execute("create temporary table whole (area integer, shape geometry)")
        await connection.executemany(
            "insert into whole values ($1, ST_GeomFromWKB($2, 4326))",
            list(enumerate(shapely.to_wkb(polygons).tolist())),
        )
        await connection.execute(
            "create temporary table piece as"
            " select area, ST_Subdivide(shape, 128) as shape from whole;"
            "create index on piece using gist (shape); analyze piece"
        )
        find = await connection.prepare(
            "select area from piece"
            " where ST_Intersects(shape, ST_SetSRID(ST_MakePoint($1, $2), 4326))"
        )
        taken, answers = [], []
        for lon, lat in points.tolist():
            start = time.perf_counter_ns()
            rows = await find.fetch(lon, lat)
            taken.append(time.perf_counter_ns() - start)
            answers.append([row["area"] for row in rows])
        return taken, answers
    finally:
        await connection.close()
