"""From boundary files to a proved dataset in a folder, or to no folder at all."""

from __future__ import annotations

import csv
import hashlib
import json
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, date, datetime
from itertools import combinations
from pathlib import Path
from typing import Any

import geopandas
import pytest
import shapely

from api.routing import load_rules
from boundaries import build as build_module
from boundaries.build import BuildConflictError, build_dataset
from boundaries.dataset import DatasetError, DatasetNotFoundError, open_dataset, read_manifest
from boundaries.findings import FindingsError
from boundaries.prove import ProofError
from boundaries.readers import SourceError, SourceNotFoundError, read_features
from boundaries.sample import GOLDEN, layer_files
from georouter.codec import Compiled, IndexFormatError
from georouter.compiler import CompileError, LayerRings, compile_index
from georouter.index import Index
from georouter.model import Succession, Successor
from tests.support.realdata import real_data

BUILT_AT = datetime(2027, 1, 15, 8, 30, tzinfo=UTC)


def build(layers: dict[str, Path], out: Path, **options: Any) -> dict[str, Any]:
    return build_dataset(layers, out, built_at=BUILT_AT, proof_points=700, **options)


def codes_at(index: Index, lon: float, lat: float) -> dict[str, list[str]]:
    found: dict[str, list[str]] = {layer.name: [] for layer in index.layers}
    for hit in index.covering(lon=lon, lat=lat):
        area = index.areas[hit]
        found[area.layer].append(area.code)
    return found


def boundary_file(path: Path, **areas: Any) -> Path:
    fields = {"code": list(areas), "name": [f"Area {code}" for code in areas]}
    shapes = list(areas.values())
    geopandas.GeoDataFrame(fields, geometry=shapes, crs="EPSG:4326").to_file(path)
    return path


@pytest.fixture(scope="module")
def doggerland(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, Any]]:
    """The example country as a dataset, and what `build_dataset` returned."""
    out = tmp_path_factory.mktemp("datasets") / "doggerland"
    return out, build(layer_files(), out)


def test_a_dataset_is_a_manifest_and_an_index(doggerland: tuple[Path, dict[str, Any]]) -> None:
    folder, returned = doggerland

    files = sorted(path.name for path in folder.iterdir())
    assert files == ["areas.npz", "index.grx", "manifest.json"]
    assert [path.name for path in folder.parent.iterdir()] == ["doggerland"]
    assert read_manifest(folder) == returned


def test_the_manifest_says_what_was_built_of_what(
    doggerland: tuple[Path, dict[str, Any]],
) -> None:
    folder, manifest = doggerland
    content = (folder / "index.grx").read_bytes()
    digest = hashlib.sha256(content).hexdigest()

    assert manifest["version"] == f"doggerland-{digest[:8]}"
    assert manifest["built_at"] == "2027-01-15T08:30:00+00:00"
    assert manifest["index"] == {
        "file": "index.grx",
        "sha256": digest,
        "bytes": len(content),
        "format": 1,
    }
    assert manifest["canonical"]["grid_degrees"] == 1e-7
    west, south, east, north = manifest["bounds"]
    assert 1.5 < west < 1.6
    assert 54.3 < south < 54.4
    assert 3.1 < east < 3.2
    assert 55.0 < north < 55.2
    assert [layer["name"] for layer in manifest["layers"]] == ["highway", "district"]
    for layer, (name, path) in zip(manifest["layers"], layer_files().items(), strict=True):
        assert layer["areas"] == {"highway": 8, "district": 12}[name]
        assert 6_000 < layer["vertices"] < 12_500
        assert layer["repairs"] == []
        assert len(layer["area_m2"]) == layer["areas"]
        assert layer["source"] == {
            "file": path.name,
            "sha256": hashlib.sha256(path.read_bytes()).hexdigest(),
            "code_field": "code",
            "name_field": "name",
            "crs": "EPSG:4326",
            "operation": "none (already WGS 84 or ETRS89)",
            "accuracy_m": 0.0,
        }
    assert manifest["proof"]["mismatches"] == manifest["proof"]["settled_in_rationals"] == 0
    assert manifest["proof"]["seed"] == 1
    assert set(manifest["proof"]["points"].values()) == {200}
    assert "GEOS" in manifest["proof"]["oracle"]


