"""Each kind of change, on squares drawn by hand: one letter is about a kilometre and a half."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import shapely

from boundaries.areas import LayerAreas
from boundaries.build import layer_areas
from boundaries.diff import Change, LayerDiff, as_json, diff_areas, diff_roads, left_out, sentence
from boundaries.diff import Diff as WholeDiff
from boundaries.overlay import overlay
from boundaries.shapes import square_metres
from georouter.model import Road
from tests.support.polygons import degrees, draw, layer

SIDE = 200_000  # 1.3 km from west to east, 2.2 km from south to north
X0, Y0 = 20_000_000, 540_000_000
METRE = 90  # units of latitude, nearly

GRID = "AABB/AABB/CCDD/CCDD"


def areas(picture: str | dict[str, Any], **names: str) -> LayerAreas:
    drawn = draw(picture, side=SIDE, x0=X0, y0=Y0) if isinstance(picture, str) else picture
    made = layer_areas(layer("district", drawn), degrees(drawn))
    return replace(made, names=tuple(names.get(code, f"Area {code}") for code in made.codes))


def shifted(picture: str, **by: tuple[float, float]) -> dict[str, Any]:
    """The areas of a picture, of which one takes a strip of its neighbours': metres wide, long."""
    drawn = draw(picture, side=SIDE, x0=X0, y0=Y0)
    for code, (wide_m, share) in by.items():
        west, south, east, _ = drawn[code].bounds
        strip = shapely.box(
            west, south - round(wide_m * METRE), west + round((east - west) * share), south
        )
        for other in drawn:
            drawn[other] = shapely.difference(drawn[other], strip)
        drawn[code] = shapely.union(drawn[code], strip)
    return drawn


def codes(change: Change) -> tuple[str, str, str]:
    return (
        change.kind,
        "".join(one.code for one in change.old),
        "".join(one.code for one in change.new),
    )


def told(before: LayerAreas, after: LayerAreas, **options: float) -> list[tuple[str, str, str]]:
    return [codes(change) for change in diff_areas(before, after, **options).changes]


def test_nothing_is_told_of_what_is_the_same() -> None:
    found = diff_areas(areas(GRID), areas(GRID))
    assert found == LayerDiff("district", 4, 4, (), found.slivers)
    assert (found.slivers.count, found.slivers.m2, found.slivers.width_m) == (0, 0.0, 1.0)


@pytest.mark.parametrize(
    ("after", "changes"),
    [
        ("AABB/AABB/CCEE/CCEE", [("recoded", "D", "E")]),
        ("EEEE/EEEE/CCDD/CCDD", [("merged", "AB", "E")]),
        ("EEEE/EEEE/FFFF/FFFF", [("merged", "AB", "E"), ("merged", "CD", "F")]),
        ("EEEE/EEEE/EEEE/EEEE", [("merged", "ABCD", "E")]),
        ("AAAA/AAAA/CCDD/CCDD", [("merged", "B", "A")]),  # A takes B in
        ("AABB/AABB/CCEF/CCEF", [("split", "D", "EF")]),
        ("AABB/AABB/CCDF/CCDF", [("split", "D", "F")]),  # D goes on with less
        ("EFFF/EFFF/CCDD/CCDD", [("reorganised", "AB", "EF")]),
        ("AABB/AABB/CCDD/CCDD/EEEE", [("added", "", "E")]),
        ("AABB/AABB/CC../CC..", [("ended", "D", "")]),
        ("AAAB/AAAB/CCDD/CCDD", [("moved", "B", "A")]),
        ("AABB/AABB/CCDD/CCD.", [("moved", "D", "")]),
        ("BBAA/BBAA/CCDD/CCDD", [("moved", "A", "B"), ("moved", "B", "A")]),
    ],
)
def test_each_kind_of_change(after: str, changes: list[tuple[str, str, str]]) -> None:
    before = GRID if after.count("/") == GRID.count("/") else f"{GRID}/...."
    assert sorted(told(areas(before), areas(after))) == sorted(changes)


