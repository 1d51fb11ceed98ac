"""Reads one layer of boundaries from a file: codes, names and WGS 84 polygons.

Promises either a whole layer or a `SourceError` of one sentence that names the file, the fault and
the remedy. It finds the code and name fields by pattern and says what it took. It repairs nothing,
loses no row, and knows nothing of the index; `build` does.
"""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Mapping, Sequence
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from boundaries.crs import Geometries, named, system_of, to_wgs84
from boundaries.errors import SourceError, SourceNotFoundError, UnclosedRingError
from boundaries.formats import AS_IT_SAYS, Reading, digest, open_rows

__all__ = [
    "ALL",
    "AS_IT_SAYS",
    "LINES_AND_POLYGONS",
    "POLYGONS",
    "Choice",
    "Features",
    "Geometries",
    "Reading",
    "Rows",
    "SourceError",
    "SourceNotFoundError",
    "UnclosedRingError",
    "read_features",
    "read_rows",
]

_LEVEL: Final = r"(lad|ltla|ctyua|utla|lgd|lga|ward|wd|area|local_?authority)"
_PATTERNS: Final = {
    "code": (
        r"code",
        r"gss_?(code|cd)?",
        r"[a-z]+\d\d_?cd",
        r"(ons|census)_?(code|cd)",
        _LEVEL + r"_?(code|cd)",
    ),
    # Welsh names stand beside the English ones, in fields such as LAD24NMW
    "name": (r"name", r"[a-z]+\d\d_?nm", r"name_?(en|eng|english)", _LEVEL + r"_?(name|nm)"),
}
_OPTIONS: Final = {"code": "--code-field", "name": "--name-field"}

POLYGONS: Final = frozenset({"Polygon", "MultiPolygon"})
LINES_AND_POLYGONS: Final = POLYGONS | {"LineString", "MultiLineString"}


@dataclasses.dataclass(frozen=True, slots=True)
class Choice:
    """Which areas of a file are wanted, by patterns of their codes such as `E*`.

    With `keep` those alone, without those of `drop`. A pattern that no code fits is a mistake.
    """

    keep: tuple[str, ...] = ()
    drop: tuple[str, ...] = ()


ALL: Final = Choice()


@dataclasses.dataclass(frozen=True, slots=True)
class Features:
    """One layer as read: an area per row, ascending by code, in WGS 84 degrees.

    `origin` records where it came from, for the manifest: file, sha256, fields, CRS, the operation
    that led to WGS 84 and its accuracy in metres; and, where there is something to say, the layer
    in the file, its encoding, what GDAL warned of, codes of several rows and codes left out. `rows`
    has the codes of several rows, with the name that each row gives.
    """

    codes: tuple[str, ...]
    names: tuple[str, ...]
    geometries: Geometries
    origin: dict[str, Any]
    rows: dict[str, tuple[str, ...]] = dataclasses.field(default_factory=dict)


@dataclasses.dataclass(frozen=True, slots=True)
class Rows:
    """A file as read, row by row, in WGS 84 degrees.

    `columns` has the text of the fields asked for, by what they are for; of those that may be
    missing, the ones that are there.
    """

    columns: dict[str, list[str]]
    geometries: Geometries
    origin: dict[str, Any]


def read_features(
    path: Path,
    *,
    code_field: str | None = None,
    name_field: str | None = None,
    reading: Reading = AS_IT_SAYS,
    choice: Choice = ALL,
    keep_empty: bool = False,
) -> Features:
    """Read a file of any known format and reference system; see `formats` and `crs`.

    Rows of one code are put together. An area without a geometry is refused, or with `keep_empty`
    has an empty polygon. Raises `SourceError`.
    """
    rows = read_rows(
        path,
        kinds=POLYGONS,
        fields={"code": code_field, "name": name_field},
        reading=reading,
        choice=choice,
        keep_empty=keep_empty,
    )
    given = rows.columns["code"], rows.columns["name"]
    codes, names, geometries = _one_row_per_code(*given, rows.geometries)
    origin = rows.origin
    several: dict[str, tuple[str, ...]] = {}
    if len(codes) < len(given[0]):
        for code, name in zip(*given, strict=True):
            several[code] = (*several.get(code, ()), name)
        several = {code: some for code, some in several.items() if len(some) > 1}
        origin = {**origin, "rows_merged": {code: len(some) for code, some in several.items()}}
    return Features(tuple(codes), tuple(names), geometries, origin, several)


