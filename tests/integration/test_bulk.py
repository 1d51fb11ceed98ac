"""Files of points are routed as the index says, whole or not at all, and no row goes missing."""

from __future__ import annotations

import csv
import gzip
import itertools
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import geopandas
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import shapely
from convertbng import cutil

from boundaries.build import build_dataset
from boundaries.bulk import PART_BATCHES, Summary, route_file
from boundaries.dataset import Dataset, open_dataset
from boundaries.sample import GOLDEN, layer_files
from boundaries.tables import BulkConflictError, BulkError, BulkNotFoundError
from georouter.index import Index
from scripts import cli
from tests.support.realdata import real_data

ROOT = Path(__file__).parents[2]
CITY = ("D06000001", "Hearthmere")
LAYERS = ("highway", "district")
ADDED = [f"{layer}_{what}" for layer in LAYERS for what in ("code", "name")]
FORMATS = (".csv", ".csv.gz", ".parquet")
Row = dict[str, Any]


def build(layers: dict[str, Path], out: Path) -> Path:
    build_dataset(layers, out, built_at=datetime(2027, 1, 15, tzinfo=UTC), proof_points=700)
    return out


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The example country as a dataset folder."""
    return build(layer_files(), tmp_path_factory.mktemp("datasets") / "doggerland")


@pytest.fixture(scope="module")
def dataset(folder: Path) -> Dataset:
    return open_dataset(folder)


@pytest.fixture(scope="module")
def london(tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    """One square where the National Grid is defined."""
    place = tmp_path_factory.mktemp("london")
    areas = geopandas.GeoDataFrame(
        {"code": ["L1"], "name": ["Square, the"]},
        geometry=[shapely.box(-0.2, 51.4, 0.0, 51.6)],
        crs="EPSG:4326",
    )
    areas.to_file(place / "square.geojson")
    return open_dataset(build({"square": place / "square.geojson"}, place / "dataset"))


def write(path: Path, columns: dict[str, Sequence[Any]]) -> Path:
    """A table in the format of its name; in CSV every value is as `str` shows it."""
    if path.suffix == ".parquet":
        pq.write_table(pa.table(dict(columns)), path)
        return path
    lines = [",".join(columns)]
    lines += [",".join(map(str, row)) for row in zip(*columns.values(), strict=True)]
    text = ("\n".join(lines) + "\n").encode()
    path.write_bytes(gzip.compress(text) if path.suffix == ".gz" else text)
    return path


def read(path: Path) -> list[Row]:
    """The rows of a table; what is empty in CSV is None."""
    if path.suffix == ".parquet":
        rows: list[Row] = pq.read_table(path).to_pylist()
        return rows
    with (gzip.open if path.suffix == ".gz" else open)(path, "rt", newline="") as file:
        return [
            {name: value or None for name, value in row.items()} for row in csv.DictReader(file)
        ]


def read_bad(path: Path) -> list[tuple[int, str]]:
    return [(int(str(row["row"])), str(row["reason"])) for row in read(path)]


def uniform(n: int, seed: int = 1) -> dict[str, Any]:
    random = np.random.default_rng(seed)
    return {
        "id": np.arange(n),
        "lon": random.uniform(1.5, 3.2, n),
        "lat": random.uniform(54.3, 55.2, n),
    }


def expected(index: Index, lon: float, lat: float) -> dict[str, str | None]:
    """What `covering` says, the first of each layer."""
    found: dict[str, str | None] = dict.fromkeys(ADDED)
    for hit in reversed(index.covering(lon=lon, lat=lat)):
        area = index.areas[hit]
        found |= {f"{area.layer}_code": area.code, f"{area.layer}_name": area.name}
    return found


# --- the answers --------------------------------------------------------------------------------


@pytest.mark.parametrize(("source", "out"), list(itertools.product(FORMATS, FORMATS)))
def test_the_golden_points_from_any_format_to_any(
    tmp_path: Path, dataset: Dataset, source: str, out: str
) -> None:
    with GOLDEN.open(encoding="utf-8", newline="") as file:
        golden = list(csv.DictReader(file))
    columns: dict[str, Sequence[Any]] = {
        "lon": [float(row["lon"]) for row in golden],
        "lat": [float(row["lat"]) for row in golden],
        "nr": range(len(golden)),
    }
    done = route_file(
        write(tmp_path / f"in{source}", columns), tmp_path / f"out{out}", dataset, batch_rows=7
    )
    rows = read(tmp_path / f"out{out}")
    assert list(rows[0]) == ["lon", "lat", "nr", *ADDED]
    for row, truth in zip(rows, golden, strict=True):
        for layer in LAYERS:
            assert row[f"{layer}_code"] == (truth[layer] or None), truth["note"]
        point = expected(dataset.index, float(truth["lon"]), float(truth["lat"]))
        assert {name: row[name] for name in ADDED} == point
        assert float(row["lon"]) == float(truth["lon"])
    at_sea = sum(not row["highway"] and not row["district"] for row in golden)
    assert at_sea
    assert done == Summary(len(golden), len(golden) - at_sea, at_sea, 0, None)
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted({f"in{source}", f"out{out}"})


def test_every_row_is_what_covering_says_borders_included(tmp_path: Path, dataset: Dataset) -> None:
    columns = uniform(20_000)
    corners = np.concatenate(
        [
            shapely.get_coordinates(np.asarray(geopandas.read_file(path).geometry))
            for path in layer_files().values()
        ]
    )[::5]
    columns["lon"][: len(corners)], columns["lat"][: len(corners)] = corners.T
    source = write(tmp_path / "in.parquet", columns)
    route_file(source, tmp_path / "out.parquet", dataset, batch_rows=1000)
    rows = read(tmp_path / "out.parquet")
    assert [row["id"] for row in rows] == list(range(20_000))
    for row in rows:
        assert {name: row[name] for name in ADDED} == expected(
            dataset.index, row["lon"], row["lat"]
        )


def test_the_columns_added_are_dictionaries_and_the_others_keep_their_types(
    tmp_path: Path, dataset: Dataset
) -> None:
    table = pa.table(
        {
            "when": pa.array([datetime(2027, 1, 1, tzinfo=UTC)] * 3, pa.timestamp("ms", "UTC")),
            "lon": pa.array([2.12] * 3, pa.float32()),
            "tags": pa.array([["a", "b"], [], None], pa.list_(pa.string())),
            "lat": pa.array(["54.71", " 54.71 ", "+54.71"], pa.large_string()),
        },
        metadata={"of": "the file"},
    )
    pq.write_table(table, tmp_path / "in.parquet")
    route_file(tmp_path / "in.parquet", tmp_path / "out.parquet", dataset, layers=["district"])
    routed = pq.read_table(tmp_path / "out.parquet")
    assert routed.select(table.schema.names).equals(table)
    assert routed.schema.metadata[b"of"] == b"the file"
    for name, value in zip(("district_code", "district_name"), CITY, strict=True):
        assert routed.schema.field(name).type == pa.dictionary(pa.int32(), pa.string())
        assert routed[name].to_pylist() == [value] * 3
    with pytest.raises(BulkError, match=r"'tags' is list.*write Parquet"):
        route_file(tmp_path / "in.parquet", tmp_path / "out.csv", dataset)


def test_a_csv_keeps_its_text(tmp_path: Path, dataset: Dataset) -> None:
    lines = [
        "\ufeffref,LON ,lat,what it is",
        '007,2.120,54.71,"a ""hole"", deep"',
        "1e5,2.12,5.471e1,",
        'NA, 2.12 ,54.71,"two\r\nlines, ""é"""',
    ]
    source = tmp_path / "in.csv"
    source.write_text("\n\n".join(lines) + "\n", encoding="utf-8", newline="")
    route_file(source, tmp_path / "out.csv", dataset, layers=["highway"])
    assert (tmp_path / "out.csv").read_bytes().decode() == "\n".join(
        [
            "ref,LON ,lat,what it is,highway_code,highway_name",
            *(f"{line},D06000001,Hearthmere" for line in lines[1:]),
            "",
        ]
    )
    route_file(source, tmp_path / "out.parquet", dataset, layers=["highway"])
    rows = read(tmp_path / "out.parquet")
    assert [row["ref"] for row in rows] == ["007", "1e5", "NA"]
    assert [row["what it is"] for row in rows] == ['a "hole", deep', None, 'two\r\nlines, "é"']
    assert {(row["LON "], row["lat"]) for row in rows} == {(2.12, 54.71)}


