"""Where the areas of a layer do not fit together: overlaps, gaps, holes, and slits.

Promises every overlap of two areas and every piece of uncovered ground that areas close in, each
with its ground in m2, of canonical polygons. GEOS's coverage validator says which borders are
matched by no neighbour's; only areas that have some are intersected. What is uncovered is what the
union of all areas closes in. Water that is open to the sea is no hole and no gap; a slit that is
open to it is told only where it is narrower than a creek would be, and as a note.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import shapely

from boundaries.canonical import polygons_of
from boundaries.findings import Finding, found
from boundaries.holes import uncovered
from boundaries.metres import mean_width_m, square_metres, width_m
from boundaries.readers import Geometries

GRID_STEP_M: Final = 0.0111
"""The height of a grid step, which is the most of its two sides."""

_ROUNDING_M2: Final = 1e-5
"""What has its corners on the grid has at least half a square of it, 3e-5 m2. GEOS computes where
lines cross to the last place of a double, and leaves cracks of less than this along them."""

_TOUCH: Final = 1e-8
_METRES_PER_DEGREE: Final = 111_320.0


@dataclass(frozen=True, slots=True)
class SliverLimits:
    """What is a sliver: ground smaller than `m2`, or nowhere wider than `width_m`.

    Where two publishers each generalised one border to 20 m, strips nearly 30 m wide are left, and
    so near a border the router asks anyway. `slit_m` is the width of slits that are told.
    """

    m2: float = 1000.0
    width_m: float = 30.0
    slit_m: float = 0.5


def seams(
    layer: str, codes: Sequence[str], geometries: Geometries, limits: SliverLimits
) -> Iterator[Finding]:
    """What does not fit between the areas of a layer; none may be empty or invalid."""
    unmatched = shapely.coverage_invalid_edges(geometries)
    laps = list(_overlaps(geometries, unmatched))
    holes = list(_holes(geometries, unmatched))
    same = [(pair, ground) for pair, ground in laps if shapely.equals(*geometries[list(pair)])]
    for (first, second), ground in same:
        yield found(
            "duplicate_polygon",
            layer,
            f"{codes[first]} has the same ground as {codes[second]}",
            area=codes[first],
            others=(codes[second],),
            at=_inside(ground),
            area_m2=square_metres(np.array([ground], dtype=object))[0],
        )
    twice = {pair for pair, _ in same}
    differ = [(pair, ground) for pair, ground in laps if pair not in twice]
    yield from _told(layer, codes, differ, limits, _overlap)
    yield from _told(layer, codes, holes, limits, _gap)
    yield from _slits(layer, codes, geometries, unmatched, [g for _, g in laps + holes], limits)


Ground = tuple[tuple[int, ...], Any]
"""A polygon, and the positions of the areas that have it in common, or that it lies between."""


def _overlaps(geometries: Geometries, unmatched: Geometries) -> Iterator[Ground]:
    """The polygons that two areas have in common.

    At least one of the two has an unmatched edge at each, so only parts of areas that are near such
    an edge are intersected.
    """
    parts, owner = shapely.get_parts(geometries, return_index=True)
    pieces, of = shapely.get_parts(unmatched, return_index=True)
    near: dict[int, list[int]] = defaultdict(list)
    for piece, part in zip(*shapely.STRtree(parts).query(pieces).tolist(), strict=True):
        near[piece].append(part)
    pairs = {
        (min(one, other), max(one, other))
        for piece, touched in near.items()
        for one in touched
        if owner[one] == of[piece]
        for other in touched
        if owner[other] != of[piece]
    }
    if not pairs:
        return
    first, second = np.array(sorted(pairs)).T
    common = shapely.intersection(parts[first], parts[second])
    for one, other, ground in zip(owner[first].tolist(), owner[second].tolist(), common):  # noqa: B905
        for polygon in polygons_of(ground):
            yield (one, other), polygon


def _holes(geometries: Geometries, unmatched: Geometries) -> Iterator[Ground]:
    """The ground that areas close in and none has, and between which it lies."""
    holes = uncovered(geometries, unmatched)
    if not len(holes):
        return
    beside: list[list[int]] = [[] for _ in holes]
    reach = shapely.box(*(shapely.bounds(holes) + np.array([-1, -1, 1, 1]) * _TOUCH).T)
    by_area: dict[int, list[int]] = defaultdict(list)
    for hole, area in zip(*shapely.STRtree(geometries).query(reach).tolist(), strict=True):
        by_area[area].append(hole)
    for area, some in sorted(by_area.items()):
        prepared = geometries[area]
        shapely.prepare(prepared)
        for hole in np.array(some)[shapely.dwithin(prepared, holes[some], _TOUCH)].tolist():
            beside[hole].append(area)
        shapely.destroy_prepared(prepared)
    yield from ((tuple(areas), hole) for areas, hole in zip(beside, holes, strict=True))


def _told(
    layer: str,
    codes: Sequence[str],
    grounds: Iterable[Ground],
    limits: SliverLimits,
    tell: Callable[[list[str], str], tuple[str, str]],
) -> Iterator[Finding]:
    """A finding for each ground that counts, and one for all slivers between the same areas."""
    listed = list(grounds)
    if not listed:
        return
    groups: dict[tuple[tuple[int, ...], str], list[tuple[float, Any]]] = defaultdict(list)
    sizes = square_metres(np.array([ground for _, ground in listed], dtype=object)).tolist()
    for (areas, ground), m2 in zip(listed, sizes, strict=True):
        if m2 < _ROUNDING_M2:
            continue
        groups[areas, _size(ground, m2, limits)].append((m2, ground))
    for (areas, size), some in groups.items():
        some.sort(key=lambda one: -one[0])
        code, message = tell([codes[n] for n in areas], size)
        about: dict[str, Any] = {"area": codes[areas[0]], "others": [codes[n] for n in areas[1:]]}
        if size == "real":
            for m2, ground in some:
                at = _inside(ground)
                yield found(code, layer, f"{message} {m2:,.0f} m²", at=at, area_m2=m2, **about)
            continue
        total = sum(m2 for m2, _ in some)
        if len(some) == 1:
            message += f" {total:,.2f} m²"
        else:
            message += f" {total:,.2f} m² in {len(some)} places, the largest {some[0][0]:,.2f} m²"
        yield found(code, layer, message, at=_inside(some[0][1]), area_m2=total, **about)


def _size(ground: Any, m2: float, limits: SliverLimits) -> str:
    if mean_width_m(ground, m2) < GRID_STEP_M:
        return "hairline"
    narrow = m2 < limits.m2 or width_m(ground) <= limits.width_m
    return "sliver" if narrow else "real"


def _overlap(codes: list[str], size: str) -> tuple[str, str]:
    code = {"real": "overlap", "sliver": "overlap_sliver", "hairline": "hairline"}[size]
    return code, f"{codes[0]} and {codes[1]} overlap:"


def _gap(codes: list[str], size: str) -> tuple[str, str]:
    code = {"real": "gap", "sliver": "gap_sliver", "hairline": "hairline"}[size]
    if len(codes) == 1:
        return "hole" if size == "real" else code, f"in no area, within {codes[0]}:"
    return code, f"in no area, between {', '.join(codes[:-1])} and {codes[-1]}:"


def _slits(
    layer: str,
    codes: Sequence[str],
    geometries: Geometries,
    unmatched: Geometries,
    known: list[Any],
    limits: SliverLimits,
) -> Iterator[Finding]:
    """Edges that come as near to another area as a slit is wide, and are no overlap's or hole's."""
    width = limits.slit_m / _METRES_PER_DEGREE
    if not width:
        return
    near = shapely.coverage_invalid_edges(geometries, gap_width=width)
    near = np.array(
        [
            shapely.MultiLineString() if shapely.equals(*both) else both[0]
            for both in zip(near, unmatched, strict=True)
        ],
        dtype=object,
    )
    pieces, owner = shapely.get_parts(near, return_index=True)
    tree = shapely.STRtree([*known, *unmatched[~shapely.is_empty(unmatched)]])
    explained = set(tree.query(pieces, predicate="dwithin", distance=width)[0].tolist())
    slits: dict[int, list[Any]] = defaultdict(list)
    for n, (piece, area) in enumerate(zip(pieces, owner.tolist(), strict=True)):
        if n not in explained:
            slits[area].append(piece)
    if slits:
        first, *rest = sorted(slits)
        count = sum(map(len, slits.values()))
        yield found(
            "narrow_slit",
            layer,
            f"{len(slits)} areas are within {limits.slit_m:g} m of a neighbour, but not at it, in "
            f"{count} places; the first is {codes[first]}",
            area=codes[first],
            others=[codes[n] for n in rest],
            at=shapely.get_coordinates(slits[first][0])[0],
        )


def _inside(polygon: Any) -> tuple[float, float]:
    point = shapely.point_on_surface(polygon)
    return point.x, point.y
