"""Every format: what was written is read, all of it, or the file is refused in one line."""

from __future__ import annotations

import json
import shutil
import sqlite3
import struct
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import geopandas
import pyogrio
import pytest
import shapely
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from boundaries.formats import digest
from boundaries.readers import (
    Choice,
    Features,
    Reading,
    SourceError,
    read_features,
    read_rows,
)

RING = shapely.Polygon(
    [(-1.75, 50), (-1.5, 50), (-1.5, 51), (-1.75, 51)],
    [[(-1.7, 50.2), (-1.7, 50.5), (-1.6, 50.5), (-1.6, 50.2)]],
)
SHAPES = {
    "B": shapely.box(-1.5, 50, -1.25, 51),
    "A": RING,
    "C": shapely.MultiPolygon([shapely.box(0, 50, 1, 51), shapely.box(2.1234567, 50, 3, 51)]),
}
NAMES = {"B": "Bee", "A": "Tŷ Ddewi, y Dref ŵ", "C": "Sea"}


def frame(codes: str = "BAC", crs: Any = "EPSG:4326") -> Any:
    return geopandas.GeoDataFrame(
        {"code": list(codes), "name": [NAMES[code] for code in codes]},
        geometry=[SHAPES[code] for code in codes],
        crs=crs,
    )


def with_gdal(driver: str, **options: str) -> Callable[[Path, Any], None]:
    return lambda path, rows: pyogrio.write_dataframe(rows, path, driver=driver, **options)


def as_csv(path: Path, rows: Any) -> None:
    table = rows.drop(columns="geometry").assign(
        wkt=[f"SRID=4326;{shapely.to_wkt(one, rounding_precision=-1)}" for one in rows.geometry]
    )
    table.to_csv(path, index=False, encoding="utf-8-sig")


def as_zip(path: Path, rows: Any) -> None:
    folder = path.parent / f"{path.stem} parts"
    folder.mkdir()
    pyogrio.write_dataframe(rows, folder / "squares.shp", encoding="UTF-8")
    pack(path, folder, inside="Ardaloedd/")
    shutil.rmtree(folder)


def pack(path: Path, folder: Path, inside: str = "") -> Path:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for part in sorted(folder.iterdir()):
            archive.write(part, f"{inside}{part.name}")
    return path


WRITERS: dict[str, Callable[[Path, Any], None]] = {
    "parquet": lambda path, rows: rows.to_parquet(path),
    "gpkg": with_gdal("GPKG"),
    "geojson": with_gdal("GeoJSON"),
    "geojsonl": with_gdal("GeoJSONSeq"),
    "geojsons": with_gdal("GeoJSONSeq", RS="YES"),
    "shp": with_gdal("ESRI Shapefile", encoding="UTF-8"),
    "zip": as_zip,
    "fgb": with_gdal("FlatGeobuf"),
    "kml": with_gdal("LIBKML"),
    "kmz": with_gdal("LIBKML"),
    "csv": as_csv,
}
formats = pytest.mark.parametrize("suffix", WRITERS)


def write(folder: Path, suffix: str, rows: Any) -> Path:
    path = folder / f"squares.{suffix}"
    WRITERS[suffix](path, rows)
    return path


def refusal(path: Path, reading: Reading | None = None) -> str:
    with pytest.raises(SourceError) as refused:
        read_features(path, reading=reading or Reading())
    said = str(refused.value)
    assert said.startswith(str(path))
    assert len(said.splitlines()) == 1
    return said.removeprefix(str(path)).lstrip(": ")


def assert_same(found: Features, codes: str) -> None:
    assert found.codes == tuple(sorted(codes))
    assert found.names == tuple(NAMES[code] for code in sorted(codes))
    for code, shape in zip(found.codes, found.geometries, strict=True):
        assert not shapely.has_z(shape)
        vertices = {tuple(xy) for xy in shapely.get_coordinates(SHAPES[code]).tolist()}
        assert {tuple(xy) for xy in shapely.get_coordinates(shape).tolist()} == vertices
        assert shape.equals(SHAPES[code]), code


@formats
def test_every_format_gives_what_was_written(tmp_path: Path, suffix: str) -> None:
    found = read_features(write(tmp_path, suffix, frame()))

    assert_same(found, "ABC")
    assert found.origin["crs"] == "EPSG:4326"
    assert found.origin["accuracy_m"] == 0.0
    assert "warnings" not in found.origin


