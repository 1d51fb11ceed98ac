"""Boundary files of every kind: read whole, or refused in one line that says what to do."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import geopandas
import numpy as np
import pyarrow as pa
import pytest
import shapely
from pyarrow import parquet as pq

from boundaries.readers import Features, SourceError, SourceNotFoundError, read_features

SQUARES = {
    "B": shapely.box(-1.5, 50, -1.25, 51),
    "A": shapely.box(-1.75, 50, -1.5, 51),
    "C": shapely.box(-1.25, 50, -1, 51),
}
FIELDS = {"code": ["B", "A", "C"], "name": ["Bee", "Ay", "Sea"]}


def frame(fields: Mapping[str, Any] = FIELDS, shapes: Any = None, crs: Any = "EPSG:4326") -> Any:
    return geopandas.GeoDataFrame(
        dict(fields), geometry=list(SQUARES.values()) if shapes is None else shapes, crs=crs
    )


def write(path: Path, content: Any) -> Path:
    if path.suffix == ".parquet":
        content.to_parquet(path)
    else:
        content.to_file(path)
    return path


def refusal(path: Path, **fields: str) -> str:
    """What is said of a file, which begins with its path and is one line."""
    with pytest.raises(SourceError) as refused:
        read_features(path, **fields)
    said = str(refused.value)
    assert said.startswith(str(path))
    assert len(said.splitlines()) == 1
    assert len(said) < len(str(path)) + 350
    return said.removeprefix(str(path)).lstrip(": ")


formats = pytest.mark.parametrize("suffix", ["parquet", "gpkg", "geojson"])


@formats
def test_every_format_gives_the_same_areas_by_code(tmp_path: Path, suffix: str) -> None:
    path = write(tmp_path / f"squares.{suffix}", frame())

    found = read_features(path)

    assert found.codes == ("A", "B", "C")
    assert found.names == ("Ay", "Bee", "Sea")
    assert [SQUARES[code].equals(one) for code, one in by_code(found).items()] == [True] * 3
    assert found.origin == {
        "file": path.name,
        "sha256": hashlib.sha256(path.read_bytes()).hexdigest(),
        "code_field": "code",
        "name_field": "name",
        "crs": "EPSG:4326",
        "operation": "none (already WGS 84 or ETRS89)",
        "accuracy_m": 0.0,
    }


def by_code(found: Features) -> dict[str, Any]:
    return dict(zip(found.codes, found.geometries, strict=True))


def test_etrs89_is_taken_as_it_is(tmp_path: Path) -> None:
    found = read_features(write(tmp_path / "squares.gpkg", frame(crs="EPSG:4258")))

    assert found.origin["crs"] == "EPSG:4258"
    assert by_code(found)["A"].equals(SQUARES["A"])


def test_heights_are_dropped(tmp_path: Path) -> None:
    shapes = [shapely.force_3d(square, 7.5) for square in SQUARES.values()]
    found = read_features(write(tmp_path / "squares.gpkg", frame(shapes=shapes)))

    assert not shapely.has_z(found.geometries).any()
    assert by_code(found)["A"].equals(SQUARES["A"])


def test_rows_of_one_code_are_put_together(tmp_path: Path) -> None:
    fields = {"code": ["B", "A", "B"], "name": ["Bee", "Ay", "Bee, too"]}
    found = read_features(write(tmp_path / "squares.gpkg", frame(fields)))

    assert found.codes == ("A", "B")
    assert found.names == ("Ay", "Bee")
    assert found.origin["rows_merged"] == {"B": 2}
    assert by_code(found)["B"].equals(shapely.union_all([SQUARES["B"], SQUARES["C"]]))


def test_numbers_are_codes_too(tmp_path: Path) -> None:
    fields = {"code": [2, 1, 10], "name": ["Bee", None, "Sea"]}
    found = read_features(write(tmp_path / "squares.parquet", frame(fields)))

    assert found.codes == ("1", "10", "2"), "ascending as text, like the codes of the index"
    assert found.names == ("", "Sea", "Bee")


# --- which field is the code ------------------------------------------------------------------


@pytest.mark.parametrize(
    ("code", "name"),
    [
        ("code", "name"),
        ("CODE", "Name"),
        ("LAD24CD", "LAD24NM"),
        ("ctyua25cd", "ctyua25nm"),
        ("GSS_CODE", "name"),
        ("gss", "name"),
    ],
)
def test_code_and_name_are_found_by_pattern(tmp_path: Path, code: str, name: str) -> None:
    fields = {"objectid": [1, 2, 3], code: FIELDS["code"], name: FIELDS["name"]}
    found = read_features(write(tmp_path / "squares.gpkg", frame(fields)))

    assert found.codes == ("A", "B", "C")
    assert (found.origin["code_field"], found.origin["name_field"]) == (code, name)


def test_a_plain_code_goes_before_a_dated_one(tmp_path: Path) -> None:
    fields = {**FIELDS, "LAD24CD": ["x", "y", "z"]}
    assert read_features(write(tmp_path / "s.parquet", frame(fields))).codes == ("A", "B", "C")


def test_several_fields_that_could_be_the_code_are_listed(tmp_path: Path) -> None:
    fields = {"LAD24CD": ["x", "y", "z"], "CTYUA24CD": FIELDS["code"], "name": FIELDS["name"]}
    path = write(tmp_path / "squares.parquet", frame(fields))

    assert refusal(path) == (
        "has several code fields; choose --code-field from: LAD24CD, CTYUA24CD"
    )
    assert read_features(path, code_field="CTYUA24CD").codes == ("A", "B", "C")


def test_without_a_field_like_a_code_all_are_listed(tmp_path: Path) -> None:
    fields = {"district": FIELDS["code"], "title": FIELDS["name"]}
    path = write(tmp_path / "squares.parquet", frame(fields))

    assert refusal(path) == (
        "has no field that looks like a code; choose --code-field from: district, title"
    )
    assert refusal(path, code_field="district") == (
        "has no field that looks like a name; choose --name-field from: district, title"
    )
    found = read_features(path, code_field="district", name_field="title")
    assert (found.codes, found.names) == (("A", "B", "C"), ("Ay", "Bee", "Sea"))


@pytest.mark.parametrize("wanted", ["LAD24CD", "Code", "geometry", ""])
def test_a_wanted_field_that_is_not_there(tmp_path: Path, wanted: str) -> None:
    path = write(tmp_path / "squares.parquet", frame())

    assert refusal(path, code_field=wanted) == (
        f"has no field {wanted!r}; choose --code-field from: code, name"
    )


def test_no_fields_at_all(tmp_path: Path) -> None:
    path = write(tmp_path / "squares.parquet", frame({}))

    assert refusal(path) == "has no field that looks like a code; choose --code-field from: none"


# --- files that are none ----------------------------------------------------------------------


def test_a_missing_file(tmp_path: Path) -> None:
    for path in (tmp_path / "none.parquet", tmp_path):
        with pytest.raises(SourceNotFoundError):
            read_features(path)
        assert refusal(path) == "does not exist or is no file"


@formats
@pytest.mark.parametrize("share", [0.0, 0.01, 0.3, 0.9])
def test_a_file_cut_off(tmp_path: Path, suffix: str, share: float) -> None:
    """Never a part of the areas, whatever the reader makes of the rest."""
    fields = {"code": [f"{row:03}" for row in range(150)], "name": FIELDS["name"] * 50}
    many = frame(fields, shapes=list(SQUARES.values()) * 50)
    whole = write(tmp_path / f"whole.{suffix}", many).read_bytes()
    path = tmp_path / f"cut.{suffix}"
    path.write_bytes(whole[: int(len(whole) * share)])

    kind = {"parquet": "GeoParquet", "gpkg": "GeoPackage", "geojson": "GeoJSON"}[suffix]
    with pytest.raises(SourceError, match=rf"cut.{suffix} cannot be read as {kind}: "):
        read_features(path)
    refusal(path)


@pytest.mark.parametrize(
    "name", ["a.parquet", "a.gpkg", "a.geojson", "a.shp", "a.zip", "a.txt", "a"]
)
def test_a_text_file_by_any_name(tmp_path: Path, name: str) -> None:
    path = tmp_path / name
    path.write_text("Dear council,\n\nthe boundaries are attached.\n", encoding="utf-8")

    assert "cannot be read as " in refusal(path)


def test_tables_without_geometry(tmp_path: Path) -> None:
    table = tmp_path / "table.csv"
    table.write_text("code,name\nA,Ay\n", encoding="utf-8")
    assert refusal(table) == (
        "has no column with geometry as WKT; one column must be called wkt, geometry or geom"
    )

    parquet = tmp_path / "table.parquet"
    pq.write_table(pa.table(FIELDS), parquet)
    assert refusal(parquet).startswith("cannot be read as GeoParquet: Missing geo metadata")


@formats
def test_a_layer_without_features(tmp_path: Path, suffix: str) -> None:
    path = write(tmp_path / f"empty.{suffix}", frame({"code": [], "name": []}, shapes=[]))

    assert refusal(path) == "holds no features with a geometry"


# --- rows that cannot be areas ----------------------------------------------------------------


def test_a_row_without_a_code(tmp_path: Path) -> None:
    for n, missing in enumerate((None, "", "  ")):
        fields = {**FIELDS, "code": ["B", missing, "C"]}
        path = write(tmp_path / f"squares{n}.parquet", frame(fields))
        assert refusal(path) == "row 2 has no value in 'code'; give it a code"


def test_an_area_without_geometry(tmp_path: Path) -> None:
    for n, missing in enumerate((None, shapely.Polygon())):
        shapes = [SQUARES["B"], SQUARES["A"], missing]
        path = write(tmp_path / f"squares{n}.parquet", frame(shapes=shapes))
        assert refusal(path) == "area 'C' has no geometry; remove it or complete it"


@pytest.mark.parametrize(
    ("shape", "kind"),
    [
        (shapely.LineString([(-1, 50), (-1, 51)]), "LineString"),
        (shapely.Point(-1, 50), "Point"),
        (shapely.MultiLineString([[(-1, 50), (-1, 51)]]), "MultiLineString"),
    ],
)
def test_anything_but_polygons(tmp_path: Path, shape: Any, kind: str) -> None:
    path = write(tmp_path / "lines.parquet", frame(shapes=[SQUARES["B"], SQUARES["A"], shape]))
    assert refusal(path) == f"area 'C' is a {kind}; boundaries must be polygons"


def test_a_collection_is_not_taken_apart(tmp_path: Path) -> None:
    mixed = shapely.GeometryCollection([SQUARES["A"], shapely.Point(-1, 50)])
    path = write(tmp_path / "mixed.gpkg", frame(shapes=[SQUARES["B"], mixed, SQUARES["C"]]))

    assert refusal(path) == (
        "area 'A' is a GeometryCollection; boundaries must be polygons; "
        "take them out of it, e.g. with `ogr2ogr -explodecollections`"
    )


def test_coordinates_that_are_no_numbers(tmp_path: Path) -> None:
    edges = shapely.get_coordinates(SQUARES["A"])
    edges[2] = np.inf
    with np.errstate(invalid="ignore"):
        infinite = shapely.polygons(edges)
    path = tmp_path / "squares.parquet"
    frame(shapes=[infinite, SQUARES["A"], SQUARES["B"]]).to_parquet(path)

    assert refusal(path) == "area 'B' has coordinates that are not finite numbers; correct it"
