"""From any reference system to WGS 84: as exactly as stated, or refused."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import geopandas
import numpy as np
import pyproj
import pytest
import shapely

from boundaries.crs import to_wgs84
from boundaries.readers import Choice, Features, Reading, SourceError, read_features
from georouter.nearest import metres_per_degree
from tests.support.realdata import real_data

METRES = 111_320  # in a degree of latitude
FIELDS = {"code": ["B", "A", "C"], "name": ["Bee", "Ay", "Sea"]}
SHAPES = [shapely.box(-1.5 + n / 4, 50, -1.25 + n / 4, 51) for n in range(3)]
OSTN15 = "OSGB36 to ETRS89 by OSTN15 (convertbng)"


def frame(fields: Mapping[str, Any] = FIELDS, shapes: Any = None, crs: Any = "EPSG:4326") -> Any:
    return geopandas.GeoDataFrame(dict(fields), geometry=shapes or SHAPES, crs=crs)


def write(path: Path, content: Any) -> Path:
    if path.suffix == ".parquet":
        content.to_parquet(path)
    else:
        content.to_file(path)
    return path


def one(path: Path, shape: Any, crs: Any) -> Path:
    return write(path, frame({"code": ["A"], "name": ["Ay"]}, shapes=[shape], crs=crs))


def refusal(path: Path, reading: Reading | None = None) -> str:
    """What is said of a file, which begins with its path and is one line."""
    with pytest.raises(SourceError) as refused:
        read_features(path, reading=reading or Reading())
    said = str(refused.value)
    assert said.startswith(str(path))
    assert len(said.splitlines()) == 1
    return said.removeprefix(str(path)).lstrip(": ")


def by_code(found: Features) -> dict[str, Any]:
    return dict(zip(found.codes, found.geometries, strict=True))


# --- reference systems ------------------------------------------------------------------------


def test_parquet_without_a_reference_system(tmp_path: Path) -> None:
    path = write(tmp_path / "squares.parquet", frame(crs=None))

    assert refusal(path) == (
        "does not say its coordinate reference system; "
        "say it with --crs, or crs in the recipe, such as EPSG:27700"
    )


@pytest.mark.filterwarnings("ignore:'crs' was not provided")
def test_a_geopackage_without_a_reference_system(tmp_path: Path) -> None:
    path = write(tmp_path / "squares.gpkg", frame(crs=None))

    assert refusal(path).startswith("does not say its coordinate reference system; ")
    read_features(path, reading=Reading(crs="EPSG:4326"))


@pytest.mark.parametrize("suffix", ["parquet", "gpkg"])
def test_the_reference_system_may_be_told(tmp_path: Path, suffix: str) -> None:
    unsaid = frame().to_crs("EPSG:3035").set_crs("EPSG:25830", allow_override=True)
    path = write(tmp_path / f"squares.{suffix}", unsaid)

    found = read_features(path, reading=Reading(crs="EPSG:3035"))

    assert (found.origin["crs"], found.origin["crs_said"]) == ("EPSG:3035", "EPSG:25830")
    assert_near(found, frame())
    assert refusal(path, Reading(crs="EPSG:nonsense")) == (
        "there is no reference system 'EPSG:nonsense'; write it like EPSG:27700"
    )


def test_metres_that_call_themselves_degrees(tmp_path: Path) -> None:
    shapes = [shapely.box(n * 1e5, 2e5, n * 1e5 + 5e4, 3e5) for n in range(1, 4)]
    path = write(tmp_path / "squares.parquet", frame(shapes=shapes))

    assert refusal(path) == (
        "says it is in degrees (EPSG:4326), but its coordinates reach "
        "100000 200000 350000 300000; correct it with --crs, or crs in the recipe"
    )


def test_degrees_that_call_themselves_metres(tmp_path: Path) -> None:
    path = write(tmp_path / "squares.parquet", frame(crs=None).set_crs("EPSG:27700"))

    assert refusal(path) == (
        "says it is in 'OSGB36 / British National Grid', but its coordinates look like degrees "
        "(-2 50 -1 51); correct it with --crs, or crs in the recipe"
    )
    assert_near(read_features(path, reading=Reading(crs="EPSG:4326")), frame())


def test_coordinates_of_another_country(tmp_path: Path) -> None:
    """Of the National Grid in Irish Grid, which is of the same size."""
    great_britain = one(
        tmp_path / "far.gpkg", shapely.box(80_000, 5_000, 655_000, 1_220_000), "EPSG:29903"
    )
    said = refusal(great_britain, Reading(accept_accuracy_m=5))
    assert said.startswith("says it is in 'TM75 / Irish Grid', which is for Ireland - onshore.")
    assert said.endswith("elsewhere; correct it with --crs, or crs in the recipe")
    london = shapely.box(530_000, 180_000, 531_000, 181_000)
    said = refusal(one(tmp_path / "near.gpkg", london, "EPSG:29903"), Reading(accept_accuracy_m=5))
    assert "of known accuracy to WGS 84 where it lies (lon -3.1 to -3.1, lat 52.8 to 52.8)" in said


def assert_near(found: Features, wanted: Any, metres: float = 0.001) -> None:
    """Every vertex of what was written is on the border of what was read."""
    shapes = by_code(found)
    for code, shape in zip(wanted["code"], wanted.geometry, strict=True):
        corners = shapely.points(shapely.get_coordinates(shape))
        assert max(shapely.distance(shapes[code].exterior, corners)) * METRES < metres


# --- what PROJ knows ------------------------------------------------------------------------------

IRELAND = [shapely.box(-8 + n / 4, 53, -7.75 + n / 4, 53.5) for n in range(3)]


@pytest.mark.parametrize(
    ("crs", "shapes", "operation"),
    [
        ("EPSG:3857", SHAPES, "Inverse of Popular Visualisation Pseudo-Mercator"),
        ("EPSG:32630", SHAPES, "Inverse of UTM zone 30N"),
        ("EPSG:25830", SHAPES, "Inverse of UTM zone 30N"),
        ("EPSG:3035", SHAPES, "Inverse of Europe Equal Area 2001"),
        (
            "EPSG:2157",
            IRELAND,
            "Inverse of Irish Transverse Mercator + IRENET95 to ETRS89 (1)",
        ),
        ("EPSG:4979", SHAPES, "none (already WGS 84 or ETRS89)"),
    ],
)
def test_systems_on_wgs84_and_etrs89_are_pure_mathematics(
    tmp_path: Path, crs: str, shapes: list[Any], operation: str
) -> None:
    wanted = frame(shapes=shapes)
    found = read_features(write(tmp_path / "squares.parquet", wanted.to_crs(crs)))

    assert_near(found, wanted)
    assert found.origin["crs"] == crs
    assert found.origin["operation"] == operation
    assert found.origin["accuracy_m"] == 0.0


def test_the_origin_of_irish_transverse_mercator(tmp_path: Path) -> None:
    """By its definition 600000 east, 750000 north is 53.5 north, 8 west."""
    path = one(tmp_path / "itm.gpkg", shapely.box(600_000, 750_000, 600_100, 750_100), "EPSG:2157")
    (shape,) = read_features(path).geometries
    assert shapely.Point(shape.bounds[:2]).distance(shapely.Point(-8, 53.5)) * METRES < 0.01


@pytest.mark.parametrize(
    ("crs", "accuracy_m", "grid"),
    [
        ("EPSG:29903", 1, " (one of 0.41 m needs the grid tm75_etrs89.gsb)"),
        ("EPSG:29902", 1, ""),
        ("EPSG:29901", 1, ""),
    ],
)
def test_the_irish_grids_are_as_exact_as_proj_says(
    tmp_path: Path, crs: str, accuracy_m: float, grid: str
) -> None:
    path = one(tmp_path / "irish.gpkg", shapely.box(250_000, 350_000, 260_000, 360_000), crs)

    said = refusal(path)
    assert f"accurate to {accuracy_m} m{grid}, not 0.1 m; reproject it to EPSG:4326" in said
    assert said.endswith(f"or accept it with --accept-accuracy {accuracy_m}")
    refusal(path, Reading(accept_accuracy_m=0.9))
    found = read_features(path, reading=Reading(accept_accuracy_m=1))
    assert found.origin["accuracy_m"] == accuracy_m
    assert "to WGS 84" in found.origin["operation"] or "to ETRS89" in found.origin["operation"]
    west, south, _, _ = found.geometries[0].bounds
    # its true origin is 53.5 north, 8 west, at 200000 east, 250000 north
    lon_m, lat_m = metres_per_degree(54)
    assert west == pytest.approx(-8 + 50_000 / lon_m, abs=0.02)
    assert south == pytest.approx(53.5 + 100_000 / lat_m, abs=0.02)


def test_an_operation_holds_for_its_ground_only(tmp_path: Path) -> None:
    """ED50 has operations of 1 m for the north of Norway; they are none for Kent."""
    path = one(tmp_path / "kent.gpkg", shapely.box(900_000, 5_690_000, 901_000, 5_691_000), 23030)

    found = read_features(path, reading=Reading(accept_accuracy_m=3))

    assert "ED50 to WGS 84 (18)" in found.origin["operation"], "common offshore, 56 to 62 north"


def test_a_system_without_a_known_way_to_wgs84(tmp_path: Path) -> None:
    plane = "+proj=aeqd +lat_0=50 +lon_0=-1 +ellps=airy +units=m +no_defs"
    path = one(tmp_path / "plane.parquet", shapely.box(0, 0, 1000, 1000), plane)

    assert "from which PROJ has no operation of known accuracy to WGS 84 where it" in refusal(
        path, Reading(accept_accuracy_m=1000)
    )


def test_feet_are_no_metres(tmp_path: Path) -> None:
    """A long side is divided every 500 m, whatever the unit."""
    feet = "+proj=tmerc +lat_0=49 +lon_0=-2 +datum=WGS84 +units=ft +no_defs"
    shape = shapely.box(0, 400_000, 328_083, 403_280)  # 100 km by 1 km
    (found,) = read_features(one(tmp_path / "feet.parquet", shape, feet)).geometries
    assert shapely.get_num_coordinates(found) == 2 * (200 + 2) + 1


def test_no_map_at_all(tmp_path: Path) -> None:
    path = write(tmp_path / "squares.parquet", frame(crs=None).set_crs("EPSG:4978"))
    assert refusal(path).startswith("is in 'WGS 84', which is no map; reproject it")


# --- the British National Grid ----------------------------------------------------------------


@pytest.mark.parametrize(
    ("easting", "northing", "lon", "lat"),
    [
        # the worked example of "Transformations and OSGM15 User Guide", Ordnance Survey
        (651409.804, 313177.450, 1 + 42 / 60 + 57.8663 / 3600, 52 + 39 / 60 + 28.8282 / 3600),
        # points of the test file that Ordnance Survey publishes with OSTN15: TP01 (St Mary's), ...
        (91492.146, 11318.804, -6.29977752014, 49.92226393730),
        (170370.718, 11572.405, -5.20304609998, 49.96006137820),
        (449816.371, 75335.861, -1.29782277240, 50.57563665000),
        (639821.835, 169565.858, 1.44454730409, 51.37447025550),
        (530624.974, 178388.464, -0.11992557180, 51.48936564950),
        (241124.584, 220332.641, -4.30852476960, 51.85890896400),
        (389544.190, 261912.153, -2.15458614387, 52.25529381630),
        (247958.971, 393492.909, -4.28918069756, 53.41628516040),
        (525745.670, 470703.214, -0.07773133187, 54.11685144290),
        (339921.145, 556034.761, -2.93827741149, 54.89542340420),
        (167634.202, 797067.144, -5.82836691850, 57.00606696050),
        (330398.323, 1017347.016, -3.21454001115, 59.03743871190),
        (440725.073, 1107878.448, -1.27486910356, 59.85409913890),
        (395999.668, 1138728.951, -2.07382822798, 60.13308091660),
    ],
)
def test_national_grid_goes_through_ostn15(
    tmp_path: Path, easting: float, northing: float, lon: float, lat: float
) -> None:
    shape = shapely.Polygon(
        [(easting, northing), (easting + 100, northing), (easting, northing + 100)]
    )
    fields = {"code": ["A"], "name": ["Ay"]}
    path = write(tmp_path / "one.gpkg", frame(fields, shapes=[shape], crs="EPSG:27700"))

    found = read_features(path)

    (metres,) = shapely.distance(found.geometries, shapely.Point(lon, lat)) * METRES
    assert metres < 0.002
    assert shapely.get_coordinates(found.geometries)[0] == pytest.approx([lon, lat], abs=1e-8)
    assert found.origin["operation"] == OSTN15
    assert found.origin["accuracy_m"] == 0.01
    assert found.origin["crs"] == "EPSG:27700"


def from_grid(path: Path, shape: Any) -> Any:
    fields = {"code": ["A"], "name": ["Ay"]}
    return read_features(write(path, frame(fields, shapes=[shape], crs="EPSG:27700"))).geometries[0]


def test_a_long_line_on_the_national_grid_is_followed(tmp_path: Path) -> None:
    strip = from_grid(tmp_path / "strip.gpkg", shapely.box(300_000, 400_000, 500_000, 401_000))
    square = from_grid(tmp_path / "square.gpkg", shapely.box(400_123, 400_000, 400_124, 400_001))

    south_edge = shapely.Point(square.centroid.x, square.bounds[1])
    assert shapely.distance(strip.exterior, south_edge) * METRES < 0.02
    west, south, east, _ = strip.bounds
    chord = shapely.LineString([(west, south), (east, south)])
    assert shapely.distance(chord, south_edge) * METRES > 100, "it is no straight line in degrees"


def test_ground_that_ostn15_does_not_cover(tmp_path: Path) -> None:
    shapes = [shapely.box(5_000_000 + n, 100_000, 5_000_001 + n, 100_001) for n in range(3)]
    path = write(tmp_path / "far.gpkg", frame(shapes=shapes, crs="EPSG:27700"))

    assert refusal(path) == (
        "area 'B' reaches easting 5000001, northing 100000, outside the ground that OSTN15 covers "
        "(Great Britain and its waters); correct it, leave it out, or correct the CRS"
    )


def test_the_area_outside_ostn15_is_named_and_can_be_dropped(tmp_path: Path) -> None:
    shapes = [
        shapely.box(400_000, 300_000, 401_000, 301_000),
        shapely.box(695_000, 1_200_000, 696_000, 1_201_000),  # convertbng is off by 150 m there
        shapely.box(500_000, 300_000, 501_000, 301_000),
    ]
    path = write(tmp_path / "isles.gpkg", frame(shapes=shapes, crs="EPSG:27700"))

    assert refusal(path).startswith("area 'A' reaches easting 69")
    found = read_features(path, choice=Choice(drop=("A",)))
    assert found.codes == ("B", "C")
    assert found.origin["left_out"] == ["A"]


def test_ireland_on_the_national_grid(tmp_path: Path) -> None:
    shapes = [
        shapely.box(400_000, 300_000, 401_000, 301_000),
        shapely.box(400_000, 400_000, 401_000, 401_000),
        shapely.box(100_000, 500_000, 101_000, 501_000),
    ]
    path = write(tmp_path / "isles.gpkg", frame(shapes=shapes, crs="EPSG:27700"))

    assert refusal(path).startswith(
        "area 'C' is in Ireland, where OSTN15 is accurate to 10 m, not 0.1 m; leave it out"
    )
    without = read_features(path, choice=Choice(drop=("C",)))
    assert without.origin["accuracy_m"] == 0.01
    found = read_features(path, reading=Reading(accept_accuracy_m=10))
    assert found.origin["accuracy_m"] == 10


ESRI = (
    'PROJCS["British_National_Grid",GEOGCS["GCS_OSGB_1936",DATUM["D_OSGB_1936",'
    'SPHEROID["Airy_1830",6377563.396,299.3249646]],PRIMEM["Greenwich",0.0],'
    'UNIT["Degree",0.0174532925199433]],PROJECTION["Transverse_Mercator"],'
    'PARAMETER["False_Easting",400000.0],PARAMETER["False_Northing",-100000.0],'
    'PARAMETER["Central_Meridian",-2.0],PARAMETER["Scale_Factor",0.9996012717],'
    'PARAMETER["Latitude_Of_Origin",49.0],UNIT["Meter",1.0]]'
)
PROJ4 = (
    "+proj=tmerc +lat_0=49 +lon_0=-2 +k=0.9996012717 +x_0=400000 +y_0=-100000 +ellps=airy "
    "+towgs84=446.448,-125.157,542.06,0.15,0.247,0.842,-20.489 +units=m +no_defs"
)


@pytest.mark.parametrize(
    "crs",
    [
        pytest.param(ESRI, id="as ArcGIS writes it"),
        pytest.param("EPSG:7405", id="with heights"),
        pytest.param("EPSG:4277", id="in degrees of its datum"),
    ],
)
def test_other_ways_to_say_national_grid(tmp_path: Path, crs: str) -> None:
    tower = shapely.box(530624.974, 178388.464, 530724.974, 178488.464)
    shapes = np.array([tower], dtype=object)
    if crs == "EPSG:4277":
        turn = pyproj.Transformer.from_crs("EPSG:27700", crs, always_xy=True)
        shapes = shapely.transform(
            shapes, lambda xy: np.column_stack(turn.transform(xy[:, 0], xy[:, 1]))
        )
    found = to_wgs84(tmp_path, pyproj.CRS.from_user_input(crs), shapes, labels=["it"], accept_m=0.1)
    assert (found.operation, found.accuracy_m) == (OSTN15, 0.01)
    corner = shapely.Point(-0.11992557180, 51.48936564950)
    assert corner.distance(found.geometries[0].exterior) * METRES < 0.001


def test_seven_parameters_are_no_ostn15(tmp_path: Path) -> None:
    """A file whose grid is bound to WGS 84 by seven parameters, as old programs write it."""
    shapes = np.array([shapely.box(530624.974, 178388.464, 530724, 178488)], dtype=object)
    with pytest.raises(SourceError, match="no operation of known accuracy"):
        to_wgs84(tmp_path, pyproj.CRS(PROJ4), shapes, labels=["it"], accept_m=10)


@pytest.mark.realdata
def test_districts_on_the_national_grid_land_on_those_in_degrees() -> None:
    """Every vertex; between them a straight line on the grid is another than one in degrees."""
    folder = real_data()
    degrees = by_code(read_features(folder / "lad_2024_buc.geojson"))
    grid = by_code(read_features(folder / "lad_2024_buc_bng.gpkg"))

    assert len(degrees) == 361
    assert len(grid) == 347, "Great Britain without Scilly, the Western Isles and Shetland"
    for code, shape in grid.items():
        lon_m, lat_m = metres_per_degree(shape.centroid.y)
        flat = [
            shapely.transform(one, lambda xy, scale=(lon_m, lat_m): xy * np.array(scale))
            for one in (shape, degrees[code])
        ]
        vertices = shapely.points(shapely.get_coordinates(flat[1]))
        there = shapely.STRtree(shapely.points(shapely.get_coordinates(flat[0])))
        _, apart = there.query_nearest(vertices, return_distance=True, all_matches=False)
        assert len(apart) == len(vertices)
        assert apart.max() < 0.1, code
