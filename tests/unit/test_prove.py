"""The proof lets a right index pass and names a point where a wrong one is wrong."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import shapely

from boundaries.prove import Oracle, ProofError, covering_exactly, prove, sample_points
from georouter.geometry import SCALE
from tests.support.polygons import Areas, degrees, draw, index_of

MAP = draw("AAB/ACB", side=1000, x0=20_000_000, y0=540_000_000)
OTHER = draw("ab./ab.", side=1000, x0=20_000_000, y0=540_000_000)
CORNER = (20_002_000, 540_001_000)  # where A, B and C meet


def with_vertex_moved(areas: Areas, code: str, move: Callable[[Any], Any]) -> dict[str, Any]:
    def edit(vertices: Any) -> Any:
        at_corner = (vertices == CORNER).all(axis=1)
        return np.where(at_corner[:, None], move(vertices), vertices)

    return {**areas, code: shapely.transform(areas[code], edit)}


def test_a_right_index_is_proved_at_every_kind_of_point() -> None:
    told: list[tuple[str, float]] = []
    proof = prove(
        index_of(one=MAP, two=OTHER),
        [degrees(MAP), degrees(OTHER)],
        points=700,
        seed=5,
        progress=lambda stage, share: told.append((stage, share)),
    )

    assert proof.seed == 5
    assert proof.settled == 0
    assert set(proof.points) == {
        "anywhere",
        "vertex",
        "edge",
        "ulp",
        "millimetres",
        "metres",
        "level",
    }
    assert set(proof.points.values()) == {200}
    assert told[-1] == ("proof", 1.0)
    assert [share for _, share in told] == sorted(share for _, share in told)


@pytest.mark.parametrize(
    ("code", "step"),
    [
        *((code, (step, 0)) for code in "ABC" for step in (-1, 1)),
        *((code, (0, step)) for code in "AC" for step in (-1, 1)),  # B's border runs north there
    ],
)
def test_a_vertex_moved_by_a_centimetre_is_found(code: str, step: tuple[int, int]) -> None:
    wrong = with_vertex_moved(MAP, code, lambda vertices: vertices + np.array(step))

    with pytest.raises(ProofError) as refused:
        prove(index_of(one=wrong), [degrees(MAP)], points=2000, seed=1)

    said = re.fullmatch(
        r"layer 'one' at lon ([-\d.e]+), lat ([-\d.e]+) \((\w+)\): GEOS covers says (\[.*\]), "
        r"the index (\[.*\]) and in bulk (\d|None); please report this",
        str(refused.value),
    )
    assert said, refused.value
    lon, lat = float(said[1]), float(said[2])
    truth = [n for n, area in enumerate(degrees(MAP)) if area.covers(shapely.Point(lon, lat))]
    assert said[4] == str(truth)
    assert said[4] != said[5]


def test_a_missing_hole_is_found() -> None:
    holed = draw("AAA/A.A/AAA", side=1000)
    filled = draw("AAA/AAA/AAA", side=1000)

    with pytest.raises(ProofError, match=r"GEOS covers says \[\], the index \[0\] and in bulk 0"):
        prove(index_of(one=filled), [degrees(holed)], points=700, seed=1)


def test_an_error_in_the_second_layer_is_found() -> None:
    wrong = with_vertex_moved(MAP, "A", lambda vertices: vertices - 1)

    with pytest.raises(ProofError, match="layer 'two'"):
        prove(index_of(one=MAP, two=wrong), [degrees(MAP), degrees(MAP)], points=2000, seed=1)


def test_an_error_of_the_bulk_lookup_alone_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    index = index_of(one=MAP)
    answer = index.covering_many(np.zeros(1), np.zeros(1), layer="one")
    monkeypatch.setattr(index, "covering_many", lambda lons, *_, **__: answer.repeat(len(lons)))

    with pytest.raises(ProofError, match="in bulk None; please report this"):
        prove(index, [degrees(MAP)], points=700, seed=1)


def test_where_geos_rounds_rationals_settle_it() -> None:
    areas = {
        "A": shapely.Polygon([(0, 0), (3_000_000, 0), (2_000_000, 1_000_000)]),
        "B": shapely.Polygon([(1_000_003, 0), (-2_000_006, -2_000_006), (3_000_000, -2_000_000)]),
    }
    polygons = degrees(areas)
    for lon, lat, truth, by_geos in (
        (5e-324, 5e-324, [], [0]),
        (-0.052147395543267375, -0.10143179702884492, [1], []),
    ):
        assert Oracle(polygons).covering(np.array([[lon, lat]])) == [by_geos]
        assert covering_exactly(polygons, lon=lon, lat=lat) == truth

    assert prove(index_of(one=areas), [polygons], points=1400, seed=1).settled > 0


def test_rationals_agree_with_geos_elsewhere() -> None:
    polygons = degrees(MAP)
    for drawn in sample_points(polygons, 350, np.random.default_rng(1)).values():
        found = [covering_exactly(polygons, lon=lon, lat=lat) for lon, lat in drawn.tolist()]
        assert found == Oracle(polygons).covering(drawn)


def test_the_oracle_names_all_that_cover_a_point() -> None:
    x, y = CORNER
    points = np.array([[x, y], [x + 500, y], [x, y + 500], [x - 500, y - 500], [0, 0]]) / SCALE

    assert Oracle(degrees(MAP)).covering(points) == [[0, 1, 2], [1], [0, 1], [2], []]


def test_points_are_drawn_where_it_is_hard_and_the_same_every_time() -> None:
    polygons = degrees(MAP)
    drawn = sample_points(polygons, 700, np.random.default_rng(1))
    again = sample_points(polygons, 700, np.random.default_rng(1))

    assert all(np.array_equal(drawn[kind], again[kind]) for kind in drawn)
    borders = shapely.geometrycollections(shapely.boundary(polygons).tolist())
    vertices = {tuple(vertex) for vertex in shapely.get_coordinates(polygons).tolist()}
    assert {tuple(point) for point in drawn["vertex"].tolist()} <= vertices
    assert not {tuple(point) for point in drawn["ulp"].tolist()} & vertices
    far = {kind: shapely.distance(borders, shapely.points(at)).max() for kind, at in drawn.items()}
    assert far["vertex"] == 0
    assert far["edge"] < 1e-14
    assert far["ulp"] < 1e-14
    assert far["millimetres"] < 1e-6
    assert 1e-5 < far["metres"] < 5e-3


def test_points_stay_on_the_globe() -> None:
    rim = degrees({"A": shapely.box(1_799_999_000, 899_999_000, 1_800_000_000, 900_000_000)})
    for drawn in sample_points(rim, 700, np.random.default_rng(1)).values():
        assert (np.abs(drawn) <= [180.0, 90.0]).all()
