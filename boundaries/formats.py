"""Opens boundary files of every format: their rows with all fields, as they are in the file.

Promises every row or a `SourceError` in one line. Where GDAL would pass over a broken row in
silence (sequences of GeoJSON, CSV) the file is read here, row by row. It takes nothing to another
reference system and knows no codes; `readers` does.
"""

from __future__ import annotations

import codecs
import csv
import hashlib
import io
import json
import re
import sys
import warnings
import zipfile
import zlib
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any, Final, NamedTuple

from boundaries.errors import SourceError, SourceNotFoundError, UnclosedRingError

BEST_ACCURACY_M: Final = 0.1
"""What a transformation to WGS 84 may be wrong by, unless more is accepted."""

_ARC_STEP_DEGREES: Final = "0.1"  # arcs become chords; they part by 4 mm on a radius of 10 km
_SHAPEFILE: Final = (".cpg", ".dbf", ".prj", ".shp", ".shx")
_WKT_COLUMN: Final = re.compile(r"wkt|geometry|geom|the_geom|shape", re.IGNORECASE)
_EWKT: Final = re.compile(r"\s*SRID=(\d+);", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class Reading:
    """What a file does not say itself, or says wrongly.

    `crs` is the reference system that its coordinates are in, whatever it says; `layer_in_file`
    picks one of several; `encoding` is that of its text. A transformation to WGS 84 may be wrong by
    `accept_accuracy_m` metres. With `sha256` it must be that very file.
    """

    crs: str | None = None
    layer_in_file: str | None = None
    encoding: str | None = None
    accept_accuracy_m: float = BEST_ACCURACY_M
    sha256: str | None = None


AS_IT_SAYS: Final = Reading()


class Opened(NamedTuple):
    """The rows of a file as a geopandas frame, and what was found out on the way."""

    frame: Any
    notes: dict[str, Any]


def open_rows(path: Path, reading: Reading = AS_IT_SAYS) -> Opened:
    """All rows of a file. Raises `SourceError`."""
    if not path.is_file():
        raise SourceNotFoundError(f"{path} does not exist or is no file")
    known = _FORMATS.get(path.suffix.lower())
    if known is None:
        raise SourceError(
            f"{path} cannot be read as what its name says; files end with {', '.join(_FORMATS)}"
        )
    frame, notes = known.read(path, reading, known.name)
    if not hasattr(frame, "geometry") or not len(frame):
        raise SourceError(f"{path} holds no features with a geometry")
    return Opened(frame, notes)


def digest(path: Path) -> str:
    """The sha256 of a file; of a Shapefile, of its parts one after the other, as `cat` has them."""
    parts = [path]
    if path.suffix.lower() == ".shp":
        parts = sorted(part for part in _parts(path) if part.suffix.lower() in _SHAPEFILE)
    found = hashlib.sha256()
    try:
        for part in parts:
            with part.open("rb") as file:
                while block := file.read(1 << 20):
                    found.update(block)
    except OSError as error:
        raise SourceError(f"{path} cannot be read: {error.strerror}; see to it") from None
    return found.hexdigest()


@contextmanager
def _reading_as(name: str, path: Path) -> Iterator[None]:
    """Turn what readers raise of a file's content into `SourceError`."""
    import pyarrow as pa
    from shapely.errors import GEOSException, ShapelyError

    try:
        yield
    except NotImplementedError:
        raise SourceError(
            f"{path} cannot be read as {name}: it has curves; make them lines, e.g. with "
            "`ogr2ogr -nlt CONVERT_TO_LINEAR`"
        ) from None
    except UnicodeDecodeError as error:
        raise SourceError(
            f"{path} cannot be read as {name}: its text is no {error.encoding}; "
            "say its encoding, or convert it to UTF-8"
        ) from None
    except GEOSException as error:
        if "LinearRing" not in str(error):
            raise SourceError(f"{path} cannot be read as {name}: {_one_line(error)}") from None
        # not closed, or too short: the one kind of polygon that GEOS refuses to hold
        raise UnclosedRingError(
            f"{path} has a ring that is not closed or has too few points: {_one_line(error)}; "
            "close it, e.g. with `ogr2ogr -makevalid`"
        ) from None
    # pyogrio: RuntimeError, and IndexError of files that end early; geopandas: ValueError
    except (
        pa.ArrowException,
        ShapelyError,
        RuntimeError,
        IndexError,
        ValueError,
        OSError,
        csv.Error,
        zipfile.BadZipFile,
        zlib.error,
    ) as error:
        raise SourceError(f"{path} cannot be read as {name}: {_one_line(error)}") from None


# --- GeoParquet -----------------------------------------------------------------------------------


def _parquet(path: Path, _: Reading, name: str) -> Opened:
    import geopandas
    import pyarrow as pa

    with _reading_as(name, path):
        frame = geopandas.read_parquet(path)
    pa.default_memory_pool().release_unused()  # Arrow keeps as much as the file was large
    return Opened(frame, {})


# --- what GDAL reads ------------------------------------------------------------------------------


class _Layer(NamedTuple):
    """A layer with geometries: where GDAL finds it, and what it may be called."""

    dataset: str
    layer: str | None
    called: tuple[str, ...]


def _gdal(path: Path, reading: Reading, name: str) -> Opened:
    return _layer(path, reading, name, _layers(path, str(path), name))


def _zip(path: Path, reading: Reading, name: str) -> Opened:
    with _reading_as(name, path), zipfile.ZipFile(path) as archive:
        if broken := archive.testzip():  # GDAL would not look at the check sums
            raise SourceError(f"{path} cannot be read as {name}: {broken} in it is damaged")
        members = [
            PurePosixPath(member)
            for member in archive.namelist()
            if PurePosixPath(member).suffix.lower() in _ZIPPED and not member.startswith("__MACOSX")
        ]
        encodings = {
            str(PurePosixPath(member).with_suffix("")): archive.read(member)
            for member in archive.namelist()
            if member.lower().endswith(".cpg")
        }
    layers: list[_Layer] = []
    for member in members:
        inside = _layers(Path(member), f"/vsizip/{{{path.resolve()}}}/{member}", name, path)
        for one in inside:
            alone = (str(member), member.name) if len(inside) == 1 else ()
            full = () if len(members) == 1 else (f"{member}:{one.layer or member.stem}",)
            layers.append(one._replace(called=(*alone, *full, *one.called)))
    if not layers:
        raise SourceError(f"{path} holds none of {', '.join(_ZIPPED)}")
    return _layer(path, reading, name, layers, encodings)


def _layers(file: Path, dataset: str, name: str, path: Path | None = None) -> list[_Layer]:
    """The layers with geometries of a file, which may lie in the archive `path`."""
    import pyogrio

    if file.suffix.lower() not in {".gpkg", ".kml", ".kmz"}:  # the others have one
        return [_Layer(dataset, None, (file.stem,))]
    with _reading_as(name, path or file):
        found = pyogrio.list_layers(dataset).tolist()
    return [_Layer(dataset, layer, (layer,)) for layer, kind in found if kind is not None]


def _layer(
    path: Path,
    reading: Reading,
    name: str,
    layers: Sequence[_Layer],
    encodings: dict[str, bytes] | None = None,
) -> Opened:
    """Read the layer that is wanted; it must be clear which."""
    wanted = reading.layer_in_file
    found = [one for one in layers if wanted is None or wanted in one.called]
    if len(found) != 1:
        listed = ", ".join(one.called[0] for one in layers) or "none"
        fault = f"has no layer {wanted!r}" if wanted and not found else "has several layers"
        if layers:
            raise SourceError(f"{path} {fault}; choose --layer-in-file from: {listed}")
        raise SourceError(f"{path} holds no features with a geometry")
    notes = {"layer_in_file": found[0].called[0]} if len(layers) > 1 else {}
    dataset = found[0].dataset
    if dataset.lower().endswith(".shp"):
        return _shapefile(path, reading, name, found[0], notes, encodings)
    return _with_gdal(path, name, found[0], notes, reading.encoding)


def _shapefile(
    path: Path,
    reading: Reading,
    name: str,
    layer: _Layer,
    notes: dict[str, Any],
    encodings: dict[str, bytes] | None,
) -> Opened:
    """Its text is in the encoding told, else that of the .cpg, else UTF-8, else Windows-1252.

    GDAL takes Latin-1 where it does not know the encoding, and says nothing.
    """
    if encodings is None:
        said = next((p for p in _parts(path) if p.suffix.lower() == ".cpg"), None)
        label = said.read_bytes() if said else None
    else:
        member = layer.dataset.partition("}/")[2]
        label = encodings.get(str(PurePosixPath(member).with_suffix("")))
    encoding = reading.encoding or (label and _code_page(path, label))
    if encoding:
        return _with_gdal(path, name, layer, {**notes, "encoding": encoding}, encoding)
    try:
        return _with_gdal(path, name, layer, {**notes, "encoding": "utf-8"}, "utf-8")
    except SourceError as error:
        if "its text is no utf-8" not in str(error):
            raise
    return _with_gdal(path, name, layer, {**notes, "encoding": "cp1252"}, "cp1252")


def _parts(path: Path) -> list[Path]:
    return [part for part in path.parent.iterdir() if part.stem == path.stem]


def _code_page(path: Path, label: bytes) -> str:
    """The encoding that a .cpg names: UTF-8, 1252, ANSI 1252, OEM 850, 88591, ISO-8859-1, ..."""
    text = label.decode("ascii", "replace").strip()
    number = re.sub(r"^(ANSI|OEM|CP|WINDOWS-)\s*", "", text, flags=re.IGNORECASE)
    latin = re.fullmatch(r"(?:ISO[ -]?)?8859-?(\d+)", number, re.IGNORECASE)
    for candidate in (f"iso8859-{latin[1]}" if latin else "", f"cp{number}", number):
        try:
            return codecs.lookup(candidate).name
        except LookupError:
            continue
    raise SourceError(f"{path}: its .cpg names the unknown encoding {text!r}; say the encoding")


def _with_gdal(
    path: Path, name: str, layer: _Layer, notes: dict[str, Any], encoding: str | None
) -> Opened:
    import pyogrio

    pyogrio.set_gdal_config_options({"OGR_ARC_STEPSIZE": _ARC_STEP_DEGREES})
    with _reading_as(name, path), warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        frame = pyogrio.read_dataframe(layer.dataset, layer=layer.layer, encoding=encoding)
        if not layer.dataset.lower().endswith("json"):  # its rows cannot go missing, and it is slow
            told = pyogrio.read_info(layer.dataset, layer=layer.layer, encoding=encoding)
            if 0 <= told["features"] != len(frame):
                raise SourceError(
                    f"{path} cannot be read as {name}: it says that it has {told['features']} "
                    f"rows, but {len(frame)} could be read; get it again"
                )
    said = {_one_line(one.message) for one in caught if issubclass(one.category, RuntimeWarning)}
    return Opened(frame, {**notes, **({"warnings": sorted(said)} if said else {})})


# --- what is read here ----------------------------------------------------------------------------


def _sequence(path: Path, reading: Reading, name: str) -> Opened:
    """GeoJSON features one after the other, each on a line or after a record separator."""
    import geopandas
    import shapely

    text, _ = _text(path, reading.encoding or "utf-8-sig", name)
    marked = "\x1e" in text
    records = text.split("\x1e" if marked else "\n")
    rows, geometries = [], []
    for number, record in enumerate(records, start=0 if marked else 1):
        if not record.strip():
            continue
        where = f"{path}, {'record' if marked else 'line'} {number}"
        with _reading_as(name, Path(where)):
            read = json.loads(record)
            if not isinstance(read, dict) or read.get("type") != "Feature":
                raise SourceError(f"{where}: this is no GeoJSON feature; correct or remove it")
            rows.append(read.get("properties") or {})
            shape = read.get("geometry")
            geometries.append(shape and shapely.from_geojson(json.dumps(shape)))
    return Opened(geopandas.GeoDataFrame(rows, geometry=geometries, crs="EPSG:4326"), {})


def _csv(path: Path, reading: Reading, name: str) -> Opened:
    """A CSV with a column of WKT, with or without SRID=...; in front."""
    import geopandas
    import shapely

    text, encoding = _text(path, reading.encoding, name)
    limit = csv.field_size_limit(sys.maxsize)
    try:
        with _reading_as(name, path):
            header, *rows = [
                row for row in csv.reader(io.StringIO(text, newline=""), strict=True) if row
            ] or [[]]
    finally:
        csv.field_size_limit(limit)
    if twice := [column for column in header if header.count(column) > 1]:
        raise SourceError(f"{path} has two columns {twice[0]!r}; rename one")
    columns = [n for n, column in enumerate(header) if _WKT_COLUMN.fullmatch(column.strip())]
    if len(columns) != 1:
        raise SourceError(
            f"{path} has {'several columns' if columns else 'no column'} with geometry as WKT; "
            "one column must be called wkt, geometry or geom"
        )
    geometries, systems = [], set()
    for number, row in enumerate(rows, start=1):
        if len(row) != len(header):
            raise SourceError(
                f"{path}: row {number} has {len(row)} fields, not {len(header)}; correct it"
            )
        wkt = row[columns[0]]
        if srid := _EWKT.match(wkt):
            systems.add(f"EPSG:{srid[1]}")
            wkt = wkt[srid.end() :]
        with _reading_as(name, Path(f"{path}, row {number}")):
            geometries.append(shapely.from_wkt(wkt) if wkt.strip() else None)
    if len(systems) > 1 and not reading.crs:
        raise SourceError(
            f"{path} is in {' and '.join(sorted(systems))} at once; make a file of each"
        )
    fields = {
        column: [row[n] for row in rows] for n, column in enumerate(header) if n != columns[0]
    }
    with _reading_as(name, path):
        frame = geopandas.GeoDataFrame(fields, geometry=geometries, crs=next(iter(systems), None))
    return Opened(frame, {"encoding": encoding})


def _text(path: Path, encoding: str | None, name: str) -> tuple[str, str]:
    """A file's text and its encoding: the one told, else UTF-8, else Windows-1252."""
    data = path.read_bytes()
    with _reading_as(name, path):
        if encoding:
            try:
                return data.decode(encoding), encoding
            except LookupError:
                raise SourceError(f"{path}: there is no encoding {encoding!r}") from None
        try:
            return data.decode("utf-8-sig"), "utf-8"
        except UnicodeDecodeError:
            return data.decode("cp1252"), "cp1252"


def _one_line(error: object) -> str:
    return " ".join(str(error).split())[:200] or type(error).__name__


class _Format(NamedTuple):
    name: str
    read: Callable[[Path, Reading, str], Opened]


_SEQUENCE: Final = _Format("a sequence of GeoJSON features", _sequence)
_FORMATS: Final = {
    ".parquet": _Format("GeoParquet", _parquet),
    ".geoparquet": _Format("GeoParquet", _parquet),
    ".gpkg": _Format("GeoPackage", _gdal),
    ".geojson": _Format("GeoJSON", _gdal),
    ".json": _Format("GeoJSON", _gdal),
    ".geojsonl": _SEQUENCE,
    ".geojsons": _SEQUENCE,
    ".ndjson": _SEQUENCE,
    ".shp": _Format("Shapefile", _gdal),
    ".zip": _Format("a zip of boundary files", _zip),
    ".fgb": _Format("FlatGeobuf", _gdal),
    ".kml": _Format("KML", _gdal),
    ".kmz": _Format("KMZ", _gdal),
    ".csv": _Format("CSV with WKT", _csv),
}
_ZIPPED: Final = (".shp", ".gpkg", ".geojson", ".fgb", ".kml")
