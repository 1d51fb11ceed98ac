"""Reads a table of special roads, `roads.toml`: per layer its sources, widths, operators and dates.

`roads.example.toml` says what may be in it. Promises sources as `read_roads` takes them, or a
`SourceError` that names the file, the line, the entry and the remedy. It reads none of the sources.
"""

from __future__ import annotations

import re
import tomllib
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Final

from boundaries.readers import AS_IT_SAYS, Reading
from boundaries.roads import DEFAULT_BUFFER_M, MOTORWAY, AreaOperator, Body, RoadsSource
from boundaries.tomlfile import faults_with_lines, read_text
from georouter.entries import Fault, Table

WIDEST_M: Final = 200.0

Found = tuple[Path, Mapping[str, str]]
"""A file, and what is known of where it came from."""


def read_roads_table(path: Path) -> dict[str, list[RoadsSource]]:
    """The sources of each layer, in the order of the file; raises `SourceError`."""
    text = read_text(path)
    with faults_with_lines(path, text):
        return roads_of(Table((), tomllib.loads(text), "the file"), path.parent)


def roads_of(
    table: Table, folder: Path, find: Callable[[Table], Found] | None = None
) -> dict[str, list[RoadsSource]]:
    """The sources of each layer of such a table; paths count from `folder`. Raises `Fault`.

    `find` gives the file of an entry, and what is known of it, where that is not its `file` alone.
    """

    def file(entry: Table) -> Found:
        return folder / entry.text("file"), {}

    return {
        layer: [
            _source(entry, folder, find or file) for entry in table.each(layer, f"{layer} source")
        ]
        for layer in table
    }


def reading_of(table: Table) -> Reading:
    """What an entry says of how its file is to be read. Raises `Fault`."""
    sha256 = table.text("sha256", default="").lower()
    if table.has("sha256") and not re.fullmatch(r"[0-9a-f]{64}", sha256):
        table.fault("sha256", "sha256 has 64 hexadecimal digits, as `sha256sum FILE` prints them")
    accept_m = table.number("accept_accuracy_m", default=AS_IT_SAYS.accept_accuracy_m)
    if accept_m <= 0:
        table.fault("accept_accuracy_m", "accept_accuracy_m is in metres, above 0")
    return Reading(
        crs=table.text("crs", default="") or None,
        layer_in_file=table.text("layer_in_file", default="") or None,
        encoding=table.text("encoding", default="") or None,
        accept_accuracy_m=accept_m,
        sha256=sha256 or None,
    )


def _source(table: Table, folder: Path, find: Callable[[Table], Found]) -> RoadsSource:
    body = table.inner("operator")
    path, known = find(table)
    fields = ("operator_code_field", "operator_name_field")
    source = RoadsSource(
        path=path,
        body=_body(body) if body else None,
        buffer_m=_half_width(table, "buffer_m", table.number("buffer_m", default=DEFAULT_BUFFER_M)),
        buffer_by_class={
            name: _half_width(table, "buffer_by_class", width)
            for name, width in table.numbers("buffer_by_class").items()
        },
        class_field=table.text("class_field", default=""),
        number_field=table.text("number_field", default="road"),
        body_fields=(table.text(fields[0]), table.text(fields[1])) if table.has(*fields) else None,
        operators=tuple(_operator(entry, folder) for entry in table.each("operators", "operator")),
        areas_of=table.text("areas_of", default=""),
        valid_from=table.day("valid_from"),
        valid_to=table.day("valid_to"),
        valid_from_field=table.text("valid_from_field", default=""),
        valid_to_field=table.text("valid_to_field", default=""),
        reading=reading_of(table),
        known=known,
    )
    if body:
        body.nothing_else()
    table.nothing_else()
    _check(table, source)
    return source


def _check(table: Table, source: RoadsSource) -> None:
    """What makes sense only together, or not together."""
    if not (source.body or source.body_fields or source.operators):
        raise Fault(
            table.at,
            f"{table.what} does not say who mends the roads; add operator, operators, or "
            "operator_code_field and operator_name_field",
        )
    if source.body_fields and source.operators:
        table.fault("operators", "operators and fields exclude each other; remove one of them")
    by_code = any(one.areas and not one.file for one in source.operators)
    if by_code != bool(source.areas_of):
        table.fault(
            "areas_of",
            "areas_of names the layer in which the areas of operators are; it goes with them, "
            'such as areas_of = "district"',
        )
    if source.class_field and not source.buffer_by_class:
        table.fault("class_field", "class_field goes with buffer_by_class; add that or remove it")
    odd = [name for name in source.buffer_by_class if name != MOTORWAY]
    if odd and not source.class_field:
        table.fault(
            "buffer_by_class",
            f"the number tells only {MOTORWAY!r}; name the field that holds {odd[0]!r} as "
            "class_field",
        )
    if source.valid_from and source.valid_to and source.valid_from >= source.valid_to:
        table.fault("valid_to", "it would end before it begins; it is the first day without it")
    seen: dict[str, str] = {}
    for operator in source.operators:
        for code in () if operator.file else operator.areas:
            if code in seen:
                table.fault("operators", f"area {code!r} is given twice; remove one")
            seen[code] = operator.body[0]


def _operator(table: Table, folder: Path) -> AreaOperator:
    file = table.text("file", default="")
    found = AreaOperator(
        body=_body(table),
        areas=table.texts("areas", default=(), hint='codes of areas, such as "W06000001"'),
        file=folder / file if file else None,
        reading=reading_of(table),
    )
    if not (found.areas or found.file):
        raise Fault(table.at, f"{table.what} does not say where; add areas, or a file of polygons")
    table.nothing_else()
    return found


def _body(table: Table) -> Body:
    return table.text("code"), table.text("name")


def _half_width(table: Table, key: str, width_m: float) -> float:
    if not 0.1 <= width_m <= WIDEST_M:
        table.fault(
            key, f"{key} is in metres each side of the centre line, from 0.1 to {WIDEST_M:.0f}"
        )
    return width_m
