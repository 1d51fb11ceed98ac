"""Corrections to boundaries, dated and with their reasons, as a file of TOML: `[[correction]]`s.

`corrections.example.toml` shows each action. Promises that what is corrected is corrected as
listed, in the order of the file, or not at all: an entry that does not apply is a `SourceError`
that names the file, the line, the entry and the remedy. Ground changes hands only as far as the
area that gives it has it.
"""

from __future__ import annotations

import dataclasses
import tomllib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from datetime import date
from pathlib import Path
from typing import Any, Final, NoReturn

import numpy as np
import shapely

from boundaries.canonical import canonical, polygons_only
from boundaries.findings import KINDS, Finding
from boundaries.metres import square_metres
from boundaries.readers import POLYGONS, Features, SourceError, read_rows
from boundaries.tomlfile import at_line, faults_with_lines, read_text
from georouter.entries import At, Fault, Table


@dataclass(frozen=True, slots=True)
class Correction:
    """One entry. Which of the later fields it has depends on the action."""

    at: At
    on: date
    reason: str
    layer: str
    area: str
    action: str
    name: str = ""
    code: str = ""
    to: str = ""
    finding: str = ""
    up_to_m2: float | None = None
    ground: Any = None


@dataclass(frozen=True, slots=True)
class Corrections:
    """The entries of a file, in its order."""

    path: Path = Path()
    text: str = ""
    entries: tuple[Correction, ...] = ()

    def fault(self, entry: Correction, message: str) -> NoReturn:
        """Refuse an entry that does not apply; the message ends with the remedy."""
        raise SourceError(at_line(self.path, self.text, entry.at, _title(entry) + message))

    def of(self, layer: str) -> tuple[Correction, ...]:
        """The entries of a layer."""
        return tuple(entry for entry in self.entries if entry.layer == layer)

    def need_layers(self, layers: Iterable[str]) -> None:
        """Refuse entries for layers that there are not."""
        names = list(layers)
        for entry in self.entries:
            if entry.layer not in names:
                self.fault(entry, f"there is no such layer; choose from {', '.join(names)}")


@dataclass(slots=True)
class _Areas:
    """A layer while it is corrected."""

    names: dict[str, str]
    geometries: dict[str, Any]
    moved: list[dict[str, Any]] = field(default_factory=list)


# --- reading ----------------------------------------------------------------------------------


def read_corrections(path: Path) -> Corrections:
    """The corrections of a file, and of the files of ground that it names. Raises `SourceError`."""
    text = read_text(path)
    with faults_with_lines(path, text):
        top = Table((), tomllib.loads(text), "the file")
        entries = tuple(_entry(table, path) for table in top.each("correction", "correction"))
        top.nothing_else()
    return Corrections(path, text, entries)


def _entry(table: Table, path: Path) -> Correction:
    on = table.day("date")
    if on is None:
        raise Fault(table.at, f"{table.what} has no date; add the day of the correction")
    action = table.text("action")
    if action not in _FIELDS:
        table.fault("action", f"there is no action {action!r}; choose from {', '.join(_FIELDS)}")
    read: dict[str, Any] = {}
    for key in _FIELDS[action]:
        if key == "ground":
            read[key] = _ground(table, path)
        elif key != "up_to_m2":
            read[key] = table.text(key)
        elif table.has(key):
            read[key] = table.number(key)
    entry = Correction(
        at=table.at,
        on=on,
        reason=table.text("reason"),
        layer=table.text("layer"),
        area=table.text("area"),
        action=action,
        **read,
    )
    table.nothing_else()
    if entry.finding and entry.finding not in KINDS:
        table.fault("finding", f"there is no finding {entry.finding!r}; see the operations guide")
    if entry.finding and KINDS[entry.finding].stops:
        table.fault("finding", f"{entry.finding} cannot be accepted; correct the area or drop it")
    if entry.to == entry.area:
        table.fault("to", "an area cannot give ground to itself; name another")
    return entry


def _ground(table: Table, path: Path) -> Any:
    """The polygons of an entry, from WKT or a file beside the corrections, on the grid."""
    if table.has("wkt") == table.has("file"):
        raise Fault(table.at, f"{table.what} needs its ground as either wkt or file; give one")
    if table.has("file"):
        file = path.parent / table.text("file")
        try:
            ground = shapely.union_all(read_rows(file, kinds=POLYGONS, fields={}).geometries)
        except SourceError as error:
            table.fault("file", str(error))
    else:
        try:
            ground = shapely.from_wkt(table.text("wkt"))
        except shapely.errors.GEOSException as error:
            table.fault("wkt", f"this is no WKT: {' '.join(str(error).split())}; correct it")
    key = "file" if table.has("file") else "wkt"
    if ground.geom_type not in POLYGONS or ground.is_empty or not ground.is_valid:
        table.fault(key, "the ground must be valid polygons of longitude and latitude; correct it")
    (snapped,), _ = canonical(np.array([ground], dtype=object))
    if snapped.is_empty:
        table.fault(key, "the ground is smaller than the grid of 1e-7 degrees; draw it larger")
    return snapped


def _title(entry: Correction) -> str:
    return f"correction {int(entry.at[-1]) + 1} ({entry.action} {entry.area} in {entry.layer}): "


# --- applying ---------------------------------------------------------------------------------


