"""The index as its callers see it: one point, many points, what is refused, many threads."""

from __future__ import annotations

import math
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from threading import Barrier
from typing import Any

import numpy as np
import pytest
import shapely

from georouter.compiler import compile_index
from georouter.geometry import SCALE
from georouter.index import Index
from georouter.model import InvalidCoordinate
from tests.support.polygons import Drawing, beside, index_of, layer

NAN, INF = math.nan, math.inf
DRAWING = Drawing("AAB/ACB", ".aa/...", side=1000)
INDEX = DRAWING.index


def places(*found: tuple[float, float]) -> tuple[list[float], list[float]]:
    lonlat = [DRAWING.place(column, row) for column, row in found]
    return [lon for lon, _ in lonlat], [lat for _, lat in lonlat]


def test_many_points_are_answered_in_their_order() -> None:
    lons, lats = places((0.5, 0.5), (2.5, 0.5), (1.5, 1.5), (-0.5, 0.5))

    found = INDEX.covering_many(lons, lats, layer="layer 1")

    assert found.tolist() == [0, 1, 2, -1]
    assert found.shape == (4,)
    assert found.dtype == np.int32
    assert INDEX.covering_many(lons, lats, layer="layer 2").tolist() == [-1, 3, -1, -1]


def test_on_a_shared_border_the_lowest_position_wins() -> None:
    lons, lats = places((2, 0.5), (2, 1), (1, 1.5), (1.5, 1), (3, 0), (3, 1))

    assert INDEX.covering_many(lons, lats, layer="layer 1").tolist() == [0, 0, 0, 0, 1, 1]
    assert INDEX.covering_many(lons, lats, layer="layer 2").tolist() == [3, 3, -1, 3, 3, 3]


def test_no_points_have_no_answers() -> None:
    found = INDEX.covering_many([], np.zeros(0), layer="layer 1")
    assert found.shape == (0,)
    assert found.dtype == np.int32


def test_arrays_of_any_layout_are_taken() -> None:
    lons, lats = places((0.5, 0.5), (2.5, 0.5), (1.5, 1.5))
    pairs = np.array([lons, lats], dtype=np.float64).T
    backwards = pairs[::-1]

    assert INDEX.covering_many(pairs[:, 0], pairs[:, 1], layer="layer 1").tolist() == [0, 1, 2]
    assert INDEX.covering_many(backwards[:, 0], backwards[:, 1], layer="layer 1").tolist() == [
        2,
        1,
        0,
    ]
    assert INDEX.covering_many(tuple(lons), tuple(lats), layer="layer 1").tolist() == [0, 1, 2]


def test_more_points_than_one_block() -> None:
    lons, lats = places((0.5, 0.5), (2.5, 0.5), (1.5, 1.5))
    found = INDEX.covering_many(lons * 30_000, lats * 30_000, layer="layer 1")
    assert found.tolist() == [0, 1, 2] * 30_000


def test_an_unknown_layer_is_named_with_those_there_are() -> None:
    with pytest.raises(KeyError, match="no layer 'wards' in this index; it has layer 1, layer 2"):
        INDEX.covering_many([2.0], [54.0], layer="wards")


@pytest.mark.parametrize(
    ("lons", "lats"),
    [
        ([1.0, 2.0], [1.0]),
        ([], [1.0]),
        ([[1.0, 2.0]], [[1.0, 2.0]]),
        (1.0, 1.0),
    ],
)
def test_shapes_that_do_not_match_are_refused(lons: Any, lats: Any) -> None:
    with pytest.raises(ValueError, match=r"lons and lats must both have shape \(n,\)"):
        INDEX.covering_many(lons, lats, layer="layer 1")


@pytest.mark.parametrize(
    ("lons", "lats", "field", "named"),
    [
        ([2.0, NAN, NAN], [54.0, 54.0, 54.0], "lon", "lons[1] is "),
        ([2.0, 2.0], [54.0, NAN], "lat", "lats[1] is "),
        ([2.0, 2.0, INF], [54.0, 54.0, 54.0], "lon", "lons[2] is "),
        ([2.0], [-INF], "lat", "lats[0] is "),
        ([180.00000000000003], [54.0], "lon", "lons[0] is "),
        ([2.0], [90.1], "lat", "lats[0] is "),
    ],
)
def test_the_first_bad_value_of_many_is_named(
    lons: list[float], lats: list[float], field: str, named: str
) -> None:
    with pytest.raises(InvalidCoordinate) as refused:
        INDEX.covering_many(lons, lats, layer="layer 1")
    assert refused.value.field == field
    assert str(refused.value).startswith(named)


