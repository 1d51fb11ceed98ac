"""Which edges of borders differ between two editions of a layer.

Answers it for each edge and area exactly, in whole units: an edge differs if it bounds the area in
one edition only, or bounds it from the other side. Where no edge that differs is near, distances to
borders are the same in both. numpy only; areas of both editions are told by numbers, equal for
those that are taken to be the same.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from boundaries.areas import LayerAreas
from georouter.geometry import SCALE

Bools = npt.NDArray[np.bool_]

LONGEST_CHAIN = 32
"""Edges in one line of `lines`: longer ones would have boxes that say little."""


def differing(
    old: LayerAreas, new: LayerAreas, *, old_numbers: Sequence[int], new_numbers: Sequence[int]
) -> tuple[Bools, Bools]:
    """Masks over the vertices of both: whether the edge from this one to the next differs.

    The numbers are those of the areas, in the order of their codes. An edge that several areas of
    an edition share is told once.
    """
    edges = [_edges(old, old_numbers), _edges(new, new_numbers)]
    size = len(edges[0])
    every = np.concatenate(edges)
    order = np.lexsort((every["side"], every["end"], every["start"]))
    ordered = every[order]
    sign = np.where(order < size, 1, -1)
    group = np.cumsum(_first(ordered, ("start", "end", "side"))) - 1
    differs = (np.bincount(group, weights=sign) != 0)[group]
    # once of each edition: the first of those that differ
    kept = np.flatnonzero(differs)
    run = np.cumsum(_first(ordered, ("start", "end")))[kept] * 2 + (order[kept] < size)
    _, first = np.unique(run, return_index=True)
    found = np.zeros(len(every), bool)
    found[order[kept[first]]] = True
    masks = []
    for areas, mine in ((old, found[:size]), (new, found[size:])):
        mask = np.zeros(len(areas.x), bool)
        mask[_edge_starts(areas)] = mine
        masks.append(mask)
    return masks[0], masks[1]


def _first(ordered: Any, fields: tuple[str, ...]) -> Bools:
    """Which rows differ from the one before."""
    found = np.zeros(len(ordered), bool)
    found[:1] = True
    for field in fields:
        found[1:] |= ordered[field][1:] != ordered[field][:-1]
    return found


def lines(
    areas: LayerAreas, wanted: Bools, *, longest: int = LONGEST_CHAIN
) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.int64]]:
    """The edges wanted as lines of a few edges: places in degrees, and the line of each place."""
    edges = np.flatnonzero(wanted)
    if not len(edges):
        return np.empty((0, 2)), np.empty(0, np.int64)
    begins = np.ones(len(edges), bool)
    begins[1:] = edges[1:] != edges[:-1] + 1
    begins |= np.isin(edges, areas.ring_starts)
    since = np.arange(len(edges)) - np.maximum.accumulate(
        np.where(begins, np.arange(len(edges)), 0)
    )
    begins |= since % longest == 0
    line = np.cumsum(begins) - 1
    last = np.append(np.flatnonzero(begins)[1:] - 1, len(edges) - 1)
    vertices = np.insert(edges, last + 1, edges[last] + 1)
    line = np.insert(line, last + 1, line[last])
    return np.column_stack([areas.x[vertices], areas.y[vertices]]) / SCALE, line


def _edge_starts(areas: LayerAreas) -> npt.NDArray[np.int64]:
    """The vertices from which an edge leads to the next: all but the last of each ring."""
    found = np.ones(len(areas.x), bool)
    found[areas.ring_starts[1:] - 1] = False
    return np.flatnonzero(found)


def _edges(areas: LayerAreas, numbers: Sequence[int]) -> Any:
    """Start and end of each edge, the lesser first, and its area with the side that it is on."""
    vertices = (areas.x.astype(np.int64) << 32) + (areas.y.astype(np.int64) & 0xFFFFFFFF)
    at = _edge_starts(areas)
    start, end = vertices[at], vertices[at + 1]
    ring = np.repeat(np.arange(len(areas.ring_part)), np.diff(areas.ring_starts) - 1)
    owner = np.asarray(numbers, np.int64)[areas.part_area[areas.ring_part]]
    found = np.empty(len(at), [("start", "<i8"), ("end", "<i8"), ("side", "<i8")])
    found["start"], found["end"] = np.minimum(start, end), np.maximum(start, end)
    left = _inside_is_left(areas)[ring] ^ (start > end)
    found["side"] = owner[ring] * 2 + left
    return found


def _inside_is_left(areas: LayerAreas) -> Bools:
    """Of each ring, whether the area is on the left of its edges."""
    ring = np.repeat(np.arange(len(areas.ring_part)), np.diff(areas.ring_starts))
    first = areas.ring_starts[:-1]
    x = (areas.x.astype(np.int64) - areas.x[first].astype(np.int64)[ring]).astype(np.float64)
    y = (areas.y.astype(np.int64) - areas.y[first].astype(np.int64)[ring]).astype(np.float64)
    twice = np.zeros(len(x))
    twice[:-1] = x[:-1] * y[1:] - x[1:] * y[:-1]
    twice[areas.ring_starts[1:] - 1] = 0.0
    counter_clockwise = np.add.reduceat(twice, first) > 0
    outer = np.ones(len(first), bool)
    outer[1:] = areas.ring_part[1:] != areas.ring_part[:-1]
    return np.asarray(counter_clockwise == outer)