def test_a_change_says_how_much_and_where() -> None:
    (change,) = diff_areas(areas(GRID), areas("AAAB/AABB/CCDD/CCDD")).changes
    square = shapely.box(X0 + 2 * SIDE, Y0 + 3 * SIDE, X0 + 3 * SIDE, Y0 + 4 * SIDE)
    square = shapely.transform(square, lambda units: units / 1e7)
    assert change.m2 == pytest.approx(float(square_metres(square)), rel=1e-9)
    assert change.m2 == pytest.approx(1_309 * 2_226, rel=2e-3)
    assert square.contains(shapely.Point(change.lon, change.lat))
    assert change.ground.equals(square)
    assert sentence(change).startswith(
        "moved          from Area B (B) to Area A (A): 2.9 km² at 54.0"
    )


def test_square_metres_are_those_of_the_ellipsoid() -> None:
    pyproj = pytest.importorskip("pyproj")
    for lat in (0.0, 50.0, 60.0):
        box = shapely.segmentize(shapely.box(-3.0, lat, -2.9, lat + 0.1), 0.001)
        truth, _ = pyproj.Geod(ellps="WGS84").geometry_area_perimeter(box)
        assert float(square_metres(box)) == pytest.approx(abs(truth), rel=1e-6)


def test_another_name_is_told_and_an_area_recoded_with_one_is_recoded() -> None:
    renamed = diff_areas(areas(GRID), areas(GRID, B="New B")).changes
    assert [codes(one) for one in renamed] == [("renamed", "B", "B")]
    assert "Area B (B) is called 'New B'" in sentence(renamed[0])
    (recoded,) = diff_areas(areas(GRID), areas("AABB/AABB/CCEE/CCEE", E="New D")).changes
    assert "Area D (D) is New D (E)" in sentence(recoded)


@pytest.mark.parametrize(("share", "kind"), [(0.009, "recoded"), (0.011, "split")])
def test_nearly_the_same_area_with_another_code_is_recoded(share: float, kind: str) -> None:
    """D becomes E but for a strip, which C takes: it counts from 1 % of D's ground."""
    drawn = draw("AABB/AABB/CCEE/CCEE", side=SIDE, x0=X0, y0=Y0)
    wide = round(2 * SIDE * share)
    strip = shapely.box(X0 + 2 * SIDE, Y0, X0 + 2 * SIDE + wide, Y0 + 2 * SIDE)
    drawn |= {"C": drawn["C"] | strip, "E": drawn["E"] - strip}
    rest = [("moved", "D", "C")] if kind == "recoded" else []
    new = "E" if kind == "recoded" else "CE"
    assert told(areas(GRID), areas(drawn)) == [(kind, "D", new), *rest]


