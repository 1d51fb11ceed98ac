"""What the public may see of reports, as files."""

from __future__ import annotations

import csv
from datetime import datetime
from pathlib import Path
from typing import Any

import geopandas
import pytest

from api.store.places import Wanted
from scripts.export_reports import COLUMNS, ExportRefused, export
from tests.support.app import IN_SHIRE, WEST, Api

FORMULA = '=HYPERLINK("http://127.0.0.1","a hole")'


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


async def write(api: Api, out: Path, **wanted: Any) -> int:
    async with api.pool.acquire() as conn:
        return await export(conn, out, Wanted(**wanted), page=2)


async def test_both_formats_have_what_the_list_shows(api: Api, tmp_path: Path) -> None:
    for n in range(5):
        await api.post_report(description=f"hole {n}, ring 07700 900123")
    await api.post_report(**IN_SHIRE, category="manhole", description=FORMULA)
    shown = (await api.get("/v1/reports")).json()["features"]
    assert await write(api, tmp_path / "a.csv") == len(shown) == 6
    with (tmp_path / "a.csv").open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    assert list(rows[0]) == list(COLUMNS)
    assert rows[0]["description"] == f"'{FORMULA}"
    assert rows[1]["description"] == "hole 4, ring [phone]"
    assert await write(api, tmp_path / "a.parquet") == 6
    frame = geopandas.read_parquet(tmp_path / "a.parquet")
    assert frame.crs.to_epsg() in {4326, None}
    assert frame["description"][0] == FORMULA
    for feature, row, at in zip(shown, rows, range(6), strict=True):
        assert row["id"] == frame["id"][at] == feature["id"]
        lon, lat = feature["geometry"]["coordinates"]
        assert (float(row["lon"]), float(row["lat"])) == (lon, lat)
        assert (frame.geometry[at].x, frame.geometry[at].y) == (lon, lat)
        properties = feature["properties"]
        assert datetime.fromisoformat(row["received_at"]) == frame["received_at"][at]
        for name in ("category", "authority", "authority_code", "state"):
            assert row[name] == frame[name][at] == properties[name]
    assert names(tmp_path) == ["a.csv", "a.parquet"]


async def test_conditions_narrow_it(api: Api, tmp_path: Path) -> None:
    await api.post_report()
    await api.post_report(**IN_SHIRE)
    assert await write(api, tmp_path / "a.csv", authority=WEST) == 1
    assert await write(api, tmp_path / "b.csv", closed=True) == 0
    assert (tmp_path / "b.csv").read_text().startswith("id,category")


async def test_a_file_is_made_whole_or_not_at_all(api: Api, tmp_path: Path) -> None:
    await api.post_report()
    for name, fault in (
        ("a.xls", "must end with"),
        ("none/a.csv", "no folder"),
        ("a.csv", "exists"),
    ):
        if fault == "exists":
            (tmp_path / name).write_text("mine")
        with pytest.raises(ExportRefused, match=fault):
            await write(api, tmp_path / name)
    assert (tmp_path / "a.csv").read_text() == "mine"
    async with api.pool.acquire() as conn:
        await conn.execute("ALTER VIEW public_report RENAME TO gone")
        try:
            with pytest.raises(Exception, match="public_report"):
                await export(conn, tmp_path / "b.csv", Wanted())
        finally:
            await conn.execute("ALTER VIEW gone RENAME TO public_report")
    assert names(tmp_path) == ["a.csv"]
