"""Every rule of the router, on a country of nine letters."""

from __future__ import annotations

import math

import pytest

from georouter.geometry import SCALE
from georouter.index import Index
from georouter.model import (
    Candidate,
    Category,
    DecisionState,
    InvalidCoordinate,
    MissingLayer,
    Tier,
    UnknownCategory,
)
from georouter.router import Router
from tests.support.polygons import draw, index_of

WEST, SOUTH, SIDE = 20_000_000, 540_000_000, 100_000
POTHOLE = Category("pothole", "Pothole", "A hole.", Tier("highway", ("highway", "district")))
LITTER = Category("litter", "Litter", "Rubbish.", Tier("cleaning", ("district", "highway")))
PARKING = Category("parking", "Parking", "A car.", Tier("city", ("city",)))
CATEGORIES = {category.code: category for category in (POTHOLE, LITTER)}


def country(**pictures: str) -> Index:
    layers = {
        name: draw(picture, side=SIDE, x0=WEST, y0=SOUTH) for name, picture in pictures.items()
    }
    return index_of(**layers)


def place(column: float, row: float) -> tuple[float, float]:
    """Rows of two-row pictures count from the north."""
    return (WEST + column * SIDE) / SCALE, (SOUTH + (2 - row) * SIDE) / SCALE


INDEX = country(highway="AAB./ACB.", district="aabd/acbd")
ROUTER = Router(INDEX, categories=CATEGORIES, dataset="test-1")


def candidate(letter: str, layer: str, reason: str) -> Candidate:
    return Candidate(code=letter, name=f"Area {letter}", layer=layer, reason=reason)


def test_inside_one_area_the_answer_is_certain() -> None:
    lon, lat = place(1.5, 1.5)

    decision = ROUTER.route(lon=lon, lat=lat, category="pothole")

    assert decision.state is DecisionState.CERTAIN
    assert decision.rule == "covering-area"
    assert decision.reason == "the point lies inside Area C"
    assert decision.candidates == (candidate("C", "highway", "inside its boundary"),)
    assert decision.responsible == decision.candidates[0]
    assert (decision.category, decision.tier) == ("pothole", "highway")
    assert decision.dataset == ROUTER.dataset == "test-1"


def test_the_category_decides_which_layer_answers() -> None:
    lon, lat = place(1.5, 1.5)

    decision = ROUTER.route(lon=lon, lat=lat, category="litter")

    assert decision.state is DecisionState.CERTAIN
    assert decision.candidates == (candidate("c", "district", "inside its boundary"),)
    assert (decision.category, decision.tier) == ("litter", "cleaning")


def test_on_a_shared_border_the_lowest_code_comes_first() -> None:
    lon, lat = place(2, 1.5)

    decision = ROUTER.route(lon=lon, lat=lat, category="pothole")

    assert decision.state is DecisionState.AMBIGUOUS
    assert decision.rule == "shared-ground"
    assert decision.candidates == (
        candidate("B", "highway", "its boundary covers the point, and not alone"),
        candidate("C", "highway", "its boundary covers the point, and not alone"),
    )
    assert decision.responsible == decision.candidates[0]
    assert decision.reason == (
        "the point belongs to Area B and Area C alike; the lowest code comes first"
    )


def test_where_three_meet_all_are_candidates() -> None:
    lon, lat = place(2, 1)

    decision = ROUTER.route(lon=lon, lat=lat, category="pothole")

    assert [one.code for one in decision.candidates] == ["A", "B", "C"]
    assert decision.state is DecisionState.AMBIGUOUS


def test_on_the_coast_the_answer_is_certain() -> None:
    lon, lat = place(0, 0)

    assert ROUTER.route(lon=lon, lat=lat, category="pothole").state is DecisionState.CERTAIN


def test_where_the_right_layer_has_no_answer_the_next_is_marked_degraded() -> None:
    lon, lat = place(3.5, 1)

    decision = ROUTER.route(lon=lon, lat=lat, category="pothole")

    assert decision.state is DecisionState.DEGRADED
    assert decision.rule == "fallback-layer"
    assert decision.candidates == (candidate("d", "district", "inside its boundary"),)
    assert decision.reason == (
        "layer 'highway' gives no answer here; Area d is taken from layer 'district'"
    )


