"""Datasets on the command line: built of a table and for a day, put in force on a day, listed."""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
import sys
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any

import asyncpg
import pytest

from api import db, london
from api.activation import activate
from api.routing import load_rules
from api.store.authorities import list_datasets
from boundaries import sample
from boundaries.build import build_dataset
from boundaries.dataset import open_dataset

ROOT = Path(__file__).parents[2]
BUILT_AT = datetime(2026, 11, 23, tzinfo=UTC)
LAYERS = [
    option
    for name, path in sample.layer_files().items()
    for option in ("--layer", f"{name}={path}")
]


@pytest.fixture(scope="module")
def versions(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Three datasets that differ, by name."""
    files = sample.layer_files()
    layers = {
        "both": files,
        "swapped": dict(reversed(files.items())),
        "highway": {"highway": files["highway"], "district": files["highway"]},
    }
    folder = tmp_path_factory.mktemp("versions")
    for name, given in layers.items():
        build_dataset(given, folder / name, built_at=BUILT_AT, proof_points=1_000)
    return {name: folder / name for name in layers}


@pytest.fixture
def georouter(database_url: str, tmp_path: Path) -> Any:
    environment = {
        **os.environ,  # noqa: TID251 - the user's own, so that PATH and HOME are real
        "GEOROUTER_DATABASE_URL": database_url,
        "GEOROUTER_DATA_DIR": str(tmp_path / "data"),
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

    async def run_beside(*arguments: str) -> subprocess.CompletedProcess[str]:
        return await asyncio.to_thread(run, *arguments)

    return run_beside


# --- in force on a day --------------------------------------------------------------------------


async def listed(conn: asyncpg.Connection, at: datetime | None = None) -> list[tuple[Any, ...]]:
    rows = await list_datasets(conn, at=at)
    return [(row["version"].split("-")[0], row["from_at"], row["state"]) for row in rows]


async def test_days_begin_at_midnight_in_the_united_kingdom(
    versions: dict[str, Path], database_url: str, tmp_path: Path
) -> None:
    summer, winter = datetime(2027, 3, 31, 23, tzinfo=UTC), datetime(2027, 1, 1, tzinfo=UTC)
    for name, on in (("swapped", date(2027, 4, 1)), ("both", date(2027, 1, 1))):
        await activate(
            versions[name],
            rules=load_rules(None),
            data_dir=tmp_path,
            dsn=database_url,
            commit=True,
            on=on,
        )
    second = timedelta(microseconds=1)
    conn = await db.connect(database_url)
    try:
        for at, states in (
            (winter - second, ["planned", "planned"]),
            (winter, ["active", "planned"]),
            (summer - second, ["active", "planned"]),
            (summer, ["retired", "active"]),
        ):
            assert await listed(conn, at) == [
                ("both", winter, states[0]),
                ("swapped", summer, states[1]),
            ]
        audited = await conn.fetch("SELECT action, detail FROM audit ORDER BY id")
        assert [row["action"] for row in audited] == ["dataset.activated"] * 2
        assert [row["detail"]["from"] for row in audited] == [
            summer.isoformat(),
            winter.isoformat(),
        ]
    finally:
        await conn.close()


async def test_every_time_in_force_is_listed(
    versions: dict[str, Path], database_url: str, tmp_path: Path
) -> None:
    async def put_in_force(name: str, on: date | None) -> None:
        await activate(
            versions[name],
            rules=load_rules(None),
            data_dir=tmp_path,
            dsn=database_url,
            commit=True,
            on=on,
        )

    first, later = date(2027, 4, 1), date(2027, 5, 1)
    await put_in_force("both", first)
    await put_in_force("swapped", later)
    await put_in_force("both", date(2027, 6, 1))
    await put_in_force("highway", first)
    conn = await db.connect(database_url)
    try:
        begins = [london.begins(date(2027, month, 1)) for month in (4, 5, 6)]
        # that of the first of April was planned over: it never decides
        assert await listed(conn, begins[1]) == [
            ("highway", begins[0], "retired"),
            ("swapped", begins[1], "active"),
            ("both", begins[2], "planned"),
        ]
        await conn.execute(
            "UPDATE activation SET withdrawn_at = $1 WHERE from_at = $2", begins[0], begins[2]
        )
        assert await listed(conn, begins[2]) == [
            ("both", None, "staged"),
            ("highway", begins[0], "retired"),
            ("swapped", begins[1], "active"),
        ]
    finally:
        await conn.close()


async def test_activate_says_from_when(versions: dict[str, Path], georouter: Any) -> None:
    year = datetime.now(UTC).year + 2  # noqa: TID251 - the command looks at the clock
    empty = await georouter("list")
    assert (empty.returncode, empty.stdout) == (0, "")
    at_once = await georouter("activate", str(versions["both"]), "--commit")
    assert at_once.returncode == 0, at_once.stderr
    assert "in force from" not in at_once.stdout
    for name, day, instant in (
        ("swapped", f"{year}-01-01", f"{year}-01-01T00:00:00Z"),
        ("highway", f"{year}-04-01", f"{year}-03-31T23:00:00Z"),
    ):
        dry = await georouter("activate", str(versions[name]), "--on", day)
        assert dry.stdout.rstrip().endswith(f"in force from {instant}")
        assert "dry run: nothing was changed" in dry.stderr
        told = json.loads(
            (await georouter("activate", str(versions[name]), "--on", day, "--json")).stdout
        )
        assert (told["from"], told["committed"]) == (instant, False)
        assert len(json.loads((await georouter("list", "--json")).stdout)) == 1 + (
            day[5:] != "01-01"
        )
        done = await georouter("activate", str(versions[name]), "--on", day, "--commit")
        assert done.returncode == 0, done.stderr
    again = await georouter("activate", str(versions["highway"]), "--on", day, "--commit")
    assert "it would be in force then anyway" in again.stderr
    rows = json.loads((await georouter("list", "--json")).stdout)
    version = {name: open_dataset(folder).version for name, folder in versions.items()}
    assert rows[0].pop("from").endswith("Z")
    assert rows == [
        {"version": version["both"], "state": "active"},
        {"version": version["swapped"], "from": f"{year}-01-01T00:00:00Z", "state": "planned"},
        {"version": version["highway"], "from": f"{year}-03-31T23:00:00Z", "state": "planned"},
    ]
    table = (await georouter("list")).stdout.splitlines()
    assert [line.split()[0] for line in table] == [row["version"] for row in rows]
    assert table[2].split()[1:] == [f"{year}-03-31T23:00:00Z", "planned"]


async def test_a_day_that_has_begun_is_refused(versions: dict[str, Path], georouter: Any) -> None:
    refused = await georouter("activate", str(versions["both"]), "--on", "2026-01-01", "--commit")
    assert refused.returncode == 2
    assert "--on 2026-01-01 has begun; leave it out to put the dataset in force" in refused.stderr
    assert (await georouter("list")).stdout == ""


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
