"""Lays two editions of a layer over each other: which ground went from which area to which.

It promises every piece of ground that changed hands as part of a `Move`, and counts apart the
*slivers*, which are there only because the same border was drawn or generalised otherwise. It knows
areas by their codes; what to call a change is the affair of `diff`.

Only edges that differ are looked at: they are noded and made into faces, and each face is asked
which areas of either edition cover it.

**How slivers are told from moves.** The borders of areas that kept their code and, to 2 %, their
size are taken to be the same lines. How far apart the two editions draw them is measured at their
vertices, both ways: of each area the farthest counts, and seven quarters of the median of these is
the *width*, at least 1 m. So areas with a border that really moved do not widen it, up to half of
them. It is 830 m where one edition was generalised to 500 m, and 1 m where both have the same
vertices. A face is a sliver if no circle of that diameter fits into it, unless it is more than half
of the area that it went from or to, which may be as small as that. Coasts are generalised more
boldly than borders inland (islets and creeks go), so they have a width of their own, by the upper
quartile, for ground that was or comes to be nobody's. The price: a real move narrower than the
width passes for a sliver. Editions of one resolution have the least width; compare those where
every yard matters.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import shapely

from boundaries.areas import LayerAreas
from boundaries.edges import differing, lines
from boundaries.readers import Geometries
from boundaries.shapes import Floats, flat, on_plane, plane_metres, polygons, square_metres
from georouter.geometry import SCALE

LEAST_WIDTH_M: Final = 1.0
_SAME_SIZE: Final = 0.02
_MARGIN: Final = 1.75
_COAST_QUANTILE: Final = 0.75
_MOST_SAMPLES: Final = 200  # vertices of an area

Progress = Callable[[str, float], None]


@dataclass(frozen=True, slots=True)
class Move:
    """Ground that went from one area to another, by their codes; None is nobody.

    `lon`, `lat` are in the biggest of its `places` pieces.
    """

    source: str | None
    target: str | None
    m2: float
    lon: float
    lat: float
    places: int
    ground: Any = field(repr=False, compare=False)


@dataclass(frozen=True, slots=True)
class Slivers:
    """What was left out: pieces narrower than the width (inland, on the coast) or too small."""

    count: int
    m2: float
    width_m: float
    coast_width_m: float


@dataclass(frozen=True, slots=True)
class Overlay:
    """All moves, the largest first, what was left out, and how large each area was and is."""

    moves: tuple[Move, ...]
    slivers: Slivers
    old_m2: Mapping[str, float]
    new_m2: Mapping[str, float]


def overlay(
    old: LayerAreas,
    new: LayerAreas,
    *,
    min_m2: float = 0.0,
    widest_m: float = np.inf,
    group: Callable[[str], str] = lambda _code: "",
    progress: Progress = lambda _stage, _share: None,
) -> Overlay:
    """Compare two editions. Pieces of less than `min_m2` count as slivers too.

    What is wider than `widest_m` is no sliver, however far the borders are apart. Ground moves only
    between areas of one `group`, such as the stretches of one road; areas of different groups may
    overlap.
    """
    editions = (old, new)
    shapes = [polygons(one) for one in editions]
    sizes = [
        dict(zip(one.codes, square_metres(some).tolist(), strict=True))
        for one, some in zip(editions, shapes, strict=True)
    ]
    numbers = {code: n for n, code in enumerate(sorted({*old.codes, *new.codes}))}
    masks = differing(
        old,
        new,
        old_numbers=[numbers[code] for code in old.codes],
        new_numbers=[numbers[code] for code in new.codes],
    )
    progress("measuring borders", 0.1)
    inland_m, coast_m = (min(one, widest_m) for one in measure_widths(editions, sizes))
    progress("comparing ground", 0.2)
    faces = _faces([lines(*one) for one in zip(editions, masks, strict=True)])
    found: dict[tuple[str | None, str | None], list[int]] = {}
    progress("comparing ground", 0.8)
    for face, source, target in _owners(faces, editions, shapes, group):
        found.setdefault((source, target), []).append(face)
    moves: list[Move] = []
    left_out: list[float] = []
    progress("leaving out slivers", 0.9)
    for (source, target), numbered in found.items():
        parts = faces[numbered]
        m2 = square_metres(parts)
        smaller = min(sizes[0].get(source or "", np.inf), sizes[1].get(target or "", np.inf))
        width_m = inland_m if source and target else coast_m
        moved = (m2 >= min_m2) & (_holds_circle(parts, m2, width_m) | (m2 > smaller / 2))
        left_out += m2[~moved].tolist()
        if moved.any():
            moves.append(_move(source, target, parts[moved], m2[moved]))
    moves.sort(key=lambda one: (-one.m2, one.source or "", one.target or ""))
    slivers = Slivers(len(left_out), float(np.sum(left_out)), inland_m, coast_m)
    return Overlay(tuple(moves), slivers, *sizes)


def _faces(drawn: Sequence[tuple[Floats, npt.NDArray[np.int64]]]) -> Geometries:
    """The ground between lines, in faces that none of them crosses."""
    every = [shapely.linestrings(places, indices=line) for places, line in drawn if len(places)]
    if not every:
        return np.empty(0, dtype=object)
    noded = shapely.union_all(np.concatenate(every))
    return np.asarray(shapely.get_parts(shapely.polygonize(shapely.get_parts(noded))), dtype=object)


def _owners(
    faces: Geometries,
    editions: Sequence[LayerAreas],
    shapes: Sequence[Geometries],
    group: Callable[[str], str],
) -> Iterator[tuple[int, str | None, str | None]]:
    """The faces that changed hands, from whom to whom."""
    # the tree is on the points: so each of the large polygons is prepared once
    tree = shapely.STRtree(shapely.point_on_surface(faces))
    owners: list[dict[int, set[str]]] = [{}, {}]
    for areas, some, owned in zip(editions, shapes, owners, strict=True):
        for area, face in tree.query(some, predicate="intersects").T.tolist():
            owned.setdefault(face, set()).add(areas.codes[area])
    nobody: set[str] = set()
    for face in sorted({face for owned in owners for face in owned}):
        before, after = owners[0].get(face, nobody), owners[1].get(face, nobody)
        changed = sorted(before ^ after)
        for one in dict.fromkeys(map(group, changed)):
            was, is_ = ({code for code in some if group(code) == one} for some in (before, after))
            # of areas that overlap one may go: then its ground is that of who stays
            sources: list[str | None] = [*(sorted(was - is_) or sorted(was)[:1])]
            targets: list[str | None] = [*(sorted(is_ - was) or sorted(is_)[:1])]
            for source in sources or [None]:
                for target in targets or [None]:
                    yield face, source, target


def _move(
    source: str | None, target: str | None, parts: Geometries, m2: npt.NDArray[np.float64]
) -> Move:
    inside = shapely.point_on_surface(parts[int(np.argmax(m2))])
    return Move(
        source=source,
        target=target,
        m2=float(m2.sum()),
        lon=float(inside.x),
        lat=float(inside.y),
        places=len(parts),
        ground=shapely.multipolygons(parts),
    )


def _holds_circle(parts: Geometries, m2: Floats, width_m: float) -> npt.NDArray[np.bool_]:
    """Whether a circle of this diameter fits into each polygon."""
    fits = m2 >= np.pi / 4 * width_m * width_m
    asked = np.flatnonzero(fits)
    plane = flat(parts[asked])
    lat = shapely.bounds(parts[asked])[:, [1, 3]].mean(axis=1)
    radius = plane_metres(lat) * width_m / 2
    # a circle of the radius area over perimeter always fits; that settles whole areas, whose many
    # vertices make them slow to shrink
    thin = shapely.area(plane) < radius * shapely.length(plane)
    shrunk = shapely.buffer(plane[thin], -radius[thin], quad_segs=2)
    fits[asked[thin]] = ~shapely.is_empty(shrunk)
    return np.asarray(fits)


# --- how wide slivers are -----------------------------------------------------------------------


def measure_widths(
    editions: Sequence[LayerAreas], sizes: Sequence[Mapping[str, float]]
) -> tuple[float, float]:
    """How wide slivers are between areas, and on the coast, in metres: see above.

    `sizes` are the square metres of the areas of each edition.
    """
    old_m2, new_m2 = sizes
    same = {
        code
        for code, m2 in old_m2.items()
        if code in new_m2 and abs(new_m2[code] - m2) <= _SAME_SIZE * m2
    }
    apart: dict[bool, dict[str, float]] = {True: {}, False: {}}
    for mine, other in (editions, editions[::-1]):
        borders = shapely.STRtree(_borders(other))
        for coast, areas, places in _vertices(mine, same):
            plane = shapely.points(on_plane(places))
            _, far = borders.query_nearest(plane, return_distance=True, all_matches=False)
            for area, far_m in zip(areas, far / plane_metres(places[:, 1]), strict=True):
                code = mine.codes[area]
                apart[coast][code] = max(apart[coast].get(code, 0.0), float(far_m))
    widths = [
        float(np.quantile(list(most.values()), share, method="lower")) * _MARGIN if most else 0.0
        for most, share in ((apart[False], 0.5), (apart[True], _COAST_QUANTILE))
    ]
    inland_m = max(widths[0], LEAST_WIDTH_M)
    return inland_m, max(widths[1], inland_m)


def _vertices(
    areas: LayerAreas, codes: set[str]
) -> Iterator[tuple[bool, npt.NDArray[np.int64], Floats]]:
    """Some vertices of each of these areas: inland, where other areas have them too; on the coast.

    With each lot whether it is the coast's, and which area each is of.
    """
    ring = np.repeat(np.arange(len(areas.ring_part)), np.diff(areas.ring_starts))
    owner = areas.part_area[areas.ring_part][ring].astype(np.int64)
    _, vertex = np.unique((areas.x.astype(np.int64) << 32) + areas.y, return_inverse=True)
    lowest, highest = np.full(vertex.max() + 1, len(areas.codes)), np.full(vertex.max() + 1, -1)
    np.minimum.at(lowest, vertex, owner)
    np.maximum.at(highest, vertex, owner)
    shared = (lowest != highest)[vertex]
    wanted = np.array([code in codes for code in areas.codes])[owner]
    for coast in (False, True):
        found = np.flatnonzero(wanted & (shared != coast))
        each = np.bincount(owner[found], minlength=len(areas.codes))
        step = np.maximum(1, each // _MOST_SAMPLES)[owner[found]]
        some = found[np.arange(len(found)) % step == 0]
        if len(some):
            places = np.column_stack([areas.x[some], areas.y[some]]) / SCALE
            yield coast, owner[some], places


def _borders(areas: LayerAreas) -> Geometries:
    """All borders on the plane, in short lines."""
    every = np.ones(len(areas.x), bool)
    every[areas.ring_starts[1:] - 1] = False
    places, line = lines(areas, every)
    return np.asarray(shapely.linestrings(on_plane(places), indices=line), dtype=object)
