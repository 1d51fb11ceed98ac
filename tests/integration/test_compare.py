"""Datasets compared, drawn, exported and previewed from the command line."""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
import sys
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import geopandas
import numpy as np
import pyarrow.parquet as pq
import pyogrio
import pytest
import shapely
from matplotlib import image

from api import db
from api.store.reports import list_questions
from boundaries import sample
from boundaries.areas import AREAS, read_areas
from boundaries.build import build_dataset
from boundaries.dataset import attribution, read_manifest
from boundaries.roads import RoadsSource
from boundaries.shapes import polygons
from tests.support import rows

ROOT = Path(__file__).parents[2]
PNG = b"\x89PNG\r\n\x1a\n"
ROADS = {
    "trunk": [RoadsSource(sample.TRUNK_ROADS)],
    "red_route": [RoadsSource(sample.RED_ROUTES)],
}


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Doggerland, and the same with a district merged into a neighbour and one re-coded."""
    place = tmp_path_factory.mktemp("datasets")
    files = sample.layer_files()
    told = json.loads(files["district"].read_text())
    areas = geopandas.read_file(files["district"])
    gone, stays, recoded = areas["code"].iloc[[-1, -2, 0]]
    areas.loc[areas["code"] == gone, "code"] = stays
    areas.loc[areas["code"] == recoded, "code"] = "D06000099"
    merged = areas.dissolve("code", as_index=False)
    merged.to_file(place / "district.geojson")
    assert len(told["features"]) == len(merged) + 1
    layers = {"before": files, "after": files | {"district": place / "district.geojson"}}
    for name, given in layers.items():
        build_dataset(
            given,
            place / name,
            built_at=datetime(2026, 11, 23, tzinfo=UTC),
            proof_points=1_000,
            roads=ROADS,
        )
    return {name: place / name for name in layers}


@pytest.fixture
def georouter(database_url: str, tmp_path: Path) -> Any:
    environment = {
        **os.environ,  # noqa: TID251 - the user's own, so that PATH and HOME are real
        "GEOROUTER_DATABASE_URL": database_url,
        "GEOROUTER_DATA_DIR": str(tmp_path / "data"),
        "PYTHONPATH": str(ROOT),
        "COLUMNS": "200",
    }

    def run(*arguments: str | Path) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, "-m", "scripts.cli", "boundaries", *map(str, arguments)],
            cwd=tmp_path,
            env=environment,
            capture_output=True,
            text=True,
            check=False,
        )

    async def run_beside(*arguments: str | Path) -> subprocess.CompletedProcess[str]:
        return await asyncio.to_thread(run, *arguments)

    return run_beside


def in_folder(folder: Path, suffix: str = "") -> list[Path]:
    return sorted(path for path in folder.iterdir() if path.name.endswith(suffix))


def test_a_build_keeps_the_canonical_polygons(folders: dict[str, Path]) -> None:
    manifest = read_manifest(folders["before"])
    assert manifest["areas"]["file"] == AREAS
    kept = {one.layer: one for one in read_areas(folders["before"])}
    assert list(kept) == ["highway", "district", "trunk", "red_route"]
    source = geopandas.read_file(sample.layer_files()["district"]).sort_values("code")
    assert kept["district"].codes == tuple(source["code"])
    assert kept["district"].names == tuple(source["name"])
    for found, drawn in zip(polygons(kept["district"]), source.geometry, strict=True):
        assert shapely.equals(found, drawn)  # Doggerland is drawn on the grid


async def test_diff_says_what_changed_and_draws_it(
    folders: dict[str, Path], georouter: Any, tmp_path: Path
) -> None:
    both = folders["before"], folders["after"]
    done = await georouter("diff", *both, "--picture", "all.png", "--pictures", "each")
    assert done.returncode == 0, done.stderr
    lines = done.stdout.splitlines()
    assert lines[0].startswith("highway: ")
    assert "nothing has changed" in lines[1]
    assert sum(" merged " in line or " recoded " in line for line in lines) == 2
    drawn = [*in_folder(tmp_path, ".png"), *in_folder(tmp_path / "each", ".png")]
    assert [path.name[:12] for path in drawn[:4]] == [
        "all-district",
        "all-highway.",
        "all-red_rout",
        "all-trunk.pn",
    ]
    assert len(drawn) == 4 + 2
    for path in drawn:
        assert path.read_bytes().startswith(PNG)
        pixels = image.imread(path)
        assert pixels.shape[1] > 600
        assert len(np.unique(pixels.reshape(-1, pixels.shape[2]), axis=0)) > 20
    again = await georouter("diff", *both, "--layer", "district", "--json")
    (layer,) = json.loads(again.stdout)["layers"]
    assert [one["kind"] for one in layer["changes"]] == ["recoded", "merged"]
    assert layer["changes"][0]["new"][0]["code"] == "D06000099"
    assert layer["left_out"]["count"] == 0
    missing = await georouter("diff", *both, "--layer", "parish")
    assert missing.returncode == 4
    assert "neither dataset has a layer 'parish'; they have highway, district" in missing.stderr


async def test_picture_draws_each_layer(folders: dict[str, Path], georouter: Any) -> None:
    done = await georouter("picture", folders["before"], "--out", "country.png")
    assert done.stdout.split() == [
        f"country-{layer}.png" for layer in ("highway", "district", "trunk", "red_route")
    ]
    one = await georouter("picture", folders["before"], "--out", "one.png", "--layer", "district")
    assert one.stdout.split() == ["one.png"]
    refused = await georouter("picture", folders["before"], "--out", "no/such.png")
    assert refused.returncode == 1
    assert "cannot be written" in refused.stderr


async def test_export_gives_the_areas_and_whom_to_thank(
    folders: dict[str, Path], georouter: Any, tmp_path: Path
) -> None:
    version = read_manifest(folders["before"])["version"]
    for suffix in (".parquet", ".gpkg", ".geojson"):
        out = tmp_path / f"areas{suffix}"
        done = await georouter(
            "export", folders["before"], "--out", out, "--layer", "district", "--json"
        )
        assert done.returncode == 0, done.stderr
        told = json.loads(done.stdout)
        assert told["attribution"] == "district.geojson"
        read = geopandas.read_parquet if suffix == ".parquet" else geopandas.read_file
        found = read(out).sort_values("code", ignore_index=True)
        (kept,) = read_areas(folders["before"], layers=["district"])
        assert tuple(found["code"]) == kept.codes
        assert tuple(found["name"]) == kept.names
        assert set(found["layer"]) == {"district"}
        assert found.crs.to_epsg() == 4326
        for exported, shape in zip(found.geometry, polygons(kept), strict=True):
            assert shapely.equals(exported, shape)
    about = {"dataset": version, "attribution": "district.geojson"}
    metadata = pq.read_schema(tmp_path / "areas.parquet").metadata
    assert {key: metadata[key.encode()].decode() for key in about} == about
    assert about.items() <= pyogrio.read_info(tmp_path / "areas.gpkg")["dataset_metadata"].items()
    assert about.items() <= json.loads((tmp_path / "areas.geojson").read_text()).items()
    taken = await georouter("export", folders["before"], "--out", tmp_path / "areas.gpkg")
    assert taken.returncode == 5
    unknown = await georouter("export", folders["before"], "--out", "areas.shp")
    assert unknown.returncode == 1
    assert "use .parquet, .gpkg, .geojson" in unknown.stderr
    assert not [path for path in in_folder(tmp_path) if "partial" in path.name]


def test_attribution_names_each_source_once() -> None:
    layers = [
        {"name": "highway", "source": {"file": "a.gpkg", "publisher": "ONS", "licence": "OGL 3"}},
        {"name": "district", "source": {"file": "b.gpkg", "attribution": "Source: ONS"}},
        {"name": "trunk", "sources": [{"file": "c.gpkg", "attribution": "Source: ONS"}, {}]},
    ]
    assert attribution({"layers": layers}) == "ONS, OGL 3; Source: ONS; unknown source"
    assert attribution({"layers": layers}, ["district"]) == "Source: ONS"


# --- preview ------------------------------------------------------------------------------------


async def test_preview_of_reports(
    folders: dict[str, Path], georouter: Any, database_url: str
) -> None:
    none = await georouter("preview", folders["after"])
    assert none.returncode == 4
    assert "no dataset is in force; name one with --old" in none.stderr
    done = await georouter("activate", folders["before"], "--commit")
    assert done.returncode == 0, done.stderr
    (kept,) = read_areas(folders["before"], layers=["district"])
    inside = shapely.point_on_surface(polygons(kept)[0])  # whose code is another in `after`
    conn = await db.connect(database_url)
    try:
        authority = await rows.authority(conn)
        reports = [await rows.report(conn, authority) for _ in range(4)]
        await conn.execute(
            "UPDATE report SET lon = $1, lat = $2, category = 'litter', received_at = now()",
            inside.x,
            inside.y,
        )
        await conn.execute(
            "UPDATE report SET received_at = now() - interval '40 days' WHERE id = $1", reports[3]
        )
        for report, state in zip(reports, ("fixed", "reopened"), strict=False):
            await conn.execute(
                """
                INSERT INTO report_event (report_id, n, kind, authority_id, detail)
                VALUES ($1, 1, 'status', $2, $3)
                """,
                report,
                authority,
                {"state": state},
            )
        since = datetime(2020, 1, 1, tzinfo=UTC)
        assert {row["id"]: row["open"] for row in await list_questions(conn, since=since)} == {
            reports[0]: False,
            reports[1]: True,
            reports[2]: True,
            reports[3]: True,
        }
    finally:
        await conn.close()
    found = await georouter("preview", folders["after"], "--json")
    assert found.returncode == 0, found.stderr
    told = json.loads(found.stdout)
    assert (told["asked"], told["change"]) == (3, 3)
    (handover,) = told["handovers"]
    assert (handover["from"]["code"], handover["to"]["code"]) == (kept.codes[0], "D06000099")
    assert set(handover["open"]) == {str(reports[1]), str(reports[2])}
    assert "3 of 3 reports, 2 of them open, would change hands" in found.stderr
    longer = await georouter("preview", folders["after"], "--reports", "60d")
    assert longer.stdout.split()[0] == "4"
    wrong = await georouter("preview", folders["after"], "--reports", "month")
    assert wrong.returncode == 2


async def test_preview_of_points(folders: dict[str, Path], georouter: Any, tmp_path: Path) -> None:
    golden = sample.GOLDEN
    (tmp_path / "points.csv").write_bytes(golden.read_bytes())
    both = [folders["after"], "--old", folders["before"], "--points", "points.csv"]
    found = await georouter("preview", *both, "--category", "litter")
    assert found.returncode == 0, found.stderr
    assert "points would change hands" in found.stderr
    assert "D06000099" in found.stdout
    same = await georouter(
        "preview", folders["before"], "--old", folders["before"], "--points", "points.csv"
    )
    assert same.stdout == ""
    assert "0 routed in full" in same.stderr
    refused = await georouter("preview", *both, "--reports", "3d")
    assert refused.returncode == 2
