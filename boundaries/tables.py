"""Tables of points as files: CSV and Parquet, read in batches and written in parts.

Promises constant memory, that the content of a CSV is read as the text that it is, and that lines
that fit no table are handed out as bad rows instead of ending the reading. What is appended at a
time (lines of CSV, a gzip member, some row groups of Parquet) is never copied again: at the end
Parquet gets one footer that lists all row groups. It knows nothing of places or routing.
"""

from __future__ import annotations

import csv
import dataclasses
import gzip
import io
import os
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv as pa_csv
import pyarrow.parquet as pq

Ints = npt.NDArray[np.int64]
BadRow = tuple[int, str]
"""An input row's number, from 1 without the header of a CSV, and what is wrong with the row."""

FORMATS: Final = (".csv.gz", ".csv", ".parquet")
_CSV_BYTES_PER_ROW: Final = 64  # CSV is read in blocks of bytes that hold about a batch


class BulkError(Exception):
    """A file that cannot be routed as it is; the message says what to do."""


class BulkNotFoundError(BulkError):
    """An input file or a layer that does not exist."""


class BulkConflictError(Exception):
    """A place to write to that is taken, or parts that belong to another run."""


def format_of(path: Path) -> str:
    """The one of `FORMATS` that a file's name ends with. Raises `BulkError`."""
    found = next((one for one in FORMATS if path.name.lower().endswith(one)), None)
    if found is None:
        raise BulkError(f"{path} has an unknown extension; use {', '.join(FORMATS)}")
    return found


@dataclass(frozen=True, slots=True)
class Table:
    """An input file: its columns as an Arrow schema, and how to read it."""

    path: Path
    format: str
    schema: Any
    batch_rows: int

    def batches(self) -> Iterator[Batch]:
        """All rows, in batches of about `batch_rows`. Raises `BulkError`."""
        return _read_parquet(self) if self.format == ".parquet" else _read_csv(self)


def open_table(path: Path, *, batch_rows: int) -> Table:
    """Look at a file's format and columns. Raises `BulkError`."""
    kind = format_of(path)
    if not path.is_file():
        raise BulkNotFoundError(f"{path} does not exist or is no file")
    with _reading(path):
        if kind == ".parquet":
            schema = pq.read_schema(path)
        else:
            schema = pa.schema([(name, pa.string()) for name in _csv_header(path)[0]])
    names = schema.names
    if twice := [name for name in names if names.count(name) > 1]:
        raise BulkError(f"{path} has two columns {twice[0]!r}; rename one")
    return Table(path, kind, schema, batch_rows)


# --- reading -----------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Batch:
    """Some rows of the input with their numbers, ascending, and rows that could not be read.

    With it all input rows up to `last` have been handed out; `share` is that of the whole file.
    """

    rows: Any
    numbers: Ints
    bad: list[BadRow]
    last: int
    share: float

    def after(self, row: int) -> Batch:
        """What of it comes after an input row."""
        first = int(np.searchsorted(self.numbers, row, side="right"))
        return dataclasses.replace(
            self,
            rows=self.rows.slice(first),
            numbers=self.numbers[first:],
            bad=[one for one in self.bad if one[0] > row],
        )


@contextmanager
def _reading(path: Path) -> Iterator[None]:
    """Turn what may go wrong with the content of a file into `BulkError`."""
    try:
        yield
    except (pa.ArrowException, OSError, EOFError, csv.Error) as error:
        raise BulkError(
            f"{path} cannot be read as {format_of(path)[1:]}: {one_line(error)}"
        ) from None


def _read_parquet(table: Table) -> Iterator[Batch]:
    done = 0
    # not pre-buffered, as that keeps every row group that was read
    with (
        _reading(table.path),
        pq.ParquetFile(table.path, pre_buffer=False, buffer_size=1 << 20) as file,
    ):
        total = file.metadata.num_rows
        for rows in file.iter_batches(batch_size=table.batch_rows):
            numbers = np.arange(done + 1, done + 1 + rows.num_rows)
            done += rows.num_rows
            yield Batch(rows, numbers, [], done, done / max(total, 1))


