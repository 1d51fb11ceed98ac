"""Whatever vertex of a coverage is moved: the overlap or gap that this makes is reported there."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import shapely
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.strategies import DrawFn

from boundaries.checks import Limits
from boundaries.findings import Finding
from boundaries.seams import SliverLimits, seams
from georouter.geometry import SCALE

SIDE = 10_000
X0, Y0 = 10_000_000, 500_000_000
NO_SLITS = SliverLimits(slit_m=0.0)

ENOUGH = 100.0
"""In square grid units: what is less, GEOS may lose when it computes what was changed here."""

Lattice = npt.NDArray[np.int64]
"""The corners of a coverage of quadrilaterals in grid units, shape (columns, rows, 2)."""


@st.composite
def lattices(draw: DrawFn) -> Lattice:
    """Corners that are moved so little that every quadrilateral stays convex enough to be valid."""
    columns, rows = draw(st.integers(3, 5)), draw(st.integers(3, 5))
    moved = st.integers(-SIDE // 5, SIDE // 5)
    return np.array(
        [
            [(X0 + SIDE * x + draw(moved), Y0 + SIDE * y + draw(moved)) for y in range(rows)]
            for x in range(columns)
        ]
    )


def cells(corners: Lattice) -> list[npt.NDArray[np.int64]]:
    columns, rows, _ = corners.shape
    return [
        np.array([corners[x, y], corners[x + 1, y], corners[x + 1, y + 1], corners[x, y + 1]])
        for x in range(columns - 1)
        for y in range(rows - 1)
    ]


def found(rings: list[npt.NDArray[np.int64]]) -> list[Finding]:
    shapes = np.array([shapely.Polygon(ring / SCALE) for ring in rings], dtype=object)
    codes = [f"A{n:02}" for n in range(len(rings))]
    return list(seams("layer", codes, shapes, NO_SLITS))


@settings(max_examples=60, deadline=None)
@given(corners=lattices(), data=st.data())
def test_a_vertex_out_of_place_is_reported_there(corners: Lattice, data: st.DataObject) -> None:
    rings = cells(corners)
    assert found(rings) == []

    columns, rows, _ = corners.shape
    x = data.draw(st.integers(1, columns - 2))
    y = data.draw(st.integers(1, rows - 2))
    inner = corners[x, y]
    touched = [n for n, ring in enumerate(rings) if any((corner == inner).all() for corner in ring)]
    which = data.draw(st.sampled_from(touched))
    by = data.draw(st.tuples(st.integers(-2000, 2000), st.integers(-2000, 2000)).filter(any))
    there = int(np.nonzero((rings[which] == inner).all(axis=1))[0][0])
    before = shapely.Polygon(rings[which])
    rings[which] = rings[which].copy()
    rings[which][there] = inner + by
    after = shapely.Polygon(rings[which])
    lost, gained = shapely.difference(before, after), shapely.difference(after, before)
    if max(lost.area, gained.area) < ENOUGH:
        return  # along its own border
    ring = shapely.get_coordinates(before)[:-1]
    near = shapely.MultiPoint([inner, inner + by, ring[there - 1], ring[(there + 1) % 4]])
    changed = shapely.convex_hull(near)
    reported = found(rings)

    codes = {one.code for one in reported}
    assert codes
    assert codes <= {"overlap", "gap", "overlap_sliver", "gap_sliver", "hairline"}
    for one in reported:
        assert f"A{which:02}" in {one.area, *one.others}
        place = shapely.Point(one.lon * SCALE, one.lat * SCALE)
        assert shapely.distance(changed, place) <= 2, "on the ground that changed, to the grid"
    kinds = {"overlap" if "overlap" in one.message else "gap" for one in reported}
    assert "gap" in kinds or lost.area < ENOUGH
    assert "overlap" in kinds or gained.area < ENOUGH


@settings(max_examples=30, deadline=None)
@given(corners=lattices(), data=st.data())
def test_an_area_left_out_is_a_gap_or_a_hole(corners: Lattice, data: st.DataObject) -> None:
    columns, rows, _ = corners.shape
    rings = cells(corners)
    x, y = data.draw(st.integers(0, columns - 2)), data.draw(st.integers(0, rows - 2))
    left_out = rings.pop(x * (rows - 1) + y)
    inside = 0 < x < columns - 2 and 0 < y < rows - 2

    reported = found(rings)

    if not inside:
        assert reported == []
        return
    (gap,) = reported
    assert gap.code == "gap"
    assert len({gap.area, *gap.others}) == 8
    hole = shapely.Polygon(left_out)
    assert shapely.contains(hole, shapely.Point(gap.lon * SCALE, gap.lat * SCALE))
    assert gap.area_m2 is not None
    # a unit of 1e-7 degrees is 7.17 by 11.13 mm at 50 degrees north
    assert abs(gap.area_m2 / (hole.area * 0.00717 * 0.01113) - 1) < 0.01


def test_the_limits_of_a_layer_have_those_of_slivers() -> None:
    assert Limits().with_slivers(m2=5.0).slivers == SliverLimits(m2=5.0)
    assert Limits().with_slivers(width_m=5.0).slivers == SliverLimits(width_m=5.0)
    assert Limits().with_slivers() == Limits()