def read_rows(
    path: Path,
    *,
    kinds: frozenset[str],
    fields: Mapping[str, str | None],
    also: Sequence[str] = (),
    reading: Reading = AS_IT_SAYS,
    choice: Choice = ALL,
    keep_empty: bool = False,
) -> Rows:
    """Read the rows of a file, whose geometries must be of these kinds. Raises `SourceError`.

    `fields` says by what each is for which are wanted; a `code` or `name` that is None is found by
    its pattern. Those in `also` may be missing. A `choice` needs the field `code`. With
    `keep_empty` geometries may be missing too, and are empty polygons then.
    """
    if not path.is_file():
        raise SourceNotFoundError(f"{path} does not exist or is no file")
    sha256 = digest(path)
    if reading.sha256 not in {None, sha256}:
        raise SourceError(
            f"{path} is not the file that was pinned: its sha256 is {sha256}, not "
            f"{reading.sha256}; get that one, or correct the pin"
        )
    frame, notes = open_rows(path, reading)
    said = frame.crs
    crs = system_of(path, said, reading.crs)
    if reading.crs and said is not None and named(said) != named(crs):
        notes["crs_said"] = named(said)
    found = _fields(path, frame, fields)
    found |= {field: field for field in also if field in frame.columns}
    columns = {
        role: [_text(value) for value in frame[field].tolist()] for role, field in found.items()
    }
    geometries = np.asarray(frame.geometry.values, dtype=object)
    del frame  # its other fields may be large
    if keep_empty:
        geometries = _without_none(geometries)
    labels = [f"row {row + 1}" for row in range(len(geometries))]
    if "code" in found:
        if "" in columns["code"]:
            row = columns["code"].index("") + 1
            raise SourceError(
                f"{path}: row {row} has no value in {found['code']!r}; give it a code"
            )
        chosen = _chosen(path, columns["code"], choice)
        if not chosen.all():
            notes["left_out"] = sorted(
                {code for code, kept in zip(columns["code"], chosen, strict=True) if not kept}
            )
            wanted = np.nonzero(chosen)[0].tolist()
            columns = {role: [texts[n] for n in wanted] for role, texts in columns.items()}
            geometries = geometries[chosen]
        labels = [f"area {code!r}" for code in columns["code"]]
    _check_rows(path, labels, geometries, kinds, keep_empty=keep_empty)
    converted = to_wgs84(path, crs, geometries, labels=labels, accept_m=reading.accept_accuracy_m)
    return Rows(
        columns=columns,
        geometries=converted.geometries,
        origin={
            "file": path.name,
            "sha256": sha256,
            **{
                role if role.endswith("_field") else f"{role}_field": found[role] for role in fields
            },
            "crs": named(crs),
            "operation": converted.operation,
            "accuracy_m": converted.accuracy_m,
            **notes,
        },
    )


def _fields(path: Path, frame: Any, wanted: Mapping[str, str | None]) -> dict[str, str]:
    """The field for each role; a name is sought beside the code first: LAD24CD, LAD24NM."""
    columns = [str(column) for column in frame.columns if column != frame.geometry.name]
    found: dict[str, str] = {}
    for role, field in wanted.items():
        beside = re.sub(r"(?i)cd$", "nm", found.get("code", "")) if role == "name" else ""
        sibling = [column for column in columns if column.lower() == beside.lower() != ""]
        dated = re.fullmatch(r"(?i)[a-z]+\d\d_?nm", beside)
        if field is None and dated and len(sibling) == 1:
            found[role] = sibling[0]
        else:
            found[role] = _field(path, columns, field, role)
    return found