def _csv_header(path: Path) -> tuple[list[str], bool]:
    """The names of a CSV's columns, and whether any row follows them."""
    with (gzip.open if format_of(path) == ".csv.gz" else open)(
        path, "rt", encoding="utf-8-sig", errors="surrogateescape", newline=""
    ) as file:
        lines = (line for line in csv.reader(file) if line)
        names = next(lines, [])
        more = next(lines, None) is not None
    if not names:
        raise BulkError(f"{path} is empty; it needs a line with the names of its columns")
    try:
        "".join(names).encode()
    except UnicodeEncodeError:
        raise BulkError(f"{path}: its column names are not UTF-8; convert it to UTF-8") from None
    return names, more


def _read_csv(table: Table) -> Iterator[Batch]:
    wrong = _WrongRows(fields=len(table.schema))
    readable = 0
    with _reading(table.path), pa.OSFile(str(table.path)) as raw:
        zipped = table.format == ".csv.gz"
        stream = pa.CompressedInputStream(raw, "gzip") if zipped else raw
        _, more = _csv_header(table.path)
        for read in _csv_reader(stream, table, wrong) if more else ():
            if not read.num_rows:
                continue
            share = raw.tell() / raw.size()
            numbers = wrong.numbers(readable, read.num_rows)
            readable += read.num_rows
            yield from _unreadable(table, wrong.take(before=int(numbers[0])), share)
            last = int(numbers[-1])
            bad = list(wrong.take(before=last))
            rows, numbers, garbled = _decode(read, numbers)
            yield Batch(rows, numbers, bad + garbled, last, share)
    yield from _unreadable(table, wrong.take(), 1.0)


def _unreadable(table: Table, bad: Iterator[BadRow], share: float) -> Iterator[Batch]:
    """Bad rows alone, of which there may be any number between two that can be read."""
    nothing = pa.RecordBatch.from_pylist([], table.schema)
    while some := list(islice(bad, table.batch_rows)):
        yield Batch(nothing, np.empty(0, np.int64), some, some[-1][0], share)


def _csv_reader(stream: Any, table: Table, wrong: _WrongRows) -> Any:
    """The rows as bytes: nothing in them is guessed, and what is no text stops nothing."""
    names = table.schema.names
    reader = pa_csv.open_csv(
        stream,
        # threads would not count the rows
        read_options=pa_csv.ReadOptions(
            use_threads=False, block_size=max(1 << 16, table.batch_rows * _CSV_BYTES_PER_ROW)
        ),
        parse_options=pa_csv.ParseOptions(newlines_in_values=True, invalid_row_handler=wrong.note),
        convert_options=pa_csv.ConvertOptions(
            column_types=dict.fromkeys(names, pa.binary()),
            strings_can_be_null=True,
            null_values=[""],
        ),
    )
    if reader.schema.names != names:
        raise BulkError(f"{table.path}: its first line is no list of column names")
    return reader


class _WrongRows:
    """The rows of a CSV with too many or too few fields, which the parser leaves out.

    The parser runs some blocks ahead, in threads of its own. Rows that follow each other are kept
    as one run, because in a file whose header does not fit every row is wrong.
    """

    def __init__(self, *, fields: int) -> None:
        self._fields = fields
        self._runs: list[list[int]] = []  # first row, last row, fields that they have
        self._taken = 0
        self._lock = threading.Lock()

    def note(self, row: Any) -> str:
        """The parser's handler."""
        number = row.number - 1  # the header is row 1
        with self._lock:
            if self._runs and self._runs[-1][1:] == [number - 1, row.actual_columns]:
                self._runs[-1][1] = number
            else:
                self._runs.append([number, number, row.actual_columns])
        return "skip"

    def numbers(self, first: int, count: int) -> Ints:
        """The input row numbers of `count` readable rows of which `first` others come before."""
        readable = np.arange(first, first + count)
        left_out, before = [self._taken], []
        with self._lock:
            for start, stop, _ in self._runs:
                before.append(start - 1 - left_out[-1])
                left_out.append(left_out[-1] + stop - start + 1)
        passed = np.searchsorted(np.array(before, np.int64), readable, side="right")
        numbers: Ints = readable + 1 + np.array(left_out)[passed]
        return numbers

    def take(self, *, before: int | None = None) -> Iterator[BadRow]:
        """Those before an input row, or all that are left."""
        with self._lock:
            count = sum(before is None or run[0] < before for run in self._runs)
            runs, self._runs = self._runs[:count], self._runs[count:]
        self._taken += sum(stop - start + 1 for start, stop, _ in runs)
        return (
            (row, f"has {fields} fields, not {self._fields}")
            for start, stop, fields in runs
            for row in range(start, stop + 1)
        )


