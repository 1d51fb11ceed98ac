"""Special roads as layers: the ground of trunk roads and red routes, and the body that mends each.

Lines are widened in metres, polygons are taken as they are; where several bodies share a road, its
ground is divided by the borders of their areas. It promises one area per road number, body and
dates, with codes that no council has; whether the body is right is the source's affair.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import date, datetime, time
from pathlib import Path
from typing import Any, Final, NamedTuple

import numpy as np
import numpy.typing as npt
import pyproj
import shapely

from boundaries.readers import (
    AS_IT_SAYS,
    LINES_AND_POLYGONS,
    POLYGONS,
    Features,
    Geometries,
    Reading,
    Rows,
    SourceError,
    read_features,
    read_rows,
)
from georouter.model import Road
from georouter.nearest import metres_per_degree

DEFAULT_BUFFER_M: Final = 15.0
"""Half the width that counts as on the road, from its centre line: what FixMyStreet takes for
National Highways and Traffic Scotland."""

MOTORWAY: Final = "motorway"
"""The class of roads whose number says so; there is no other without a field for the class."""

ACROSS_M: Final = 1000.0
"""Ground outside all areas goes to the nearest one's operator up to this far from it: bridges, and
roads that leave the country for a bend."""

_MOTORWAY_NUMBER: Final = re.compile(r"M\d|A\d+\(?M\)?")
_DENSE_DEGREES, _DENSE_M = 0.005, 500.0

Body = tuple[str, str]
"""The code and the name of a body."""

Areas = Mapping[str, Mapping[str, Any]]
"""The canonical polygons of the dataset's areas, by layer and code."""


@dataclass(frozen=True, slots=True)
class AreaOperator:
    """A body and where it mends: areas of a layer by their codes, or the polygons of a file.

    With both, it is the areas of the file that have these codes.
    """

    body: Body
    areas: tuple[str, ...] = ()
    file: Path | None = None
    reading: Reading = AS_IT_SAYS


@dataclass(frozen=True, slots=True)
class RoadsSource:
    """A file of special roads: who mends them, how wide they are, and from when to when.

    `body` mends them all; or the fields `body_fields`, code and name, say it of each (without
    either they are found by pattern), and `body` those that have none there; or `operators` do, by
    areas of the layer `areas_of`, and `body` what lies in none of them. The number is in
    `number_field`, else in a field `road`, else in the name field. Without `class_field` the number
    tells the class. Dates in fields come before those of the source. The manifest gets `known`.
    """

    path: Path
    body: Body | None = None
    buffer_m: float = DEFAULT_BUFFER_M
    buffer_by_class: Mapping[str, float] = field(default_factory=dict)
    class_field: str = ""
    number_field: str = ""
    body_fields: tuple[str, str] | None = None
    operators: tuple[AreaOperator, ...] = ()
    areas_of: str = ""
    valid_from: date | None = None
    valid_to: date | None = None
    valid_from_field: str = ""
    valid_to_field: str = ""
    reading: Reading = AS_IT_SAYS
    known: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class RoadsLayer:
    """A roads layer as read: an area per stretch, and what each stands for by its code."""

    features: Features
    roads: dict[str, Road]
    origins: list[dict[str, Any]]


def read_roads(sources: Sequence[RoadsSource], *, areas: Areas | None = None) -> RoadsLayer:
    """Read the roads of a layer; `areas` are what operators can be given by. Raises `SourceError`.

    Stretches of one road with different bodies or dates are separate areas.
    """
    grounds: dict[Road, list[Any]] = {}
    origins = []
    for source in sources:
        rows = _read(source)
        for road, ground in _stretches(source, rows, areas or {}):
            grounds.setdefault(road, []).append(ground)
        origins.append({**rows.origin, **source.known, "buffer_m": source.buffer_m})
        if source.buffer_by_class:
            origins[-1]["buffer_by_class"] = dict(source.buffer_by_class)
    _check_names(grounds, ", ".join(source.path.name for source in sources))
    by_code = {_area_code(road): road for road in grounds}
    roads = {code: by_code[code] for code in sorted(by_code)}
    merged = np.empty(len(roads), dtype=object)
    for position, road in enumerate(roads.values()):
        merged[position] = shapely.union_all(grounds[road])
    return RoadsLayer(
        features=Features(
            codes=tuple(roads),
            # with the body's name, so that the index, and its digest, differ by all that decides
            names=tuple(f"{road.number}, {road.body_name}" for road in roads.values()),
            geometries=merged,
            origin={},
        ),
        roads=roads,
        origins=origins,
    )