def test_slivers_are_counted_and_left_out() -> None:
    """All borders are drawn some metres away, and one really moved."""
    wide = 2_000  # 14 m from west to east
    bent = {}
    for code, drawn in draw("AABB/AABB/CCDD/CCDD", side=SIDE, x0=X0, y0=Y0).items():
        dense = shapely.segmentize(drawn, SIDE / 4)
        # every second vertex aside, the same for all who share it
        bent[code] = shapely.transform(
            dense, lambda xy: xy + (((xy // (SIDE / 4)).sum(axis=1, keepdims=True) % 2) * [wide, 0])
        )
    found = diff_areas(areas(GRID), areas(bent))
    assert found.changes == ()
    assert 10 <= found.slivers.width_m <= 40
    assert found.slivers.count > 5
    assert 0 < found.slivers.m2 < 500_000
    assert f"left out: {found.slivers.count} slivers" in left_out(found.slivers)
    strip = shapely.box(X0 + SIDE, Y0 + SIDE, X0 + 2 * SIDE, Y0 + 2 * SIDE)
    moved = bent | {"C": bent["C"] - strip, "D": bent["D"] | strip}
    assert told(areas(GRID), areas(moved)) == [("moved", "C", "D")]


def test_a_narrow_strip_that_moved_is_told_where_the_data_are_exact_enough() -> None:
    after = areas(shifted(GRID, A=(5, 0.5)))
    (change,) = diff_areas(areas(GRID), after).changes
    assert codes(change) == ("moved", "C", "A")
    assert change.m2 == pytest.approx(5 * 1_309, rel=0.02)
    assert told(areas(GRID), after, min_m2=6_000) == [("moved", "C", "A")]
    found = diff_areas(areas(GRID), after, min_m2=7_000)
    assert (found.changes, found.slivers.count) == ((), 1)


def test_an_area_smaller_than_a_sliver_is_no_sliver() -> None:
    """An islet of 20 m, whole, where borders are drawn tens of metres apart."""
    islet = shapely.box(X0, Y0 - 5_000, X0 + 3_000, Y0 - 3_000)
    drawn = draw(GRID, side=SIDE, x0=X0, y0=Y0)
    far = {code: shapely.affinity.translate(one, 4_000, 0) for code, one in drawn.items()}
    found = diff_areas(areas(drawn | {"I": islet}), areas(far | {"J": islet}))
    assert [codes(one) for one in found.changes] == [("recoded", "I", "J")]
    assert found.slivers.width_m > 20


def test_ground_of_two_goes_to_who_stays_when_one_goes() -> None:
    drawn = draw(GRID, side=SIDE, x0=X0, y0=Y0)
    overlapping = drawn | {
        "C": drawn["C"] | shapely.box(X0, Y0 + SIDE, X0 + 3 * SIDE, Y0 + 2 * SIDE)
    }
    assert told(areas(overlapping), areas(GRID)) == [("moved", "C", "D")]
    assert told(areas(GRID), areas(overlapping)) == [("moved", "D", "C")]


def test_every_piece_of_ground_is_in_one_move() -> None:
    before, after = areas("ABC/ABC/DDD"), areas("AAB/CCB/D.E")
    moves = overlay(before, after).moves
    grounds = [move.ground for move in moves]
    union = shapely.union_all(grounds)
    assert union.area == pytest.approx(sum(one.area for one in grounds))
    assert {(move.source, move.target) for move in moves} == {
        ("A", "C"),
        ("B", "A"),
        ("B", "C"),
        ("C", "B"),
        ("D", None),
        ("D", "E"),
    }


# --- special roads ------------------------------------------------------------------------------


def test_stretches_of_roads_come_go_and_change_hands() -> None:
    # the D2 crosses the D1, and is not concerned by what happens to it
    d1, d2 = shapely.box(0, 0, 90_000, 3_000), shapely.box(44_000, -40_000, 47_000, 40_000)
    west, east = shapely.box(0, 0, 60_000, 3_000), shapely.box(60_000, 0, 90_000, 3_000)
    spur, longer = (
        shapely.box(0, 20_000, 9_000, 23_000),
        shapely.box(44_000, -40_000, 47_000, 60_000),
    )
    roads = {
        "X D1": Road("D1", "X", "Roads"),
        "Y D1": Road("D1", "Y", "Ways"),
        "X D2": Road("D2", "X", "Roads"),
        "X D3": Road("D3", "X", "Roads"),
    }
    before = areas({"X D1": d1, "X D2": d2, "X D3": spur})
    after = areas({"X D1": west, "Y D1": east, "X D2": longer})
    found = diff_roads(before, after, roads).changes
    assert [(one.kind, [n.code for n in one.old], [n.code for n in one.new]) for one in found] == [
        ("stretch added", [], ["X D2"]),
        ("stretch ended", ["X D3"], []),
        ("operator", ["X D1"], ["Y D1"]),
    ]
    dated = {"X D1@2027-04-01": replace(roads["X D1"], valid_from=None)}
    found = diff_roads(areas({"X D1": d1}), areas({"X D1@2027-04-01": d1}), roads | dated).changes
    assert [one.kind for one in found] == ["dates"]


def test_json_has_everything_but_the_geometry() -> None:
    found = diff_areas(areas(GRID), areas("AABB/AABB/CCEE/CCEE"))
    whole = as_json(WholeDiff("one-1", "two-1", (found,), ("gone",), ()))
    (described,) = whole["layers"]
    assert described["changes"][0]["kind"] == "recoded"
    assert described["changes"][0]["old"] == [{"code": "D", "name": "Area D"}]
    assert described["left_out"]["count"] == 0
    assert whole["only_old"] == ["gone"]