def test_names_with_commas_are_quoted(tmp_path: Path, london: Dataset) -> None:
    source = write(tmp_path / "in.csv", {"lat": [51.5, 51.5], "lon": [-0.1, 1.0]})
    route_file(source, tmp_path / "out.csv", london)
    assert (tmp_path / "out.csv").read_text().splitlines() == [
        "lat,lon,square_code,square_name",
        '51.5,-0.1,L1,"Square, the"',
        "51.5,1.0,,",
    ]


@pytest.mark.parametrize(
    ("names", "fields", "said"),
    [
        (("lon", "lat"), None, "lon and lat (WGS 84)"),
        (("LONGITUDE", "Latitude"), None, "LONGITUDE and Latitude (WGS 84)"),
        (("x", "y"), ("x", "y"), "x and y (WGS 84)"),
        (("Easting", "northing"), None, "Easting and northing (British National Grid, by OSTN15)"),
    ],
)
def test_the_columns_taken_are_said(
    tmp_path: Path,
    london: Dataset,
    names: tuple[str, str],
    fields: tuple[str, str] | None,
    said: str,
) -> None:
    grid = names[0] == "Easting"
    values = ((530_000, 180_000), (600_000, 180_000)) if grid else ((-0.1, 51.5), (1.0, 51.5))
    columns = dict(zip(names, zip(*values, strict=True), strict=True))
    heard: list[str] = []
    done = route_file(
        write(tmp_path / "in.parquet", columns),
        tmp_path / "out.parquet",
        london,
        fields=fields,
        say=heard.append,
    )
    assert said in heard[0]
    assert (done.routed, done.uncovered) == (1, 1)
    assert [row["square_code"] for row in read(tmp_path / "out.parquet")] == ["L1", None]