def _read(source: RoadsSource) -> Rows:
    told = source.number_field and (source.body or source.body_fields or source.operators)
    wanted: dict[str, str | None] = {} if told else {"code": None, "name": None}
    named = {
        "number_field": source.number_field,
        "class_field": source.class_field,
        "valid_from_field": source.valid_from_field,
        "valid_to_field": source.valid_to_field,
    }
    if source.body_fields:
        named["operator_code_field"], named["operator_name_field"] = source.body_fields
    wanted |= {role: name for role, name in named.items() if name}
    return read_rows(
        source.path,
        kinds=LINES_AND_POLYGONS,
        fields=wanted,
        also=["road"],
        reading=source.reading,
    )


def _stretches(source: RoadsSource, rows: Rows, areas: Areas) -> Iterator[tuple[Road, Any]]:
    """The ground of each row, and what it stands for; several where bodies share it."""
    columns = rows.columns
    numbers = columns.get("number_field") or columns.get("road") or columns["name"]
    for row, number in enumerate(numbers):
        if not number:
            raise SourceError(
                f"{source.path}: row {row + 1} has no road number; complete the field"
            )
    bodies = _bodies(source, columns, len(numbers))
    begin = _days(source, columns, "valid_from_field", source.valid_from, len(numbers))
    end = _days(source, columns, "valid_to_field", source.valid_to, len(numbers))
    shares = _shares(source, areas)
    ground = _widened(rows.geometries, _half_widths(source, columns, numbers))
    for row, number in enumerate(numbers):
        valid_from, valid_to = begin[row], end[row]
        if valid_from and valid_to and valid_from >= valid_to:
            raise SourceError(
                f"{source.path}: the {number} in row {row + 1} would end before it begins; "
                "valid_to is the first day without it"
            )
        divided = [(bodies[row], ground[row])]
        if shares:
            divided = _divide(
                f"{source.path}: the {number} in row {row + 1}",
                rows.geometries[row],
                ground[row],
                shares=shares,
                otherwise=source.body,
            )
        for (code, name), part in divided:
            yield Road(number, code, name, valid_from, valid_to), part


def _bodies(source: RoadsSource, columns: Mapping[str, list[str]], rows: int) -> list[Body]:
    if source.operators or (source.body and not source.body_fields):
        return [source.body or ("", "")] * rows
    if not source.body_fields:
        return list(zip(columns["code"], columns["name"], strict=True))
    found = list(zip(columns["operator_code_field"], columns["operator_name_field"], strict=True))
    for row, (code, name) in enumerate(found):
        if not (code and name):
            if not source.body:
                raise SourceError(
                    f"{source.path}: row {row + 1} has no operator; complete the fields "
                    f"{' and '.join(source.body_fields)}, or add an operator for such rows"
                )
            found[row] = source.body
    return found


def _days(
    source: RoadsSource,
    columns: Mapping[str, list[str]],
    role: str,
    always: date | None,
    rows: int,
) -> list[date | None]:
    """The day of each row; those without one have that of the source."""
    found: list[date | None] = [always] * rows
    for row, text in enumerate(columns.get(role, ())):
        if text:
            try:
                moment = datetime.fromisoformat(text)
            except ValueError:
                moment = datetime.max  # noqa: DTZ901 - no midnight either
            if moment.time() != time.min:
                raise SourceError(
                    f"{source.path}: row {row + 1} has no day in {getattr(source, role)!r} but "
                    f"{text!r}; write it like 2027-04-01"
                )
            found[row] = moment.date()
    return found