def test_the_golden_points_are_answered_exactly(
    doggerland: tuple[Path, dict[str, Any]],
) -> None:
    dataset = open_dataset(doggerland[0])
    assert dataset.version == doggerland[1]["version"]
    assert dataset.manifest == doggerland[1]
    with GOLDEN.open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    assert len(rows) > 30
    for row in rows:
        found = codes_at(dataset.index, float(row["lon"]), float(row["lat"]))
        for layer in ("highway", "district"):
            assert found[layer] == ([row[layer]] if row[layer] else []), row


def test_the_same_files_give_the_same_index(
    doggerland: tuple[Path, dict[str, Any]], tmp_path: Path
) -> None:
    folder, manifest = doggerland
    again = build(layer_files(), tmp_path / "doggerland", seed=2)

    assert (tmp_path / "doggerland/index.grx").read_bytes() == (folder / "index.grx").read_bytes()
    assert again["version"] == manifest["version"]


def test_stages_are_told_in_order(tmp_path: Path) -> None:
    told: list[tuple[str, float]] = []
    square = boundary_file(tmp_path / "square.gpkg", A=shapely.box(1, 50, 2, 51))

    build(
        {"one": square},
        tmp_path / "out",
        progress=lambda stage, share: told.append((stage, share)),
    )

    assert list(dict.fromkeys(stage for stage, _ in told)) == [
        "reading one",
        "validating one",
        "edges",
        "cells",
        "faces",
        "records",
        "arrays",
        "proof",
    ]
    assert all(0 <= share <= 1 for _, share in told)


def test_options_name_the_fields(tmp_path: Path) -> None:
    path = tmp_path / "square.gpkg"
    geopandas.GeoDataFrame(
        {"kennung": ["A"], "titel": ["Ay"]}, geometry=[shapely.box(1, 50, 2, 51)], crs="EPSG:4326"
    ).to_file(path)

    manifest = build({"one": path}, tmp_path / "out", code_field="kennung", name_field="titel")

    assert manifest["layers"][0]["source"]["code_field"] == "kennung"
    assert open_dataset(tmp_path / "out").index.areas[0].name == "Ay"


# --- whole or not at all ----------------------------------------------------------------------


@pytest.fixture
def place(tmp_path: Path) -> Path:
    """A folder with a good and a bad file, where datasets go."""
    boundary_file(tmp_path / "good.gpkg", A=shapely.box(1, 50, 2, 51), B=shapely.box(2, 50, 3, 51))
    (tmp_path / "bad.parquet").write_bytes(b"PAR1 and no more")
    return tmp_path


def listing(folder: Path) -> dict[str, bytes]:
    return {
        str(path.relative_to(folder)): path.read_bytes() if path.is_file() else b""
        for path in folder.rglob("*")
    }


@pytest.mark.parametrize("make", ["mkdir", "touch"])
def test_what_exists_is_left_alone(place: Path, make: str) -> None:
    out = place / "out"
    getattr(out, make)()
    before = listing(place)

    with pytest.raises(BuildConflictError) as refused:
        build({"one": place / "good.gpkg"}, out)

    assert str(refused.value) == f"{out} exists already; remove it or choose another --out"
    assert listing(place) == before


def test_a_dataset_is_not_written_over(place: Path) -> None:
    build({"one": place / "good.gpkg"}, place / "out")
    before = listing(place)

    with pytest.raises(BuildConflictError):
        build({"one": place / "good.gpkg"}, place / "out")

    assert listing(place) == before


@pytest.mark.parametrize(
    ("second", "error"), [("bad.parquet", SourceError), ("none.gpkg", SourceNotFoundError)]
)
def test_nothing_is_left_of_a_build_with_a_bad_second_file(
    place: Path, second: str, error: type[Exception]
) -> None:
    before = listing(place)

    with pytest.raises(error, match=second):
        build({"one": place / "good.gpkg", "two": place / second}, place / "out")

    assert listing(place) == before


def test_nothing_is_left_of_polygons_that_cannot_be_compiled(place: Path) -> None:
    wide = boundary_file(place / "wide.gpkg", A=shapely.box(-20, 50, 20, 51))
    before = listing(place)

    with pytest.raises(CompileError, match="an edge spans 40 degrees"):
        build({"one": wide}, place / "out")

    assert listing(place) == before


