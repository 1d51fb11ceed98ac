"""Special roads: Doggerland's trunk road D1 and the red routes of its city, and the real A12."""

from __future__ import annotations

import json
from collections.abc import Sequence
from datetime import UTC, date, datetime
from pathlib import Path
from typing import Any

import geopandas
import numpy as np
import numpy.typing as npt
import pyproj
import pytest
import shapely

from api.activation import activate
from api.artefacts import Artefacts
from api.routing import load_rules
from api.settings import Settings
from boundaries import sample
from boundaries.build import build_dataset
from boundaries.dataset import Dataset, open_dataset
from boundaries.readers import SourceError
from boundaries.roads import AreaOperator, RoadsSource, read_roads
from boundaries.roads_table import read_roads_table
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
        folder, rules=RULES, artefacts=Artefacts.of(settings), dsn=database_url, commit=True
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
        await activate(
            folder,
            rules=RULES,
            artefacts=Artefacts(tmp_path / "datasets"),
            dsn=database_url,
            commit=True,
        )
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


# --- width ------------------------------------------------------------------------------------


def metres_to(lines: Sequence[Any], points: npt.NDArray[np.float64]) -> list[float]:
    """How far points are from lines, each measured on a plane around the point itself."""
    network = np.array(lines, dtype=object)
    tree = shapely.STRtree(network)
    found = []
    for lon, lat in points.tolist():
        plane = pyproj.Proj(f"+proj=aeqd +lon_0={lon} +lat_0={lat} +ellps=WGS84")
        near = network[tree.query(shapely.box(lon - 0.02, lat - 0.01, lon + 0.02, lat + 0.01))]
        flat = shapely.transform(
            shapely.segmentize(near, 0.0005),
            lambda xy, plane=plane: np.column_stack(plane(xy[:, 0], xy[:, 1])),
        )
        found.append(float(shapely.distance(flat, shapely.Point(0, 0)).min()))
    return found


def along_the_edges(ground: Any, count: int) -> npt.NDArray[np.float64]:
    """Points spread evenly over the edges of some ground."""
    rings = shapely.get_parts(shapely.boundary(shapely.union_all(ground)))
    ends = np.cumsum(shapely.length(rings))
    at = np.random.default_rng(1).random(count) * ends[-1]
    ring = np.searchsorted(ends, at)
    points = shapely.line_interpolate_point(rings[ring], at - (ends - shapely.length(rings))[ring])
    return np.asarray(shapely.get_coordinates(points))


def assert_half_width(ground: Any, lines: Sequence[Any], half_m: float) -> None:
    for metres in metres_to(lines, along_the_edges(ground, 500)):
        assert metres == pytest.approx(half_m, rel=0.01)


@pytest.mark.parametrize("half_m", [5.0, 15.0, 120.0])
def test_the_ground_is_as_wide_as_asked(half_m: float) -> None:
    lines = geopandas.read_file(sample.TRUNK_ROADS).geometry.tolist()
    read = read_roads([RoadsSource(sample.TRUNK_ROADS, buffer_m=half_m)])
    assert_half_width(read.features.geometries, lines, half_m)


def line_file(path: Path, lines: Sequence[Any], **fields: Any) -> Path:
    geopandas.GeoDataFrame(fields, geometry=list(lines), crs="EPSG:4326").to_file(path)
    return path


def test_from_cornwall_to_caithness_it_is_as_wide(tmp_path: Path) -> None:
    lines = [
        shapely.LineString([(-5.7, 50.07), (-5.5, 50.2)]),
        shapely.LineString([(-3.4, 58.6), (-3.1, 58.4)]),
        shapely.LineString([(-3.5, 51.0), (-3.2, 56.4)]),
        shapely.MultiLineString([[(-3.5, 52.0), (0.9, 52.0)], [(-5.2, 57.3), (-5.0, 57.3)]]),
    ]
    path = line_file(tmp_path / "long.gpkg", lines, road=["A30", "A9", "A1", "A5"])
    source = RoadsSource(path, ("X1", "Roads"), number_field="road")
    assert_half_width(read_roads([source]).features.geometries, lines, 15.0)


