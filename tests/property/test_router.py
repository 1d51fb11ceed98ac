"""What every decision keeps to, on questions all over Doggerland and close to what matters there.

The rules are those of the decision tables, with their agreements and successions.
"""

from __future__ import annotations

import csv
from dataclasses import replace
from datetime import date, timedelta
from itertools import pairwise
from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from georouter.model import Decision, DecisionState, matches
from tests.decisions import countries
from tests.decisions.countries import RULES

MANY = settings(max_examples=250, deadline=None, derandomize=True)
FEW = settings(max_examples=60, deadline=None, derandomize=True)
LACKING: tuple[tuple[str, ...], ...] = ((), ("trunk",), ("red_route",), ("district",))

with (countries.FOLDER / "doggerland.csv").open(encoding="utf-8", newline="") as file:
    PLACES = [
        (float(row["lon"]), float(row["lat"]))
        for row in csv.DictReader(file)
        if row["state"] != "InvalidCoordinate"
    ]
BODIES = sorted(
    {area.code for area in countries.doggerland_dataset().authorities}
    | {one.body for one in RULES.agreements}
    | {after.code for one in RULES.successions for after in one.successors}
)
DAYS = sorted(
    {one.on for one in RULES.successions}
    | {day for one in RULES.agreements for day in (one.valid_from, one.valid_to) if day}
)
DAY = timedelta(days=1)


@st.composite
def points(draw: st.DrawFn) -> dict[str, float]:
    """Anywhere in and around the country, or so many metres from a place of the table."""
    if draw(st.integers(0, 3)) == 0:
        return {"lon": draw(st.floats(1.5, 3.2)), "lat": draw(st.floats(54.35, 55.15))}
    lon, lat = draw(st.sampled_from(PLACES))
    aside = st.one_of(st.just(0.0), st.floats(-30, 30), st.floats(-400, 400))
    return {
        "lon": max(-180.0, min(180.0, lon + draw(aside) / 64_500)),
        "lat": max(-90.0, min(90.0, lat + draw(aside) / 111_300)),
    }


days = st.one_of(
    st.none(), st.builds(lambda day, n: day + n * DAY, st.sampled_from(DAYS), st.integers(-1, 1))
)
questions = st.builds(
    lambda place, **rest: {**place, **rest},
    points(),
    category=st.sampled_from(sorted(RULES.categories)),
    accuracy_m=st.one_of(st.none(), st.floats(0, 60), st.floats(0, 1500)),
    road_ref=st.one_of(st.none(), st.none(), st.sampled_from(["D1", "d 2", "R2", "Mill Lane"])),
    as_of=days,
    refused=st.one_of(st.just(frozenset()), st.frozensets(st.sampled_from(BODIES), max_size=4)),
)


def undated(decision: Decision) -> Decision:
    return replace(decision, as_of=None)


@MANY
@given(asked=questions, without=st.sampled_from(LACKING))
def test_a_decision_says_why_and_contradicts_itself_nowhere(
    asked: dict[str, Any], without: tuple[str, ...]
) -> None:
    decision = countries.doggerland(without).route(**asked)
    codes = [one.code for one in decision.candidates]
    assert decision.rule
    assert decision.reason
    assert all(one.reason and one.name for one in decision.candidates)
    assert len(set(codes)) == len(codes)
    assert not asked["refused"] & set(codes)
    assert (decision.state is DecisionState.OUTSIDE) == (not codes)
    if decision.state is DecisionState.CERTAIN:
        assert not decision.question
        assert decision.rule == "road-ref" or decision.candidates[0].distance_m == 0
    if decision.state is DecisionState.AMBIGUOUS and not asked["refused"]:
        assert decision.question
        assert codes[1:]
    if decision.question:
        assert codes[1:]