@pytest.mark.parametrize(
    ("lon", "lat", "field"),
    [
        (NAN, 54.0, "lon"),
        (INF, 54.0, "lon"),
        (-INF, 54.0, "lon"),
        (2.0, NAN, "lat"),
        (2.0, INF, "lat"),
        (2.0, -INF, "lat"),
        (NAN, NAN, "lon"),
        (181, 54.0, "lon"),
        (-180.00000000000003, 54.0, "lon"),
        (1e300, 54.0, "lon"),
        (2.0, 90.00000000000001, "lat"),
        (2.0, -1e300, "lat"),
        (530034.0, 180381.0, "lon"),
    ],
)
def test_what_is_no_coordinate_is_refused(lon: float, lat: float, field: str) -> None:
    with pytest.raises(InvalidCoordinate) as refused:
        INDEX.covering(lon=lon, lat=lat)
    assert refused.value.field == field


RIM = index_of(
    one={
        "A": shapely.box(-1_800_000_000, -900_000_000, -1_700_000_000, -800_000_000),
        "B": shapely.box(1_700_000_000, 800_000_000, 1_800_000_000, 900_000_000),
    }
)


@pytest.mark.parametrize(
    ("lon", "lat", "field"),
    [
        (180.00000000000003, 85.0, "lon"),
        (180.0000001, 85.0, "lon"),
        (180.01, 85.0, "lon"),
        (175.0, 90.00000000000001, "lat"),
        (175.0, 90.01, "lat"),
        (-180.00000000000003, -85.0, "lon"),
        (-180.00000005, -85.0, "lon"),
        (-175.0, -90.00000000000001, "lat"),
        (-175.0, -90.01, "lat"),
    ],
)
def test_it_is_refused_just_beyond_an_area_on_the_rim_of_the_world_too(
    lon: float, lat: float, field: str
) -> None:
    with pytest.raises(InvalidCoordinate) as refused:
        RIM.covering(lon=lon, lat=lat)
    assert refused.value.field == field


def test_the_rim_itself_is_covered() -> None:
    assert RIM.covering(lon=-180.0, lat=-90.0) == RIM.covering(lon=-170, lat=-80) == (0,)
    assert RIM.covering(lon=180.0, lat=90.0) == RIM.covering(lon=180, lat=85) == (1,)


def test_far_outside_the_grid_is_nowhere() -> None:
    for lon, lat in ((0, 0), (-180, 90), (180, -90), (2.0, -54.0), (-2.0, 54.0)):
        assert INDEX.covering(lon=lon, lat=lat) == ()


def test_just_outside_the_bounding_box_is_nowhere() -> None:
    (west, south), (east, north) = DRAWING.place(0, 2), DRAWING.place(3, 0)
    for step in (0.0, 1e-9, 1e-7, 1e-5):
        beyond_west = west - step if step else math.nextafter(west, -INF)
        beyond_east = east + step if step else math.nextafter(east, INF)
        beyond_south = south - step if step else math.nextafter(south, -INF)
        beyond_north = north + step if step else math.nextafter(north, INF)
        middle = (west + east) / 2, (south + north) / 2
        for lon, lat in (
            (beyond_west, middle[1]),
            (beyond_east, middle[1]),
            (middle[0], beyond_south),
            (middle[0], beyond_north),
            (beyond_west, south),
            (east, beyond_north),
            (beyond_east, beyond_north),
        ):
            assert INDEX.covering(lon=lon, lat=lat) == ()
    assert INDEX.covering(lon=west, lat=south) == (0,)
    assert INDEX.covering(lon=east, lat=north) == (1, 3)


def test_covering_can_be_held_on_to() -> None:
    covering = Drawing("A").index.covering  # the index itself is gone
    assert covering(lon=20_000_500 / SCALE, lat=540_000_500 / SCALE) == (0,)


@pytest.fixture
def eager_threads() -> Iterator[None]:
    """Threads take turns a thousand times as often as usual."""
    usual = sys.getswitchinterval()
    sys.setswitchinterval(usual / 1000)
    yield
    sys.setswitchinterval(usual)


@pytest.mark.usefixtures("eager_threads")
def test_threads_that_share_a_fresh_index_agree() -> None:
    drawing = Drawing("AAB/ACB/DDB", "aab/acb/...", ("hh./...", ".ii/.ii", "..j/..j"), side=30)
    rings = [layer(name, areas) for name, areas in drawing.layers.items()]
    corners = [drawing.place(column / 2, row / 2) for column in range(7) for row in range(7)]
    points = beside(np.array(corners))[::5]
    lonlat = [(lon, lat) for lon, lat in points.tolist()]
    expected = {(lon, lat): drawing.index.covering(lon=lon, lat=lat) for lon, lat in lonlat}
    bulk = drawing.index.covering_many(points[:, 0], points[:, 1], layer="layer 3").tolist()
    index, ready = Index(compile_index(rings)), Barrier(8)

    def ask(turn: int) -> tuple[dict[tuple[float, float], tuple[int, ...]], list[int]]:
        start = turn * len(lonlat) // 8
        ready.wait(timeout=30)
        found = {
            (lon, lat): index.covering(lon=lon, lat=lat)
            for lon, lat in lonlat[start:] + lonlat[:start]
        }
        return found, index.covering_many(points[:, 0], points[:, 1], layer="layer 3").tolist()

    with ThreadPoolExecutor(8) as pool:
        for found in pool.map(ask, range(8)):
            assert found == (expected, bulk)