def test_degrees_come_before_the_grid(tmp_path: Path, london: Dataset) -> None:
    columns = {"easting": [1], "northing": [1], "lat": [51.5], "lon": [-0.1]}
    done = route_file(write(tmp_path / "in.csv", columns), tmp_path / "out.csv", london)
    assert (done.routed, done.bad) == (1, 0)


def test_the_grid_is_converted_by_ostn15(tmp_path: Path, london: Dataset) -> None:
    random = np.random.default_rng(3)
    easting, northing = random.uniform(520e3, 545e3, 5000), random.uniform(165e3, 190e3, 5000)
    source = write(tmp_path / "in.parquet", {"easting": easting, "northing": northing})
    route_file(source, tmp_path / "out.parquet", london)
    lon, lat = cutil.convert_osgb36_to_ll(easting, northing)
    inside = shapely.covers(shapely.box(-0.2, 51.4, 0.0, 51.6), shapely.points(lon, lat))
    assert 100 < inside.sum() < 4900
    found = [row["square_code"] == "L1" for row in read(tmp_path / "out.parquet")]
    assert found == inside.tolist()


@pytest.mark.realdata
def test_real_postcodes_agree_in_both_systems(tmp_path: Path) -> None:
    data = real_data()
    layers = {"district": data / "lad_2025_bgc.parquet"}
    dataset = open_dataset(build(layers, tmp_path / "dataset"))
    truth = read(data / "truth_postcodes_100k.csv.gz")
    codes = [row["district_code"] for row in truth]
    for names in (("lon", "lat"), ("easting", "northing")):
        columns = {name: [row[name] for row in truth] for name in names}
        source = write(tmp_path / f"{names[0]}.csv.gz", columns)
        out = tmp_path / f"{names[0]}.parquet"
        assert route_file(source, out, dataset).bad == 0
        routed = [row["district_code"] for row in read(out)]
        agree = sum(said == right for said, right in zip(routed, codes, strict=True))
        assert agree / len(codes) > 0.9997


# --- bad rows -----------------------------------------------------------------------------------


def test_bad_rows_of_every_kind_stop_nothing(tmp_path: Path, dataset: Dataset) -> None:
    lines: list[tuple[bytes, str | None]] = [
        (b"2.12,54.71,good", None),
        (b",54.71,a", "lon is missing"),
        (b"2.12,  ,a", "lat is missing"),
        (b"2.12,five,a", "lat is not a number: five"),
        (b'"2,12",54.71,a', "lon is not a number: 2,12"),
        (b"nan,54.71,a", "lon is not a number: nan"),
        (b"2.12,-inf,a", "lat is not a number: -inf"),
        (b"1_0,54.71,a", "lon is not a number: 1_0"),
        (b"180.5,54.71,a", "lon is not between -180 and 180: 180.5"),
        (b"2.12,1e999,a", "lat is not a number: 1e999"),
        (b"54.71,-90.0001,a", "lat is not between -90 and 90: -90.0001"),
        (b"2.12,54.71", "has 2 fields, not 3"),
        (b"2.12,54.71,a,b", "has 4 fields, not 3"),
        (b"alone", "has 1 fields, not 3"),
        (b"2.12,54.71,caf\xe9", "what is not UTF-8"),
        (b"2.12,54.71,good", None),
        (b"2.12", "has 1 fields, not 3"),
    ]
    source = tmp_path / "in.csv"
    source.write_bytes(b"\n".join([b"lon,lat,what", *(line for line, _ in lines)]) + b"\n")
    done = route_file(source, tmp_path / "out.csv", dataset, bad=tmp_path / "wrong.csv")
    wrong = [(row, reason) for row, (_, reason) in enumerate(lines, start=1) if reason]
    assert read_bad(tmp_path / "wrong.csv") == wrong
    assert done == Summary(len(lines), 2, 0, len(wrong), tmp_path / "wrong.csv")
    assert [row["what"] for row in read(tmp_path / "out.csv")] == ["good", "good"]