def test_width_goes_by_class(tmp_path: Path) -> None:
    lines = [shapely.LineString([(1, 51 + n / 10), (1.1, 51 + n / 10)]) for n in range(4)]
    numbers = ["M6", "A1(M)", "A1M", "A12"]
    kinds = ["a", "a", "b", ""]
    path = line_file(tmp_path / "classes.gpkg", lines, road=numbers, kind=kinds)
    by_number = RoadsSource(
        path, ("X1", "Roads"), number_field="road", buffer_by_class={"motorway": 25.0}
    )
    by_field = RoadsSource(
        path,
        ("X1", "Roads"),
        number_field="road",
        class_field="kind",
        buffer_by_class={"a": 30.0, "b": 20.0},
    )
    for source, widths in ((by_number, [25, 25, 25, 15]), (by_field, [30, 30, 20, 15])):
        read = read_roads([source])
        for number, line, half_m in zip(numbers, lines, widths, strict=True):
            ground = read.features.geometries[read.features.codes.index(f"X1 {number}")]
            assert_half_width([ground], [line], half_m)
    misspelt = RoadsSource(
        path,
        ("X1", "Roads"),
        number_field="road",
        class_field="kind",
        buffer_by_class={"A": 30.0},
    )
    with pytest.raises(SourceError, match="no road is of class 'A'; its field 'kind' has , a, b;"):
        read_roads([misspelt])


# --- whose ------------------------------------------------------------------------------------

NORTH = ("D06000003", "D06000006", "D07000003")
SOUTH = ("D06000001", "D06000004", "D06000005", "D07000004")


def by_area(
    tmp_path: Path, *operators: AreaOperator, body: tuple[str, str] | None = None
) -> Dataset:
    shared = RoadsSource(
        sample.TRUNK_ROADS,
        body,
        number_field="road",
        operators=operators,
        areas_of="district",
    )
    build_dataset(
        sample.layer_files(),
        tmp_path / "shared",
        built_at=datetime(2026, 11, 23, tzinfo=UTC),
        roads={"trunk": [shared]},
        proof_points=2_000,
    )
    return open_dataset(tmp_path / "shared")


def test_operators_change_exactly_at_the_border(tmp_path: Path) -> None:
    opened = by_area(
        tmp_path, AreaOperator(("NX", "North"), NORTH), AreaOperator(("SX", "South"), SOUTH)
    )
    assert set(opened.roads["trunk"]) == {"NX D1", "NX D2", "SX D1", "SX D2"}
    index = opened.index
    whole = shapely.union_all(
        read_roads([RoadsSource(sample.TRUNK_ROADS)]).features.geometries
    ).buffer(-1e-6)
    districts = geopandas.read_file(sample.layer_files()["district"]).set_index("code").geometry
    border = districts[list(NORTH)].union_all().intersection(districts[list(SOUTH)].union_all())
    across = border.intersection(whole)
    assert across.length > 0.08, "D2 lies on a border for a good part of its length"
    random = np.random.default_rng(1)
    picked = shapely.get_coordinates(
        across.interpolate(random.random(400), normalized=True)
    ) + random.choice([-1, 1], (400, 2)) * random.uniform(2e-7, 2e-5, (400, 2))
    seen = set()
    for lon, lat in picked.tolist():
        if not whole.covers(shapely.Point(lon, lat)):
            continue
        areas = [index.areas[hit] for hit in index.covering(lon=lon, lat=lat)]
        district = [area.code for area in areas if area.layer == "district"]
        bodies = {area.code[:2] for area in areas if area.layer == "trunk"}
        if len(district) == 1:
            assert bodies == {"NX" if district[0] in NORTH else "SX"}, (lon, lat, areas)
            seen |= bodies
    assert seen == {"NX", "SX"}


