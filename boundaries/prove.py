"""Proves a compiled index against an independent oracle before anything relies on it.

The oracle is what one would use without georouter: an R-tree for candidates and GEOS `covers` on
the canonical polygons. The points are drawn where indexes go wrong: on vertices, on edges, one ulp
beside them, level with them, within millimetres and metres of them, and anywhere.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from fractions import Fraction
from typing import Any

import numpy as np
import numpy.typing as npt
import rtree
import shapely

from georouter.index import Index

Points = npt.NDArray[np.float64]
"""Longitude and latitude in degrees, shape (n, 2)."""


class ProofError(Exception):
    """The index and the oracle disagree; the artefact must not be used."""


@dataclass(frozen=True, slots=True)
class Proof:
    """How many points were compared, by kind; there was no mismatch, or it would not exist.

    `settled` of them GEOS saw otherwise, and `covers` in rational numbers sided with the index.
    """

    seed: int
    points: dict[str, int]
    settled: int


def prove(
    index: Index,
    polygons: Sequence[npt.NDArray[Any]],
    *,
    points: int,
    seed: int,
    progress: Callable[[str, float], None] = lambda _stage, _share: None,
) -> Proof:
    """Compare the index with the oracle on about `points` points per layer.

    `polygons` are the canonical polygons of each layer in the order of the index. Raises
    `ProofError` naming the first point on which they disagree.
    """
    random = np.random.default_rng(seed)
    counted: dict[str, int] = {}
    settled = 0
    for number, (layer, geometries) in enumerate(zip(index.layers, polygons, strict=True)):
        oracle = Oracle(geometries)
        kinds = sample_points(geometries, points, random)
        for nth, (kind, drawn) in enumerate(kinds.items()):
            progress("proof", (number + nth / len(kinds)) / len(index.layers))
            expected = oracle.covering(drawn)
            lowest = index.covering_many(drawn[:, 0], drawn[:, 1], layer=layer.name)
            for (lon, lat), want, many in zip(
                drawn.tolist(), expected, lowest.tolist(), strict=True
            ):
                every = index.covering(lon=lon, lat=lat)
                got = [hit - layer.first for hit in every if layer.first <= hit < layer.stop]
                first = many - layer.first if many >= 0 else None
                if got == want and first == (want[0] if want else None):
                    continue
                # GEOS computes orientation with 106 bits: near the equator or Greenwich the last
                # places of a point reach further down, and a border may lie between
                truth = covering_exactly(geometries, lon=lon, lat=lat)
                settled += 1
                if got != truth or first != (truth[0] if truth else None):
                    raise ProofError(
                        f"layer {layer.name!r} at lon {lon!r}, lat {lat!r} ({kind}): GEOS covers "
                        f"says {want}, the index {got} and in bulk {first}; please report this"
                    )
            counted[kind] = counted.get(kind, 0) + len(drawn)
    progress("proof", 1.0)
    return Proof(seed=seed, points=counted, settled=settled)


class Oracle:
    """R-tree candidates and prepared GEOS `covers`: slow, independent, well tested by others."""

    def __init__(self, geometries: npt.NDArray[Any]) -> None:
        shapely.prepare(geometries)
        self._geometries = geometries
        boxes = shapely.bounds(geometries)
        self._tree = rtree.index.Index(
            (n, tuple(box), None) for n, box in enumerate(boxes.tolist())
        )

    def covering(self, points: Points) -> list[list[int]]:
        """For each point the positions of the polygons that cover it, ascending."""
        candidates: dict[int, list[int]] = {}
        for n, (lon, lat) in enumerate(points.tolist()):
            for position in self._tree.intersection((lon, lat, lon, lat)):
                candidates.setdefault(position, []).append(n)
        found: list[list[int]] = [[] for _ in points]
        shapes = shapely.points(points)
        for position in sorted(candidates):
            near = np.array(candidates[position])
            for n in near[shapely.covers(self._geometries[position], shapes[near])].tolist():
                found[n].append(position)
        return found


def covering_exactly(geometries: npt.NDArray[Any], *, lon: float, lat: float) -> list[int]:
    """What `covers` means, in rational numbers: positions of the polygons that cover a point."""
    found = []
    for position, polygon in enumerate(geometries):
        inside = touched = False
        for ring in shapely.get_rings(shapely.get_parts(polygon)):
            vertices = shapely.get_coordinates(ring)
            (xs, ys), (xe, ye) = vertices[:-1].T, vertices[1:].T
            level = (np.minimum(ys, ye) <= lat) & (lat <= np.maximum(ys, ye))
            ahead = np.nonzero(level & (np.maximum(xs, xe) >= lon))[0]
            for x1, y1, x2, y2 in np.column_stack([vertices[ahead], vertices[ahead + 1]]).tolist():
                ax, bx = Fraction(x1) - Fraction(lon), Fraction(x2) - Fraction(lon)
                ay, by = Fraction(y1) - Fraction(lat), Fraction(y2) - Fraction(lat)
                cross = ax * by - bx * ay
                touched |= cross == 0 and ax * bx <= 0 and ay * by <= 0
                inside ^= (ay <= 0) != (by <= 0) and (cross > 0) == (by > ay)
        if inside or touched:
            found.append(position)
    return found


def sample_points(
    geometries: npt.NDArray[Any], total: int, random: np.random.Generator
) -> dict[str, Points]:
    """Points of every awkward kind, about `total` in all, by kind."""
    each = max(1, total // 7)
    rings = shapely.get_rings(shapely.get_parts(geometries))
    vertices, ring = shapely.get_coordinates(rings, return_index=True)
    starts = np.nonzero(ring[1:] == ring[:-1])[0]

    def edges() -> tuple[Points, Points]:
        picked = starts[random.integers(0, len(starts), each)]
        return vertices[picked], vertices[picked + 1]

    west, south, east, north = shapely.total_bounds(geometries)
    a, b = edges()
    on_edge = a + (b - a) * random.random((each, 1))
    metre = 1 / 111_320
    kinds = {
        "anywhere": np.column_stack(
            [random.uniform(west, east, each), random.uniform(south, north, each)]
        ),
        "vertex": edges()[0],
        "edge": np.concatenate([(a + b)[::2] / 2, on_edge[1::2]]),
        "ulp": np.nextafter(a, a + random.choice([-1.0, 1.0], (each, 2))),
        "millimetres": on_edge + random.normal(0, 0.01 * metre, (each, 2)),
        "metres": on_edge + random.normal(0, 30 * metre, (each, 2)),
        # the ray towards a vertex is where counting crossings goes wrong
        "level": np.column_stack([a[:, 0] + random.normal(0, 10 * metre, each), a[:, 1]]),
    }
    return {kind: np.clip(drawn, [-180.0, -90.0], [180.0, 90.0]) for kind, drawn in kinds.items()}