def test_bad_rows_of_parquet(tmp_path: Path, dataset: Dataset) -> None:
    lon = [2.12, None, float("nan"), float("inf"), 2.12, 181.0]
    lat = ["54.71", "54.71", "54.71", "54.71", None, "x"]
    source = write(tmp_path / "in.parquet", {"lon": lon, "lat": lat})
    done = route_file(source, tmp_path / "out.parquet", dataset)
    assert done.bad_file == tmp_path / "out.bad.csv"
    assert read_bad(tmp_path / "out.bad.csv") == [
        (2, "lon is missing"),
        (3, "lon is not a number: nan"),
        (4, "lon is not a number: inf"),
        (5, "lat is missing"),
        (6, "lon is not between -180 and 180: 181.0"),
    ]
    assert [row["highway_name"] for row in read(tmp_path / "out.parquet")] == ["Hearthmere"]


def test_off_the_national_grid_is_bad(tmp_path: Path, dataset: Dataset) -> None:
    columns = {"easting": [530_000, 5_000_000, 0], "northing": [180_000, 180_000, -1]}
    done = route_file(write(tmp_path / "in.csv", columns), tmp_path / "out.csv", dataset)
    assert (done.uncovered, done.bad) == (1, 2)
    assert [(row, reason[:63]) for row, reason in read_bad(tmp_path / "out.bad.csv")] == [
        (2, "easting 5000000, northing 180000 is outside the ground that OST"),
        (3, "easting 0, northing -1 is outside the ground that OSTN15 covers"),
    ]


@pytest.mark.parametrize("out", FORMATS)
def test_rows_that_are_all_bad(tmp_path: Path, dataset: Dataset, out: str) -> None:
    source = tmp_path / "in.csv"
    source.write_text("lon,lat,\n" + "2.12,54.71\n" * 50_000)  # the header has a field too many
    done = route_file(source, tmp_path / f"out{out}", dataset, batch_rows=1000)
    assert done == Summary(50_000, 0, 0, 50_000, tmp_path / "out.bad.csv")
    reason = "has 2 fields, not 3"
    assert read_bad(tmp_path / "out.bad.csv") == [(row, reason) for row in range(1, 50_001)]
    assert read(tmp_path / f"out{out}") == []


def test_row_numbers_count_every_row_over_many_blocks(tmp_path: Path, dataset: Dataset) -> None:
    random = np.random.default_rng(7)
    kinds = random.choice(3, 60_000, p=[0.7, 0.2, 0.1])
    kinds[20_000:30_000] = 1  # more than a block of them
    texts = ["2.12,54.71,{}", "2.12,54.71,{},too much", "x,54.71,{}"]
    lines = [texts[kind].format(n) for n, kind in enumerate(kinds, start=1)]
    source = tmp_path / "in.csv"
    source.write_text("lon,lat,nr\n" + "\n".join(lines))
    route_file(source, tmp_path / "out.csv", dataset, batch_rows=100)
    assert [int(row["nr"]) for row in read(tmp_path / "out.csv")] == [
        n for n, kind in enumerate(kinds, start=1) if kind == 0
    ]
    reasons = ["", "has 4 fields, not 3", "lon is not a number: x"]
    assert read_bad(tmp_path / "out.bad.csv") == [
        (n, reasons[kind]) for n, kind in enumerate(kinds, start=1) if kind
    ]