def test_a_border_in_the_wrong_layer_is_degraded_first() -> None:
    router = Router(country(highway="AB/AB"), categories=CATEGORIES, dataset="test-1")
    lon, lat = place(1, 1)

    decision = router.route(lon=lon, lat=lat, category="litter")

    assert decision.state is DecisionState.DEGRADED
    assert [one.code for one in decision.candidates] == ["A", "B"]


def test_a_dataset_without_the_right_layer_is_degraded_everywhere() -> None:
    router = Router(country(district="aab/acb"), categories=CATEGORIES, dataset="test-1")
    lon, lat = place(1.5, 1.5)

    assert router.route(lon=lon, lat=lat, category="pothole").state is DecisionState.DEGRADED
    assert router.route(lon=lon, lat=lat, category="litter").state is DecisionState.CERTAIN


def test_a_dataset_without_any_layer_of_a_tier_is_refused() -> None:
    categories = {**CATEGORIES, "parking": PARKING}

    with pytest.raises(MissingLayer) as refused:
        Router(INDEX, categories=categories, dataset="test-1")

    assert str(refused.value) == (
        "dataset test-1 has the layers highway, district, but categories of tier 'city' ask city; "
        "build it with --layer city=FILE"
    )


def test_outside_is_an_answer_without_candidates() -> None:
    for lon, lat in (place(-0.5, 1), (-100.0, 40.0), (180.0, -90.0)):
        decision = ROUTER.route(lon=lon, lat=lat, category="pothole")

        assert decision.state is DecisionState.OUTSIDE
        assert decision.rule == "outside"
        assert decision.reason == "the point is outside the service area"
        assert decision.candidates == ()
        assert decision.responsible is None


def test_outside_the_layers_that_answer_is_outside() -> None:
    router = Router(
        country(highway="A./A.", city=".K/.K"),
        categories={"pothole": POTHOLE},
        dataset="test-1",
    )
    lon, lat = place(1.5, 1)

    decision = router.route(lon=lon, lat=lat, category="pothole")

    assert decision.state is DecisionState.OUTSIDE
    assert decision.rule == "no-area"
    assert decision.reason == "no area of a layer that answers for 'highway' covers this point"


def test_swapped_axes_are_named_and_not_mended() -> None:
    lon, lat = place(1.5, 1.5)

    decision = ROUTER.route(lon=lat, lat=lon, category="pothole")

    assert decision.state is DecisionState.OUTSIDE
    assert decision.rule == "swapped-axes"
    assert decision.reason == (
        "the point is outside the service area; longitude and latitude look swapped"
    )
    assert decision.candidates == ()


def test_an_unknown_category_is_named_with_those_there_are() -> None:
    with pytest.raises(UnknownCategory) as refused:
        ROUTER.route(lon=0, lat=0, category="potholes")
    assert str(refused.value) == "unknown category 'potholes'; known are: pothole, litter"
    assert refused.value.code == "potholes"
    assert refused.value.known == ("pothole", "litter")


@pytest.mark.parametrize(
    ("lon", "lat", "field"), [(math.nan, 54, "lon"), (2, math.inf, "lat"), (2, 91, "lat")]
)
def test_what_is_no_coordinate_is_refused(lon: float, lat: float, field: str) -> None:
    with pytest.raises(InvalidCoordinate) as refused:
        ROUTER.route(lon=lon, lat=lat, category="pothole")
    assert refused.value.field == field


def test_the_same_input_gives_the_same_decision() -> None:
    again = Router(
        country(highway="AAB./ACB.", district="aabd/acbd"), categories=CATEGORIES, dataset="test-1"
    )
    for column in range(-1, 9):
        for row in range(-1, 5):
            lon, lat = place(column / 2, row / 2)
            for category in CATEGORIES:
                one = ROUTER.route(lon=lon, lat=lat, category=category)
                assert one == again.route(lon=lon, lat=lat, category=category)