def _field(path: Path, columns: Sequence[str], wanted: str | None, role: str) -> str:
    option = _OPTIONS.get(role, role)
    listed = ", ".join(columns) or "none"
    if wanted is not None:
        if wanted not in columns:
            raise SourceError(f"{path} has no field {wanted!r}; choose {option} from: {listed}")
        return wanted
    for pattern in _PATTERNS[role]:
        found = [column for column in columns if re.fullmatch(pattern, column, re.IGNORECASE)]
        if len(found) == 1:
            return found[0]
        if found:
            choices = ", ".join(found)
            raise SourceError(f"{path} has several {role} fields; choose {option} from: {choices}")
    raise SourceError(
        f"{path} has no field that looks like a {role}; choose {option} from: {listed}"
    )


def _chosen(path: Path, codes: Sequence[str], choice: Choice) -> npt.NDArray[np.bool_]:
    def fits(patterns: Sequence[str]) -> npt.NDArray[np.bool_]:
        fitting = np.zeros(len(codes), bool)
        for pattern in patterns:
            these = np.array([fnmatchcase(code, pattern) for code in codes])
            if not these.any():
                raise SourceError(
                    f"{path}: no code fits {pattern!r}; they are such as {codes[0]!r}; correct or "
                    "remove the pattern"
                )
            fitting |= these
        return fitting

    kept = fits(choice.keep) if choice.keep else np.ones(len(codes), bool)
    chosen: npt.NDArray[np.bool_] = kept & ~fits(choice.drop)
    if not chosen.any():
        raise SourceError(f"{path}: keep and drop leave nothing; correct them")
    return chosen


def _without_none(geometries: Geometries) -> Geometries:
    """Missing geometries, and empty ones of any kind, as empty polygons."""
    import shapely

    empty = shapely.is_missing(geometries) | shapely.is_empty(geometries)
    geometries = geometries.copy()
    geometries[empty] = shapely.Polygon()
    return geometries


def _check_rows(
    path: Path,
    labels: Sequence[str],
    geometries: Geometries,
    kinds: frozenset[str],
    *,
    keep_empty: bool,
) -> None:
    import shapely

    for which, geometry in zip(labels, geometries, strict=True):
        if not keep_empty and (geometry is None or geometry.is_empty):
            raise SourceError(f"{path}: {which} has no geometry; remove it or complete it")
        if geometry.geom_type not in kinds:
            wanted = "boundaries must be polygons"
            if kinds != POLYGONS:
                wanted = "roads must be lines or polygons"
            if geometry.geom_type == "GeometryCollection":
                wanted += "; take them out of it, e.g. with `ogr2ogr -explodecollections`"
            raise SourceError(f"{path}: {which} is a {geometry.geom_type}; {wanted}")
    finite = np.isfinite(shapely.bounds(geometries)).all(axis=1) | shapely.is_empty(geometries)
    if not finite.all():
        raise SourceError(
            f"{path}: {labels[int(np.argmin(finite))]} has coordinates that are not finite "
            "numbers; correct it"
        )


def _one_row_per_code(
    codes: Sequence[str], names: Sequence[str], geometries: Geometries
) -> tuple[list[str], list[str], Geometries]:
    import shapely

    rows: dict[str, list[int]] = {}
    for row, code in enumerate(codes):
        rows.setdefault(code, []).append(row)
    ordered = sorted(rows)
    merged = np.empty(len(ordered), dtype=object)
    for n, code in enumerate(ordered):
        parts = geometries[rows[code]]
        merged[n] = parts[0] if len(parts) == 1 else shapely.union_all(shapely.make_valid(parts))
    return ordered, [names[rows[code][0]] for code in ordered], merged


def _text(value: object) -> str:
    """A field's value as text; missing ones (None, NaN) as nothing."""
    return "" if value is None or value != value else str(value).strip()  # noqa: PLR0124 - NaN