@pytest.mark.parametrize("out", FORMATS)
@pytest.mark.parametrize("source", ["in.csv", "line.csv", "in.csv.gz", "in.parquet"])
def test_no_rows_give_the_columns(tmp_path: Path, dataset: Dataset, source: str, out: str) -> None:
    path = tmp_path / source
    if source == "in.parquet":
        pq.write_table(pa.table({"lon": pa.array([], pa.float64()), "lat": pa.nulls(0)}), path)
    else:
        write(path, {"lon": [], "lat": []})
        if source == "line.csv":
            path.write_text("lon,lat")  # not even the end of the line
    done = route_file(path, tmp_path / f"out{out}", dataset)
    assert done == Summary(0, 0, 0, 0, None)
    names = ["lon", "lat", *ADDED]
    if out == ".parquet":
        assert pq.read_table(tmp_path / "out.parquet").schema.names == names
    else:
        with (gzip.open if out == ".csv.gz" else open)(tmp_path / f"out{out}", "rt") as file:
            assert file.read() == ",".join(names) + "\n"


# --- refusals -----------------------------------------------------------------------------------


def raw(name: str, content: bytes) -> Callable[[Path], Path]:
    def make(folder: Path) -> Path:
        (folder / name).write_bytes(content)
        return folder / name

    return make


def truncated(name: str) -> Callable[[Path], Path]:
    def make(folder: Path) -> Path:
        path = write(folder / name, uniform(50_000))
        path.write_bytes(path.read_bytes()[:-1000])
        return path

    return make


@pytest.mark.parametrize(
    ("make", "kind", "message"),
    [
        (lambda folder: folder / "no.csv", BulkNotFoundError, "no.csv does not exist"),
        (lambda folder: folder, BulkError, "unknown extension; use .csv.gz, .csv, .parquet"),
        (raw("in.csv", b""), BulkError, "is empty; it needs a line with the names"),
        (raw("in.csv", b"a;lon;lat\n1;2;3\n"), BulkError, "its columns are: a;lon;lat"),
        (raw("in.csv", b"lon,y\n1,2\n"), BulkError, "neither columns lon and lat nor easting"),
        (raw("in.csv", b"lon,lat,Longitude\n"), BulkError, "several columns for the place: lon"),
        (raw("in.csv", b"lon,lat,a,a\n"), BulkError, "has two columns 'a'"),
        (raw("in.csv", b"lon,lat,district_name\n"), BulkError, "'district_name' already"),
        (raw("in.csv", b"lon,lat,\xe9\n"), BulkError, "column names are not UTF-8"),
        (raw("in.csv", b'lon,lat\n"1,2\n' + b"3,4\n" * 99_999), BulkError, "cannot be read as csv"),
        (raw("in.csv.gz", b"lon,lat\n1,2\n"), BulkError, "cannot be read as csv.gz"),
        (raw("in.parquet", b"lon,lat\n1,2\n"), BulkError, "cannot be read as parquet"),
        (truncated("in.parquet"), BulkError, "cannot be read as parquet"),
        (truncated("in.csv.gz"), BulkError, "cannot be read as csv.gz"),
        (
            lambda folder: write(folder / "in.parquet", {"lon": [[1.0]], "lat": [1.0]}),
            BulkError,
            "column 'lon' is list<.*it must hold numbers",
        ),
    ],
)
def test_what_cannot_be_routed_is_refused_in_a_line_and_leaves_nothing(
    tmp_path: Path,
    dataset: Dataset,
    make: Callable[[Path], Path],
    kind: type[Exception],
    message: str,
) -> None:
    source = make(tmp_path)
    before = sorted(tmp_path.iterdir())
    with pytest.raises(kind, match=message) as refused:
        route_file(source, tmp_path / "out.csv", dataset)
    assert "\n" not in str(refused.value)
    assert sorted(tmp_path.iterdir()) == before


def test_what_does_not_exist_is_named(tmp_path: Path, dataset: Dataset) -> None:
    source = write(tmp_path / "in.csv", {"lon": [1], "lat": [1]})
    with pytest.raises(BulkNotFoundError, match="no layer 'ward'; it has highway, district"):
        route_file(source, tmp_path / "out.csv", dataset, layers=["ward"])
    with pytest.raises(BulkError, match="no column 'x'; its columns are: lon, lat"):
        route_file(source, tmp_path / "out.csv", dataset, fields=("lon", "x"))
    with pytest.raises(BulkError, match="xlsx has an unknown extension"):
        route_file(source, tmp_path / "out.xlsx", dataset)
    (tmp_path / "file").touch()
    with pytest.raises(BulkError, match="cannot be written"):
        route_file(source, tmp_path / "file" / "out.csv", dataset)