def test_shares_are_the_whole_ground_and_no_more(tmp_path: Path) -> None:
    opened = by_area(
        tmp_path, AreaOperator(("NX", "North"), NORTH), body=("REST", "Whoever is left")
    )
    assert {road.body for road in opened.roads["trunk"].values()} == {"NX", "REST"}
    areas = {"district": districts_by_code()}
    source = RoadsSource(
        sample.TRUNK_ROADS,
        number_field="road",
        operators=(AreaOperator(("NX", "North"), NORTH), AreaOperator(("SX", "South"), SOUTH)),
        areas_of="district",
    )
    divided = read_roads([source], areas=areas).features.geometries
    whole = shapely.union_all(read_roads([RoadsSource(sample.TRUNK_ROADS)]).features.geometries)
    # D1 begins on the coast: its round end is over the sea, in nobody's area
    assert shapely.symmetric_difference(shapely.union_all(divided), whole).area < 1e-12
    d1, d2 = divided[[0, 2]], divided[[1, 3]]
    for north, south in (d1, d2):
        assert shapely.intersection(north, south).area < 1e-12


def districts_by_code() -> dict[str, Any]:
    frame = geopandas.read_file(sample.layer_files()["district"])
    return dict(zip(frame.code, frame.geometry, strict=True))


def test_a_road_outside_all_areas_is_refused(tmp_path: Path) -> None:
    with pytest.raises(
        SourceError,
        match=r"the D1 in row 1 is outside the areas of all operators at lat 54\.\d+, lon \d\.\d+; "
        "add the area to one of them, or an operator for what lies outside",
    ):
        by_area(tmp_path, AreaOperator(("NX", "North"), NORTH))


@pytest.mark.parametrize(("water_m", "crossed"), [(900, True), (2_500, False)])
def test_a_bridge_goes_with_the_nearest(tmp_path: Path, water_m: float, *, crossed: bool) -> None:
    lon_m, _ = metres_per_degree(52.0)
    west = shapely.box(0, 51, 1, 53)
    east = shapely.box(1 + water_m / lon_m, 51, 3, 53)
    bridge = shapely.LineString([(0.9, 52), (2, 52)])
    path = line_file(tmp_path / "bridge.gpkg", [bridge], road=["A1"])
    source = RoadsSource(
        path,
        number_field="road",
        operators=(AreaOperator(("W", "West"), ("A",)), AreaOperator(("E", "East"), ("B",))),
        areas_of="land",
    )
    areas = {"land": {"A": west, "B": east}}
    if not crossed:
        with pytest.raises(SourceError, match="the A1 in row 1 is outside the areas of all"):
            read_roads([source], areas=areas)
        return
    read = read_roads([source], areas=areas)
    assert [road.body for road in read.roads.values()] == ["E", "W"]
    assert shapely.union_all(read.features.geometries).covers(bridge)


def test_contract_areas_come_from_a_file(tmp_path: Path) -> None:
    contracts = geopandas.GeoDataFrame(
        {"code": ["1", "2"], "name": ["one", "two"]},
        geometry=[shapely.box(0, 51, 1, 53), shapely.box(1, 51, 2, 53)],
        crs="EPSG:4326",
    )
    contracts.to_file(tmp_path / "contracts.gpkg")
    contracts.iloc[1:].drop(columns="code").to_file(tmp_path / "east.gpkg")
    path = line_file(
        tmp_path / "road.gpkg", [shapely.LineString([(0.5, 52), (1.5, 52)])], number=["A1"]
    )
    (tmp_path / "roads.toml").write_text(f"""
    [[trunk]]
    file = "{path.name}"
    number_field = "number"
    operators = [
      {{ code = "W", name = "West", file = "contracts.gpkg", areas = ["1"] }},
      {{ code = "E", name = "East", file = "east.gpkg" }},
    ]
    """)
    read = read_roads(read_roads_table(tmp_path / "roads.toml")["trunk"])
    assert list(read.roads) == ["E A1", "W A1"]
    east, west = shapely.bounds(read.features.geometries).tolist()
    assert east[0] == pytest.approx(1.0, abs=1e-12)
    assert west[2] == pytest.approx(1.0, abs=1e-12)


