"""Special roads: Doggerland's trunk road D1 and the red routes of its city, and the real A12."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import geopandas
import pytest
import shapely

from api.activation import activate
from api.routing import load_rules
from api.settings import Settings
from boundaries import sample
from boundaries.build import build_dataset
from boundaries.dataset import Dataset, open_dataset
from boundaries.readers import SourceError
from boundaries.roads import RoadsSource, read_roads
from georouter.model import Decision, DecisionState
from georouter.nearest import metres_per_degree
from georouter.router import Router
from tests.support.realdata import real_data

TRUNK, CITY_ROADS = "D99000001", "D99000002"
RULES = load_rules(None)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("roads") / "doggerland"
    roads = {
        "red_route": [RoadsSource(sample.RED_ROUTES)],
        "trunk": [RoadsSource(sample.TRUNK_ROADS)],
    }
    now = datetime(2026, 11, 23, tzinfo=UTC)
    build_dataset(sample.layer_files(), out, built_at=now, roads=roads, proof_points=2_000)
    return out


@pytest.fixture(scope="module")
def dataset(folder: Path) -> Dataset:
    return open_dataset(folder)


@pytest.fixture(scope="module")
def router(dataset: Dataset) -> Router:
    return Router(dataset.index, rules=RULES, dataset=dataset.version, roads=dataset.roads)


def beside_d1(metres: float) -> tuple[float, float]:
    """So far from the middle of a straight stretch of D1, away from borders."""
    line = geopandas.read_file(sample.TRUNK_ROADS).query("road == 'D1'").geometry.iloc[0]
    x, y = shapely.get_coordinates(line)[20:22].mean(axis=0)
    (x1, y1), (x2, y2) = shapely.get_coordinates(line)[20:22]
    lon_m, lat_m = metres_per_degree(y)
    east, north = (x2 - x1) * lon_m, (y2 - y1) * lat_m
    length = (east**2 + north**2) ** 0.5
    return x - north / length * metres / lon_m, y + east / length * metres / lat_m


def at_d1(router: Router, metres: float, **asked: Any) -> Decision:
    lon, lat = beside_d1(metres)
    return router.route(**{"lon": lon, "lat": lat, "category": "pothole", **asked})


def test_deep_on_the_road_it_is_certain(router: Router) -> None:
    decision = at_d1(router, 1)
    assert (decision.state, decision.rule) == (DecisionState.CERTAIN, "special-road")
    assert decision.responsible is not None
    assert decision.responsible.code == TRUNK
    assert decision.responsible.road == "D1"
    assert decision.reason == "the point lies on the D1, which Doggerland Trunk Roads looks after"


@pytest.mark.parametrize(
    ("metres", "accuracy_m", "first_is_road"),
    [(8, None, True), (1, 20, True), (20, None, False), (60, 50, False)],
)
def test_in_reach_of_road_and_council_the_citizen_is_asked(
    router: Router, metres: float, accuracy_m: float | None, *, first_is_road: bool
) -> None:
    decision = at_d1(router, metres, accuracy_m=accuracy_m)
    assert (decision.state, decision.rule) == (DecisionState.AMBIGUOUS, "near-special-road")
    codes = [candidate.code for candidate in decision.candidates]
    assert TRUNK in codes
    assert len(codes) == 2
    assert (codes[0] == TRUNK) is first_is_road
    assert decision.question == "Is it on the D1, or on a road beside it?"


def test_the_reporter_settles_it(router: Router) -> None:
    for spelled in ("D1", "d 1", "(D)1"):
        on_it = at_d1(router, 20, road_ref=spelled)
        assert (on_it.state, on_it.rule) == (DecisionState.CERTAIN, "road-ref")
        assert on_it.responsible is not None
        assert on_it.responsible.code == TRUNK
    beside = at_d1(router, 8, road_ref="Church Lane")
    assert beside.state is DecisionState.CERTAIN
    assert TRUNK not in [candidate.code for candidate in beside.candidates]
    asked = at_d1(router, 8)
    for candidate in asked.candidates:
        chosen = at_d1(router, 8, chosen=candidate.code)
        assert chosen.state is DecisionState.CERTAIN
        assert chosen.responsible == candidate


def test_away_from_it_and_for_litter_it_does_not_count(router: Router) -> None:
    for decision in (at_d1(router, 60), at_d1(router, 1, category="litter")):
        assert (decision.state, decision.rule) == (DecisionState.CERTAIN, "covering-area")
        assert TRUNK not in [candidate.code for candidate in decision.candidates]


def test_a_red_route_asks_too(router: Router) -> None:
    decision = router.route(lon=2.15, lat=54.72, category="pothole")
    assert decision.rule == "near-special-road"
    assert [candidate.code for candidate in decision.candidates] == [CITY_ROADS, "D06000001"]


def test_a_motorway_is_cleaned_by_its_operator(tmp_path: Path) -> None:
    frame = geopandas.read_file(sample.TRUNK_ROADS).query("road == 'D1'").assign(road="M1")
    frame.to_file(tmp_path / "motorway.geojson")
    out = tmp_path / "motorways"
    build_dataset(
        sample.layer_files(),
        out,
        built_at=datetime(2026, 11, 23, tzinfo=UTC),
        roads={"trunk": [RoadsSource(tmp_path / "motorway.geojson", ("X1", "Motorways"))]},
        proof_points=1_000,
    )
    opened = open_dataset(out)
    router = Router(opened.index, rules=RULES, dataset="x", roads=opened.roads)
    decision = at_d1(router, 1, category="litter")
    assert decision.rule == "special-road"
    assert decision.responsible is not None
    assert decision.responsible.name == "Motorways"


async def test_the_bodies_become_authorities(
    folder: Path, dataset: Dataset, database_url: str, tmp_path: Path
) -> None:
    settings = Settings(data_dir=tmp_path)
    done = await activate(
        folder, rules=RULES, data_dir=settings.data_dir, dsn=database_url, commit=True
    )
    councils = {area.code for area in dataset.index.areas if area.layer in {"highway", "district"}}
    assert done.new_authorities == len(councils) + 2
    manifest = json.loads((folder / "manifest.json").read_text())
    assert [layer["name"] for layer in manifest["layers"]][2:] == ["red_route", "trunk"]


async def test_a_damaged_copy_is_replaced_by_activating_again(
    folder: Path, database_url: str, tmp_path: Path
) -> None:
    version = open_dataset(folder).version
    copy = tmp_path / "datasets" / version / "index.grx"
    for _ in range(2):
        await activate(folder, rules=RULES, data_dir=tmp_path, dsn=database_url, commit=True)
        assert open_dataset(copy.parent).version == version
        copy.write_bytes(copy.read_bytes()[:-1])


def test_another_body_for_the_same_roads_is_another_version(tmp_path: Path) -> None:
    versions = [
        build_dataset(
            sample.layer_files(),
            tmp_path / str(n) / "roads",
            built_at=datetime(2026, 11, 23, tzinfo=UTC),
            roads={"trunk": [RoadsSource(sample.TRUNK_ROADS, ("X1", name))]},
            proof_points=1_000,
        )["version"]
        for n, name in enumerate(["Roads", "Highways", "Highways"])
    ]
    assert versions[0] != versions[1] == versions[2]


def test_a_file_without_road_numbers_is_refused(tmp_path: Path) -> None:
    frame = geopandas.read_file(sample.TRUNK_ROADS).assign(road=None)
    frame.to_file(tmp_path / "numberless.geojson")
    with pytest.raises(SourceError, match="row 1 has no road number; complete the field"):
        read_roads([RoadsSource(tmp_path / "numberless.geojson")])


@pytest.mark.realdata
def test_the_real_trunk_roads_of_the_east_of_england(tmp_path: Path) -> None:
    data = real_data()
    highway = data / "ctyua_2025_bgc.parquet"
    trunk = RoadsSource(
        data / "national_highways_area6.parquet", ("NATIONAL-HIGHWAYS", "National Highways")
    )
    red = RoadsSource(data / "tfl_red_routes_2017.parquet", ("TFL", "Transport for London"))
    build_dataset(
        {"highway": highway, "district": data / "lad_2025_bgc.parquet"},
        tmp_path / "uk",
        built_at=datetime(2026, 11, 23, tzinfo=UTC),
        roads={"trunk": [trunk], "red_route": [red]},
        proof_points=7_000,
    )
    opened = open_dataset(tmp_path / "uk")
    router = Router(opened.index, rules=RULES, dataset="uk", roads=opened.roads)
    lines = geopandas.read_parquet(data / "national_highways_area6.parquet")
    sampled = lines[lines.road.isin(["A12", "A14"])].sample(200, random_state=1)
    for line, road in zip(sampled.geometry, sampled.road, strict=True):
        middle = shapely.line_interpolate_point(line, 0.5, normalized=True)
        decision = router.route(lon=middle.x, lat=middle.y, category="pothole", accuracy_m=5)
        assert decision.responsible is not None
        assert decision.responsible.code == "NATIONAL-HIGHWAYS", (middle, decision)
        named = router.route(lon=middle.x, lat=middle.y, category="pothole", road_ref=road)
        assert named.rule == "road-ref"
