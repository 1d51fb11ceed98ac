"""Every rule of the router, on a country of nine letters."""

from __future__ import annotations

import math
from dataclasses import replace
from random import Random

import pytest

from georouter.geometry import SCALE
from georouter.index import Index
from georouter.model import (
    Agreement,
    Candidate,
    Category,
    DecisionState,
    InvalidCoordinate,
    MissingLayer,
    NotACandidate,
    Rules,
    Tier,
    UnknownCategory,
)
from georouter.nearest import metres_per_degree
from georouter.router import Router
from tests.support.polygons import draw, index_of

WEST, SOUTH, SIDE = 20_000_000, 540_000_000, 100_000
POTHOLE = Category("pothole", "Pothole", "A hole.", Tier("highway", ("highway", "district")))
LITTER = Category("litter", "Litter", "Rubbish.", Tier("cleaning", ("district", "highway")))
PARKING = Category("parking", "Parking", "A car.", Tier("city", ("city",)))
RULES = Rules("1", {category.code: category for category in (POTHOLE, LITTER)})


def country(**pictures: str) -> Index:
    layers = {
        name: draw(picture, side=SIDE, x0=WEST, y0=SOUTH) for name, picture in pictures.items()
    }
    return index_of(**layers)


def place(column: float, row: float) -> tuple[float, float]:
    """Rows of two-row pictures count from the north."""
    return (WEST + column * SIDE) / SCALE, (SOUTH + (2 - row) * SIDE) / SCALE


INDEX = country(highway="AAB./ACB.", district="aabd/acbd")
ROUTER = Router(INDEX, rules=RULES, dataset="test-1")


def candidate(letter: str, layer: str, reason: str, distance_m: float = 0.0) -> Candidate:
    return Candidate(letter, f"Area {letter}", layer, reason, distance_m)


def metres_east(lon: float, lat: float, metres: float) -> float:
    return lon + metres / metres_per_degree(lat)[0]


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
        "the point lies inside Area d; layer 'highway', which decides, gives no answer here"
    )


def test_a_border_in_the_wrong_layer_is_degraded_first() -> None:
    router = Router(country(highway="AB/AB"), rules=RULES, dataset="test-1")
    lon, lat = place(1, 1)

    decision = router.route(lon=lon, lat=lat, category="litter")

    assert decision.state is DecisionState.DEGRADED
    assert [one.code for one in decision.candidates] == ["A", "B"]


def test_a_dataset_without_the_right_layer_is_degraded_everywhere() -> None:
    router = Router(country(district="aab/acb"), rules=RULES, dataset="test-1")
    lon, lat = place(1.5, 1.5)

    assert router.route(lon=lon, lat=lat, category="pothole").state is DecisionState.DEGRADED
    assert router.route(lon=lon, lat=lat, category="litter").state is DecisionState.CERTAIN


def test_a_dataset_without_any_layer_of_a_tier_is_refused() -> None:
    rules = Rules("1", {**RULES.categories, "parking": PARKING})

    with pytest.raises(MissingLayer) as refused:
        Router(INDEX, rules=rules, dataset="test-1")

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
        rules=Rules("1", {"pothole": POTHOLE}),
        dataset="test-1",
    )
    lon, lat = place(1.5, 1)

    decision = router.route(lon=lon, lat=lat, category="pothole")

    assert decision.state is DecisionState.OUTSIDE
    assert decision.rule == "outside"


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


def near_the_border_of_a_and_c(metres: float) -> tuple[float, float]:
    """Inside A, so far west of C."""
    lon, lat = place(1, 1.5)
    return metres_east(lon, lat, -metres), lat


def test_within_the_accuracy_of_a_border_both_sides_are_candidates_and_asked_about() -> None:
    lon, lat = near_the_border_of_a_and_c(25)

    decision = ROUTER.route(lon=lon, lat=lat, category="pothole", accuracy_m=30)

    assert (decision.state, decision.rule) == (DecisionState.AMBIGUOUS, "near-border")
    assert decision.candidates == (
        candidate("A", "highway", "inside its boundary"),
        candidate("C", "highway", "its border is 25 m away", 25.0),
    )
    assert decision.reason == (
        "the point lies inside Area A, and so near to Area C that the position may be wrong"
    )
    assert decision.question == "Is it in Area A or in Area C?"


@pytest.mark.parametrize(
    ("metres", "accuracy_m", "state"),
    [
        (9, None, DecisionState.AMBIGUOUS),  # a phone is taken to be 10 m off
        (11, None, DecisionState.CERTAIN),
        (9, 0, DecisionState.AMBIGUOUS),  # no position is believed to be better than that
        (11, 0, DecisionState.CERTAIN),
        (29, 30, DecisionState.AMBIGUOUS),
        (31, 30, DecisionState.CERTAIN),
        (300, 5000, DecisionState.AMBIGUOUS),
    ],
)
def test_how_near_is_too_near(metres: float, accuracy_m: float, state: DecisionState) -> None:
    lon, lat = near_the_border_of_a_and_c(metres)

    decision = ROUTER.route(lon=lon, lat=lat, category="pothole", accuracy_m=accuracy_m)

    assert decision.state is state
    assert bool(decision.question) is (state is DecisionState.AMBIGUOUS)


