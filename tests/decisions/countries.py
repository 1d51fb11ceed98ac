"""The countries that the decision tables are about, each built once."""

from __future__ import annotations

import tempfile
from collections.abc import Collection
from datetime import UTC, datetime
from functools import cache
from pathlib import Path

from api.routing import load_rules
from boundaries import sample
from boundaries.build import RoadsSource, build_dataset
from boundaries.dataset import Dataset, open_dataset
from georouter.router import Router
from tests.support.realdata import real_data

FOLDER = Path(__file__).parent
RULES = load_rules(FOLDER)
SHIPPED = load_rules(None)


@cache
def doggerland_dataset(without: Collection[str] = ()) -> Dataset:
    """The example country, lacking some layers."""
    return _build(
        sample.layer_files(),
        {
            "red_route": RoadsSource(sample.RED_ROUTES),
            "trunk": RoadsSource(sample.TRUNK_ROADS),
        },
        without,
    )


@cache
def doggerland(without: Collection[str] = ()) -> Router:
    """The example country by the rules in this folder."""
    return fresh_router(doggerland_dataset(without))


def fresh_router(dataset: Dataset) -> Router:
    """A router that has not been asked anything yet."""
    return Router(dataset.index, rules=RULES, dataset=dataset.version, roads=dataset.roads)


@cache
def uk(without: Collection[str] = ()) -> Router:
    """The real country by the rules shipped; skips the test where its data are absent."""
    data = real_data()
    dataset = _build(
        {
            "highway": data / "ctyua_2025_bgc.parquet",
            "district": data / "lad_2025_bgc.parquet",
        },
        {
            "trunk": RoadsSource(
                data / "national_highways_area6.parquet",
                ("NATIONAL-HIGHWAYS", "National Highways"),
            ),
            "red_route": RoadsSource(
                data / "tfl_red_routes_2017.parquet", ("TFL", "Transport for London")
            ),
        },
        without,
    )
    return Router(dataset.index, rules=SHIPPED, dataset=dataset.version, roads=dataset.roads)


def _build(
    layers: dict[str, Path], roads: dict[str, RoadsSource], without: Collection[str]
) -> Dataset:
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder) / "country"
        build_dataset(
            {name: path for name, path in layers.items() if name not in without},
            out,
            built_at=datetime(2026, 11, 23, tzinfo=UTC),
            roads={name: [source] for name, source in roads.items() if name not in without},
            proof_points=100,
        )
        return open_dataset(out)  # it stays mapped when the folder is gone