def test_nothing_is_left_of_an_index_that_fails_its_proof(
    place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def compile_wrongly(layers: list[LayerRings], **options: Any) -> Compiled:
        return compile_index([replace(layer, x=layer.x + 1) for layer in layers], **options)

    monkeypatch.setattr(build_module, "compile_index", compile_wrongly)
    before = listing(place)

    with pytest.raises(ProofError, match="layer 'one' at lon "):
        build({"one": place / "good.gpkg"}, place / "out")

    assert listing(place) == before


def interrupt_at(stage: str) -> Callable[[str, float], None]:
    def progress(reached: str, _: float) -> None:
        if reached == stage:
            raise KeyboardInterrupt

    return progress


@pytest.mark.parametrize("stage", ["reading one", "cells", "records", "proof"])
def test_nothing_is_left_of_an_interrupted_build(place: Path, stage: str) -> None:
    before = listing(place)

    with pytest.raises(KeyboardInterrupt):
        build({"one": place / "good.gpkg"}, place / "out", progress=interrupt_at(stage))

    assert listing(place) == before
    build({"one": place / "good.gpkg"}, place / "out")


def test_while_it_is_made_a_dataset_is_not_seen_under_its_name(place: Path) -> None:
    seen: list[bool] = []
    build(
        {"one": place / "good.gpkg"},
        place / "out",
        progress=lambda _stage, _share: seen.append((place / "out").exists()),
    )
    assert seen
    assert not any(seen)


# --- dirty input ------------------------------------------------------------------------------


def test_a_bow_tie_is_repaired_and_listed(tmp_path: Path) -> None:
    bow_tie = shapely.Polygon([(1, 50), (3, 52), (3, 50), (1, 52)])
    path = boundary_file(tmp_path / "bow_tie.gpkg", A=shapely.box(3, 50, 4, 52), B=bow_tie)

    manifest = build({"one": path}, tmp_path / "out")

    (repair,) = manifest["layers"][0]["repairs"]
    assert repair == {
        "area": "B",
        "reason": "self-intersection",
        "lon": 2.0,
        "lat": 51.0,
        "moved_m2": 0.0,
    }
    index = open_dataset(tmp_path / "out").index
    assert codes_at(index, 1.1, 51) == {"one": ["B"]}
    assert codes_at(index, 2.9, 51) == {"one": ["B"]}
    assert codes_at(index, 2, 51) == {"one": ["B"]}, "where its wings touch"
    assert codes_at(index, 2, 51.5) == {"one": []}
    assert codes_at(index, 3, 51) == {"one": ["A", "B"]}


def test_a_spike_and_a_doubled_hole_are_repaired(tmp_path: Path) -> None:
    spike = shapely.Polygon([(1, 50), (2, 50), (3, 50), (2, 50), (2, 51), (1, 51)])
    hole = [(4.25, 50.25), (4.75, 50.25), (4.75, 50.75), (4.25, 50.75)]
    holes = shapely.Polygon([(4, 50), (5, 50), (5, 51), (4, 51)], [hole, hole])
    path = boundary_file(tmp_path / "dirty.gpkg", A=spike, B=holes)

    manifest = build({"one": path}, tmp_path / "out")

    assert [one["area"] for one in manifest["layers"][0]["repairs"]] == ["A", "B"]
    index = open_dataset(tmp_path / "out").index
    assert codes_at(index, 1.5, 50.5) == {"one": ["A"]}
    assert codes_at(index, 2.5, 50) == {"one": []}
    assert codes_at(index, 4.1, 50.5) == {"one": ["B"]}


def test_vertices_closer_than_the_grid_become_one(tmp_path: Path) -> None:
    fine = [(1, 50), (2, 50), (2, 50.00000001), (2, 51), (1, 51), (1, 50.00000002)]
    path = boundary_file(tmp_path / "fine.gpkg", A=shapely.Polygon(fine))

    build({"one": path}, tmp_path / "out")

    assert codes_at(open_dataset(tmp_path / "out").index, 2, 50.5) == {"one": ["A"]}


@pytest.mark.parametrize("size", [1e-9, 4e-8])
def test_an_area_that_vanishes_on_the_grid_is_refused(tmp_path: Path, size: float) -> None:
    speck = shapely.box(1.00000001, 50, 1.00000001 + size, 51)
    path = boundary_file(tmp_path / "speck.gpkg", A=shapely.box(2, 50, 3, 51), B=speck)

    with pytest.raises(FindingsError) as refused:
        build({"one": path}, tmp_path / "out")

    assert str(refused.value).startswith(
        "layer 'one': area 'B' is smaller than the grid of 1e-7 degrees; remove it"
    )


@pytest.mark.realdata
def test_districts_as_found_are_repaired_and_proved(tmp_path: Path) -> None:
    dirty = real_data() / "lad_2020_bgc_dirty.parquet"

    manifest = build({"district": dirty}, tmp_path / "out")

    assert manifest["layers"][0]["areas"] == 379
    assert len(manifest["layers"][0]["repairs"]) == 54
    assert manifest["proof"]["mismatches"] == 0


@pytest.mark.realdata
def test_known_places_of_the_united_kingdom(tmp_path: Path) -> None:
    folder = real_data()
    layers = {
        "highway": folder / "ctyua_2025_bgc.parquet",
        "district": folder / "lad_2025_bgc.parquet",
    }
    manifest = build(layers, tmp_path / "out")
    index = open_dataset(tmp_path / "out").index

    assert [layer["areas"] for layer in manifest["layers"]] == [218, 361]
    name = {(area.layer, area.code): area.name for area in index.areas}
    for lat, lon, expected in (
        (53.5450, -2.6325, "Wigan"),
        (51.5014, -0.1419, "Westminster"),
        (50.3755, -4.1427, "Plymouth"),
        (54.5973, -5.9301, "Belfast"),
        (55.9533, -3.1883, "City of Edinburgh"),
    ):
        found = codes_at(index, lon, lat)
        assert [name["highway", code] for code in found["highway"]] == [expected]
        assert [name["district", code] for code in found["district"]] == [expected]
    in_fenland = codes_at(index, 0.16, 52.666)  # Wisbech, in a county of two tiers
    assert [name["highway", code] for code in in_fenland["highway"]] == ["Cambridgeshire"]
    assert [name["district", code] for code in in_fenland["district"]] == ["Fenland"]


# --- successors -------------------------------------------------------------------------------

END = date(2027, 4, 1)
TUSKSHIRE = ("D10000001", *(f"D0700000{n}" for n in range(1, 6)))
SPLIT = Succession(
    on=END,
    reason="reorganisation of Tuskshire",
    ends=TUSKSHIRE,
    successors=(
        Successor("UPPER", "Upper Tuskshire", ("D07000001", "D07000002")),
        Successor("LOWER", "Lower Tuskshire", ("D07000003", "D07000004", "D07000005")),
    ),
    to_be_checked=True,
)


def areas_by_layer(index: Index) -> dict[str, list[str]]:
    found: dict[str, list[str]] = {layer.name: [] for layer in index.layers}
    for area in index.areas:
        found[area.layer].append(area.code)
    return found


def test_successors_take_the_place_of_the_ended_in_every_layer(tmp_path: Path) -> None:
    manifest = build(layer_files(), tmp_path / "out", successions=[SPLIT], as_of=END)
    index = open_dataset(tmp_path / "out").index

    unitaries = [f"D0600000{n}" for n in range(1, 8)]
    assert areas_by_layer(index) == {
        "highway": [*unitaries, "LOWER", "UPPER"],
        "district": [*unitaries, "LOWER", "UPPER"],
    }
    assert manifest["as_of"] == "2027-04-01"
    for layer, ended in zip(manifest["layers"], (TUSKSHIRE[:1], TUSKSHIRE[1:]), strict=True):
        assert layer["areas"] == 9
        assert layer["replaced"] == [
            {
                "on": "2027-04-01",
                "reason": "reorganisation of Tuskshire",
                "to_be_checked": True,
                "ended": sorted(ended),
                "successors": {
                    "UPPER": ["D07000001", "D07000002"],
                    "LOWER": ["D07000003", "D07000004", "D07000005"],
                },
                "gained_m2": 0.0,
                "lost_m2": 0.0,
            }
        ]
    heirs = {code: heir.code for heir in SPLIT.successors for code in heir.areas}
    with GOLDEN.open(encoding="utf-8", newline="") as file:
        for row in csv.DictReader(file):
            found = codes_at(index, float(row["lon"]), float(row["lat"]))
            expected = heirs.get(row["district"], row["district"])
            for layer in ("highway", "district"):
                assert found[layer] == ([expected] if expected else []), row


def test_until_the_day_nothing_ends(tmp_path: Path) -> None:
    day_before = build(
        layer_files(), tmp_path / "out", successions=[SPLIT], as_of=date(2027, 3, 31)
    )
    without = build(layer_files(), tmp_path / "without" / "out")

    assert day_before["version"] == without["version"]
    assert not any("replaced" in layer for layer in day_before["layers"])
    assert "as_of" not in without


def test_one_that_grows_and_one_that_follows_it(tmp_path: Path) -> None:
    first = Succession(END, "merger", ("D06000004",), (Successor("D06000005", "Elk and Shoal"),))
    second = Succession(
        date(2028, 4, 1),
        "merger again",
        ("D06000005", "D06000002"),
        (Successor("WHOLE", "The Whole", ("D06000005", "D06000002")),),
    )
    options = {"successions": [second, first]}
    after_one = build(layer_files(), tmp_path / "one", as_of=END, **options)
    after_two = build(layer_files(), tmp_path / "two", as_of=date(2028, 4, 1), **options)

    districts = geopandas.read_file(layer_files()["district"]).set_index("code").geometry
    inside = {
        code: districts[code].representative_point()
        for code in ("D06000004", "D06000005", "D06000002")
    }
    for folder, expected in (("one", ["D06000005"]), ("two", ["WHOLE"])):
        index = open_dataset(tmp_path / folder).index
        for code in ("D06000004", "D06000005"):
            assert codes_at(index, inside[code].x, inside[code].y)["district"] == expected
    assert after_one["layers"][1]["replaced"][0]["gained_m2"] == 0.0
    assert [one["reason"] for one in after_two["layers"][1]["replaced"]] == [
        "merger",
        "merger again",
    ]


def test_a_successor_of_ground_that_no_layer_has_is_refused(tmp_path: Path) -> None:
    with pytest.raises(SourceError) as refused:
        build(
            {"highway": layer_files()["highway"]},
            tmp_path / "out",
            successions=[SPLIT],
            as_of=END,
        )
    assert str(refused.value) == (
        "no layer has the area 'D07000001', which 'Upper Tuskshire' takes over (reorganisation of "
        "Tuskshire); add a layer with it, or correct successions.toml"
    )
    assert not (tmp_path / "out").exists()


def test_ground_that_no_successor_takes_is_told(tmp_path: Path) -> None:
    forgetful = replace(
        SPLIT, successors=(SPLIT.successors[0], Successor("LOWER", "L", ("D07000003",)))
    )
    manifest = build(layer_files(), tmp_path / "out", successions=[forgetful], as_of=END)

    districts = geopandas.read_file(layer_files()["district"]).set_index("code").geometry
    lost = districts[["D07000004", "D07000005"]].to_crs("+proj=laea +lon_0=2.3 +lat_0=54.6").area
    for layer in manifest["layers"]:
        assert layer["replaced"][0]["gained_m2"] == 0.0
        assert layer["replaced"][0]["lost_m2"] == pytest.approx(lost.sum(), rel=0.01)


@pytest.mark.realdata
def test_surrey_after_its_reorganisation(tmp_path: Path) -> None:
    folder = real_data()
    files = {
        "highway": folder / "ctyua_2025_bgc.parquet",
        "district": folder / "lad_2025_bgc.parquet",
    }
    successions = load_rules(None).successions
    manifest = build_dataset(
        files,
        tmp_path / "out",
        built_at=BUILT_AT,
        successions=successions,
        as_of=END,
        proof_points=7_000,
    )
    index = open_dataset(tmp_path / "out").index

    assert manifest["proof"]["mismatches"] == 0
    assert [layer["areas"] for layer in manifest["layers"]] == [219, 352]
    for layer, areas in areas_by_layer(index).items():
        assert {"EAST-SURREY", "WEST-SURREY"} <= set(areas), layer
        assert not {code for one in successions for code in one.ends} & set(areas), layer
    for layer in manifest["layers"]:
        (replaced,) = layer["replaced"]
        assert replaced["to_be_checked"]
        assert replaced["gained_m2"] == replaced["lost_m2"] == 0.0

    districts = canonical_by_code(files["district"])
    county = canonical_by_code(files["highway"])["E10000030"]
    (surrey,) = [one for one in successions if "E10000030" in one.ends]
    heirs = {code: heir.code for heir in surrey.successors for code in heir.areas}
    together = shapely.union_all([districts[code] for code in heirs])
    # the same border, vertex by vertex: neighbours keep theirs, and no sliver comes between
    assert shapely.equals(together, county)
    assert set(map(tuple, shapely.get_coordinates(together).tolist())) == set(
        map(tuple, shapely.get_coordinates(county).tolist())
    )
    tried = 0
    for code, other in combinations(sorted(heirs), 2):
        border = shapely.intersection(districts[code], districts[other])
        for lon, lat in shapely.get_coordinates(border)[1:-1:3].tolist():
            expected = sorted(
                {heirs[one] for one in heirs if districts[one].covers(shapely.Point(lon, lat))}
            )
            outside = not county.contains_properly(shapely.Point(lon, lat))
            found = codes_at(index, lon, lat)
            for layer in ("highway", "district"):
                here = [one for one in found[layer] if not outside or one in heirs.values()]
                assert here == expected, (lon, lat, found)
            tried += 1
    assert tried > 500


def canonical_by_code(path: Path) -> dict[str, Any]:
    features = read_features(path)
    polygons, _ = build_module.canonical(features.geometries)
    return dict(zip(features.codes, polygons, strict=True))


# --- opening ----------------------------------------------------------------------------------


@pytest.fixture
def copy(doggerland: tuple[Path, dict[str, Any]], tmp_path: Path) -> Path:
    """A dataset of the test's own to spoil."""
    for path in doggerland[0].iterdir():
        (tmp_path / path.name).write_bytes(path.read_bytes())
    return tmp_path


def test_a_folder_without_a_manifest_is_no_dataset(copy: Path) -> None:
    (copy / "manifest.json").unlink()
    for folder in (copy, copy / "none"):
        with pytest.raises(DatasetNotFoundError) as refused:
            open_dataset(folder)
        assert str(refused.value) == (
            f"{folder} is no dataset: it has no manifest.json; "
            "make one with `georouter boundaries build`"
        )


@pytest.mark.parametrize("content", [b"", b"{", b"\xff\xfe", b'{"version": "a"'])
def test_a_manifest_that_cannot_be_read(copy: Path, content: bytes) -> None:
    (copy / "manifest.json").write_bytes(content)
    with pytest.raises(DatasetError, match=r"manifest.json cannot be read: .*; build the dataset"):
        open_dataset(copy)


@pytest.mark.parametrize("content", [b"[]", b"{}", b'{"version": 7}', b"null"])
def test_a_manifest_without_a_version(copy: Path, content: bytes) -> None:
    (copy / "manifest.json").write_bytes(content)
    with pytest.raises(DatasetError, match=r"manifest.json names no version; build the dataset"):
        open_dataset(copy)


def test_a_dataset_without_an_index(copy: Path) -> None:
    (copy / "index.grx").unlink()
    with pytest.raises(DatasetError) as refused:
        open_dataset(copy)
    assert str(refused.value) == f"{copy} has no index.grx; build the dataset again"


def test_a_dataset_with_a_damaged_index(copy: Path) -> None:
    content = bytearray((copy / "index.grx").read_bytes())
    content[len(content) // 2] ^= 1
    (copy / "index.grx").write_bytes(content)
    with pytest.raises(IndexFormatError, match=r"index.grx is damaged .*; build it again with"):
        open_dataset(copy)


def test_manifests_are_written_for_people_too(doggerland: tuple[Path, dict[str, Any]]) -> None:
    text = (doggerland[0] / "manifest.json").read_text(encoding="utf-8")
    assert text == json.dumps(doggerland[1], indent=2) + "\n"
