"""The predicates that decide a point beside an edge, against rational numbers and by hand."""

from __future__ import annotations

import math
from fractions import Fraction

import pytest

from georouter.geometry import SCALE, check_coordinate, meets_ray, side
from georouter.model import InvalidCoordinate

NAN, INF = math.nan, math.inf


@pytest.mark.parametrize(
    ("lon", "lat"), [(0, 0), (-0.0, 0.0), (180, 90), (-180, -90), (179.9999999, -89.9999999)]
)
def test_degrees_in_range_are_coordinates(lon: float, lat: float) -> None:
    check_coordinate(lon, lat)


@pytest.mark.parametrize(
    ("lon", "lat", "field", "message"),
    [
        (NAN, 51.5, "lon", "lon must be a finite number of degrees"),
        (INF, 51.5, "lon", "lon must be a finite number of degrees"),
        (-INF, 51.5, "lon", "lon must be a finite number of degrees"),
        (-0.1, NAN, "lat", "lat must be a finite number of degrees"),
        (-0.1, INF, "lat", "lat must be a finite number of degrees"),
        (NAN, NAN, "lon", "lon must be a finite number of degrees"),
        (
            180.00000000000003,
            51.5,
            "lon",
            "lon must be between -180 and 180 degrees (WGS 84), not 180.00000000000003",
        ),
        (-180.5, 51.5, "lon", "lon must be between -180 and 180 degrees (WGS 84), not -180.5"),
        (-0.1, 90.5, "lat", "lat must be between -90 and 90 degrees (WGS 84), not 90.5"),
        (-0.1, -91, "lat", "lat must be between -90 and 90 degrees (WGS 84), not -91"),
        (530034, 180381, "lon", "lon must be between -180 and 180 degrees (WGS 84), not 530034"),
    ],
)
def test_anything_else_is_refused_and_the_field_named(
    lon: float, lat: float, field: str, message: str
) -> None:
    with pytest.raises(InvalidCoordinate) as refused:
        check_coordinate(lon, lat)
    assert refused.value.field == field
    assert str(refused.value) == message


@pytest.mark.parametrize(
    ("px", "py", "sign"),
    [(0, 1, 1), (2, 1, -1), (1, 1, 0), (1, -7, 0), (0.5, 5, 1), (1.0000001, 5, -1)],
)
def test_left_of_an_edge_to_the_north_is_positive(px: float, py: float, sign: int) -> None:
    assert side(px, py, 1, 0, 1, 2) == sign
    assert side(px, py, 1, 2, 1, 0) == -sign


def exact_side(px: float, py: float, x1: float, y1: float, x2: float, y2: float) -> int:
    ax, ay, bx, by = (
        Fraction(end) - Fraction(point) for end, point in ((x1, px), (y1, py), (x2, px), (y2, py))
    )
    cross = ax * by - ay * bx
    return (cross > 0) - (cross < 0)


def float_side(px: float, py: float, x1: float, y1: float, x2: float, y2: float) -> int:
    cross = (x1 - px) * (y2 - py) - (y1 - py) * (x2 - px)
    return (cross > 0) - (cross < 0)


def test_side_is_exact_where_floats_are_wrong() -> None:
    """A diagonal seen from the 64 x 64 floats around 0.5 (Kettner et al. 2008)."""
    wrong = {0: 0, 1: 0, -1: 0}
    for i in range(64):
        for j in range(64):
            edge = (0.5 + i * 2**-53, 0.5 + j * 2**-53, 12.0, 12.0, 24.0, 24.0)
            sign = exact_side(*edge)
            assert side(*edge) == sign
            if float_side(*edge) != sign:
                wrong[float_side(*edge)] += 1
    assert all(wrong.values()), "plain floats say left, right and on the line where it is not so"


def test_side_is_exact_on_a_border_of_the_grid() -> None:
    x1, y1, x2, y2 = (units / SCALE for units in (-26325001, 535450003, -26324998, 535450010))
    for t in range(1, 100):
        px, py = x1 + (x2 - x1) * t / 100, y1 + (y2 - y1) * t / 100
        for lon in (math.nextafter(px, -INF), px, math.nextafter(px, INF)):
            assert side(lon, py, x1, y1, x2, y2) == exact_side(lon, py, x1, y1, x2, y2)


def test_side_does_not_lose_distances_that_underflow() -> None:
    assert side(5e-324, 0.0, 0.0, -1e-7, 0.0, 1e-7) == -1
    assert side(5e-324, 5e-324, 0.0, 0.0, 0.2, 0.1) == 1
    assert side(5e-324, 5e-324, 0.0, 0.0, 0.1, 0.1) == 0


CROSSES, MISSES, TOUCHES = True, False, None


@pytest.mark.parametrize(
    ("edge", "meets"),
    [
        pytest.param((5, -1, 5, 1), CROSSES, id="ahead"),
        pytest.param((-5, -1, -5, 1), MISSES, id="behind"),
        pytest.param((5, 1, 5, 2), MISSES, id="above"),
        pytest.param((5, -2, 5, -1), MISSES, id="below"),
        pytest.param((-1, -2, 3, 2), CROSSES, id="slanted, ahead"),
        pytest.param((-3, -2, 1, 2), MISSES, id="slanted, behind"),
        pytest.param((-1, -1, 1, 1), TOUCHES, id="through the point"),
        pytest.param((0, -1, 0, 1), TOUCHES, id="upright through the point"),
        pytest.param((0, 0, 3, 3), TOUCHES, id="from the point"),
        pytest.param((0, 0, -3, -3), TOUCHES, id="from the point, behind"),
        pytest.param((-3, 0, 3, 0), TOUCHES, id="level through the point"),
        pytest.param((0, 0, 3, 0), TOUCHES, id="level from the point"),
        pytest.param((1, 0, 3, 0), MISSES, id="level, ahead"),
        pytest.param((-3, 0, -1, 0), MISSES, id="level, behind"),
        # half-open: an edge owns its lower end, so that a vertex on the ray counts once
        pytest.param((5, 0, 5, 1), CROSSES, id="lower end on the ray"),
        pytest.param((5, -1, 5, 0), MISSES, id="upper end on the ray"),
        pytest.param((5, 0, 5, math.inf), CROSSES, id="fin from the ray"),
        pytest.param((5, -1, 5, math.inf), CROSSES, id="fin from below"),
        pytest.param((5, 1, 5, math.inf), MISSES, id="fin from above"),
    ],
)
def test_a_ray_from_the_origin(
    edge: tuple[float, float, float, float],
    meets: bool | None,  # noqa: FBT001 - a table's column
) -> None:
    x1, y1, x2, y2 = edge
    assert meets_ray(0, 0, x1, y1, x2, y2) is meets
    assert meets_ray(0, 0, x2, y2, x1, y1) is meets


@pytest.mark.parametrize(
    ("before", "after", "crossings"),
    [((6, -1), (6, 1), 1), ((6, 1), (6, -1), 1), ((4, 1), (6, 1), 2), ((4, -1), (6, -1), 0)],
)
def test_a_vertex_on_the_ray_counts_as_often_as_the_border_changes_sides(
    before: tuple[int, int], after: tuple[int, int], crossings: int
) -> None:
    meets = [meets_ray(0, 0, *before, 5, 0), meets_ray(0, 0, 5, 0, *after)]
    assert meets.count(True) == crossings
    assert None not in meets
