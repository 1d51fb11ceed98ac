"""Routes a file of points: adds the code and name of the area that covers, for each layer.

Answers which areas cover millions of places, in constant memory. It promises the output whole or
not at all, that a run that was broken off can be resumed, and that no row goes missing unsaid: rows
that name no place are counted and written to a file of their own. It does not decide who is
responsible, which takes a category (`georouter.router`).

The output grows part by part in a hidden folder beside its place, with a journal of one line per
part that is whole and on the disk, and is renamed to its place in the end.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from itertools import chain, islice
from pathlib import Path
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import pyarrow as pa
from convertbng import cutil

from boundaries.dataset import Dataset
from boundaries.parts import BadRows, Parts, open_parts
from boundaries.tables import (
    BadRow,
    Batch,
    BulkConflictError,
    BulkError,
    BulkNotFoundError,
    Ints,
    Table,
    appending,
    fits_csv,
    format_of,
    open_table,
)
from georouter.index import Index

Progress = Callable[[str, float], None]
Floats = npt.NDArray[np.float64]

BATCH_ROWS: Final = 1 << 18
PART_BATCHES: Final = 8  # two million rows: what is done again when a run is broken off
_PLACES: Final = (
    (("lon", "longitude"), ("lat", "latitude"), False),
    (("easting",), ("northing",), True),
)
_NUMBER: Final = re.compile(rb"\s*[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?\s*")
_SHOWN: Final = 60  # characters of a bad value


@dataclass(frozen=True, slots=True)
class Summary:
    """What became of the input's rows: `rows == routed + uncovered + bad`.

    `routed` rows are covered by an area of at least one layer asked, `uncovered` ones by none; both
    are in the output. The bad ones are in `bad_file`, which is None where there are none.
    """

    rows: int
    routed: int
    uncovered: int
    bad: int
    bad_file: Path | None


def route_file(
    source: Path,
    out: Path,
    dataset: Dataset,
    *,
    layers: Sequence[str] = (),
    fields: tuple[str, str] | None = None,
    bad: Path | None = None,
    resume: bool = False,
    batch_rows: int = BATCH_ROWS,
    say: Callable[[str], None] = lambda _text: None,
    progress: Progress = lambda _stage, _share: None,
) -> Summary:
    """Write `out`: the columns of `source` and, per layer, `<layer>_code` and `<layer>_name`.

    `layers` are those of the dataset, all by default; `fields` the columns with longitude and
    latitude, by default found by their names. Where several areas cover a point the first counts,
    as in `Index.covering_many`; where none does, code and name are null. The columns of a CSV stay
    the text that they are; only in Parquet its coordinates become numbers.

    `bad` takes the rows that name no place, by default OUT's stem with `.bad.csv`. `resume` goes on
    behind the last whole part of a run that was broken off, or starts. Raises `BulkError`, or
    `BulkConflictError` when `out`, `bad` or parts of another run are there already.
    """
    out_format = format_of(out)
    job = _plan(open_table(source, batch_rows=batch_rows), out_format, dataset, layers, fields)
    bad = out.with_name(out.name[: -len(out_format)] + ".bad.csv") if bad is None else bad
    if out.exists():
        raise BulkConflictError(f"{out} exists already; remove it or choose another --out")
    if bad.resolve() == out.resolve():
        raise BulkConflictError(f"{bad} is to be the output; choose another --bad")
    names = [one.layer for one in job.added]
    say(f"{source}: {job.place}; {', '.join(names)} of {dataset.version}")
    made_from = {
        "input": _fingerprint(source),
        "dataset": dataset.version,
        "choice of layers": names,
        "choice of columns": [job.place.x, job.place.y],
        "file of bad rows": str(bad.resolve()),
    }
    # Until glibc has seen a large block come back it returns freed memory to the system at once,
    # and each batch faults in all its pages anew, for a third of the time. So it is shown one.
    np.empty(30 << 20, np.uint8)
    with open_parts(out, BadRows(bad), made_from, resume=resume) as parts:
        if parts.done.rows:
            say(f"goes on after row {parts.done.rows}")
        _write_parts(parts, job, progress)
        parts.finish()
        done = parts.done
    return Summary(
        rows=done.rows,
        routed=done.rows - done.uncovered - done.bad,
        uncovered=done.uncovered,
        bad=done.bad,
        bad_file=bad if done.bad else None,
    )


def _write_parts(parts: Parts, job: _Job, progress: Progress) -> None:
    """Write what is not written yet."""
    done = parts.done.rows
    batches = (batch.after(done) for batch in job.table.batches() if batch.last > done)
    for first in batches:
        _write_part(parts, job, chain((first,), islice(batches, PART_BATCHES - 1)), progress)
    if not parts.done.bytes:  # no rows at all: the columns are still to be written
        _write_part(parts, job, (), progress)


def _write_part(parts: Parts, job: _Job, batches: Iterable[Batch], progress: Progress) -> None:
    rows, bad, uncovered = parts.done.rows, 0, 0
    with appending(parts.output, format_of(parts.out), job.schema) as append:
        for batch in batches:
            routed, wrong, missed = job.route(batch)
            if routed.num_rows:
                append(routed)
            parts.bad.write(wrong)
            rows, bad, uncovered = batch.last, bad + len(wrong), uncovered + missed
            progress(f"{rows:,} rows", batch.share)
    parts.add(rows=rows, bad=bad, uncovered=uncovered)


# --- what is asked -----------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Place:
    """The two columns that say where a row is, in degrees or on the British National Grid."""

    x: str
    y: str
    grid: bool

    def degrees(self, x: Floats, y: Floats) -> tuple[Floats, Floats]:
        """Longitude and latitude of what the columns hold; NaN off the grid."""
        lon, lat = cutil.convert_osgb36_to_ll(x, y) if self.grid else (x, y)
        return lon, lat

    def __str__(self) -> str:
        system = "British National Grid, by OSTN15" if self.grid else "WGS 84"
        return f"columns {self.x} and {self.y} ({system})"


@dataclass(frozen=True, slots=True)
class _Job:
    """What is to be done with each batch of a table, and the schema of what comes out."""

    table: Table
    place: Place
    index: Index
    added: tuple[_Added, ...]
    schema: Any

    def route(self, batch: Batch) -> tuple[Any, list[BadRow], int]:
        """The rows to write, all that are bad in ascending order, and how many are uncovered."""
        rows, place = batch.rows, self.place
        x, y = read_numbers(rows.column(place.x)), read_numbers(rows.column(place.y))
        lon, lat = place.degrees(x, y)
        good = (np.abs(lon) <= 180.0) & (np.abs(lat) <= 90.0)  # NaN is not
        bad = batch.bad
        if not good.all():
            bad = bad + _reasons(batch, place, x, y, np.nonzero(~good)[0])
            rows = rows.filter(pa.array(good))
            x, y, lon, lat = x[good], y[good], lon[good], lat[good]
        columns = dict(zip(rows.schema.names, rows.columns, strict=True))
        for name, values in ((place.x, x), (place.y, y)):
            if columns[name].type != self.schema.field(name).type:
                columns[name] = pa.array(values)
        covered = np.zeros(len(lon), bool)
        layers = [one.layer for one in self.added]
        found = self.index.covering_layers(lon, lat, layers=layers)
        for one, areas in zip(self.added, found, strict=True):
            covers, codes_and_names = one.columns(areas)
            covered |= covers
            columns.update(zip(one.names, codes_and_names, strict=True))
        routed = pa.record_batch(list(columns.values()), schema=self.schema)
        return routed, sorted(bad), int(np.count_nonzero(~covered))


def _plan(
    table: Table,
    out_format: str,
    dataset: Dataset,
    layers: Sequence[str],
    fields: tuple[str, str] | None,
) -> _Job:
    place = find_place(table, fields)
    added = tuple(_Added(dataset.index, name) for name in _layers(dataset, layers))
    schema = _schema(table, place, out_format, added)
    return _Job(table, place, dataset.index, added, schema)


def find_place(table: Table, fields: tuple[str, str] | None) -> Place:
    """The columns with the places of a table, found by their names if not given."""
    place = Place(*fields, grid=False) if fields else _place_by_name(table)
    for name in (place.x, place.y):
        if name not in table.schema.names:
            listed = ", ".join(table.schema.names)
            raise BulkError(f"{table.path} has no column {name!r}; its columns are: {listed}")
        kind = table.schema.field(name).type
        if not _is_text_or_number(kind):
            raise BulkError(f"{table.path}: column {name!r} is {kind}; it must hold numbers")
    return place


def _place_by_name(table: Table) -> Place:
    names = table.schema.names
    for x_names, y_names, grid in _PLACES:
        x = [name for name in names if name.strip().lower() in x_names]
        y = [name for name in names if name.strip().lower() in y_names]
        if x and y and len(x) + len(y) > 2:
            raise BulkError(
                f"{table.path} has several columns for the place: {', '.join(x + y)}; "
                "choose with --lon-field and --lat-field"
            )
        if x and y:
            return Place(x[0], y[0], grid)
    raise BulkError(
        f"{table.path} has neither columns lon and lat nor easting and northing; "
        f"name them with --lon-field and --lat-field; its columns are: {', '.join(names)}"
    )


def _is_text_or_number(kind: Any) -> bool:
    of = pa.types
    kind = kind.value_type if of.is_dictionary(kind) else kind
    number = of.is_integer(kind) or of.is_floating(kind) or of.is_decimal(kind)
    return bool(number or of.is_string(kind) or of.is_large_string(kind) or of.is_null(kind))


def _layers(dataset: Dataset, wanted: Sequence[str]) -> list[str]:
    have = [layer.name for layer in dataset.index.layers]
    for name in wanted:
        if name not in have:
            raise BulkNotFoundError(
                f"dataset {dataset.version} has no layer {name!r}; it has {', '.join(have)}"
            )
    return list(dict.fromkeys(wanted)) or have


def _schema(table: Table, place: Place, out_format: str, added: Sequence[_Added]) -> Any:
    """The columns of the output, and their types."""
    schema = table.schema
    names = [name for one in added for name in one.names]
    if taken := [name for name in names if name in schema.names]:
        raise BulkError(f"{table.path} has a column {taken[0]!r} already; rename or remove it")
    if out_format != ".parquet":
        for field in schema:
            if not fits_csv(field.type):
                raise BulkError(
                    f"{table.path}: column {field.name!r} is {field.type}, which CSV cannot hold; "
                    "remove it or write Parquet"
                )
    elif table.format != ".parquet":
        for name in (place.x, place.y):
            schema = schema.set(schema.get_field_index(name), pa.field(name, pa.float64()))
    for name in names:
        schema = schema.append(pa.field(name, pa.dictionary(pa.int32(), pa.string())))
    return schema


def _fingerprint(path: Path) -> str:
    """What tells that a file is still the same one: its size, its time, and how it begins."""
    stat = path.stat()
    with path.open("rb") as file:
        begins = hashlib.sha256(file.read(1 << 20)).hexdigest()
    return f"{stat.st_size} bytes, modified {stat.st_mtime_ns}, sha256 {begins}"


# --- routing -----------------------------------------------------------------------------------


class _Added:
    """The two columns that a layer adds, dictionary-encoded."""

    def __init__(self, index: Index, layer: str) -> None:
        self.layer = layer
        self.names = (f"{layer}_code", f"{layer}_name")
        found = next(known for known in index.layers if known.name == layer)
        areas = index.areas[found.first : found.stop]
        self._first = found.first
        self._code = _dictionary([area.code for area in areas])
        self._name = _dictionary([area.name for area in areas])

    def columns(self, found: npt.NDArray[np.int32]) -> tuple[npt.NDArray[np.bool_], list[Any]]:
        """Which points are covered, and the columns of code and name, from areas' positions."""
        nothing = found < 0
        at = np.where(nothing, 0, found - self._first)
        return ~nothing, [
            pa.DictionaryArray.from_arrays(
                pa.array(positions[at], mask=nothing), values, safe=False
            )
            for values, positions in (self._code, self._name)
        ]


