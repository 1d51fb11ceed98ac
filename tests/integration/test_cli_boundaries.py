"""Datasets on the command line: built of a table and for a day."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from boundaries import sample
from boundaries.dataset import open_dataset

LAYERS = [
    option
    for name, path in sample.layer_files().items()
    for option in ("--layer", f"{name}={path}")
]


# --- build --------------------------------------------------------------------------------------


async def test_build_takes_a_table_and_a_day(georouter: Any, tmp_path: Path) -> None:
    (tmp_path / "trunk.geojson").write_bytes(sample.TRUNK_ROADS.read_bytes())
    (tmp_path / "roads.toml").write_text("""
    [[trunk]]
    file = "trunk.geojson"
    buffer_m = 20
    operator = { code = "X1", name = "Roads" }
    """)
    (tmp_path / "rules").mkdir()
    (tmp_path / "rules" / "successions.toml").write_text("""
    [[successions]]
    on = 2027-04-01
    reason = "merger"
    ends = ["D06000004"]
    successors = [{ code = "D06000005", name = "Elk and Shoal" }]
    """)
    common = ["build", *LAYERS, "--proof-points", "1000", "--roads-table", "roads.toml"]
    red = f"red_route={sample.RED_ROUTES}"
    done = await georouter(
        *common, "--roads", red, "--as-of", "2027-04-01", "--rules", "rules", "--out", "out"
    )
    assert done.returncode == 0, done.stderr
    assert "district: D06000005 in place of 1 areas, 0 m² gained, 0 m² lost" in done.stderr
    manifest = json.loads(done.stdout)
    assert [layer["name"] for layer in manifest["layers"]] == [
        "highway",
        "district",
        "red_route",
        "trunk",
    ]
    assert manifest["as_of"] == "2027-04-01"
    assert manifest["layers"][3]["sources"][0]["buffer_m"] == 20
    assert set(open_dataset(tmp_path / "out").roads["trunk"]) == {"X1 D1", "X1 D2"}
    for options, message in (
        (["--roads", f"trunk={sample.TRUNK_ROADS}"], "--roads and --roads-table both give trunk"),
        (["--rules", "rules"], "--rules has the successions for --as-of; give that day too"),
        (["--operator", "trunk=X1:Roads"], "--operator goes with --roads; there is none for"),
        (["--layer", f"trunk={sample.TRUNK_ROADS}"], "each name stands for one layer; see to"),
    ):
        refused = await georouter(*common, *options, "--out", "not")
        assert refused.returncode == 2, refused.stderr
        assert message in refused.stderr
    (tmp_path / "roads.toml").write_text("[[trunk]]\nbuffer = 2\n")
    refused = await georouter(*common, "--out", "not")
    assert refused.returncode == 1
    assert "roads.toml, line 1: trunk source 1 has no file; add it" in refused.stderr
    assert not (tmp_path / "not").exists()
