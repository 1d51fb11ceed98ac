"""Validation from files to exit codes: what is found, what stops a build, and what is real."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime
from itertools import combinations
from pathlib import Path
from typing import Any

import geopandas
import numpy as np
import pytest
import shapely

from boundaries.build import build_dataset
from boundaries.canonical import canonical
from boundaries.checks import read_authorities
from boundaries.corrections import read_corrections
from boundaries.dataset import DatasetError, open_dataset, read_manifest
from boundaries.findings import Finding, FindingsError, from_json
from boundaries.previous import read_previous
from boundaries.readers import SourceError, read_features
from boundaries.sample import layer_files
from boundaries.validate import Report, Validation, validate_dataset, validate_file
from tests.support.realdata import real_data

ROOT = Path(__file__).parents[2]
BUILT_AT = datetime(2026, 11, 23, tzinfo=UTC)
STRICT = Validation(strict=True)


def box(west: float, south: float, east: float, north: float) -> Any:
    """A box in hundredths of a degree, with a vertex every 50 m so that it is not coarse."""
    shape = shapely.box(1 + west / 100, 50 + south / 100, 1 + east / 100, 50 + north / 100)
    return shapely.segmentize(shape, 0.0005)


CLEAN = {"A": box(0, 0, 1, 1), "B": box(1, 0, 2, 1)}
LAPPED = {"A": box(0, 0, 1, 1), "B": box(0.5, 0, 2, 1)}


def layer_file(path: Path, areas: dict[str, Any]) -> Path:
    fields = {"code": list(areas), "name": [f"Area {code}" for code in areas]}
    geopandas.GeoDataFrame(fields, geometry=list(areas.values()), crs="EPSG:4326").to_file(path)
    return path


def build(folder: Path, areas: dict[str, Any], how: Validation, name: str = "out") -> Any:
    path = layer_file(folder / f"{name}.gpkg", areas)
    return build_dataset(
        {"one": path}, folder / name, built_at=BUILT_AT, proof_points=700, validation=how
    )


def correcting(folder: Path, *entries: str) -> Validation:
    path = folder / "corrections.toml"
    head = '[[correction]]\ndate = 2026-11-23\nreason = "by letter"\nlayer = "one"\n'
    path.write_text("\n".join(head + entry for entry in entries), encoding="utf-8")
    return Validation(strict=True, corrections=read_corrections(path))


# --- in a build -------------------------------------------------------------------------------


def test_a_clean_layer_is_built_with_strict(tmp_path: Path) -> None:
    manifest = build(tmp_path, CLEAN, STRICT)
    assert manifest["findings"] == []
    assert "accepted" not in manifest
    (layer,) = manifest["layers"]
    assert layer["repairs"] == []
    assert layer["area_m2"] == pytest.approx(dict.fromkeys("AB", 717_000 * 1.1126), rel=0.002)


def test_errors_that_can_be_lived_with_stop_a_strict_build_only(tmp_path: Path) -> None:
    manifest = build(tmp_path, LAPPED, Validation())
    (found,) = [dict(one) for one in manifest["findings"]]
    message = found.pop("message")
    assert message.startswith("A and B overlap: 398,")
    assert found.pop("area_m2") == pytest.approx(398_900, rel=0.002)
    assert found.pop("lon") == pytest.approx(1.0075, abs=1e-3)
    assert found.pop("lat") == pytest.approx(50.005, abs=5e-3)
    assert found == {
        "code": "overlap",
        "severity": "error",
        "layer": "one",
        "area": "A",
        "others": ["B"],
    }
    assert read_manifest(tmp_path / "out")["findings"] == manifest["findings"]

    with pytest.raises(FindingsError) as stopped:
        build(tmp_path, LAPPED, STRICT, "strict")
    assert str(stopped.value) == (
        f"layer 'one': {message}; correct the files, or list corrections for --corrections"
    )
    assert not (tmp_path / "strict").exists()
    assert not [path for path in tmp_path.iterdir() if path.name.startswith(".")]


@pytest.mark.parametrize(
    ("areas", "message"),
    [
        ({"A": CLEAN["A"], "B": None}, "area 'B' has no geometry; remove it or complete it"),
        ({"A": shapely.transform(CLEAN["A"], lambda d: d[:, ::-1])}, "A: longitude and latitude"),
        ({"A": shapely.box(-179, 50, 179, 51)}, "A: a polygon is wider than half the globe"),
    ],
)
def test_errors_that_nothing_can_be_done_about_stop_every_build(
    areas: dict[str, Any], message: str, tmp_path: Path
) -> None:
    with pytest.raises(FindingsError) as stopped:
        build(tmp_path, areas, Validation())
    assert message in str(stopped.value)
    assert not (tmp_path / "out").exists()


def test_corrections_are_applied_and_recorded(tmp_path: Path) -> None:
    ground = shapely.to_wkt(shapely.box(1.005, 49.9, 1.011, 50.1))
    how = correcting(
        tmp_path,
        'area = "C"\naction = "drop"\n',
        'area = "A"\naction = "rename"\nname = "Ay"\n',
        f'area = "A"\naction = "give"\nto = "B"\nwkt = "{ground}"\n',
    )
    manifest = build(tmp_path, LAPPED | {"C": None}, how)

    assert manifest["findings"] == []
    (layer,) = manifest["layers"]
    assert [(one["action"], one["area"]) for one in layer["corrections"]] == [
        ("drop", "C"),
        ("rename", "A"),
        ("give", "A"),
    ]
    assert layer["corrections"][2]["moved_m2"] == pytest.approx(398_900, rel=0.002)
    assert layer["corrections"][2]["reason"] == "by letter"
    index = open_dataset(tmp_path / "out").index
    assert [area.name for area in index.areas] == ["Ay", "Area B"]
    assert [index.areas[n].code for n in index.covering(lon=1.0075, lat=50.005)] == ["B"]


def test_what_is_accepted_does_not_stop_a_strict_build_and_is_listed(tmp_path: Path) -> None:
    accepting = correcting(tmp_path, 'area = "B"\naction = "accept"\nfinding = "overlap"\n')
    manifest = build(tmp_path, LAPPED, accepting)
    assert [one["accepted"] for one in manifest["findings"]] == ["by letter"]
    assert [one["area"] for one in manifest["accepted"]] == ["B"]

    with pytest.raises(SourceError, match="there is no such overlap now; correct or remove the"):
        build(tmp_path, CLEAN, accepting, "clean")
    assert not (tmp_path / "clean").exists()


def test_a_dataset_is_compared_with_the_one_before(tmp_path: Path) -> None:
    build(tmp_path, CLEAN, Validation(), "before")
    before = read_previous(tmp_path / "before")
    after = {"B": box(1, 0, 2.5, 1), "C": box(3, 0, 4, 1)}
    manifest = build(tmp_path, after, Validation(against=before), "after")

    assert [(one["code"], one["area"]) for one in manifest["findings"]] == [
        ("missing_area", "A"),
        ("area_changed", "B"),
        ("new_area", "C"),
    ]
    assert "(+50.0 %)" in manifest["findings"][1]["message"]
    again = validate_dataset(tmp_path / "after", Validation())
    assert list(again.findings) == from_json(manifest["findings"])
    other_way = validate_dataset(
        tmp_path / "before", Validation(against=read_previous(tmp_path / "after"))
    )
    assert [(one.code, one.area) for one in other_way.findings] == [
        ("missing_area", "C"),
        ("area_changed", "B"),
        ("new_area", "A"),
    ]


def test_datasets_from_before_there_were_findings(tmp_path: Path) -> None:
    build(tmp_path, CLEAN, Validation(), "before")
    path = tmp_path / "before" / "manifest.json"
    manifest = json.loads(path.read_text())
    del manifest["findings"], manifest["layers"][0]["area_m2"]
    path.write_text(json.dumps(manifest))

    with pytest.raises(DatasetError, match="built without findings; build the dataset again"):
        validate_dataset(tmp_path / "before", Validation())
    found = validate_file(
        tmp_path / "before.gpkg", "one", Validation(against=read_previous(tmp_path / "before"))
    ).findings
    assert [one.code for one in found] == ["not_compared"]


def test_the_example_country_is_clean() -> None:
    for name, path in layer_files().items():
        assert validate_file(path, name, STRICT).findings == ()


# --- on the command line ----------------------------------------------------------------------


@pytest.fixture
def georouter(tmp_path: Path) -> Any:
    environment = {
        **os.environ,  # noqa: TID251 - the user's own, so that PATH and HOME are real
        "PYTHONPATH": str(ROOT),
        "COLUMNS": "200",
    }

    def run(*arguments: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, "-m", "scripts.cli", "boundaries", *arguments],
            cwd=tmp_path,
            env=environment,
            capture_output=True,
            text=True,
            check=False,
        )

    return run


def test_validate_prints_a_table_or_json_and_exits_with_3(georouter: Any, tmp_path: Path) -> None:
    layer_file(tmp_path / "lapped.gpkg", LAPPED)

    table = georouter("validate", "lapped.gpkg")
    assert table.returncode == 3
    assert "A and B overlap: 398," in table.stdout
    assert table.stdout.splitlines()[0].split()[:4] == ["severity", "code", "layer", "area"]
    assert table.stderr.splitlines()[-1] == "lapped.gpkg: 1 error"

    told = georouter("validate", "lapped.gpkg", "--layer", "one", "--json")
    assert told.returncode == 3
    (found,) = json.loads(told.stdout)["findings"]
    assert (found["code"], found["layer"], found["area"]) == ("overlap", "one", "A")

    sliver = ("validate", "lapped.gpkg", "--sliver-m2", "500000")
    assert georouter(*sliver).returncode == 0
    assert georouter(*sliver, "--strict").returncode == 3


def test_validate_says_what_it_cannot_do(georouter: Any, tmp_path: Path) -> None:
    (tmp_path / "bad.geojson").write_text("{")
    bad = georouter("validate", "bad.geojson", "--json")
    assert bad.returncode == 3
    assert [one["code"] for one in json.loads(bad.stdout)["findings"]] == ["unreadable_file"]
    missing = georouter("validate", "none.gpkg")
    assert missing.returncode == 4
    assert missing.stderr.splitlines()[-1] == ("georouter: none.gpkg does not exist or is no file")
    usage = georouter("validate", str(tmp_path), "--layer", "one")
    assert usage.returncode == 2


def test_a_strict_build_prints_its_findings_and_leaves_nothing(
    georouter: Any, tmp_path: Path
) -> None:
    layer_file(tmp_path / "lapped.gpkg", LAPPED)
    command = ("build", "--layer", "one=lapped.gpkg", "--proof-points", "1000", "--out", "out")

    stopped = georouter(*command, "--strict")
    assert stopped.returncode == 3
    assert stopped.stdout == ""
    assert "A and B overlap: 398," in stopped.stderr
    assert not (tmp_path / "out").exists()

    (tmp_path / "corrections.toml").write_text(
        '[[correction]]\ndate = 2026-11-23\nreason = "known"\nlayer = "one"\narea = "A"\n'
        'action = "accept"\nfinding = "overlap"\n'
    )
    built = georouter(*command, "--strict", "--corrections", "corrections.toml")
    assert built.returncode == 0
    assert "1 accepted" in built.stderr
    shown = georouter("validate", "out", "--strict", "--against", "out")
    assert shown.returncode == 0
    assert "(accepted: known)" in shown.stdout


# --- real boundaries --------------------------------------------------------------------------


def of(report: Report, *codes: str) -> list[Finding]:
    return [one for one in report.findings if one.code in codes]


def oracle_overlaps(polygons: Any, codes: Any) -> Iterator[tuple[str, str]]:
    """Pairs with ground in common, each by the intersection of the whole polygons."""
    tree = shapely.STRtree(polygons)
    first, second = tree.query(polygons, predicate="intersects")
    for one, other in zip(first.tolist(), second.tolist(), strict=True):
        if one < other and shapely.intersection(polygons[one], polygons[other]).area > 0:
            yield codes[one], codes[other]


@pytest.mark.realdata
@pytest.mark.timeout(900)  # a minute, but on a machine that does ten things at once
def test_every_fault_of_districts_as_found_is_reported(tmp_path: Path) -> None:
    path = real_data() / "lad_2020_bgc_dirty.parquet"
    report = validate_file(path, "district", Validation())
    read = geopandas.read_parquet(path).set_index("code").geometry

    invalid = {code: shape for code, shape in read.items() if not shapely.is_valid(shape)}
    assert len(invalid) == 54
    reported = of(report, "invalid_ring")
    assert {one.area for one in reported} == set(invalid)
    assert {one["area"] for one in report.layers[0]["repairs"]} == set(invalid)
    for one in reported:
        assert one.area is not None
        place = shapely.Point(one.lon, one.lat)
        assert shapely.distance(shapely.boundary(invalid[one.area]), place) < 1e-6

    features = read_features(path)
    polygons, _ = canonical(features.geometries)
    lapping = set(oracle_overlaps(polygons, features.codes))
    assert len(lapping) >= 6
    overlaps = [one for one in report.findings if "overlap" in one.message]
    assert {(one.area, *one.others) for one in overlaps} == lapping

    covered = shapely.union_all(polygons)
    borders = shapely.get_parts(shapely.union_all(shapely.boundary(covered)))
    faces = shapely.get_parts(shapely.polygonize(borders))
    shapely.prepare(covered)
    holes = faces[~shapely.covers(covered, shapely.point_on_surface(faces))]
    told = [one for one in report.findings if one.message.startswith("in no area")]
    assert len(holes) == sum(
        int(one.message.split(" in ")[-1].split()[0]) if "places" in one.message else 1
        for one in told
    )
    for one in told:
        if one.code == "hairline":
            continue  # written to 7 decimals a place may be beside it
        assert not shapely.covers(covered, shapely.Point(one.lon, one.lat))

    with pytest.raises(FindingsError) as stopped:
        build_dataset({"district": path}, tmp_path / "out", built_at=BUILT_AT, validation=STRICT)
    assert len(stopped.value.findings) == len(
        [one for one in report.findings if one.severity != "note"]
    )
    assert not (tmp_path / "out").exists()


@pytest.mark.realdata
@pytest.mark.parametrize("name", ["lad_2025_bgc", "ctyua_2025_bgc", "wards_2025_bgc"])
def test_generalised_layers_of_2025_are_clean(name: str) -> None:
    report = validate_file(real_data() / f"{name}.parquet", "layer", STRICT)
    assert {one.code for one in report.findings} == {"narrow_slit"}  # the heads of creeks


@pytest.mark.realdata
def test_overview_maps_are_too_coarse_and_finer_ones_are_not() -> None:
    report = validate_file(real_data() / "lad_2024_buc.geojson", "district", Validation())
    (coarse,) = of(report, "coarse_resolution")
    assert "0.6 vertices per km" in coarse.message


@pytest.mark.realdata
@pytest.mark.timeout(900)  # a minute, but on a machine that does ten things at once
def test_full_resolution_has_slivers_in_cornwall_and_highland_and_no_errors() -> None:
    report = validate_file(real_data() / "lad_2025_bfc.parquet", "district", Validation())
    assert {one.severity for one in report.findings} == {"warning", "note"}
    slivers = {(one.area, *one.others) for one in of(report, "gap_sliver", "overlap_sliver")}
    assert ("E06000052", "E07000046") in slivers
    assert ("S12000017", "S12000020") in slivers


@pytest.mark.realdata
def test_districts_of_2020_against_those_of_2025(tmp_path: Path) -> None:
    folder = real_data()
    build_dataset(
        {"district": folder / "lad_2020_bgc_dirty.parquet"},
        tmp_path / "old",
        built_at=BUILT_AT,
        proof_points=700,
    )
    how = replace(
        Validation(),
        against=read_previous(tmp_path / "old"),
        known=read_authorities(folder / "la_register.csv"),
    )
    report = validate_file(folder / "lad_2025_bgc.parquet", "district", how)
    old = set(geopandas.read_parquet(folder / "lad_2020_bgc_dirty.parquet")["code"])
    new = set(geopandas.read_parquet(folder / "lad_2025_bgc.parquet")["code"])
    assert {one.area for one in of(report, "missing_area")} == old - new
    assert {one.area for one in of(report, "new_area")} == new - old
    assert of(report, "unknown_code") == []


def test_oracle_sees_what_it_should() -> None:
    pairs = oracle_overlaps(np.array(list(LAPPED.values()), dtype=object), list(LAPPED))
    assert list(pairs) == list(combinations("AB", 2))
