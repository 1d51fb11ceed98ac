"""Corrections to boundaries: applied as listed, or refused with file, line, entry and remedy."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import shapely

from boundaries import corrections as corrections_module
from boundaries.corrections import accept, correct, read_corrections
from boundaries.findings import Finding, found
from boundaries.readers import Features, SourceError, SourceNotFoundError
from tests.support.polygons import degrees, draw

SIDE = 100_000
X0, Y0 = 20_000_000, 540_000_000


def features(*pictures: str) -> Features:
    areas = draw(*pictures, side=SIDE, x0=X0, y0=Y0)
    codes = tuple(sorted(areas))
    return Features(codes, tuple(f"Area {code}" for code in codes), degrees(areas), {})


def wkt(west: float, south: float, east: float, north: float) -> str:
    """A box in sides of a letter."""
    lon, lat, side = X0 / 1e7, Y0 / 1e7, SIDE / 1e7
    box = shapely.box(lon + west * side, lat + south * side, lon + east * side, lat + north * side)
    return str(shapely.to_wkt(box, 7))


def entry(**fields: str | float) -> str:
    given: dict[str, Any] = {
        "date": "2026-11-23",
        "reason": "by letter",
        "layer": "district",
        "area": "A",
    }
    lines = {
        key: value if key == "date" or not isinstance(value, str) else f'"{value}"'
        for key, value in (given | fields).items()
    }
    return "[[correction]]\n" + "".join(f"{key} = {value}\n" for key, value in lines.items())


def written(folder: Path, *entries: str) -> Path:
    path = folder / "corrections.toml"
    path.write_text("\n".join(entries), encoding="utf-8")
    return path


def corrected(
    folder: Path, *entries: str, layer: Features | None = None
) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    after, done = correct(
        "district", layer or features("AB"), read_corrections(written(folder, *entries))
    )
    areas = zip(after.names, after.geometries, strict=True)
    return dict(zip(after.codes, areas, strict=True)), done


RECORD = {"date": "2026-11-23", "reason": "by letter", "layer": "district", "area": "A"}


def test_a_new_name(tmp_path: Path) -> None:
    areas, done = corrected(tmp_path, entry(action="rename", name="Ay"))
    assert [name for name, _ in areas.values()] == ["Ay", "Area B"]
    assert done == [RECORD | {"action": "rename", "name": "Ay"}]


def test_a_new_code_keeps_codes_in_order(tmp_path: Path) -> None:
    areas, done = corrected(tmp_path, entry(action="recode", code="C"))
    assert list(areas) == ["B", "C"]
    assert areas["C"][0] == "Area A"
    assert shapely.equals(areas["C"][1], features("AB").geometries[0])
    assert done == [RECORD | {"action": "recode", "code": "C"}]


def test_an_area_dropped_and_added_anew(tmp_path: Path) -> None:
    ground = wkt(0, 0, 0.5, 1)
    areas, done = corrected(
        tmp_path, entry(action="drop"), entry(action="add", name="Half", wkt=ground)
    )
    assert areas["A"][0] == "Half"
    assert shapely.equals(areas["A"][1], shapely.from_wkt(ground))
    assert [one["action"] for one in done] == ["drop", "add"]
    assert done[1]["moved_m2"] == pytest.approx(0.005 * 0.01 * 65_530 * 111_310, rel=0.001)


def test_ground_from_a_file(tmp_path: Path) -> None:
    file = tmp_path / "ground.geojson"
    file.write_text(shapely.to_geojson(shapely.from_wkt(wkt(0, 1, 1, 2))), encoding="utf-8")
    areas, _ = corrected(tmp_path, entry(action="add", area="C", name="Sea", file=file.name))
    assert shapely.equals(areas["C"][1], shapely.from_wkt(wkt(0, 1, 1, 2)))


def test_ground_goes_from_one_to_another(tmp_path: Path) -> None:
    before = dict(zip("AB", features("AB").geometries, strict=True))
    areas, done = corrected(tmp_path, entry(action="give", to="B", wkt=wkt(0.75, 0.25, 1.5, 0.75)))
    moved = shapely.from_wkt(wkt(0.75, 0.25, 1, 0.75))
    assert shapely.equals(areas["A"][1], before["A"] - moved)
    assert shapely.equals(areas["B"][1], before["B"] | moved)
    assert done[0]["moved_m2"] == pytest.approx(0.0025 * 0.005 * 65_530 * 111_310, rel=0.001)
    assert shapely.coverage_is_valid([areas["A"][1], areas["B"][1]])


def test_an_overlap_is_settled(tmp_path: Path) -> None:
    areas, _ = corrected(
        tmp_path,
        entry(action="give", to="B", wkt=wkt(0.9, -1, 3, 3)),
        layer=features("AA.", ".BB"),
    )
    assert shapely.equals(areas["A"][1], shapely.from_wkt(wkt(0, 0, 0.9, 1)))
    assert shapely.intersection(areas["A"][1], areas["B"][1]).area == 0


def test_ground_of_nobody_goes_to_an_area(tmp_path: Path) -> None:
    areas, done = corrected(
        tmp_path, entry(action="fill", wkt=wkt(0.5, 0.5, 2.5, 1)), layer=features("A.B")
    )
    gained = shapely.from_wkt(wkt(1, 0.5, 2, 1))
    assert shapely.equals(areas["A"][1], features("A.B").geometries[0] | gained)
    assert done[0]["moved_m2"] == pytest.approx(0.01 * 0.005 * 65_530 * 111_310, rel=0.001)


def test_other_layers_are_left_alone(tmp_path: Path) -> None:
    areas, done = corrected(tmp_path, entry(action="drop", layer="county"))
    assert list(areas) == ["A", "B"]
    assert done == []


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        (
            {"action": "drop", "area": "Z"},
            "there is no such area; correct the code, or remove the entry",
        ),
        (
            {"action": "add", "name": "Ay", "wkt": wkt(0, 0, 1, 1)},
            "it is there already; choose another code, or drop it first",
        ),
        ({"action": "recode", "code": "B"}, "B is there already; choose another code"),
        (
            {"action": "give", "to": "Z", "wkt": wkt(0, 0, 1, 1)},
            "there is no area Z to give ground to; correct the code",
        ),
        (
            {"action": "give", "to": "B", "wkt": wkt(1, 0, 2, 1)},
            "A does not have that ground; correct the polygon",
        ),
        (
            {"action": "give", "to": "B", "wkt": wkt(0.5, 0, 2.5, 1)},
            "C has some of that ground, not A; draw it without",
        ),
        (
            {"action": "give", "to": "B", "wkt": wkt(0, 0, 1, 1)},
            "nothing would be left of A; drop it instead",
        ),
        (
            {"action": "fill", "wkt": wkt(0, 0, 1, 1)},
            "all of that ground is somebody's; give it, or correct the polygon",
        ),
    ],
)
def test_what_does_not_apply_is_refused(
    fields: dict[str, Any], message: str, tmp_path: Path
) -> None:
    path = written(tmp_path, entry(action="rename", name="Ay"), entry(**fields))
    with pytest.raises(SourceError) as refused:
        correct("district", features("ABC"), read_corrections(path))
    title = f"correction 2 ({fields['action']} {fields.get('area', 'A')} in district)"
    assert str(refused.value) == f"{path}, line 9: {title}: {message}"


@pytest.mark.parametrize(
    ("text", "line", "message"),
    [
        ("[[correction]\n", 1, "this is no TOML"),
        ("[[corrections]]\n", 1, "'corrections' means nothing here, 'correction' does"),
        (entry(action="move"), 6, "there is no action 'move'; choose from rename, recode, drop"),
        (entry(action="drop").replace("date", "# date"), 1, "correction 1 has no date; add the"),
        (entry(action="drop").replace("reason", "# reason"), 1, "has no reason; add it"),
        (entry(action="drop", name="Ay"), 7, "'name' means nothing here; remove or correct it"),
        (entry(action="fill"), 1, "needs its ground as either wkt or file; give one"),
        (entry(action="fill", wkt="POLYGON"), 7, "this is no WKT"),
        (entry(action="fill", wkt="POINT (1 50)"), 7, "the ground must be valid polygons"),
        (
            entry(action="fill", wkt="POLYGON ((0 50, 1 51, 1 50, 0 51, 0 50))"),
            7,
            "the ground must be valid polygons",
        ),
        (
            entry(action="fill", wkt="POLYGON ((0 50, 1e-9 50, 0 50.000000001, 0 50))"),
            7,
            "the ground is smaller than the grid",
        ),
        (entry(action="fill", file="none.geojson"), 7, "none.geojson does not exist"),
        (entry(action="give", to="A", wkt=wkt(0, 0, 1, 1)), 7, "cannot give ground to itself"),
        (entry(action="accept", finding="lap"), 7, "there is no finding 'lap'; see the"),
        (entry(action="accept", finding="empty_geometry"), 7, "cannot be accepted; correct the"),
    ],
)
def test_a_fault_in_the_file_names_its_line(
    text: str, line: int, message: str, tmp_path: Path
) -> None:
    path = written(tmp_path, text)
    with pytest.raises(SourceError) as refused:
        read_corrections(path)
    said = str(refused.value)
    assert said.startswith(f"{path}, line {line}: ")
    assert message in said


def test_a_file_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(SourceNotFoundError):
        read_corrections(tmp_path / "none.toml")


def test_corrections_of_a_layer_that_is_not_there_are_refused(tmp_path: Path) -> None:
    read = read_corrections(written(tmp_path, entry(action="drop")))
    read.need_layers(["district"])
    with pytest.raises(SourceError, match="there is no such layer; choose from highway, county"):
        read.need_layers(["highway", "county"])


LAP = found("overlap", "district", "A and B overlap", area="A", area_m2=500.0, others=("B",))


@pytest.mark.parametrize("area", ["A", "B"])
@pytest.mark.parametrize("limit", [{}, {"up_to_m2": 500}])
def test_a_finding_is_accepted_for_either_area(
    area: str, limit: dict[str, float], tmp_path: Path
) -> None:
    read = read_corrections(
        written(tmp_path, entry(action="accept", area=area, finding="overlap", **limit))
    )
    others: list[Finding] = [
        found("gap", "district", "", area="A"),
        found("overlap", "county", "", area="A"),
        found("overlap", "district", "", area="C"),
    ]
    after, done = accept([LAP, *others], read, ["district"])
    assert [one.accepted for one in after] == ["by letter", None, None, None]
    limit = {name: float(value) for name, value in limit.items()}
    accepted = {**RECORD, "area": area, "action": "accept", "finding": "overlap", **limit}
    assert done == [accepted]


@pytest.mark.parametrize("fields", [{"finding": "gap"}, {"finding": "overlap", "up_to_m2": 499}])
def test_what_is_accepted_but_not_there_is_refused(fields: dict[str, Any], tmp_path: Path) -> None:
    read = read_corrections(written(tmp_path, entry(action="accept", **fields)))
    with pytest.raises(SourceError, match=r"line 1: correction 1 \(accept A in district\): there"):
        accept([LAP], read, ["district"])


def test_the_example_is_read(tmp_path: Path) -> None:
    example = Path(corrections_module.__file__).with_name("corrections.example.toml")
    ground = tmp_path / "scilly.geojson"
    ground.write_text(shapely.to_geojson(shapely.box(-6.4, 49.86, -6.2, 50)), encoding="utf-8")
    copy = tmp_path / example.name
    copy.write_text(example.read_text(encoding="utf-8"), encoding="utf-8")
    actions = [one.action for one in read_corrections(copy).entries]
    assert actions == ["rename", "recode", "drop", "add", "give", "fill", "accept"]
