"""Datasets from a recipe: all that a build needs, as data, that gives the same bytes again."""

from __future__ import annotations

import csv
import hashlib
import json
import os
import re
import shutil
import subprocess
import sys
from datetime import UTC, date, datetime
from pathlib import Path
from typing import Any

import geopandas
import pytest
import shapely

from boundaries import sample
from boundaries.build import build_dataset
from boundaries.cache import Cache, Fetched
from boundaries.checks import Limits
from boundaries.dataset import open_dataset
from boundaries.readers import AS_IT_SAYS, Reading, SourceError, SourceNotFoundError
from boundaries.recipe import Recipe, build_recipe, read_recipe
from boundaries.roads import RoadsSource

ROOT = Path(__file__).parents[2]
BUILT_AT = datetime(2026, 11, 23, tzinfo=UTC)
DOGGERLAND = sample.FOLDER / "recipe.toml"


class Shelf(Cache):
    """A cache with these editions, the newest last."""

    def __init__(self, folder: Path, *kept: Fetched) -> None:
        super().__init__(folder)
        self.kept = kept

    def newest(self, source: str) -> Fetched | None:
        return next((one for one in reversed(self.kept) if one.source == source), None)

    def find(self, source: str, edition: str) -> Fetched | None:
        wanted = (source, edition)
        return next((one for one in self.kept if (one.source, one.edition) == wanted), None)


def fetched(folder: Path, source: str, edition: str, content: bytes, suffix: str) -> Fetched:
    digest = hashlib.sha256(content).hexdigest()
    path = folder / "sha256" / f"{digest}{suffix}"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)
    origin = {
        "source": source,
        "title": "Counties and Unitary Authorities",
        "publisher": "Office for National Statistics",
        "edition": edition,
        "url": "https://example.org/counties",
        "fetched_at": "2026-11-20T10:00:00+00:00",
        "licence": "OGL-UK-3.0",
        "attribution": "Source: ONS",
    }
    return Fetched(source, edition, path, digest, origin)


def read(folder: Path, text: str, *kept: Fetched) -> Recipe:
    path = folder / "recipe.toml"
    path.write_text(text, encoding="utf-8")
    return read_recipe(path, Shelf(folder / "cache", *kept))


def build(recipe: Recipe, out: Path) -> dict[str, Any]:
    return build_recipe(recipe, out, built_at=BUILT_AT)


def sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


@pytest.fixture
def place(tmp_path: Path) -> Path:
    """A folder with the files of Doggerland."""
    for path in (*sample.layer_files().values(), sample.TRUNK_ROADS, sample.RED_ROUTES):
        shutil.copy(path, tmp_path)
    return tmp_path


LAYER = """
proof_points = 1000
[[layers]]
name = "highway"
file = "highway.geojson"
"""
TRUNK = """
[[roads.trunk]]
file = "trunk_roads.geojson"
operator = { code = "X1", name = "Roads" }
"""


# --- on the command line ----------------------------------------------------------------------