def _dictionary(values: list[str]) -> tuple[Any, npt.NDArray[np.int32]]:
    """The different values, as different areas may have one name, and the position of each."""
    positions = {value: n for n, value in enumerate(dict.fromkeys(values))}
    return (
        pa.array(list(positions), pa.string()),
        np.array([positions[value] for value in values], np.int32),
    )


def read_numbers(column: Any) -> Floats:
    """A column of numbers or text as numbers; NaN where there is none."""
    if pa.types.is_dictionary(column.type):
        column = column.dictionary_decode()
    try:
        numbers = column.cast(pa.float64(), safe=False)
    except pa.ArrowInvalid:  # some text is no number, or has blanks around it
        found = (None if text is None else _number(text) for text in _bytes(column))
        numbers = pa.array(found, pa.float64())
    return np.asarray(numbers.fill_null(np.nan).to_numpy(zero_copy_only=False))


def _bytes(column: Any) -> list[bytes | None]:
    found: list[bytes | None] = column.cast(pa.large_binary()).to_pylist()
    return found


def _number(text: bytes) -> float | None:
    return float(text) if _NUMBER.fullmatch(text) else None


def _reasons(batch: Batch, place: Place, x: Floats, y: Floats, at: Ints) -> list[BadRow]:
    """What is wrong with the rows at these positions."""
    said = (batch.rows.column(name).take(pa.array(at)).to_pylist() for name in (place.x, place.y))
    return [
        (row, _reason(place, (x_said, float(x_is)), (y_said, float(y_is))))
        for row, x_said, y_said, x_is, y_is in zip(
            batch.numbers[at].tolist(), *said, x[at], y[at], strict=True
        )
    ]


def _reason(place: Place, x: tuple[object, float], y: tuple[object, float]) -> str:
    for name, (said, number), limit in ((place.x, x, 180.0), (place.y, y, 90.0)):
        if said is None or not str(said).strip():
            return f"{name} is missing"
        if not np.isfinite(number):
            return f"{name} is not a number: {str(said)[:_SHOWN]}"
        if not place.grid and abs(number) > limit:
            return f"{name} is not between -{limit:g} and {limit:g}: {str(said)[:_SHOWN]}"
    return (
        f"{place.x} {x[1]:.10g}, {place.y} {y[1]:.10g} is outside the ground that OSTN15 covers "
        "(Great Britain and its waters)"
    )
