"""What became of the real districts between 2019 and 2025, as the register of councils knows it."""

from __future__ import annotations

import csv
from collections import defaultdict
from datetime import UTC, datetime
from pathlib import Path

import pytest

from boundaries.build import build_dataset
from boundaries.diff import diff_datasets
from tests.support.realdata import real_data

pytestmark = pytest.mark.realdata

BUILT_AT = datetime(2026, 11, 23, tzinfo=UTC)


def registered(path: Path) -> tuple[dict[str, set[str]], set[tuple[str, str, str]]]:
    """What happened to districts between the two editions.

    Predecessors by successor, and bodies that go on with another code: old, new, name.
    """
    merged: dict[str, set[str]] = defaultdict(set)
    recoded = set()
    with path.open(encoding="utf-8", newline="") as file:
        for row in csv.DictReader(file):
            if row["lower_or_unitary"] != "True":
                continue
            if "2019-12-31" < row["end_date"] < "2025-05-01":
                for successor in row["replaced_by_gss"].split("|"):
                    merged[successor].add(row["gss"])
            elif not row["end_date"] and row["gss"] != row["gss_2025"]:
                recoded.add((row["gss"], row["gss_2025"], row["name"]))
    return dict(merged), recoded


@pytest.mark.timeout(600)
def test_the_reorganisations_of_2020_to_2023_are_found(tmp_path: Path) -> None:
    data = real_data()
    for name, file in (("old", "lad_2019_buc.parquet"), ("new", "lad_2025_bgc.parquet")):
        build_dataset(
            {"district": data / file}, tmp_path / name, built_at=BUILT_AT, proof_points=1_000
        )
    found = diff_datasets(tmp_path / "old", tmp_path / "new")
    (layer,) = found.layers
    assert {one.kind for one in layer.changes} == {"merged", "recoded"}
    merged = {
        one.new[0].code: {area.code for area in one.old}
        for one in layer.changes
        if one.kind == "merged"
    }
    want_merged, want_recoded = registered(data / "la_register.csv")
    assert merged == want_merged
    assert {one.new[0].name for one in layer.changes if one.kind == "merged"} == {
        "Buckinghamshire",
        "Cumberland",
        "North Northamptonshire",
        "North Yorkshire",
        "Somerset",
        "West Northamptonshire",
        "Westmorland and Furness",
    }
    recoded = {
        (one.old[0].code, one.new[0].code, one.new[0].name)
        for one in layer.changes
        if one.kind == "recoded"
    }
    assert recoded == want_recoded
    assert {name for _, _, name in recoded} == {"Barnsley", "Sheffield"}
    assert layer.slivers.count > 10_000