def _area_code(road: Road) -> str:
    code = f"{road.body} {road.number}"
    if road.valid_from or road.valid_to:
        code += f"@{road.valid_from or ''}" + (f"..{road.valid_to}" if road.valid_to else "")
    return code


def _check_names(roads: Iterable[Road], where: str) -> None:
    names: dict[str, str] = {}
    for road in roads:
        known = names.setdefault(road.body, road.body_name)
        if known != road.body_name:
            raise SourceError(
                f"{where}: the body {road.body!r} is called {known!r} and {road.body_name!r}; "
                "give it one name"
            )


# --- width ----------------------------------------------------------------------------------------


def _half_widths(
    source: RoadsSource, columns: Mapping[str, list[str]], numbers: Sequence[str]
) -> npt.NDArray[np.float64]:
    classes = columns.get("class_field") or [
        MOTORWAY if _MOTORWAY_NUMBER.match(number) else "" for number in numbers
    ]
    for name in source.buffer_by_class:
        # of a class that is misspelt all roads would pass for narrow
        if source.class_field and name not in classes:
            raise SourceError(
                f"{source.path}: no road is of class {name!r}; its field {source.class_field!r} "
                f"has {', '.join(sorted(set(classes))[:20])}; correct or remove the class"
            )
    return np.array([source.buffer_by_class.get(name, source.buffer_m) for name in classes])


def _widened(geometries: Geometries, half_m: npt.NDArray[np.float64]) -> Geometries:
    """Lines as ground, in degrees; polygons unchanged.

    Each part of a line is widened on an azimuthal equidistant plane around the square of one degree
    that its middle is in. One plane around Great Britain would be 0.11 % off in Cornwall; around
    squares it is 0.002 % at their corners, and 0.04 % at the ends of a line of 600 km.
    """
    ground = geometries.copy()
    lines = np.nonzero(np.isin(shapely.get_type_id(ground), [1, 5]))[0]
    parts, owner = shapely.get_parts(
        # what is straight in degrees is not on the plane; by 7 mm over half a kilometre
        shapely.segmentize(ground[lines], _DENSE_DEGREES),
        return_index=True,
    )
    if not len(lines):
        return ground
    west, south, east, north = shapely.bounds(parts).T
    squares = np.floor(np.column_stack([west + east, south + north]) / 2)
    wide = np.empty(len(parts), dtype=object)
    for lon, lat in np.unique(squares, axis=0).tolist():
        here = np.nonzero((squares == (lon, lat)).all(axis=1))[0]
        plane = pyproj.Transformer.from_crs(
            "EPSG:4326",
            f"+proj=aeqd +lon_0={lon + 0.5} +lat_0={lat + 0.5} +ellps=WGS84",
            always_xy=True,
        )
        flat = shapely.transform(parts[here], _one_way(plane, "FORWARD"))
        # eight segments to a quarter: a round end is then at most 0.5 % short
        round_ = shapely.buffer(flat, half_m[lines[owner[here]]], quad_segs=8)
        wide[here] = shapely.transform(
            shapely.segmentize(round_, _DENSE_M), _one_way(plane, "INVERSE")
        )
    for position, line in enumerate(lines.tolist()):
        mine = wide[owner == position]
        ground[line] = mine[0] if len(mine) == 1 else shapely.union_all(mine)
    return ground


def _one_way(plane: Any, direction: str) -> Any:
    def convert(xy: Any) -> Any:
        return np.column_stack(plane.transform(xy[:, 0], xy[:, 1], direction=direction))

    return convert


# --- whose ----------------------------------------------------------------------------------------


class _Share(NamedTuple):
    body: Body
    area: Any