@formats
@given(codes=st.lists(st.sampled_from("ABC"), min_size=1, max_size=12))
@settings(
    max_examples=8, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
def test_no_row_is_lost(tmp_path: Path, suffix: str, codes: list[str]) -> None:
    """As many rows as were written, in any number and order."""
    folder = tmp_path / str(len(list(tmp_path.iterdir())))
    folder.mkdir()
    path = write(folder, suffix, frame("".join(codes)))

    rows = read_rows(path, kinds=frozenset({"Polygon", "MultiPolygon"}), fields={"code": None})

    assert sorted(rows.columns["code"]) == sorted(codes)
    for code, shape in zip(rows.columns["code"], rows.geometries, strict=True):
        assert shape.equals(SHAPES[code])


@formats
@pytest.mark.parametrize("share", [0.0, 0.2, 0.5, 0.8, 0.97])
def test_no_part_of_a_file_passes_for_all_of_it(tmp_path: Path, suffix: str, share: float) -> None:
    path = write(tmp_path, suffix, frame())
    whole = path.read_bytes()
    path.write_bytes(whole[: int(len(whole) * share)])

    refusal(path)


@pytest.mark.parametrize("suffix", ["geojson", "geojsonl", "geojsons", "csv"])
def test_a_ring_that_is_not_closed_is_not_closed_for_it(tmp_path: Path, suffix: str) -> None:
    path = write(tmp_path, suffix, frame("B"))
    text = path.read_text(encoding="utf-8-sig")
    corner = "-1.25 50" if suffix == "csv" else "[ -1.25, 50.0 ]"
    ends = text.rindex(corner)
    assert text.count(corner) == 2
    comma = text.rindex(",", 0, ends)
    path.write_text(text[:comma] + text[ends + len(corner) :], encoding="utf-8")

    refusal(path)


def test_a_format_is_known_by_its_name(tmp_path: Path) -> None:
    path = tmp_path / "squares.docx"
    path.write_bytes(b"PK")
    assert refusal(path).startswith(
        "cannot be read as what its name says; files end with .parquet, .geoparquet, .gpkg"
    )


# --- Shapefiles -------------------------------------------------------------------------------


def shapefile(folder: Path, text: str, encoding: str, label: bytes | None) -> Path:
    path = folder / "one.shp"
    rows = frame("B").assign(name=[text])
    pyogrio.write_dataframe(rows, path, encoding=encoding)
    path.with_suffix(".cpg").unlink()
    if label is not None:
        path.with_suffix(".cpg").write_bytes(label)
    return path


@pytest.mark.parametrize("zipped", [False, True])
@pytest.mark.parametrize(
    ("text", "encoding", "label", "taken"),
    [
        ("Sŵn y Môr", "UTF-8", b"UTF-8", "utf-8"),
        ("Sŵn y Môr", "UTF-8", None, "utf-8"),
        ("Côte \u2013 “Môr”", "cp1252", None, "cp1252"),
        ("Côte \u2013 “Môr”", "cp1252", b"1252", "cp1252"),
        ("Côte \u2013 “Môr”", "cp1252", b"ANSI 1252\r\n", "cp1252"),
        ("Côte d'Or", "ISO-8859-1", b"88591", "iso8859-1"),
        ("Ŵyl", "ISO-8859-14", b"ISO 8859-14", "iso8859-14"),
    ],
)
def test_the_text_of_a_shapefile(
    tmp_path: Path, text: str, encoding: str, label: bytes | None, taken: str, *, zipped: bool
) -> None:
    folder = tmp_path / "parts"
    folder.mkdir()
    path = shapefile(folder, text, encoding, label)
    path = pack(tmp_path / "one.zip", folder) if zipped else path

    found = read_features(path)

    assert found.names == (text,)
    assert found.origin["encoding"] == taken


def test_the_encoding_told_outranks_the_label(tmp_path: Path) -> None:
    path = shapefile(tmp_path, "Môr", "cp1252", b"UTF-8")
    assert refusal(path) == (
        "cannot be read as Shapefile: its text is no utf-8; "
        "say its encoding, or convert it to UTF-8"
    )
    assert read_features(path, reading=Reading(encoding="cp1252")).names == ("Môr",)


def test_an_encoding_that_nobody_knows(tmp_path: Path) -> None:
    path = shapefile(tmp_path, "Bee", "UTF-8", b"klingon")
    assert refusal(path) == "its .cpg names the unknown encoding 'klingon'; say the encoding"


@pytest.mark.parametrize("part", [".dbf", ".shx", ".prj"])
def test_a_shapefile_without_one_of_its_parts(tmp_path: Path, part: str) -> None:
    path = write(tmp_path, "shp", frame())
    path.with_suffix(part).unlink()
    said = {
        ".dbf": "has no field that looks like a code; choose --code-field from: none",
        ".shx": "cannot be read as Shapefile: ",
        ".prj": "does not say its coordinate reference system",
    }
    assert refusal(path).startswith(said[part])


def test_the_digest_of_a_shapefile_is_that_of_all_its_parts(tmp_path: Path) -> None:
    path = write(tmp_path, "shp", frame())
    before = digest(path)
    table = path.with_suffix(".dbf")
    table.write_bytes(table.read_bytes().replace(b"Bee", b"Boo"))
    assert digest(path) != before
    (tmp_path / "squares.txt").write_text("no part of it")
    assert read_features(path).origin["sha256"] == digest(path)


# --- several layers in one file -------------------------------------------------------------------


def test_one_of_several_layers_must_be_named(tmp_path: Path) -> None:
    path = tmp_path / "both.gpkg"
    pyogrio.write_dataframe(frame("AB"), path, layer="counties")
    pyogrio.write_dataframe(frame("C"), path, layer="districts")
    pyogrio.write_dataframe(frame().drop(columns="geometry"), path, layer="names")

    listed = "choose --layer-in-file from: counties, districts"
    assert refusal(path) == f"has several layers; {listed}"
    assert refusal(path, Reading(layer_in_file="names")) == f"has no layer 'names'; {listed}"
    found = read_features(path, reading=Reading(layer_in_file="districts"))
    assert_same(found, "C")
    assert found.origin["layer_in_file"] == "districts"


def test_one_of_several_shapefiles_in_a_zip_must_be_named(tmp_path: Path) -> None:
    folder = tmp_path / "parts"
    folder.mkdir()
    for name, codes in (("counties", "AB"), ("districts", "C")):
        pyogrio.write_dataframe(frame(codes), folder / f"{name}.shp", encoding="UTF-8")
    path = pack(tmp_path / "both.zip", folder, inside="Data/")

    assert refusal(path) == (
        "has several layers; choose --layer-in-file from: Data/counties.shp, Data/districts.shp"
    )
    for name in ("districts", "districts.shp", "Data/districts.shp"):
        assert_same(read_features(path, reading=Reading(layer_in_file=name)), "C")


def test_a_geopackage_in_a_zip(tmp_path: Path) -> None:
    folder = tmp_path / "parts"
    folder.mkdir()
    for name, codes in (("counties", "AB"), ("districts", "C")):
        pyogrio.write_dataframe(frame(codes), folder / "bdline.gpkg", layer=name)
    (folder / "licence.txt").write_text("OGL")
    path = pack(tmp_path / "bdline.zip", folder)

    assert refusal(path) == ("has several layers; choose --layer-in-file from: counties, districts")
    assert_same(read_features(path, reading=Reading(layer_in_file="counties")), "AB")


def test_zips_with_nothing_to_read(tmp_path: Path) -> None:
    (tmp_path / "parts").mkdir()
    (tmp_path / "parts" / "licence.txt").write_text("OGL")
    path = pack(tmp_path / "empty.zip", tmp_path / "parts")
    assert refusal(path).startswith("holds none of .shp, .gpkg")


def test_a_zip_that_was_damaged(tmp_path: Path) -> None:
    path = write(tmp_path, "zip", frame())
    content = bytearray(path.read_bytes())
    at = content.index(b"squares.shp") + len("squares.shp") + 40
    content[at] ^= 0xFF
    path.write_bytes(content)
    assert refusal(path).startswith("cannot be read as a zip of boundary files: ")


# --- text ---------------------------------------------------------------------------------------


LINE = json.dumps(
    {
        "type": "Feature",
        "properties": {"code": "B", "name": "a\u2028b"},
        "geometry": shapely.geometry.mapping(SHAPES["B"]),
    },
    ensure_ascii=False,
)


@pytest.mark.parametrize(
    ("line", "fault"),
    [
        (LINE[:-20], " cannot be read as a sequence of GeoJSON features: "),
        ('{"type": "Point"}', ": this is no GeoJSON feature; correct or remove it"),
        ("[]", ": this is no GeoJSON feature; correct or remove it"),
    ],
)
def test_a_broken_line_stops_the_reading(tmp_path: Path, line: str, fault: str) -> None:
    """GDAL ends there, or passes over it, and says nothing."""
    path = tmp_path / "lines.geojsonl"
    path.write_text(f"{LINE}\n\n{line}\n{LINE}\n", encoding="utf-8")
    assert refusal(path).startswith(f", line 3{fault}")
    path.write_text(f"{LINE}\n{LINE.replace('B', 'A', 1)}", encoding="utf-8")
    assert read_features(path).names[0] == "a\u2028b"


def csv_file(path: Path, *rows: str, header: str = "code,name,WKT") -> Path:
    path.write_text("\n".join([header, *rows]), encoding="utf-8")
    return path


def test_csv_with_wkt(tmp_path: Path) -> None:
    wkt = "POLYGON ((-1 50, 0 50, 0 51, -1 50))"
    row = f'A,"Aber, y",SRID=4326;{wkt!r}'.replace("'", '"').replace('SRID=4326;"', '"SRID=4326;')
    path = csv_file(tmp_path / "a.csv", row, "")
    assert read_features(path).names == ("Aber, y",)
    plain = csv_file(tmp_path / "b.csv", f'A,Ay,"{wkt}"', header="code,name,geom")
    assert refusal(plain).startswith("does not say its coordinate reference system; say it with")
    found = read_features(plain, reading=Reading(crs="EPSG:4258"))
    assert (found.codes, found.origin["crs"]) == (("A",), "EPSG:4258")


@pytest.mark.parametrize(
    ("row", "fault"),
    [
        ("A,Ay", "row 2 has 2 fields, not 3; correct it"),
        ("A,Ay,", "area 'A' has no geometry; remove it or complete it"),
        ("A,Ay,POLYGON", ", row 2 cannot be read as CSV with WKT: "),
        (
            'A,Ay,"CURVEPOLYGON(CIRCULARSTRING(0 50,1 51,2 50,1 49,0 50))"',
            ", row 2 cannot be read as CSV with WKT: it has curves; make them lines",
        ),
        ('A,Ay,"POLYGON((0 50,1 50,1 51,0 51))"', ", row 2 has a ring that is not closed"),
        (
            'A,Ay,"SRID=27700;POLYGON((0 50,1 50,1 51,0 50))"',
            "is in EPSG:27700 and EPSG:4326 at once; make a file of each",
        ),
    ],
)
def test_a_wrong_row_of_a_csv(tmp_path: Path, row: str, fault: str) -> None:
    good = 'B,Bee,"SRID=4326;POLYGON((0 50,1 50,1 51,0 50))"'
    assert refusal(csv_file(tmp_path / "a.csv", good, row)).startswith(fault)


def test_a_csv_from_a_spreadsheet(tmp_path: Path) -> None:
    path = tmp_path / "a.csv"
    text = 'code,name,wkt\r\nA,M\u00f4r,"SRID=4326;POLYGON((0 50,1 50,1 51,0 50))"\r\n'
    path.write_bytes(text.encode("cp1252"))
    found = read_features(path)
    assert (found.names, found.origin["encoding"]) == (("M\u00f4r",), "cp1252")


# --- geometries that are more than polygons -------------------------------------------------------


def with_curves(path: Path, kind: str, wkb: bytes) -> Path:
    """A GeoPackage with a curve, which no library here writes."""
    pyogrio.write_dataframe(frame("B"), path, layer="one", SPATIAL_INDEX="NO")
    with sqlite3.connect(path) as db:
        db.execute("UPDATE one SET geom = ?", (b"GP\0\x01" + struct.pack("<i", 4326) + wkb,))
        db.execute("UPDATE gpkg_geometry_columns SET geometry_type_name = ?", (kind,))
        db.execute("PRAGMA writable_schema = 1")
        db.execute("UPDATE sqlite_master SET sql = replace(sql, 'POLYGON', ?)", (kind,))
    db.close()
    return path


def curve(kind: int, *parts: bytes) -> bytes:
    return struct.pack("<BII", 1, kind, len(parts)) + b"".join(parts)


def points(kind: int, *coordinates: float) -> bytes:
    head = struct.pack("<BII", 1, kind, len(coordinates) // 2)
    return head + struct.pack(f"<{len(coordinates)}d", *coordinates)


CIRCLE = points(8, -1, 50, 0, 51, 1, 50, 0, 49, -1, 50)
HALF = curve(9, points(8, -1, 50, 0, 51, 1, 50), points(2, 1, 50, -1, 50))


@pytest.mark.parametrize(
    ("kind", "wkb", "share"),
    [
        ("CURVEPOLYGON", curve(10, CIRCLE), 1.0),
        ("CURVEPOLYGON", curve(10, HALF), 0.5),
        ("MULTISURFACE", curve(12, curve(10, CIRCLE)), 1.0),
    ],
)
def test_curves_are_made_lines_finely(tmp_path: Path, kind: str, wkb: bytes, share: float) -> None:
    found = read_features(with_curves(tmp_path / "curved.gpkg", kind, wkb))

    (shape,) = found.geometries
    assert shape.geom_type in {"Polygon", "MultiPolygon"}
    assert shape.area == pytest.approx(share * 3.14159265, rel=1e-5)
    (part,) = shapely.get_parts(shape)
    arc = shapely.LineString([xy for xy in part.exterior.coords if xy[1] > 50.001])
    assert shapely.hausdorff_distance(arc, shapely.Point(0, 50)) == pytest.approx(1, abs=1e-9)
    assert 1 - shapely.distance(arc, shapely.Point(0, 50)) < 4e-7, "the chords are that short"


@pytest.mark.parametrize("suffix", ["parquet", "gpkg", "geojson", "kml"])
def test_a_collection_is_refused(tmp_path: Path, suffix: str) -> None:
    rows = frame("AB")
    rows.loc[1, "geometry"] = shapely.GeometryCollection([SHAPES["B"], shapely.Point(-1, 50)])
    assert "area 'B' is a GeometryCollection; boundaries must be polygons; take" in refusal(
        write(tmp_path, suffix, rows)
    )


# --- fields, pins and choices ---------------------------------------------------------------------


@pytest.mark.parametrize(
    ("fields", "code", "name"),
    [
        (["CTYUA24CD", "CTYUA24NM", "CTYUA24NMW"], "CTYUA24CD", "CTYUA24NM"),
        (["LAD24CD", "LAD24NM", "LAD24NMW", "name"], "LAD24CD", "LAD24NM"),
        (["gss_code", "name", "name_cy"], "gss_code", "name"),
        (["ons_code", "name_en", "name_cy"], "ons_code", "name_en"),
        (["Name", "Area_Code", "Census_Code"], "Census_Code", "Name"),
        (["LGDCode", "LGDNAME"], "LGDCode", "LGDNAME"),
    ],
)
def test_fields_as_publishers_call_them(
    tmp_path: Path, fields: list[str], code: str, name: str
) -> None:
    rows = geopandas.GeoDataFrame(
        {field: [f"in {field}"] for field in fields}, geometry=[SHAPES["B"]], crs="EPSG:4326"
    )
    found = read_features(write(tmp_path, "gpkg", rows))
    assert (found.origin["code_field"], found.origin["name_field"]) == (code, name)
    assert (found.codes, found.names) == ((f"in {code}",), (f"in {name}",))


def test_the_name_stands_beside_the_code(tmp_path: Path) -> None:
    fields = ["WD24CD", "WD24NM", "WD24NMW", "LAD24CD", "LAD24NM", "LAD24NMW"]
    rows = geopandas.GeoDataFrame(
        {field: [field] for field in fields}, geometry=[SHAPES["B"]], crs="EPSG:4326"
    )
    path = write(tmp_path, "parquet", rows)
    assert refusal(path) == "has several code fields; choose --code-field from: WD24CD, LAD24CD"
    assert read_features(path, code_field="LAD24CD").names == ("LAD24NM",)


def test_a_pin_holds_the_file(tmp_path: Path) -> None:
    path = write(tmp_path, "csv", frame())
    pinned = Reading(sha256=digest(path))
    assert_same(read_features(path, reading=pinned), "ABC")
    path.write_bytes(path.read_bytes().replace(b"Bee", b"Boo"))
    assert refusal(path, pinned).startswith("is not the file that was pinned: its sha256 is ")


def test_areas_are_kept_and_dropped_by_code(tmp_path: Path) -> None:
    path = write(tmp_path, "gpkg", frame())
    found = read_features(path, choice=Choice(keep=("[AB]",), drop=("B*",)))
    assert_same(found, "A")
    assert found.origin["left_out"] == ["B", "C"]
    for choice, fault in (
        (Choice(keep=("X*",)), "no code fits 'X*'; they are such as 'B'; correct or remove"),
        (Choice(drop=("*",)), "keep and drop leave nothing; correct them"),
    ):
        with pytest.raises(SourceError, match="squares") as refused:
            read_features(path, choice=choice)
        assert fault in str(refused.value)


def test_what_is_dropped_may_be_unusable(tmp_path: Path) -> None:
    rows = frame("AB")
    rows.loc[1, "geometry"] = None
    path = write(tmp_path, "gpkg", rows)
    assert "area 'B' has no geometry" in refusal(path)
    assert_same(read_features(path, choice=Choice(drop=("B",))), "A")