def test_the_citizen_s_choice_settles_it() -> None:
    lon, lat = near_the_border_of_a_and_c(5)

    decision = ROUTER.route(lon=lon, lat=lat, category="pothole", chosen="C")

    assert (decision.state, decision.rule) == (DecisionState.CERTAIN, "chosen")
    assert [one.code for one in decision.candidates] == ["C", "A"]
    assert decision.reason.endswith("the reporter says Area C")
    assert decision.question == ""


def test_a_choice_that_was_not_offered_is_refused() -> None:
    lon, lat = near_the_border_of_a_and_c(5)

    with pytest.raises(NotACandidate) as refused:
        ROUTER.route(lon=lon, lat=lat, category="pothole", chosen="B")

    assert str(refused.value) == "'B' is no candidate at this place; candidates are: A, C"
    with pytest.raises(NotACandidate, match="candidates are: nobody"):
        ROUTER.route(lon=0, lat=0, category="pothole", chosen="B")


def test_a_choice_where_there_is_none_changes_nothing() -> None:
    lon, lat = place(1.5, 1.5)

    chosen = ROUTER.route(lon=lon, lat=lat, category="pothole", chosen="C")

    assert chosen == ROUTER.route(lon=lon, lat=lat, category="pothole")


def test_a_choice_does_not_make_up_for_a_missing_layer() -> None:
    router = Router(country(highway="AB/AB"), rules=RULES, dataset="test-1")
    lon, lat = place(1, 1)

    decision = router.route(lon=lon, lat=lat, category="litter", chosen="B")

    assert (decision.state, decision.rule) == (DecisionState.DEGRADED, "chosen")


def test_ground_in_no_area_goes_to_the_nearest_and_is_flagged() -> None:
    router = Router(country(highway="A./A."), rules=RULES, dataset="test-1")
    lon, lat = place(1, 1)
    pier, far = metres_east(lon, lat, 150), metres_east(lon, lat, 210)

    decision = router.route(lon=pier, lat=lat, category="pothole")

    assert (decision.state, decision.rule) == (DecisionState.DEGRADED, "nearest-area")
    assert decision.candidates == (candidate("A", "highway", "its border is 150 m away", 150.0),)
    assert decision.reason == "the point is in no area; Area A, 150 m away, is nearest"
    outside = router.route(lon=far, lat=lat, category="pothole")
    assert outside.state is DecisionState.OUTSIDE


def test_a_worse_position_never_removes_a_candidate_and_any_candidate_can_be_chosen() -> None:
    random = Random(5)
    for _ in range(300):
        lon, lat = place(random.uniform(-0.5, 4.5), random.uniform(-0.5, 2.5))
        before: set[str] = set()
        for accuracy_m in (0, 15, 60, 250, 900, 5000):
            asked = {"lon": lon, "lat": lat, "category": "pothole", "accuracy_m": accuracy_m}
            decision = ROUTER.route(**asked)
            codes = {one.code for one in decision.candidates}
            assert decision.rule
            assert before <= codes
            before = codes
            for code in codes:
                chosen = ROUTER.route(**asked, chosen=code)
                assert chosen.responsible is not None
                assert chosen.responsible.code == code


def test_a_body_that_answers_for_areas_by_agreement_does_so_without_doubt() -> None:
    handed = Agreement(
        "all-roads",
        "DEPT",
        "The Department",
        "it mends every road",
        frozenset({"pothole"}),
        areas=("[AB]",),
    )
    router = Router(INDEX, rules=replace(RULES, agreements=(handed,)), dataset="test-1")
    lon, lat = place(2, 0.5)  # on the border of A and B

    between = router.route(lon=lon, lat=lat, category="pothole")
    lon, lat = near_the_border_of_a_and_c(5)
    beside_c = router.route(lon=lon, lat=lat, category="pothole")

    assert (between.state, between.rule) == (DecisionState.CERTAIN, "agreement")
    assert [one.code for one in between.candidates] == ["DEPT"]
    assert between.candidates[0].agreement == "all-roads"
    assert between.reason == (
        "The Department answers here: answers for Area A: it mends every road"
    )
    assert beside_c.state is DecisionState.AMBIGUOUS
    assert [one.code for one in beside_c.candidates] == ["DEPT", "C"]


def test_the_same_input_gives_the_same_decision() -> None:
    again = Router(
        country(highway="AAB./ACB.", district="aabd/acbd"), rules=RULES, dataset="test-1"
    )
    for column in range(-1, 9):
        for row in range(-1, 5):
            lon, lat = place(column / 2, row / 2)
            for category in RULES.categories:
                one = ROUTER.route(lon=lon, lat=lat, category=category)
                assert one == again.route(lon=lon, lat=lat, category=category)