def _shares(source: RoadsSource, areas: Areas) -> list[_Share]:
    """The ground of each operator of a source."""
    layer = {} if not source.areas_of else areas.get(source.areas_of)
    if layer is None:
        raise SourceError(
            f"{source.path}: the dataset has no layer {source.areas_of!r} to find the areas of "
            f"operators in; give areas_of as one of {', '.join(areas)}"
        )
    found = []
    for operator in source.operators:
        polygons: Mapping[str, Any] = layer
        if operator.file and operator.areas:
            features = read_features(operator.file, reading=operator.reading)
            polygons = dict(zip(features.codes, features.geometries, strict=True))
        for code in operator.areas:
            if code not in polygons:
                where = operator.file or f"layer {source.areas_of!r}"
                raise SourceError(
                    f"{source.path}: {where} has no area {code!r}, which is to be looked after "
                    f"by {operator.body[1]!r}; correct or remove the code"
                )
        mine = [polygons[code] for code in operator.areas]
        if operator.file and not operator.areas:
            rows = read_rows(operator.file, kinds=POLYGONS, fields={}, reading=operator.reading)
            mine = list(rows.geometries)
        area = shapely.union_all(shapely.make_valid(np.array(mine, dtype=object)))
        shapely.prepare(area)
        found.append(_Share(operator.body, area))
    return found


def _divide(
    road: str, line: Any, ground: Any, *, shares: Sequence[_Share], otherwise: Body | None
) -> list[tuple[Body, Any]]:
    """The ground of a road by whose area it lies in, the first where areas overlap.

    Outside all areas it goes with the nearest, if that is not far; but what the road itself runs
    through goes to `otherwise`, if there is such a body.
    """
    found: list[tuple[Body, Any]] = []
    rest = ground
    for body, area in shares:
        if area.covers(rest):
            return [*found, (body, rest)]
        if area.intersects(rest):
            found.append((body, shapely.intersection(rest, area)))
            rest = shapely.difference(rest, area)
    for piece in shapely.get_parts(rest):
        if piece.area == 0:
            continue
        runs = shapely.intersection(line, piece)
        if otherwise and runs.length > 0:
            found.append((otherwise, piece))
            continue
        nearest, farthest_m = _nearest_share(piece, runs, shares)
        if nearest is None or farthest_m > ACROSS_M:
            where = runs.representative_point() if not runs.is_empty else piece.centroid
            raise SourceError(
                f"{road} is outside the areas of all operators at lat {where.y:.4f}, "
                f"lon {where.x:.4f}; add the area to one of them, or an operator for what lies "
                "outside"
            )
        found.append((nearest, piece))
    cut = [(body, _polygons(part)) for body, part in found]
    return [(body, part) for body, part in cut if not part.is_empty]


def _nearest_share(piece: Any, runs: Any, shares: Sequence[_Share]) -> tuple[Body | None, float]:
    """Whose ground is nearest to a piece, and how far the road in it gets from all of them."""
    lon_m, lat_m = metres_per_degree(piece.centroid.y)
    scale = np.array([lon_m, lat_m])

    def flat(geometry: Any) -> Any:
        return shapely.transform(geometry, lambda xy: xy * scale)

    west, south, east, north = piece.bounds
    aside, along = 2 * ACROSS_M / scale
    frame = shapely.box(west - aside, south - along, east + aside, north + along)
    near = [(share.body, flat(shapely.intersection(share.area, frame))) for share in shares]
    near = [(body, area) for body, area in near if not area.is_empty]
    if not near:
        return None, np.inf
    middle = flat(piece)
    nearest = min(near, key=lambda share: share[1].distance(middle))[0]
    ground = shapely.union_all([area for _, area in near])
    vertices = shapely.points(shapely.get_coordinates(flat(shapely.segmentize(runs, 0.001))))
    return nearest, max(shapely.distance(ground, vertices).tolist(), default=0.0)


def _polygons(geometry: Any) -> Any:
    """What was cut, without the points and lines where it only touches."""
    parts = shapely.get_parts(geometry)
    return shapely.multipolygons([part for part in parts if part.geom_type == "Polygon"])