def correct(
    layer: str, features: Features, corrections: Corrections
) -> tuple[Features, list[dict[str, Any]]]:
    """A layer of canonical polygons as corrected, and what was done, for the manifest.

    Accepted findings are not looked at here, see `accept`. Raises `SourceError`.
    """
    entries = [entry for entry in corrections.of(layer) if entry.action != "accept"]
    if not entries:
        return features, []
    areas = _Areas(
        dict(zip(features.codes, features.names, strict=True)),
        dict(zip(features.codes, features.geometries, strict=True)),
    )
    done = []
    for entry in entries:
        if (entry.area in areas.names) == (entry.action == "add"):
            missing = "it is there already; choose another code, or drop it first"
            if entry.action != "add":
                missing = "there is no such area; correct the code, or remove the entry"
            corrections.fault(entry, missing)
        moved_m2 = _ACTIONS[entry.action](areas, entry, corrections)
        done.append(_record(entry) | ({} if moved_m2 is None else {"moved_m2": moved_m2}))
    codes = sorted(areas.names)
    geometries = np.empty(len(codes), dtype=object)
    geometries[:] = [areas.geometries[code] for code in codes]
    names = tuple(areas.names[code] for code in codes)
    return replace(features, codes=tuple(codes), names=names, geometries=geometries), done


def accept(
    findings: Iterable[Finding], corrections: Corrections, layers: Iterable[str]
) -> tuple[list[Finding], list[dict[str, Any]]]:
    """The findings, those accepted with the reason, and what was accepted, for the manifest."""
    after = list(findings)
    done = []
    for layer in layers:
        for entry in corrections.of(layer):
            if entry.action != "accept":
                continue
            matched = [n for n, one in enumerate(after) if _accepts(entry, one)]
            if not matched:
                corrections.fault(
                    entry, f"there is no such {entry.finding} now; correct or remove the entry"
                )
            for n in matched:
                after[n] = replace(after[n], accepted=entry.reason)
            done.append(_record(entry))
    return after, done


def _accepts(entry: Correction, one: Finding) -> bool:
    return (
        one.code == entry.finding
        and one.layer == entry.layer
        and entry.area in {one.area, *one.others}
        and (entry.up_to_m2 is None or (one.area_m2 or 0.0) <= entry.up_to_m2)
    )


def _rename(areas: _Areas, entry: Correction, _: Corrections) -> None:
    areas.names[entry.area] = entry.name


def _recode(areas: _Areas, entry: Correction, corrections: Corrections) -> None:
    if entry.code in areas.names:
        corrections.fault(entry, f"{entry.code} is there already; choose another code")
    areas.names[entry.code] = areas.names.pop(entry.area)
    areas.geometries[entry.code] = areas.geometries.pop(entry.area)


def _drop(areas: _Areas, entry: Correction, _: Corrections) -> None:
    del areas.names[entry.area], areas.geometries[entry.area]


def _add(areas: _Areas, entry: Correction, _: Corrections) -> float:
    areas.names[entry.area] = entry.name
    areas.geometries[entry.area] = entry.ground
    return _m2(entry.ground)


def _give(areas: _Areas, entry: Correction, corrections: Corrections) -> float:
    """Ground that the area has goes to another; whoever else has ground there must not be meant."""
    before = areas.geometries
    if entry.to not in before:
        corrections.fault(entry, f"there is no area {entry.to} to give ground to; correct the code")
    moved = shapely.intersection(before[entry.area], entry.ground)
    if not _m2(moved):
        corrections.fault(entry, f"{entry.area} does not have that ground; correct the polygon")
    beyond = shapely.difference(entry.ground, shapely.union(before[entry.area], before[entry.to]))
    for code, geometry in before.items():
        if code not in {entry.area, entry.to} and _m2(shapely.intersection(geometry, beyond)):
            corrections.fault(
                entry, f"{code} has some of that ground, not {entry.area}; draw it without"
            )
    left = shapely.difference(before[entry.area], entry.ground)
    if not _m2(left):
        corrections.fault(entry, f"nothing would be left of {entry.area}; drop it instead")
    _put(areas, entry.area, left)
    _put(areas, entry.to, shapely.union(before[entry.to], moved))
    return _m2(moved)


def _fill(areas: _Areas, entry: Correction, corrections: Corrections) -> float:
    """Ground that nobody has goes to the area."""
    near = [one for one in areas.geometries.values() if shapely.intersects(one, entry.ground)]
    free = shapely.difference(entry.ground, shapely.union_all(near)) if near else entry.ground
    if not _m2(free):
        corrections.fault(
            entry, "all of that ground is somebody's; give it, or correct the polygon"
        )
    _put(areas, entry.area, shapely.union(areas.geometries[entry.area], free))
    return _m2(free)


def _put(areas: _Areas, code: str, geometry: Any) -> None:
    (areas.geometries[code],), _ = canonical(polygons_only(np.array([geometry], dtype=object)))


def _m2(geometry: Any) -> float:
    (m2,) = square_metres(polygons_only(np.array([geometry], dtype=object)))
    return round(float(m2), 2)


def _record(entry: Correction) -> dict[str, Any]:
    """An entry for the manifest, the ground as WKT."""
    told: dict[str, Any] = {"date": entry.on.isoformat()}
    for one in dataclasses.fields(entry):
        value = getattr(entry, one.name)
        if one.name not in {"at", "on"} and value not in ("", None):
            told[one.name] = shapely.to_wkt(value, 7) if one.name == "ground" else value
    return told


_FIELDS: Final[Mapping[str, tuple[str, ...]]] = {
    "rename": ("name",),
    "recode": ("code",),
    "drop": (),
    "add": ("name", "ground"),
    "give": ("to", "ground"),
    "fill": ("ground",),
    "accept": ("finding", "up_to_m2"),
}
"""What each action needs beside date, reason, layer and area."""

_ACTIONS: Final[Mapping[str, Any]] = {
    "rename": _rename,
    "recode": _recode,
    "drop": _drop,
    "add": _add,
    "give": _give,
    "fill": _fill,
}