def test_what_is_there_is_not_overwritten(tmp_path: Path, dataset: Dataset) -> None:
    source = write(tmp_path / "in.csv", {"lon": [1, "x"], "lat": [1, 1]})
    out, bad = tmp_path / "out.csv", tmp_path / "out.bad.csv"
    for taken in (out, bad):
        taken.write_text("mine")
        for resume in (False, True):
            with pytest.raises(BulkConflictError, match=f"{taken.name} exists already"):
                route_file(source, out, dataset, resume=resume)
        assert taken.read_text() == "mine"
        taken.unlink()
    for other in (out, source):
        with pytest.raises(BulkConflictError):
            route_file(source, out, dataset, bad=other)
    assert list(tmp_path.iterdir()) == [source]


# --- broken off, and resumed ----------------------------------------------------------------------

KILLED = """
import os, signal, sys
from pathlib import Path
from boundaries.bulk import route_file
from boundaries.dataset import open_dataset
source, out, dataset, calls = sys.argv[1:]
left = int(calls)
def progress(stage, share):
    global left
    left -= 1
    if not left:
        os.kill(os.getpid(), signal.SIGKILL)
route_file(Path(source), Path(out), open_dataset(Path(dataset)), batch_rows=500, progress=progress)
"""


def kill(source: Path, out: Path, folder: Path, *, batches: int) -> None:
    """Route in a process of its own, which is killed after some batches."""
    command = [sys.executable, "-c", KILLED, str(source), str(out), str(folder), str(batches)]
    done = subprocess.run(command, cwd=ROOT, check=False)
    assert done.returncode == -signal.SIGKILL


def mixed(path: Path) -> Path:
    """Points of which some are bad, enough for several parts."""
    columns = uniform(PART_BATCHES * 500 * 3 + 100)
    if path.suffix == ".parquet":
        columns["lon"][::97] = np.nan
        return write(path, columns)
    columns = uniform(60_000)  # a block of CSV is not as small
    lons = [("", "x", lon, f"{lon},1")[n % 4 if n % 97 == 0 else 2] for n, lon in
            enumerate(columns["lon"])]  # fmt: skip
    return write(path, {**columns, "lon": lons, "note": ["to make it longer"] * 60_000})


@pytest.mark.parametrize("kind", ["in.csv out.csv", "in.csv out.csv.gz", "in.csv.gz out.parquet",
                                  "in.parquet out.parquet", "in.parquet out.csv"])  # fmt: skip
def test_a_killed_run_resumes_to_the_same_bytes(
    tmp_path: Path, folder: Path, dataset: Dataset, kind: str
) -> None:
    source, out = (tmp_path / name for name in kind.split())
    mixed(source)
    bad, parts = tmp_path / "out.bad.csv", tmp_path / f".{out.name}.parts"
    kill(source, out, folder, batches=PART_BATCHES + 3)  # behind the first part
    assert not out.exists()
    with pytest.raises(BulkConflictError, match=r"--resume, or remove \S+\.parts and \S+bad.csv$"):
        route_file(source, out, dataset, batch_rows=500)
    heard: list[str] = []
    shares: list[float] = []
    done = route_file(
        source,
        out,
        dataset,
        batch_rows=500,
        resume=True,
        say=heard.append,
        progress=lambda _stage, share: shares.append(share),
    )
    assert "goes on after row" in heard[-1]
    assert shares == sorted(shares)
    assert shares[-1] == 1.0
    assert not parts.exists()
    whole = tmp_path / f"whole{''.join(out.suffixes)}"
    assert route_file(source, whole, dataset, batch_rows=500).rows == done.rows
    assert out.read_bytes() == whole.read_bytes()
    assert bad.read_bytes() == (tmp_path / "whole.bad.csv").read_bytes()
    assert done.bad == len(read_bad(bad)) > 0
    assert done.rows == done.routed + done.uncovered + done.bad == len(read(out)) + done.bad


@pytest.mark.parametrize("kind", ["in.csv out.csv", "in.parquet out.parquet"])
def test_a_run_may_be_resumed_with_other_batches(
    tmp_path: Path, folder: Path, dataset: Dataset, kind: str
) -> None:
    source, out = (tmp_path / name for name in kind.split())
    mixed(source)
    kill(source, out, folder, batches=PART_BATCHES + 1)
    route_file(source, out, dataset, batch_rows=3001, resume=True)
    whole = tmp_path / f"whole{out.suffix}"
    route_file(source, whole, dataset)
    assert read(out) == read(whole)
    assert (tmp_path / "out.bad.csv").read_bytes() == (tmp_path / "whole.bad.csv").read_bytes()


