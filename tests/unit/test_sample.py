"""The example country is what its README says: remade byte for byte, gapless, with its oddities."""

from __future__ import annotations

import csv
import json
import re
from collections import defaultdict
from pathlib import Path
from typing import Any

import pytest
import shapely

from boundaries.sample import FOLDER, GOLDEN, RED_ROUTES, TRUNK_ROADS, layer_files
from boundaries.sample import make as sample

COUNTY, CITY, ENCLAVE, ISLAND = "D10000001", "D06000001", "D06000006", "D06000007"
GREY_MARRAM, HARPOON_BAY, COLD_SHOAL, ELK_NESS = (f"D0600000{i}" for i in range(2, 6))
NINE_MERES = "D07000003"
NORTH_SEA = shapely.box(1.5, 54.3, 3.2, 55.2)


def features(path: Path) -> list[dict[str, Any]]:
    found = json.loads(path.read_text(encoding="utf-8"))["features"]
    assert isinstance(found, list)
    return found


def polygons(layer: str) -> dict[str, Any]:
    return {
        one["properties"]["code"]: shapely.geometry.shape(one["geometry"])
        for one in features(layer_files()[layer])
    }


HIGHWAY = polygons("highway")
DISTRICT = polygons("district")
DISTRICTS = {code: area for code, area in DISTRICT.items() if code.startswith("D07")}


def parts(area: Any) -> list[Any]:
    return list(getattr(area, "geoms", [area]))


def holes(area: Any) -> list[Any]:
    return [shapely.Polygon(ring) for part in parts(area) for ring in part.interiors]


def same_vertices(one: Any, other: Any) -> bool:
    return bool(shapely.normalize(one) == shapely.normalize(other))


def meetings(areas: dict[str, Any]) -> dict[tuple[float, float], set[str]]:
    """The authorities that have each vertex."""
    at = defaultdict(set)
    for code, area in areas.items():
        for x, y in shapely.get_coordinates(area).tolist():
            at[x, y].add(code)
    return at


def test_the_committed_files_are_what_the_script_makes(capsys: pytest.CaptureFixture[str]) -> None:
    assert sample.main(["--check"]) == 0, capsys.readouterr().err


