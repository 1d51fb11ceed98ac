"""Distances to borders, by hand: a metre of longitude and latitude is known at these latitudes."""

from __future__ import annotations

import pytest
import shapely

from georouter.model import InvalidCoordinate
from georouter.nearest import metres_per_degree
from tests.support.polygons import index_of

UNIT = 10_000_000


def square(lon: float, lat: float, side: float = 1.0) -> shapely.Polygon:
    west, south = round(lon * UNIT), round(lat * UNIT)
    return shapely.box(west, south, west + round(side * UNIT), south + round(side * UNIT))


@pytest.mark.parametrize(
    ("lat", "lon_m", "lat_m"),
    [  # length of a degree on WGS 84: NGA, "Length of a degree of latitude and longitude"
        (0.0, 111_319.5, 110_574.3),
        (15.0, 107_550.5, 110_649.0),
        (30.0, 96_486.3, 110_852.4),
        (45.0, 78_846.8, 111_132.0),
        (60.0, 55_800.0, 111_412.3),
        (75.0, 28_901.6, 111_617.4),
        (90.0, 0.0, 111_694.0),
    ],
)
def test_a_degree_is_as_long_as_it_is(lat: float, lon_m: float, lat_m: float) -> None:
    assert metres_per_degree(lat) == pytest.approx((lon_m, lat_m), abs=1.0)
    assert metres_per_degree(-lat) == metres_per_degree(lat)


@pytest.mark.parametrize("lat", [0.2, 30.0, 54.5, 70.0])
@pytest.mark.parametrize("distance_m", [0.5, 10.0, 50.0, 400.0, 1000.0])
def test_the_distance_to_a_meridian_and_to_a_parallel(lat: float, distance_m: float) -> None:
    index = index_of(
        council={"A": square(1, lat), "B": square(2, lat), "C": square(1, lat + 1)},
    )
    lon_m, lat_m = metres_per_degree(lat + 0.5)
    beside_b = index.nearest_border(
        lon=2 - distance_m / lon_m, lat=lat + 0.5, layer="council", within_m=1100
    )
    assert [near.area for near in beside_b] == [1]
    assert beside_b[0].distance_m == pytest.approx(distance_m, rel=0.001)
    _, lat_m = metres_per_degree(lat + 1)
    below_c = index.nearest_border(
        lon=1.5, lat=lat + 1 - distance_m / lat_m, layer="council", within_m=1100
    )
    assert [near.area for near in below_c] == [2]
    assert below_c[0].distance_m == pytest.approx(distance_m, rel=0.001)


def test_nearest_first_and_none_beyond_the_limit() -> None:
    index = index_of(council={"A": square(1, 50), "B": square(2, 50), "C": square(1, 51)})
    lon_m, lat_m = metres_per_degree(51.0)
    lon, lat = 2 - 30 / lon_m, 51 - 40 / lat_m
    near = index.nearest_border(lon=lon, lat=lat, layer="council", within_m=100)
    assert [index.areas[found.area].code for found in near] == ["B", "C"]
    assert [round(found.distance_m) for found in near] == [30, 40]
    assert index.nearest_border(lon=lon, lat=lat, layer="council", within_m=35) == near[:1]
    assert index.nearest_border(lon=lon, lat=lat, layer="council", within_m=0) == ()


def test_the_coast_is_nobodys_border_and_the_sea_is_near_to_all() -> None:
    index = index_of(council={"A": square(1, 50), "B": square(2, 50)})
    lon_m, lat_m = metres_per_degree(50.0)
    on_land = index.nearest_border(lon=1.5, lat=50 + 20 / lat_m, layer="council", within_m=200)
    assert on_land == ()
    at_sea = index.nearest_border(
        lon=2 - 30 / lon_m, lat=50 - 40 / lat_m, layer="council", within_m=200
    )
    assert [(found.area, round(found.distance_m)) for found in at_sea] == [(0, 40), (1, 50)]


def test_a_corner_is_as_far_as_its_vertex() -> None:
    index = index_of(council={"A": square(1, 50), "B": square(2, 51)})
    lon_m, lat_m = metres_per_degree(51.0)
    near = index.nearest_border(
        lon=2 - 30 / lon_m, lat=51 - 40 / lat_m, layer="council", within_m=60
    )
    assert [(found.area, round(found.distance_m, 1)) for found in near] == [(1, 50.0)]


def test_only_the_layer_asked_counts() -> None:
    index = index_of(
        council={"A": square(1, 50), "B": square(2, 50)}, region={"R": square(1, 50, 2)}
    )
    lon_m, _ = metres_per_degree(50.5)
    where = {"lon": 2 - 5 / lon_m, "lat": 50.5, "within_m": 50.0}
    assert [near.area for near in index.nearest_border(layer="council", **where)] == [1]
    assert index.nearest_border(layer="region", **where) == ()


def test_what_makes_no_sense_is_refused() -> None:
    index = index_of(council={"A": square(1, 50)})
    with pytest.raises(KeyError, match="no layer 'parish'"):
        index.nearest_border(lon=1, lat=50, layer="parish", within_m=10)
    for within_m in (-1.0, 10_001.0, float("nan")):
        with pytest.raises(ValueError, match="within_m must be between"):
            index.nearest_border(lon=1, lat=50, layer="council", within_m=within_m)
    with pytest.raises(InvalidCoordinate):
        index.nearest_border(lon=1, lat=float("nan"), layer="council", within_m=10)