@pytest.mark.parametrize("batches", [1, PART_BATCHES, PART_BATCHES + 1, 3 * PART_BATCHES + 1])
def test_it_does_not_matter_where_it_is_killed(
    tmp_path: Path, folder: Path, dataset: Dataset, batches: int
) -> None:
    source, out = mixed(tmp_path / "in.parquet"), tmp_path / "out.parquet"
    kill(source, out, folder, batches=batches)
    assert not out.exists()
    route_file(source, out, dataset, batch_rows=500, resume=True)
    route_file(source, tmp_path / "whole.parquet", dataset, batch_rows=500)
    assert out.read_bytes() == (tmp_path / "whole.parquet").read_bytes()
    assert (tmp_path / "out.bad.csv").read_bytes() == (tmp_path / "whole.bad.csv").read_bytes()


def test_parquet_of_several_parts_is_one_table(tmp_path: Path, dataset: Dataset) -> None:
    source = write(tmp_path / "in.parquet", uniform(10_000))
    route_file(source, tmp_path / "out.parquet", dataset, batch_rows=500)
    route_file(source, tmp_path / "one.parquet", dataset)
    with pq.ParquetFile(tmp_path / "out.parquet") as file:
        assert file.metadata.num_row_groups == 20
        groups = [file.read_row_group(n) for n in range(20)]
    table = pq.read_table(tmp_path / "out.parquet")
    table.validate(full=True)
    assert table.equals(pq.read_table(tmp_path / "one.parquet"))
    assert pa.concat_tables(groups).to_pylist() == table.to_pylist()
    assert [row["id"] for row in read(tmp_path / "out.parquet")] == list(range(10_000))


class Stop:
    """A progress that interrupts after some batches."""

    def __init__(self, batches: int) -> None:
        self.left = batches

    def __call__(self, _stage: str, _share: float) -> None:
        self.left -= 1
        if not self.left:
            raise KeyboardInterrupt


def interrupt(source: Path, out: Path, dataset: Dataset, *, batches: int, **options: Any) -> None:
    with pytest.raises(KeyboardInterrupt):
        route_file(source, out, dataset, batch_rows=500, progress=Stop(batches), **options)


def test_ctrl_c_leaves_no_output_and_before_the_first_part_nothing(
    tmp_path: Path, dataset: Dataset
) -> None:
    source, out = mixed(tmp_path / "in.parquet"), tmp_path / "out.parquet"
    interrupt(source, out, dataset, batches=PART_BATCHES - 1)
    assert list(tmp_path.iterdir()) == [source]
    interrupt(source, out, dataset, batches=PART_BATCHES + 1)
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        ".out.parquet.parts",
        "in.parquet",
        "out.bad.csv",
    ]
    interrupt(source, out, dataset, batches=PART_BATCHES + 1, resume=True)
    assert not out.exists()
    done = route_file(source, out, dataset, batch_rows=500, resume=True)
    assert done.rows == 12_100


def test_only_the_same_run_is_resumed(
    tmp_path: Path, dataset: Dataset, london: Dataset, folder: Path
) -> None:
    source, out = mixed(tmp_path / "in.parquet"), tmp_path / "out.parquet"
    interrupt(source, out, dataset, batches=PART_BATCHES + 1)

    def refused(message: str, of: Dataset = dataset, **options: Any) -> None:
        with pytest.raises(BulkConflictError, match=message):
            route_file(source, out, of, **{"resume": True, "batch_rows": 500, **options})

    renamed = Dataset("other-12345678", dataset.manifest, dataset.index)
    refused("another dataset: doggerland-[0-9a-f]{8}, not other-12345678", renamed)
    refused("another dataset", london)
    refused(r"another choice of layers: \['highway', 'district'\], not \['district'\]",
            layers=["district"])  # fmt: skip
    refused(r"another choice of columns: \['lon', 'lat'\], not \['lat', 'lon'\]",
            fields=("lat", "lon"))  # fmt: skip
    refused("another file of bad rows", bad=tmp_path / "other.csv")
    stat = source.stat()
    os.utime(source, ns=(stat.st_atime_ns, stat.st_mtime_ns + 1))
    refused("another input: ")
    os.utime(source, ns=(stat.st_atime_ns, stat.st_mtime_ns))
    bad = tmp_path / "out.bad.csv"
    content = bad.read_bytes()
    bad.write_bytes(content[:10])
    refused("out.bad.csv is not what the run left")
    bad.write_bytes(content)
    journal = tmp_path / ".out.parquet.parts" / "journal"
    lines = journal.read_bytes()
    journal.write_bytes(b"?\n" + lines)
    refused("is damaged; remove it")
    journal.write_bytes(lines + b'{"rows": 99')  # a line that was broken off does no harm
    assert route_file(source, out, open_dataset(folder), batch_rows=500, resume=True).rows == 12_100