def test_check_names_the_files_that_differ_and_writes_nothing(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    golden = tmp_path / GOLDEN.name
    golden.write_text("edited by hand\n", encoding="utf-8")
    for path in (*layer_files().values(), TRUNK_ROADS):
        (tmp_path / path.name).write_bytes(path.read_bytes())

    assert sample.main(["--check"], folder=tmp_path) == 1

    named = [line.split()[0] for line in capsys.readouterr().err.splitlines()]
    assert named == [RED_ROUTES.name, GOLDEN.name]
    assert golden.read_text(encoding="utf-8") == "edited by hand\n"
    assert not (tmp_path / RED_ROUTES.name).exists()


def test_a_country_whose_arcs_cross_is_refused() -> None:
    with pytest.raises(ValueError, match="Self-intersection"):
        sample.make(8200)


def test_the_files_are_small_and_written_for_reading() -> None:
    paths = [*layer_files().values(), TRUNK_ROADS, RED_ROUTES]
    assert sum(path.stat().st_size for path in paths) < 700_000
    for path in paths:
        text = path.read_text(encoding="utf-8")
        assert len(text.splitlines()) == len(features(path)) + 2, "one feature on a line"
        assert not re.search(r"\d\.\d{8}|\de", text), "seven decimals, no exponents"
    for layer in (HIGHWAY, DISTRICT):
        assert 6_000 < sum(map(shapely.get_num_coordinates, layer.values())) < 12_500


def test_everything_lies_in_the_north_sea() -> None:
    for path in (*layer_files().values(), TRUNK_ROADS, RED_ROUTES):
        for one in features(path):
            assert NORTH_SEA.contains_properly(shapely.geometry.shape(one["geometry"]))


def test_codes_tell_the_kind_and_no_name_or_code_is_given_twice() -> None:
    kinds = {"D06": "unitary", "D07": "district", "D10": "county", "D99": "national"}
    bodies = set()
    for path in (*layer_files().values(), TRUNK_ROADS, RED_ROUTES):
        for one in features(path):
            body = one["properties"]
            assert re.fullmatch(r"D\d{8}", body["code"])
            assert body["kind"] == kinds[body["code"][:3]]
            bodies.add((body["code"], body["name"]))
    assert len(bodies) == len({code for code, _ in bodies}) == len({name for _, name in bodies})
    assert len(bodies) == 7 + 5 + 1 + 2


@pytest.mark.parametrize("areas", [HIGHWAY, DISTRICT], ids=["highway", "district"])
def test_a_layer_covers_its_land_once_and_without_gaps(areas: dict[str, Any]) -> None:
    assert all(area.is_valid for area in areas.values())
    assert shapely.coverage_is_valid(list(areas.values()))
    land = shapely.coverage_union_all(list(areas.values()))
    assert len(parts(land)) == 3, "the mainland, the island, the islet"
    assert not holes(land)


@pytest.mark.parametrize("areas", [HIGHWAY, DISTRICT], ids=["highway", "district"])
def test_rings_turn_as_rfc_7946_asks(areas: dict[str, Any]) -> None:
    for area in areas.values():
        for part in parts(area):
            assert part.exterior.is_ccw
            assert not any(ring.is_ccw for ring in part.interiors)


def test_unitaries_are_the_same_in_both_layers() -> None:
    unitary = {
        layer: [one for one in features(path) if one["properties"]["kind"] == "unitary"]
        for layer, path in layer_files().items()
    }
    assert len(unitary["highway"]) == 7
    assert unitary["highway"] == unitary["district"]


def test_the_county_is_the_union_of_its_districts_vertex_by_vertex() -> None:
    assert len(DISTRICTS) == 5
    union = shapely.coverage_union_all(list(DISTRICTS.values()))
    assert union.equals(HIGHWAY[COUNTY])
    assert same_vertices(union, HIGHWAY[COUNTY])


def test_the_enclave_fills_a_hole_exactly() -> None:
    for surrounding in (HIGHWAY[COUNTY], DISTRICT[NINE_MERES]):
        assert len(holes(surrounding)) == 1
        assert same_vertices(holes(surrounding)[0], HIGHWAY[ENCLAVE])
    assert [code for code, area in HIGHWAY.items() if area.touches(HIGHWAY[ENCLAVE])] == [COUNTY]


def test_the_exclave_is_a_part_in_a_hole_of_another() -> None:
    main, exclave = sorted(parts(HIGHWAY[ELK_NESS]), key=lambda part: -part.area)
    assert main.disjoint(exclave)
    assert len(holes(HIGHWAY[COLD_SHOAL])) == 1
    assert same_vertices(holes(HIGHWAY[COLD_SHOAL])[0], exclave)


def test_the_island_and_the_islet_lie_across_water() -> None:
    island = HIGHWAY[ISLAND]
    islet = min(parts(HIGHWAY[GREY_MARRAM]), key=lambda part: part.area)
    for alone in (island, islet):
        neighbours = [part for area in HIGHWAY.values() for part in parts(area) if part != alone]
        assert min(part.distance(alone) for part in neighbours) > 0.05


def test_four_authorities_meet_in_one_point_and_three_in_others() -> None:
    by_number = defaultdict(list)
    for codes in meetings(HIGHWAY).values():
        by_number[len(codes)].append(codes)
    assert by_number[4] == [{COUNTY, CITY, GREY_MARRAM, HARPOON_BAY}]
    assert {COUNTY, COLD_SHOAL, ELK_NESS} in by_number[3]
    assert max(by_number) == 4
    assert any(
        DISTRICTS.keys() >= codes and len(codes) == 3 for codes in meetings(DISTRICT).values()
    )


def test_golden_points_agree_with_geos_and_reach_every_authority() -> None:
    with GOLDEN.open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    for row in rows:
        point = shapely.Point(float(row["lon"]), float(row["lat"]))
        for layer, areas in (("highway", HIGHWAY), ("district", DISTRICT)):
            found = [code for code, area in areas.items() if area.covers(point)]
            assert found == [row[layer]] * bool(row[layer]), row
    assert {row["highway"] for row in rows} == {*HIGHWAY, ""}
    assert {row["district"] for row in rows} == {*DISTRICT, ""}


def test_a_trunk_road_crosses_the_country_and_another_follows_a_border() -> None:
    roads = {
        one["properties"]["road"]: shapely.geometry.shape(one["geometry"])
        for one in features(TRUNK_ROADS)
    }
    crossed = {code for code, area in HIGHWAY.items() if roads["D1"].crosses(area)}
    assert crossed == {HARPOON_BAY, CITY, COUNTY, ENCLAVE, ELK_NESS}
    border = HIGHWAY[ELK_NESS].intersection(HIGHWAY[COUNTY])
    shared = roads["D2"].intersection(border)
    assert 0.05 < shared.length < roads["D2"].length / 2, "degrees, 1 of latitude is 111 km"
    land = shapely.coverage_union_all(list(HIGHWAY.values()))
    assert all(road.is_simple and land.contains(road) for road in roads.values())


def test_red_routes_are_road_surfaces_inside_the_city() -> None:
    surfaces = [shapely.geometry.shape(one["geometry"]) for one in features(RED_ROUTES)]
    assert len(surfaces) == 2
    assert surfaces[0].intersects(surfaces[1])
    for surface in surfaces:
        assert surface.is_valid
        assert HIGHWAY[CITY].contains_properly(surface)
        assert surface.exterior.is_ccw
    assert any(surface.covers(shapely.Point(2.15, 54.72)) for surface in surfaces)


def test_all_files_of_the_folder_are_made_by_the_script() -> None:
    made = set(sample.make(sample.SEED))
    assert {path.name for path in FOLDER.iterdir() if path.suffix in {".geojson", ".csv"}} == made
