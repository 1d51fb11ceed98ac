"""The ground that polygons close in and none of them covers.

Promises all of it, as polygons, whether one polygon leaves it out, neighbours do not reach it, or
polygons that meet at points only lie around it. What is open to the outside, however narrowly, is
no hole.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Hashable, Iterator
from typing import Any

import numpy as np
import shapely

from boundaries.canonical import polygons_of
from boundaries.readers import Geometries


def uncovered(geometries: Geometries, unmatched: Geometries) -> Geometries:
    """The holes in the union of valid polygons, given the unmatched edges of each.

    The edges are those of GEOS's coverage validator; polygons without any are joined the fast way.
    """
    matched = shapely.is_empty(unmatched)
    joined = shapely.get_parts(shapely.coverage_union_all(geometries[matched]))
    if not matched.all():
        rest = shapely.get_parts(geometries[~matched])
        both = np.concatenate([joined, rest])
        joined = shapely.get_parts(shapely.disjoint_subset_union_all(both))
    return np.array([*_within(joined), *_between(joined)], dtype=object)


def _within(pieces: Geometries) -> Iterator[Any]:
    """What the interior rings of pieces leave out, but for other pieces in there."""
    rings = [ring for piece in pieces for ring in piece.interiors]
    if not rings:
        return
    holes = shapely.polygons(rings)
    inside: list[list[Any]] = [[] for _ in holes]
    for hole, piece in zip(
        *shapely.STRtree(pieces).query(holes, predicate="covers").tolist(), strict=True
    ):
        inside[hole].append(pieces[piece])
    for hole, some in zip(holes, inside, strict=True):
        yield from polygons_of(shapely.difference(hole, shapely.union_all(some)))


def _between(pieces: Geometries) -> Iterator[Any]:
    """What pieces close in between them that meet at points only.

    Pieces and points make a graph; only where it has a cycle can something be closed in.
    """
    graph = _Graph()
    for piece, other in _touching(pieces):
        meeting = shapely.get_coordinates(shapely.intersection(pieces[piece], pieces[other]))
        for point in map(tuple, meeting.tolist()):
            graph.join(piece, point)
            graph.join(other, point)
    for chain in graph.chains():
        filled = [shapely.Polygon(pieces[node].exterior) for node in chain if isinstance(node, int)]
        lines = shapely.union_all([one.exterior for one in filled])
        for face in shapely.get_parts(shapely.polygonize(shapely.get_parts(lines))):
            if not shapely.contains(filled, shapely.point_on_surface(face)).any():
                yield face


def _touching(pieces: Geometries) -> Iterator[tuple[int, int]]:
    """The pairs of pieces that meet; of each, the larger is prepared, and once only."""
    sizes = shapely.get_num_coordinates(pieces)
    first, second = shapely.STRtree(pieces).query(pieces)
    larger = (sizes[first] > sizes[second]) | ((sizes[first] == sizes[second]) & (first < second))
    smaller: dict[int, list[int]] = defaultdict(list)
    for one, other in zip(first[larger].tolist(), second[larger].tolist(), strict=True):
        smaller[one].append(other)
    for one, others in smaller.items():
        shapely.prepare(pieces[one])
        meet = shapely.intersects(pieces[one], pieces[others])
        shapely.destroy_prepared(pieces[one])
        yield from ((one, other) for other, met in zip(others, meet.tolist(), strict=True) if met)


class _Graph:
    """Nodes that are joined, and which of the lumps that they form have a cycle."""

    def __init__(self) -> None:
        self._above: dict[Hashable, Hashable] = {}
        self._edges: set[tuple[Hashable, Hashable]] = set()
        self._cyclic: set[Hashable] = set()

    def join(self, one: Hashable, other: Hashable) -> None:
        """Join two nodes; again makes no difference."""
        if (one, other) in self._edges:
            return
        self._edges.add((one, other))
        root, below = self._root(one), self._root(other)
        if root == below:
            self._cyclic.add(root)
        self._above[below] = root

    def chains(self) -> Iterator[list[Hashable]]:
        """The nodes of each lump with a cycle."""
        roots = {self._root(one) for one in self._cyclic}
        lumps: dict[Hashable, list[Hashable]] = defaultdict(list)
        for node in list(self._above):
            if (root := self._root(node)) in roots:
                lumps[root].append(node)
        yield from lumps.values()

    def _root(self, node: Hashable) -> Hashable:
        while (above := self._above.setdefault(node, node)) != node:
            node = above
        return node