@pytest.mark.parametrize(
    ("operator", "areas_of", "message"),
    [
        (AreaOperator(("X", "Ex"), ("D9",)), "district", "layer 'district' has no area 'D9', whi"),
        (AreaOperator(("X", "Ex"), ("D9",)), "ward", "no layer 'ward' .* one of district"),
        (AreaOperator(("X", "Ex"), (), Path("gone.gpkg")), "", "gone.gpkg does not exist"),
    ],
)
def test_operators_of_unknown_areas_are_refused(
    operator: AreaOperator, areas_of: str, message: str
) -> None:
    source = RoadsSource(
        sample.TRUNK_ROADS, number_field="road", operators=(operator,), areas_of=areas_of
    )
    with pytest.raises(SourceError, match=message):
        read_roads([source], areas={"district": districts_by_code()})


def test_fields_name_the_operator(tmp_path: Path) -> None:
    lines = [shapely.LineString([(n, 52), (n + 0.1, 52)]) for n in range(3)]
    fields = {"road": ["A1", "A2", "A3"], "body": ["X", None, "Y"], "called": ["Ex", None, "Why"]}
    path = line_file(tmp_path / "fields.gpkg", lines, **fields)
    told = {"number_field": "road", "body_fields": ("body", "called")}
    read = read_roads([RoadsSource(path, ("D", "Default"), **told)])
    assert [(road.number, road.body, road.body_name) for road in read.roads.values()] == [
        ("A2", "D", "Default"),
        ("A1", "X", "Ex"),
        ("A3", "Y", "Why"),
    ]
    with pytest.raises(SourceError, match="row 2 has no operator; complete the fields body and"):
        read_roads([RoadsSource(path, **told)])
    with pytest.raises(SourceError, match="has no field 'bodies'; choose operator_code_field from"):
        read_roads([RoadsSource(path, number_field="road", body_fields=("bodies", "called"))])
    with pytest.raises(SourceError, match="body 'D' is called 'Default' and 'Other'; give it one"):
        read_roads(
            [RoadsSource(path, ("D", name), number_field="road") for name in ("Default", "Other")]
        )


# --- dates ------------------------------------------------------------------------------------


def test_dates_reach_the_dataset(tmp_path: Path) -> None:
    (tmp_path / "trunk.geojson").write_bytes(sample.TRUNK_ROADS.read_bytes())
    (tmp_path / "roads.toml").write_text("""
    [[trunk]]
    file = "trunk.geojson"
    operator = { code = "OLD", name = "Old Roads" }
    valid_to = 2027-04-01

    [[trunk]]
    file = "trunk.geojson"
    operator = { code = "NEW", name = "New Roads" }
    valid_from = 2027-04-01
    """)
    build_dataset(
        sample.layer_files(),
        tmp_path / "dated",
        built_at=datetime(2026, 11, 23, tzinfo=UTC),
        roads=read_roads_table(tmp_path / "roads.toml"),
        proof_points=1_000,
    )
    opened = open_dataset(tmp_path / "dated")
    roads = opened.roads["trunk"]
    assert list(roads) == [
        "NEW D1@2027-04-01",
        "NEW D2@2027-04-01",
        "OLD D1@..2027-04-01",
        "OLD D2@..2027-04-01",
    ]
    assert roads["NEW D1@2027-04-01"].valid_from == date(2027, 4, 1)
    assert roads["NEW D1@2027-04-01"].valid_to is None
    assert roads["OLD D2@..2027-04-01"].valid_to == date(2027, 4, 1)
    router = Router(opened.index, rules=RULES, dataset="dated", roads=opened.roads)
    for day, body in ((date(2027, 3, 31), "OLD"), (date(2027, 4, 1), "NEW")):
        decision = at_d1(router, 1, as_of=day)
        assert decision.rule == "special-road"
        assert decision.responsible is not None
        assert decision.responsible.code == body
        assert body in {candidate.code for candidate in at_d1(router, 8, as_of=day).candidates}