def georouter(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    environment = {
        **os.environ,  # noqa: TID251 - the user's own, so that PATH and HOME are real
        "GEOROUTER_DATA_DIR": str(folder / "data"),
        "PYTHONPATH": str(ROOT),
        "COLUMNS": "200",
    }
    return subprocess.run(
        [sys.executable, "-m", "scripts.cli", "boundaries", "build", *arguments],
        cwd=folder,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )


def test_doggerland_from_its_recipe(tmp_path: Path) -> None:
    done = georouter(tmp_path, str(DOGGERLAND), "--out", "doggerland")

    assert done.returncode == 0, done.stderr
    assert "0 mismatches" in done.stderr
    manifest = json.loads(done.stdout)
    dataset = open_dataset(tmp_path / "doggerland")
    assert dataset.manifest == manifest
    assert [layer["name"] for layer in manifest["layers"]] == [
        "highway",
        "district",
        "trunk",
        "red_route",
    ]
    assert manifest["layers"][0]["source"]["title"] == "Highway authorities of Doggerland"
    assert set(dataset.roads) == {"trunk", "red_route"}
    with sample.GOLDEN.open(encoding="utf-8", newline="") as file:
        for row in csv.DictReader(file):
            hits = dataset.index.covering(lon=float(row["lon"]), lat=float(row["lat"]))
            areas = [dataset.index.areas[hit] for hit in hits]
            for layer in ("highway", "district"):
                found = [area.code for area in areas if area.layer == layer]
                assert found == [row[layer]] * bool(row[layer]), row


def test_the_recipe_of_the_folder_is_taken(place: Path) -> None:
    (place / "recipe.toml").write_text('out = "doggerland"\n' + LAYER, encoding="utf-8")

    done = georouter(place)

    assert done.returncode == 0, done.stderr
    assert open_dataset(place / "doggerland").version == json.loads(done.stdout)["version"]
    again = georouter(place)
    assert again.returncode == 5
    assert "doggerland exists already; remove it or choose another --out" in again.stderr


def test_what_the_command_line_refuses(place: Path) -> None:
    for arguments, code, fault in (
        ([], 2, "give a recipe, or --layer and --out; there is no recipe.toml here"),
        (["none.toml"], 4, "none.toml does not exist or is no file"),
        (["r.toml"], 2, "r.toml does not say where to; add out, or give --out"),
        (
            ["r.toml", "--as-of", "2027-04-01", "--crs", "highway=EPSG:27700"],
            2,
            "r.toml says it all: put --as-of, --crs into it, or leave it out",
        ),
        (
            ["--layer", "highway=highway.geojson", "--out", "out", "--crs", "high=EPSG:4326"],
            2,
            "--crs is for a layer; there is none called 'high'",
        ),
        (
            ["--layer", "highway=highway.geojson", "--out", "out", "--crs", "highway=EPSG:27700"],
            1,
            "but its coordinates look like degrees (2 54 3 55); correct it with --crs",
        ),
    ):
        (place / "r.toml").write_text(LAYER, encoding="utf-8")
        done = georouter(place, *arguments)
        assert (done.returncode, done.stdout) == (code, ""), done.stderr
        assert fault in done.stderr
    assert not (place / "out").exists()


def test_options_say_how_files_are_read(tmp_path: Path) -> None:
    squares = [shapely.box(400_000 + n, 300_000, 400_900 + n, 301_000) for n in (0, 1000)]
    frame = geopandas.GeoDataFrame({"code": ["A", "B"], "name": ["Ay", "Bee"]}, geometry=squares)
    path = tmp_path / "both.gpkg"
    for layer in ("counties", "districts"):
        frame.set_crs("EPSG:29903").to_file(path, layer=layer)
    options = ["--layer", "highway=both.gpkg", "--proof-points", "1000", "--out", "out"]
    refused = georouter(tmp_path, *options)
    assert refused.returncode == 1
    assert "choose --layer-in-file from: counties, districts" in refused.stderr
    inside = ["--layer-in-file", "highway=districts"]
    refused = georouter(tmp_path, *options, *inside)
    assert "TM75 / Irish Grid" in refused.stderr
    done = georouter(tmp_path, *options, *inside, "--crs", "highway=EPSG:27700")
    assert done.returncode == 0, done.stderr
    source = json.loads(done.stdout)["layers"][0]["source"]
    assert (source["layer_in_file"], source["crs"], source["crs_said"]) == (
        "districts",
        "EPSG:27700",
        "EPSG:29903",
    )


# --- again --------------------------------------------------------------------------------------


def test_a_recipe_gives_what_the_same_options_give(place: Path) -> None:
    text = LAYER + TRUNK
    first = build(read(place, text), place / "first")
    elsewhere = place / "elsewhere"
    shutil.copytree(place, elsewhere, ignore=shutil.ignore_patterns("first", "elsewhere"))
    second = build(read(elsewhere, text), elsewhere / "second")
    third = build_dataset(
        {"highway": place / "highway.geojson"},
        place / "third",
        roads={"trunk": [RoadsSource(place / "trunk_roads.geojson", ("X1", "Roads"))]},
        built_at=BUILT_AT,
        proof_points=1000,
    )

    bytes_ = (place / "first/index.grx").read_bytes()
    assert (elsewhere / "second/index.grx").read_bytes() == bytes_
    assert (place / "third/index.grx").read_bytes() == bytes_
    assert first["recipe"] == second["recipe"]
    assert first["layers"][0] == third["layers"][0]
    assert "recipe" not in third


def test_the_manifest_keeps_the_recipe(place: Path) -> None:
    text = "as_of = 2027-04-01\n" + LAYER + TRUNK
    kept = build(read(place, text), place / "out")["recipe"]

    files = {name: sha256(place / name) for name in ("highway.geojson", "trunk_roads.geojson")}
    assert kept == {
        "file": "recipe.toml",
        "sha256": sha256(place / "recipe.toml"),
        "content": {
            "as_of": "2027-04-01",
            "proof_points": 1000,
            "layers": [
                {
                    "name": "highway",
                    "file": "highway.geojson",
                    "sha256": files["highway.geojson"],
                }
            ],
            "roads": {
                "trunk": [
                    {
                        "file": "trunk_roads.geojson",
                        "operator": {"code": "X1", "name": "Roads"},
                        "sha256": files["trunk_roads.geojson"],
                    }
                ]
            },
        },
        "files": files,
    }
    assert json.loads(json.dumps(kept)) == kept


def test_a_file_that_changes_after_the_recipe_was_read_is_refused(place: Path) -> None:
    recipe = read(place, LAYER)
    path = place / "highway.geojson"
    path.write_bytes(path.read_bytes() + b"\n")

    with pytest.raises(SourceError, match="is not the file that was pinned"):
        build(recipe, place / "out")

    assert not (place / "out").exists()


# --- what may be in it --------------------------------------------------------------------------


def test_sources_come_from_the_cache(place: Path) -> None:
    cache = place / "cache"
    content = (place / "highway.geojson").read_bytes()
    old = fetched(cache, "ons-ctyua", "2024-12", content + b"\n", ".geojson")
    new = fetched(cache, "ons-ctyua", "2025-05", content, ".geojson")
    roads = fetched(cache, "trunk-roads", "2026", sample.TRUNK_ROADS.read_bytes(), ".geojson")
    text = LAYER.replace('file = "highway.geojson"', 'source = "ons-ctyua"')
    text += TRUNK.replace('file = "trunk_roads.geojson"', 'source = "trunk-roads"')

    recipe = read(place, text, old, new, roads)
    manifest = build(recipe, place / "out")

    layer, trunk = manifest["layers"]
    for key, value in new.origin.items():
        assert layer["source"][key] == value
    assert layer["source"]["sha256"] == new.sha256
    assert trunk["sources"][0]["source"] == "trunk-roads"
    assert trunk["sources"][0]["licence"] == "OGL-UK-3.0"
    kept = manifest["recipe"]
    assert kept["files"] == {}
    (entry,) = kept["content"]["layers"]
    assert (entry["edition"], entry["sha256"]) == ("2025-05", new.sha256)
    (entry,) = kept["content"]["roads"]["trunk"]
    assert (entry["edition"], entry["sha256"]) == ("2026", roads.sha256)

    pinned = read(
        place, text.replace('"ons-ctyua"', '"ons-ctyua"\nedition = "2024-12"'), old, new, roads
    )
    assert pinned.layers["highway"].path == old.path
    with pytest.raises(SourceNotFoundError) as refused:
        read(place, text, old, new)
    assert str(refused.value).endswith(
        "line 8: the recipe, roads, trunk source 1: source 'trunk-roads' was not fetched; "
        "run `georouter boundaries fetch trunk-roads`"
    )


def test_all_that_a_layer_may_say(place: Path) -> None:
    digest = sha256(place / "highway.geojson")
    text = f"""
    {LAYER}
    sha256 = "{digest.upper()}"
    code_field = "code"
    name_field = "name"
    crs = "EPSG:4258"
    accept_accuracy_m = 5
    keep = ["D06*", "D10*"]
    drop = ["D06000007"]
    title = "Highway authorities"
    publisher = "Doggerland"
    edition = "2027"
    licence = "none"
    attribution = "nobody"
    """
    recipe = read(place, text)
    assert recipe.layers["highway"].reading == Reading(
        crs="EPSG:4258", accept_accuracy_m=5, sha256=digest
    )
    layer = build(recipe, place / "out")["layers"][0]
    assert layer["areas"] == 7
    source = layer["source"]
    assert source["left_out"] == ["D06000007"]
    assert source["crs"] == "EPSG:4258"
    told = {key: source[key] for key in ("title", "publisher", "edition", "licence")}
    assert told == {
        "title": "Highway authorities",
        "publisher": "Doggerland",
        "edition": "2027",
        "licence": "none",
    }


def test_special_roads_of_a_table_and_of_the_recipe(place: Path) -> None:
    (place / "roads").mkdir()
    shutil.move(place / "red_routes.geojson", place / "roads")
    (place / "roads/roads.toml").write_text("""
    [[red_route]]
    file = "red_routes.geojson"
    operator_code_field = "code"
    operator_name_field = "name"
    """)
    recipe = read(place, 'roads_table = "roads/roads.toml"\n' + LAYER + TRUNK)

    assert [*recipe.roads] == ["red_route", "trunk"]
    for sources in recipe.roads.values():
        assert sources[0].reading != AS_IT_SAYS, "it is pinned"
    assert [*recipe.resolved["files"]] == [
        "highway.geojson",
        "roads/red_routes.geojson",
        "roads/roads.toml",
        "trunk_roads.geojson",
    ]
    twice = 'roads_table = "roads/roads.toml"\n' + LAYER + TRUNK.replace("trunk]]", "red_route]]")
    with pytest.raises(SourceError, match=r"line 8: .*roads_table both give 'red_route'; remove"):
        read(place, twice)


def test_successors_of_the_rules_named(place: Path) -> None:
    (place / "rules").mkdir()
    (place / "rules/successions.toml").write_text("""
    [[successions]]
    on = 2027-04-01
    reason = "merger"
    ends = ["D06000004"]
    successors = [{ code = "D06000005", name = "Elk and Shoal" }]
    """)
    (place / "recipe.toml").write_text(
        'out = "out"\nas_of = 2027-04-01\nrules = "rules"\n' + LAYER, encoding="utf-8"
    )

    done = georouter(place)

    assert done.returncode == 0, done.stderr
    assert "highway: D06000005 in place of 1 areas" in done.stderr
    manifest = json.loads(done.stdout)
    assert manifest["as_of"] == "2027-04-01"
    assert "rules/successions.toml" in manifest["recipe"]["files"]


def test_how_it_is_validated(place: Path) -> None:
    (place / "corrections.toml").write_text(
        '[[correction]]\ndate = 2026-11-02\nreason = "the order"\nlayer = "district"\n'
        'area = "D06000001"\naction = "rename"\nname = "Hearthmere Moor"\n'
    )
    top = 'corrections = "corrections.toml"\nstrict = true\nvalidation = { sliver_m2 = 5 }\n'
    recipe = read(place, top + LAYER)
    assert recipe.validation.strict
    assert recipe.validation.limits == Limits().with_slivers(m2=5.0)
    (correction,) = recipe.validation.corrections.entries
    assert correction.reason == "the order"
    assert "corrections.toml" in recipe.resolved["files"]


def test_the_example_is_understood(tmp_path: Path) -> None:
    """As it is shipped, and with all that is commented out in it."""
    text = (ROOT / "boundaries/recipe.example.toml").read_text(encoding="utf-8")
    for name in ("national_highways.gpkg", "tfl_red_routes.gpkg", "bdline_gpkg_gb.zip"):
        (tmp_path / name).write_bytes(b"")
    kept = [
        fetched(tmp_path / "cache", one, "2025-05", b"", "") for one in ("ons-ctyua", "ons-lad")
    ]

    recipe = read(tmp_path, text, *kept)

    assert recipe.out == tmp_path / "uk-2027"
    assert recipe.as_of == date(2027, 4, 1)
    assert [*recipe.layers] == ["highway", "district"]
    assert [*recipe.roads] == ["trunk", "red_route"]
    (tmp_path / "corrections.toml").write_text("")
    (tmp_path / "rules").mkdir()
    (tmp_path / "rules/successions.toml").write_text("")
    every = re.sub(r"(?m)^# (?=\w+ = |\[)", "", text.replace('# sha256 = "..."\n', ""))
    every = every.replace('# name = "district"', "").replace(
        'name = "district"\nfile', 'name = "ward"\nfile'
    )
    recipe = read(tmp_path, every, *kept)
    assert [*recipe.layers] == ["highway", "district", "ward"]
    assert recipe.layers["ward"].reading.layer_in_file == "district_borough_unitary"
    assert recipe.layers["ward"].known["attribution"].startswith("Contains OS data ©")
    assert recipe.validation.strict


# --- faults ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("out = ", "line 1: this is no TOML"),
        ("", "line 1: the recipe: there is no layer; add [[layers]] with a name and a file or a"),
        ("outt = 'x'" + LAYER, "line 1: the recipe: 'outt' means nothing here, 'out' does; rem"),
        (
            LAYER + "codefield = 'x'",
            "line 6: layer 1: 'codefield' means nothing here, 'code_field' d",
        ),
        (LAYER + "zzz = 1", "line 6: layer 1: 'zzz' means nothing here; remove or correct it"),
        (LAYER + "source = 'x'", "layer 1 needs either a file, or a source that is fetched"),
        ("[[layers]]\nname = 'x'", "line 1: layer 1 needs either a file, or a source"),
        ("[[layers]]\nfile = 'x'", "line 1: layer 1 has no name; add it"),
        (LAYER + LAYER[20:], "line 8: layer 2: there is a layer 'highway' already; each name"),
        (
            "[[layers]]\nname = 'a'\nfile = 'none.gpkg'",
            "line 3: layer 1: there is no file 'none.gpkg' beside the recipe; correct the path",
        ),
        (
            "[[layers]]\nname = 'a'\nsource = 'ons-lad'",
            "line 3: layer 1: source 'ons-lad' was not fetched; run `georouter boundaries fetch o",
        ),
        (
            "[[layers]]\nname = 'a'\nsource = 'ons-lad'\nedition = '2024'",
            "line 3: layer 1: edition '2024' of 'ons-lad' was not fetched; run `georouter bound",
        ),
        (
            "[[layers]]\nname = 'a'\nsource = 'ons-lad'\ntitle = 'b'",
            "line 4: layer 1: title of a source is that of its catalogue; remove it",
        ),
        (LAYER + "sha256 = 'ab'", "line 6: layer 1: sha256 has 64 hexadecimal digits, as `sha256s"),
        (LAYER + f"sha256 = '{'0' * 64}'", "line 6: layer 1: the sha256 of highway.geojson is "),
        (LAYER + "keep = 'E*'", 'line 6: layer 1: keep must list patterns of codes, such as "E*"'),
        (LAYER + "accept_accuracy_m = 0", "line 6: layer 1: accept_accuracy_m is in metres, above"),
        ("leaf_edges = [1, 0]" + LAYER, "line 1: the recipe: leaf_edges must list whole numbers"),
        (
            "as_of = 'soon'" + LAYER,
            "line 1: the recipe: as_of must be a date such as 2027-04-01, w",
        ),
        ("rules = 'r'" + LAYER, "line 1: the recipe: rules has the successions for as_of; add"),
        (
            "as_of = 2027-04-01\nrules = 'r'" + LAYER,
            "line 2: the recipe: there is no folder 'r' with rules; correct the path",
        ),
        (
            "roads_table = 'r'" + LAYER,
            "line 1: roads_table: there is no file 'r' beside the recipe",
        ),
        ("corrections = 'c'" + LAYER, "line 1: corrections: there is no file 'c' beside the recip"),
        (LAYER + TRUNK + "bufer_m = 9", "trunk source 1: 'bufer_m' means nothing here, 'buffer_m"),
        (LAYER + TRUNK.replace("trunk]]", "highway]]"), "layers has 'highway' already; each name"),
        (LAYER + TRUNK + "sha256 = '" + "0" * 64 + "'", "trunk source 1: the sha256 of trunk_road"),
        (LAYER + TRUNK.replace("trunk_", "no_"), "trunk source 1: there is no file 'no_roads"),
        ("proof_points = 10" + LAYER[19:], "line 1: the recipe: proof_points must be a whole numb"),
    ],
)
def test_a_fault_names_file_line_entry_and_remedy(place: Path, text: str, message: str) -> None:
    with pytest.raises(SourceError) as refused:
        read(place, text)
    said = str(refused.value)
    assert said.startswith(f"{place / 'recipe.toml'}, line ")
    assert message in said
    assert len(said.splitlines()) == 1
