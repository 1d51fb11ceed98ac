"""Every kind of finding, drawn by hand: what is reported, of whom, where and how large."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import shapely

from boundaries.checks import Limits
from boundaries.findings import KINDS, Finding, Severity, ordered, standing, summary
from boundaries.previous import Previous
from boundaries.seams import SliverLimits
from boundaries.validate import Validation, validate_file

Rows = list[tuple[str, Any]]
"""Codes and geometries: shapely ones, or as GeoJSON has them."""

LIMITS = Limits(vertices_per_km=0.0, slivers=SliverLimits(slit_m=0.0))
"""Those of few corners are drawn here, so nothing is said of that unless it is asked for."""

HOW = Validation(limits=LIMITS)
LON_M, LAT_M = 71_700, 111_265
"""Metres in a degree at 50 degrees north, to 0.1 %."""


def box(west: float, south: float, east: float, north: float) -> Any:
    """A box in hundredths of a degree from 1 degree east, 50 degrees north: 717 m and 1113 m."""
    return shapely.box(1 + west / 100, 50 + south / 100, 1 + east / 100, 50 + north / 100)


def polygon(*corners: tuple[float, float]) -> Any:
    return shapely.Polygon([(1 + x / 100, 50 + y / 100) for x, y in corners])


def inspect(folder: Path, rows: Rows, how: Validation = HOW) -> list[Finding]:
    features = [
        {
            "type": "Feature",
            "properties": {"code": code, "name": f"Area {code}"},
            "geometry": shapely.geometry.mapping(shape)
            if isinstance(shape, shapely.Geometry)
            else shape,
        }
        for code, shape in rows
    ]
    path = folder / "drawing.geojson"
    path.write_text(json.dumps({"type": "FeatureCollection", "features": features}))
    return list(validate_file(path, "layer", how).findings)


A, B = ("A", box(0, 0, 1, 1)), ("B", box(1, 0, 2, 1))
HECTARE_SLIVERS = replace(HOW, limits=replace(LIMITS, slivers=SliverLimits(slit_m=5.0)))
PREVIOUS = Previous(
    "before-1",
    {"layer": {"A": "Ay", "C": "Sea"}},
    {"layer": {"A": 2_000_000.0, "C": 2_000_000.0}},
)
RING = [A, ("B", polygon((1, 0), (2, 0), (2, 2), (0, 2), (0, 1), (1, 1)))]
BOW_TIE = polygon((0, 0), (2, 2), (2, 0), (0, 2))
LAPPED = shapely.MultiPolygon([box(0, 0, 2, 2), box(1, 1, 3, 3)])

DRAWINGS: dict[str, tuple[Rows, Validation, str, tuple[float, float] | None, float | None]] = {
    # what is drawn, how it is looked at, whose finding it is, and the middle and size of it
    "unclosed_ring": (
        [("A", {"type": "Polygon", "coordinates": [[[1, 50], [2, 50], [2, 51]]]})],
        HOW,
        "",
        None,
        None,
    ),
    "unreadable_file": ([("A", shapely.Point(1, 50))], HOW, "", None, None),
    "empty_geometry": ([A, ("B", None)], HOW, "B", None, None),
    "vanished_area": ([A, ("B", shapely.box(1, 50, 1 + 4e-8, 51))], HOW, "B", None, None),
    "swapped_axes": ([("A", shapely.box(50, 1, 51, 2))], HOW, "A", None, None),
    "antimeridian": ([("A", shapely.box(-179, 50, 179, 51))], HOW, "A", None, None),
    "duplicate_polygon": ([A, ("B", A[1])], HOW, "A", (1.005, 50.005), LON_M * LAT_M / 1e4),
    "overlap": ([A, ("B", box(0.5, 0, 2, 1))], HOW, "A", (1.0075, 50.005), LON_M * LAT_M / 2e4),
    "gap": (
        [("A", box(0, 0, 3, 3) - box(1, 1, 3, 2)), ("B", box(2, 1, 3, 2))],
        HOW,
        "A",
        (1.015, 50.015),
        LON_M * LAT_M / 1e4,
    ),
    "hole": ([("A", box(0, 0, 3, 3) - box(1, 1, 2, 2))], HOW, "A", (1.015, 50.015), None),
    "doubtful_repair": ([("A", LAPPED)], HOW, "A", None, LON_M * LAT_M / 1e4),
    "invalid_ring": ([("A", BOW_TIE)], HOW, "A", (1.01, 50.01), None),
    "duplicate_code": ([A, B, ("A", box(0, 1, 1, 2))], HOW, "A", None, None),
    "overlap_sliver": (
        [A, ("B", box(0.99, 0, 2, 1))],  # 7 m wide
        HOW,
        "A",
        (1.00995, 50.005),
        LON_M * LAT_M / 1e6,
    ),
    "gap_sliver": (
        [A, ("B", polygon((1, 0), (2, 0), (2, 1), (1, 1), (1.01, 0.5)))],  # a triangle
        HOW,
        "A",
        (1.01003, 50.005),
        LON_M * LAT_M / 2e6,
    ),
    "hairline": (
        [A, ("B", polygon((1, 0), (2, 0), (2, 1), (1, 1), (1.00001, 0.5)))],  # one grid unit
        HOW,
        "A",
        (1.01, 50.005),
        LON_M * LAT_M / 2e9,
    ),
    "narrow_slit": ([A, ("B", box(1.002, 0, 2, 1))], HECTARE_SLIVERS, "A", None, None),
    "tiny_area": ([A, ("B", box(1, 0, 1.01, 1))], HOW, "B", None, LON_M * LAT_M / 1e6),
    "far_from_rest": ([A, B, ("C", shapely.box(0, 0, 0.1, 0.1))], HOW, "C", (0.1, 0.0), None),
    "coarse_resolution": (
        [("A", shapely.box(1, 50, 2, 51))],
        Validation(),
        "",
        None,
        None,
    ),
    "unknown_code": (
        [("E06000001", A[1]), ("X99000001", B[1])],
        HOW,
        "X99000001",
        None,
        None,
    ),
    "missing_area": ([A, B], replace(HOW, against=PREVIOUS), "C", None, None),
    "new_area": ([A, B], replace(HOW, against=PREVIOUS), "B", None, None),
    "area_changed": ([A, B], replace(HOW, against=PREVIOUS), "A", None, None),
    "not_compared": ([A], replace(HOW, against=Previous("b", {"x": {}}, {})), "", None, None),
}


@pytest.mark.filterwarnings("ignore:Non closed ring:RuntimeWarning")
@pytest.mark.parametrize("code", KINDS)
def test_every_kind_is_found_where_it_is_drawn(code: str, tmp_path: Path) -> None:
    rows, how, area, at, m2 = DRAWINGS[code]

    found = [one for one in inspect(tmp_path, rows, how) if one.code == code]

    assert len(found) == 1
    assert (found[0].area or "") == area
    assert found[0].severity is KINDS[code].severity
    assert found[0].layer == "layer"
    if at is not None:
        assert (found[0].lon, found[0].lat) == pytest.approx(at, abs=3e-3)
    if m2 is not None:
        assert found[0].area_m2 == pytest.approx(m2, rel=0.002)


def test_no_drawing_is_of_a_kind_that_is_not() -> None:
    assert DRAWINGS.keys() == KINDS.keys()


def codes(found: list[Finding]) -> list[str]:
    return [one.code for one in found]


@pytest.mark.parametrize(
    "rows",
    [
        pytest.param([A, B], id="side by side"),
        pytest.param(RING, id="round a corner"),
        pytest.param([A, ("B", box(1, 1, 2, 2))], id="at a corner"),
        pytest.param([A, ("B", box(1.5, 0, 2, 1))], id="over the water"),
        pytest.param([("A", box(0, 0, 3, 3) - box(1, 1, 2, 2)), ("B", box(1, 1, 2, 2))], id="in"),
        pytest.param(
            [("A", box(0, 0, 3, 3) - box(1, 1, 3, 2)), ("B", box(0, 3, 3, 4))], id="estuary"
        ),
    ],
)
def test_what_fits_is_not_reported(rows: Rows, tmp_path: Path) -> None:
    assert inspect(tmp_path, rows) == []


def test_a_hole_is_what_nobody_has_of_it(tmp_path: Path) -> None:
    lake = ("A", box(0, 0, 5, 5) - box(1, 1, 4, 4))
    found = inspect(tmp_path, [lake, ("B", box(2, 2, 3, 3))])
    assert [(one.code, one.area, one.others) for one in found] == [("gap", "A", ("B",))]
    assert found[0].area_m2 == pytest.approx(8 * LON_M * LAT_M / 1e4, rel=0.002)


@pytest.mark.parametrize("open_", [True, False])
def test_ground_among_areas_that_meet_at_corners(open_: bool, tmp_path: Path) -> None:  # noqa: FBT001
    rows = [("A", box(0, 1, 1, 2)), ("B", box(1, 0, 2, 1)), ("C", box(2, 1, 3, 2))]
    found = inspect(tmp_path, rows if open_ else [*rows, ("D", box(1, 2, 2, 3))])
    assert [(one.code, one.area, one.others) for one in found] == (
        [] if open_ else [("gap", "A", ("B", "C", "D"))]
    )


def test_an_area_within_another_overlaps_it(tmp_path: Path) -> None:
    (found,) = inspect(tmp_path, [("A", box(0, 0, 3, 3)), ("B", box(1, 1, 2, 2))])
    assert (found.code, found.area, found.others) == ("overlap", "A", ("B",))


def test_each_pair_of_three_that_overlap_is_reported(tmp_path: Path) -> None:
    rows = [("A", box(0, 0, 2, 2)), ("B", box(1, 0, 3, 2)), ("C", box(1, 1, 2, 3))]
    found = inspect(tmp_path, rows)
    assert [(one.code, one.area, one.others) for one in found] == [
        ("overlap", "A", ("B",)),
        ("overlap", "A", ("C",)),
        ("overlap", "B", ("C",)),
    ]


def test_slivers_between_the_same_areas_are_one_finding(tmp_path: Path) -> None:
    teeth = polygon((1, 0), (2, 0), (2, 1), (1, 1), (1.01, 0.8), (1, 0.6), (1.01, 0.5), (1, 0.2))
    rows = [("A", polygon((0, 0), (1, 0), (1, 0.2), (1, 0.6), (1, 1), (0, 1))), ("B", teeth)]

    (found,) = inspect(tmp_path, rows)

    assert found.code == "gap_sliver"
    assert "in 2 places, the largest" in found.message


@pytest.mark.parametrize(
    ("change", "code"), [({"m2": 1.0, "width_m": 1.0}, "overlap"), ({}, "overlap_sliver")]
)
def test_what_a_sliver_is_can_be_said(change: dict[str, float], code: str, tmp_path: Path) -> None:
    how = replace(HOW, limits=LIMITS.with_slivers(**change))
    rows, *_ = DRAWINGS["overlap_sliver"]
    assert codes(inspect(tmp_path, rows, how)) == [code]


def test_who_is_told_by_a_table_of_authorities(tmp_path: Path) -> None:
    (found,) = inspect(tmp_path, [A, B], replace(HOW, known=frozenset({"A", "C"})))
    assert (found.code, found.area) == ("unknown_code", "B")


def test_a_repair_without_doubt_is_no_error(tmp_path: Path) -> None:
    found = inspect(tmp_path, [("A", BOW_TIE)])
    assert codes(found) == ["invalid_ring"]
    assert found[0].message == "A: self-intersection"


def test_every_part_that_is_not_valid_is_reported(tmp_path: Path) -> None:
    two = shapely.MultiPolygon([BOW_TIE, shapely.affinity.translate(BOW_TIE, 0.1)])
    found = inspect(tmp_path, [("A", two)])
    assert [(one.lon, one.lat) for one in found] == [(1.01, 50.01), (1.11, 50.01)]


def test_the_gravest_comes_first_and_the_accepted_last() -> None:
    note, warning, error = (
        Finding(code, KINDS[code].severity, "layer", "A", "")
        for code in ("hairline", "hole", "overlap")
    )
    accepted = replace(error, accepted="known")
    found = ordered([accepted, note, warning, error])

    assert found == [error, warning, note, accepted]
    assert standing(found, strict=False) == [error]
    assert standing(found, strict=True) == [error, warning]
    assert summary(found) == "1 error, 1 warning, 1 note, 1 accepted"
    assert summary([warning] * 2) == "2 warnings"
    assert summary([]) == "no findings"


def test_only_errors_stop_a_build_by_themselves() -> None:
    stopping: Callable[[str], bool] = lambda code: KINDS[code].stops  # noqa: E731
    assert {KINDS[code].severity for code in filter(stopping, KINDS)} == {Severity.ERROR}