@MANY
@given(asked=questions, without=st.sampled_from(LACKING))
def test_any_candidate_can_be_chosen_and_comes_first(
    asked: dict[str, Any], without: tuple[str, ...]
) -> None:
    router = countries.doggerland(without)
    decision = router.route(**asked)
    for candidate in decision.candidates:
        chosen = router.route(**asked, chosen=candidate.code)
        assert chosen.responsible == candidate
        assert set(chosen.candidates) == set(decision.candidates)
        assert not chosen.question or len(chosen.candidates) == 1


@MANY
@given(asked=questions, without=st.sampled_from(LACKING))
@example(  # on the border bridge, 11 m from whose successor may go on with it
    asked={"lon": 2.049815, "lat": 54.600894, "category": "drain", "as_of": date(2028, 4, 1)},
    without=(),
)
def test_a_worse_position_removes_no_candidate(
    asked: dict[str, Any], without: tuple[str, ...]
) -> None:
    before: set[str] = set()
    for accuracy_m in (0, 9, 11, 16, 40, 120, 199, 201, 600, 999, 1001):
        decision = countries.doggerland(without).route(**{**asked, "accuracy_m": accuracy_m})
        codes = {one.code for one in decision.candidates}
        assert before <= codes, accuracy_m
        before = codes


@FEW
@given(many=st.lists(questions, min_size=2, max_size=12))
def test_the_answer_does_not_depend_on_what_was_asked_before(many: list[dict[str, Any]]) -> None:
    first, second = (
        countries.fresh_router(countries.doggerland_dataset()),
        countries.fresh_router(countries.doggerland_dataset()),
    )
    forth = [first.route(**asked) for asked in many]
    back = [second.route(**asked) for asked in reversed(many)]
    assert forth == back[::-1]
    assert forth == [first.route(**asked) for asked in many]
    assert forth == [countries.doggerland().route(**asked) for asked in many]


def test_forgetting_what_is_settled_changes_no_answer(monkeypatch: pytest.MonkeyPatch) -> None:
    known = countries.doggerland()
    monkeypatch.setattr("georouter.router._MOST_SETTLED", 3)
    forgetful = countries.fresh_router(countries.doggerland_dataset())
    for day in [*DAYS, None, *DAYS]:
        for lon, lat in PLACES:
            asked: dict[str, Any] = {"lon": lon, "lat": lat, "category": "litter", "as_of": day}
            assert forgetful.route(**asked) == known.route(**asked)
    assert len(forgetful._settled) <= 3


@FEW
@given(asked=questions, share=st.floats(0, 1))
@example(asked={"lon": 2.4, "lat": 54.92, "category": "pothole"}, share=0.5)
def test_the_answer_changes_only_on_days_that_rules_name(
    asked: dict[str, Any], share: float
) -> None:
    router = countries.doggerland()
    ends = [date(2000, 1, 1), *DAYS, date(2050, 1, 1)]
    for first, after in pairwise(ends):
        last = after - DAY
        between = first + share * (last - first)
        same = {undated(router.route(**{**asked, "as_of": day})) for day in (first, between, last)}
        assert len(same) == 1, (first, last)


@pytest.mark.parametrize("layer", ["trunk", "red_route"])
@MANY
@given(asked=questions)
def test_without_a_roads_layer_that_the_rules_need_nothing_is_certain(
    layer: str, asked: dict[str, Any]
) -> None:
    index = countries.doggerland_dataset().index
    here = [index.areas[hit].code for hit in index.covering(lon=asked["lon"], lat=asked["lat"])]
    needed = any(
        matches(code, rule.required_in)
        for rule in RULES.categories[asked["category"]].tier.roads
        if rule.layer == layer and asked["category"] in (rule.categories or [asked["category"]])
        for code in here
    )
    lacking = countries.doggerland((layer,)).route(**asked)
    if needed and lacking.rule not in {"special-road", "road-ref"}:
        assert lacking.state in {DecisionState.DEGRADED, DecisionState.OUTSIDE}