def test_two_runs_do_not_write_to_one_place(tmp_path: Path, dataset: Dataset) -> None:
    source, out = mixed(tmp_path / "in.parquet"), tmp_path / "out.parquet"
    refused: list[str] = []

    def meanwhile(_stage: str, _share: float) -> None:
        for resume in (False, True):
            with pytest.raises(BulkConflictError) as conflict:
                route_file(source, out, dataset, batch_rows=500, resume=resume)
            refused.append(str(conflict.value))

    done = route_file(source, out, dataset, batch_rows=3000, progress=meanwhile)
    assert done.rows == 12_100
    assert "broken off, or that is still going on" in refused[0]
    assert "another run is writing" in refused[1]


def test_a_disk_that_fails_at_the_end_costs_nothing(
    tmp_path: Path, dataset: Dataset, monkeypatch: pytest.MonkeyPatch
) -> None:
    source, out = mixed(tmp_path / "in.parquet"), tmp_path / "out.parquet"

    def full(_self: Path, _target: Path) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patched:
        patched.setattr(Path, "rename", full)
        with pytest.raises(BulkError, match=r"cannot be written: .*No space left.*--resume"):
            route_file(source, out, dataset, batch_rows=500)
    calls: list[str] = []
    done = route_file(
        source, out, dataset, batch_rows=500, resume=True, progress=lambda *_: calls.append("")
    )
    assert (done.rows, calls) == (12_100, [])
    assert pq.read_table(out).num_rows == done.rows - done.bad


# --- the command --------------------------------------------------------------------------------


@pytest.fixture
def command(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], folder: Path
) -> Callable[..., tuple[int, str]]:
    """Runs `georouter route`; answers with its exit code and what it said on stderr."""

    def run(*arguments: object) -> tuple[int, str]:
        command = ["georouter", "route", "--dataset", str(folder), *map(str, arguments)]
        monkeypatch.setattr(sys, "argv", command)
        with pytest.raises(SystemExit) as ended:
            cli.main()
        captured = capsys.readouterr()
        assert captured.out == ""
        return int(ended.value.code or 0), captured.err.strip()

    return run


def test_the_command_says_what_became_of_the_rows(
    tmp_path: Path, command: Callable[..., tuple[int, str]]
) -> None:
    lons = [2.12] * 1200 + [1.5, "x"]
    source = write(tmp_path / "in.csv", {"lon": lons, "lat": [54.71] * 1202})
    out = tmp_path / "out.csv"
    code, said = command(source, "--out", out, "--layer", "district")
    assert code == 0
    assert f"{source}: columns lon and lat (WGS 84); district of doggerland-" in said
    assert said.endswith(
        f"{out}: 1,202 rows in, 1,200 routed, 1 uncovered, 1 bad (see {tmp_path / 'out.bad.csv'})"
    )
    assert read(out)[0] == dict(
        zip(("lon", "lat", "district_code", "district_name"), ("2.12", "54.71", *CITY), strict=True)
    )


def test_exit_codes(tmp_path: Path, command: Callable[..., tuple[int, str]]) -> None:
    source = write(tmp_path / "in.csv", {"x": [2.12], "y": [54.71]})
    out = tmp_path / "out.csv"
    fields = ("--lon-field", "x", "--lat-field", "y")
    assert command(source, "--out", out)[0] == 1
    code, said = command(source, "--out", out, *fields[:2])
    assert (code, said) == (2, "georouter: --lon-field and --lat-field go together")
    assert command(tmp_path / "no.csv", "--out", out)[0] == 4
    assert command(source, "--out", out, *fields, "--layer", "ward")[0] == 4
    assert command(source, "--out", out, *fields, "--resume")[0] == 0
    code, said = command(source, "--out", out, *fields)
    assert code == 5
    assert said.endswith(f"georouter: {out} exists already; remove it or choose another --out")


def test_ctrl_c_says_how_to_go_on(
    tmp_path: Path, command: Callable[..., tuple[int, str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupted(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("boundaries.bulk.route_file", interrupted)
    code, said = command(tmp_path / "in.csv", "--out", tmp_path / "out.csv")
    assert code == 130
    assert said.startswith("interrupted; --resume goes on")