def _decode(rows: Any, numbers: Ints) -> tuple[Any, Ints, list[BadRow]]:
    """The rows as text, and those that are none."""
    text = pa.schema([(name, pa.string()) for name in rows.schema.names])
    try:
        return rows.cast(text), numbers, []
    except pa.ArrowInvalid:
        bad: dict[int, str] = {}
        for name, column in zip(rows.schema.names, rows.columns, strict=True):
            for n, value in enumerate(column.to_pylist()):
                if value is not None and not _is_utf8(value):
                    bad.setdefault(n, f"{name} is not UTF-8")
    good = np.ones(len(numbers), bool)
    good[list(bad)] = False
    reasons = [(int(numbers[n]), reason) for n, reason in bad.items()]
    return rows.filter(pa.array(good)).cast(text), numbers[good], reasons


def _is_utf8(value: bytes) -> bool:
    try:
        value.decode()
    except UnicodeDecodeError:
        return False
    return True


# --- writing -----------------------------------------------------------------------------------


def fits_csv(kind: Any) -> bool:
    """Whether CSV can hold values of an Arrow type."""
    of = pa.types
    kind = kind.value_type if of.is_dictionary(kind) else kind
    if of.is_binary(kind) or of.is_large_binary(kind) or of.is_fixed_size_binary(kind):
        return False
    try:
        pa.nulls(0, kind).cast(pa.large_string())
    except pa.ArrowException:
        return False
    return True


@contextmanager
def appending(output: Path, kind: str, schema: Any) -> Iterator[Callable[[Any], object]]:
    """A function that appends a batch to the output; what it appends in all is one part."""
    with pa.OSFile(str(output), "a") as file:
        if kind == ".parquet":
            # Arrow begins no Parquet file but at position 0, and a file open for appending is there
            # until its first write, which lands at the end. From then on positions are the file's.
            os.lseek(file.fileno(), 0, os.SEEK_SET)
            with pq.ParquetWriter(file, schema, **parquet_options(schema)) as writer:
                yield writer.write_batch
            return
        first = file.tell() == 0
        with pa.CompressedOutputStream(file, "gzip") if kind == ".csv.gz" else file as stream:
            if first:
                stream.write(_csv_lines([_cells(pa.array([name])) for name in schema.names]))
            yield lambda rows: stream.write(_csv_lines([_cells(column) for column in rows]))


def parquet_options(schema: Any) -> dict[str, Any]:
    """How Parquet is written: floats, such as coordinates, are too different for a dictionary."""
    return {
        "use_dictionary": [field.name for field in schema if not pa.types.is_floating(field.type)]
    }


def write_footer(output: Path, ends: Sequence[int]) -> None:
    """Add a footer that lists the row groups of all parts, each of which ends with its own."""
    with output.open("r+b") as file:
        footers = []
        for end in ends:
            file.seek(end - 8)
            size = int.from_bytes(file.read(4), "little")
            file.seek(end - 8 - size)
            footers.append(pq.read_metadata(pa.BufferReader(b"PAR1" + file.read(size + 8))))
        for footer in footers[1:]:
            footers[0].append_row_groups(footer)
        whole = io.BytesIO()
        footers[0].write_metadata_file(whole)
        file.seek(0, os.SEEK_END)
        file.write(whole.getvalue()[len(b"PAR1") :])


def _csv_lines(columns: Sequence[Any]) -> Any:
    """The lines of these columns' cells, as one buffer."""
    lines = pc.binary_join_element_wise(*columns, _text(","), null_handling="replace")
    ended = pc.binary_join_element_wise(lines, _text(""), _text("\n"))
    return ended.buffers()[2]


def _cells(column: Any) -> Any:
    """A column as text, in quotes where CSV needs them."""
    if pa.types.is_dictionary(column.type):
        return _cells(column.dictionary).take(column.indices)
    text = column.cast(pa.large_string())
    special = pc.match_substring_regex(text, '[",\r\n]')
    if not pc.any(special).as_py():
        return text
    quoted = pc.binary_join_element_wise(
        _text(""), pc.replace_substring(text, '"', '""'), _text(""), _text('"')
    )
    return pc.if_else(special, quoted, text)


def _text(value: str) -> Any:
    return pa.scalar(value, pa.large_string())


def one_line(error: Exception) -> str:
    """An exception's message, fit for a sentence."""
    return " ".join(str(error).split())[:200] or type(error).__name__