def test_dates_differ_by_feature(tmp_path: Path) -> None:
    lines = [shapely.LineString([(n, 52), (n + 0.1, 52)]) for n in range(3)]
    opened = ["2027-04-01", None, "2028-01-01T00:00:00"]
    path = line_file(tmp_path / "dated.gpkg", lines, road=["A1"] * 3, opened=opened)
    source = RoadsSource(
        path,
        ("X", "Ex"),
        number_field="road",
        valid_from=date(2020, 1, 1),
        valid_to=date(2030, 1, 1),
        valid_from_field="opened",
    )
    read = read_roads([source])
    assert list(read.roads) == [
        "X A1@2020-01-01..2030-01-01",
        "X A1@2027-04-01..2030-01-01",
        "X A1@2028-01-01..2030-01-01",
    ]
    assert shapely.bounds(read.features.geometries)[:, 0].round().tolist() == [1, 0, 2]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("1 April", "row 1 has no day in 'opened' but '1 April'; write it like 2027-04-01"),
        ("2027-04-01 09:00", "row 1 has no day in 'opened' but '2027-04-01 09:00'"),
        ("2031-01-01", "the A1 in row 1 would end before it begins"),
    ],
)
def test_days_that_are_none_are_refused(tmp_path: Path, text: str, message: str) -> None:
    line = shapely.LineString([(1, 52), (1.1, 52)])
    path = line_file(tmp_path / "dated.gpkg", [line], road=["A1"], opened=[text])
    source = RoadsSource(
        path,
        ("X", "Ex"),
        number_field="road",
        valid_to=date(2030, 1, 1),
        valid_from_field="opened",
    )
    with pytest.raises(SourceError, match=message):
        read_roads([source])


# --- real roads -------------------------------------------------------------------------------


@pytest.mark.realdata
def test_real_roads_are_as_wide_as_asked() -> None:
    data = real_data()
    path = data / "national_highways_area6.parquet"
    frame = geopandas.read_parquet(path)
    source = RoadsSource(
        path,
        ("NATIONAL-HIGHWAYS", "National Highways"),
        number_field="road",
        buffer_by_class={"motorway": 25.0},
    )
    read = read_roads([source])
    for code, ground in zip(read.features.codes, read.features.geometries, strict=True):
        number = read.roads[code].number
        half_m = 25.0 if number == "M11" else 15.0
        assert_half_width([ground], frame[frame.road == number].geometry.tolist(), half_m)


@pytest.mark.realdata
def test_real_red_routes_are_the_surface_that_they_are() -> None:
    path = real_data() / "tfl_red_routes_2017.parquet"
    source = RoadsSource(path, ("TFL", "Transport for London"), number_field="name")
    read = read_roads([source])
    surface = geopandas.read_parquet(path).geometry
    assert len(read.roads) == len(surface)
    for number, polygon in zip(geopandas.read_parquet(path).name, surface, strict=True):
        ground = read.features.geometries[read.features.codes.index(f"TFL {number}")]
        assert shapely.symmetric_difference(ground, shapely.make_valid(polygon)).area < 1e-12


@pytest.mark.realdata
def test_real_operators_change_at_the_county_border() -> None:
    data = real_data()
    counties = geopandas.read_parquet(data / "ctyua_2025_bgc.parquet").set_index("code").geometry
    path = data / "national_highways_area6.parquet"
    essex, rest = "E10000012", ["E10000003", "E06000031", "E10000020", "E10000029"]
    source = RoadsSource(
        path,
        ("OTHERS", "Others"),
        number_field="road",
        operators=(
            AreaOperator(("ESSEX", "Essex"), (essex,)),
            AreaOperator(("ANGLIA", "Anglia"), tuple(rest)),
        ),
        areas_of="highway",
    )
    read = read_roads([source], areas={"highway": counties.to_dict()})
    assert {road.body for road in read.roads.values()} >= {"ESSEX", "ANGLIA"}
    for code, ground in zip(read.features.codes, read.features.geometries, strict=True):
        if read.roads[code].body == "ESSEX":
            assert shapely.intersection(ground, counties[rest].union_all()).area < 1e-12
        if read.roads[code].body == "ANGLIA":
            assert shapely.intersection(ground, counties[essex]).area < 1e-12


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
