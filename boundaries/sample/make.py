"""Makes the files of the example country: `python -m boundaries.sample.make [--check]`.

Each arc of the graph in `country` is drawn once, as a fractal line, and every polygon is put
together from arcs, so neighbours share their border vertex by vertex, bit by bit. The same seed
gives the same bytes; nothing is written unless the country passes `check_layers` and `golden`.

Coordinates are whole numbers of 1e-7 degree (about 1 cm) until they are written.
"""

from __future__ import annotations

import argparse
import csv
import io
import json
import sys
from collections.abc import Iterable, Sequence
from itertools import pairwise
from math import sqrt
from pathlib import Path
from typing import Any

import numpy as np
import shapely

from boundaries.sample import FOLDER
from boundaries.sample.country import (
    CITY_TRANSPORT,
    COAST,
    COUNTY,
    DISTRICTS,
    GOLDEN_PLACES,
    LAND,
    LAYERS,
    NODES,
    SHORES,
    STREETS,
    TRUNK_NORTH,
    TRUNK_OPERATOR,
    TRUNK_SOUTH,
    TRUNK_WEST_EAST,
    UNITARIES,
    Ground,
    Place,
)

SEED = 8213  # one of those with which no arc crosses another
UNITS = 10_000_000  # per degree
ASPECT = 0.577  # a degree of longitude over a degree of latitude, at 54.75 north
METRES = 111_300  # in a degree of latitude

COAST_ROUGHNESS, COAST_STEP_M = 0.24, 150
LAND_ROUGHNESS, LAND_STEP_M = 0.18, 150
ROAD_ROUGHNESS, ROAD_STEP_M = 0.05, 300
STREET_ROUGHNESS, STREET_STEP_M = 0.05, 80
STREET_WIDTH_M = 18

Vertex = tuple[int, int]  # longitude, latitude in UNITS
Line = list[Vertex]


def bend(
    rng: np.random.Generator, start: Place, end: Place, *, roughness: float, step: float
) -> list[Place]:
    """The fractal way from `start` (left out) to `end`, by midpoint displacement.

    Only sums, products and quotients, so that every machine computes the same bits.
    """
    dx, dy = (end[0] - start[0]) * ASPECT, end[1] - start[1]
    if dx * dx + dy * dy <= step * step:
        return [end]
    aside = roughness * (2 * rng.random() - 1)
    middle = (
        (start[0] + end[0]) / 2 - aside * dy / ASPECT,
        (start[1] + end[1]) / 2 + aside * dx,
    )
    return [
        *bend(rng, start, middle, roughness=roughness, step=step),
        *bend(rng, middle, end, roughness=roughness, step=step),
    ]


def draw(seed: int, name: str, places: Sequence[Place], *, roughness: float, step_m: float) -> Line:
    """A fractal line through `places`, rounded once.

    Each line has a random stream of its own, so that moving one leaves the others as they are.
    """
    rng = np.random.Generator(np.random.PCG64([seed, *name.encode()]))
    way = [places[0]]
    for start, end in pairwise(places):
        way += bend(rng, start, end, roughness=roughness, step=step_m / METRES)
    return [(round(lon * UNITS), round(lat * UNITS)) for lon, lat in way]


def draw_arcs(seed: int) -> dict[str, Line]:
    """Every arc of the graph by its name, from its first node to its second."""
    arcs = {}
    for waypoints, roughness, step_m in (
        (COAST, COAST_ROUGHNESS, COAST_STEP_M),
        (LAND, LAND_ROUGHNESS, LAND_STEP_M),
    ):
        for name, via in waypoints.items():
            places = (NODES[name[0]], *via, NODES[name[1]])
            arcs[name] = draw(seed, name, places, roughness=roughness, step_m=step_m)
    return arcs


def walk(arcs: dict[str, Line], nodes: str, *, hole: bool = False) -> Line:
    """The closed ring through `nodes`, counter-clockwise; clockwise for a hole (RFC 7946)."""
    ring: Line = []
    for start, end in pairwise(nodes + nodes[0]):
        arc = arcs[start + end] if start + end in arcs else arcs[end + start][::-1]
        ring += arc[:-1]
    ring.append(ring[0])
    twice_area = sum(x1 * y2 - x2 * y1 for (x1, y1), (x2, y2) in pairwise(ring))
    return ring if (twice_area > 0) != hole else ring[::-1]


def ribbon(line: Line, *, width_m: float) -> Line:
    """The surface of a street along a gently bending `line`: a closed ring, counter-clockwise."""
    half = width_m / 2 / METRES * UNITS
    left: Line = []
    right: Line = []
    for i, (x, y) in enumerate(line):
        (x1, y1), (x2, y2) = line[max(i - 1, 0)], line[min(i + 1, len(line) - 1)]
        dx, dy = (x2 - x1) * ASPECT, float(y2 - y1)
        length = sqrt(dx * dx + dy * dy)
        aside_x, aside_y = -dy / length * half / ASPECT, dx / length * half
        left.append((round(x + aside_x), round(y + aside_y)))
        right.append((round(x - aside_x), round(y - aside_y)))
    return [*right, *reversed(left), right[0]]


def degrees(line: Line) -> list[list[float]]:
    """A line as GeoJSON writes it."""
    return [[x / UNITS, y / UNITS] for x, y in line]


def ground_feature(arcs: dict[str, Line], ground: Ground) -> dict[str, Any]:
    """An authority as a GeoJSON feature."""
    polygons = []
    for part in ground.parts:
        shell, *holes = part.split("/")
        rings = [walk(arcs, shell), *(walk(arcs, hole, hole=True) for hole in holes)]
        polygons.append([degrees(ring) for ring in rings])
    return feature(
        {"code": ground.code, "name": ground.name, "kind": ground.kind},
        "Polygon" if len(polygons) == 1 else "MultiPolygon",
        polygons[0] if len(polygons) == 1 else polygons,
    )


def feature(properties: dict[str, str], shape: str, coordinates: Any) -> dict[str, Any]:
    """A GeoJSON feature."""
    geometry = {"type": shape, "coordinates": coordinates}
    return {"type": "Feature", "properties": properties, "geometry": geometry}


def trunk_features(seed: int, arcs: dict[str, Line]) -> list[dict[str, Any]]:
    """The trunk roads as centre lines."""

    def road(name: str, places: Sequence[Place]) -> Line:
        return draw(seed, name, places, roughness=ROAD_ROUGHNESS, step_m=ROAD_STEP_M)

    border = arcs["PQ"][::-1]
    border = border[len(border) // 4 : 3 * len(border) // 4]
    joins, leaves = ((x / UNITS, y / UNITS) for x, y in (border[0], border[-1]))
    south = road("D2 south", (*TRUNK_SOUTH, joins))
    north = road("D2 north", (leaves, *TRUNK_NORTH))
    lines = {"D1": road("D1", TRUNK_WEST_EAST), "D2": [*south[:-1], *border, *north[1:]]}
    return [
        feature({"road": name, **TRUNK_OPERATOR}, "LineString", degrees(line))
        for name, line in lines.items()
    ]


def street_features(seed: int) -> list[dict[str, Any]]:
    """The red routes as road surfaces; where two cross they overlap."""
    features = []
    for name, places in STREETS.items():
        line = draw(seed, name, places, roughness=STREET_ROUGHNESS, step_m=STREET_STEP_M)
        surface = ribbon(line, width_m=STREET_WIDTH_M)
        features.append(feature({"road": name, **CITY_TRANSPORT}, "Polygon", [degrees(surface)]))
    return features


def shapes(features: Iterable[dict[str, Any]]) -> dict[str, Any]:
    """GEOS geometries by authority code."""
    return {one["properties"]["code"]: shapely.geometry.shape(one["geometry"]) for one in features}


def check_layers(arcs: dict[str, Line], layers: dict[str, list[dict[str, Any]]]) -> None:
    """Raise `ValueError` unless each layer covers the land exactly once and nothing else."""
    land = shapely.MultiPolygon([shapely.Polygon(degrees(walk(arcs, shore))) for shore in SHORES])
    for layer, features in layers.items():
        polygons = shapes(features)
        for code, polygon in polygons.items():
            if not polygon.is_valid:
                raise ValueError(
                    f"{layer} {code}: {shapely.is_valid_reason(polygon)}; arcs cross there: "
                    "move a waypoint or lower the roughness"
                )
        if not shapely.coverage_is_valid(list(polygons.values())):
            raise ValueError(f"{layer}: two authorities overlap or their shared border differs")
        if not shapely.coverage_union_all(list(polygons.values())).equals(land):
            raise ValueError(f"{layer}: some land belongs to no authority, or some sea to one")


def golden(layers: dict[str, list[dict[str, Any]]]) -> str:
    """The golden points as CSV; a code is empty where the layer has no authority.

    Raises `ValueError` where GEOS finds another authority than the country says, or a border.
    """
    polygons = {layer: shapes(features) for layer, features in layers.items()}
    answers = {"": ["", ""]}
    answers.update({unitary.name: [unitary.code, unitary.code] for unitary in UNITARIES})
    answers.update({district.name: [COUNTY.code, district.code] for district in DISTRICTS})
    text = io.StringIO()
    table = csv.writer(text, lineterminator="\n")
    table.writerow(("lon", "lat", *polygons, "note"))
    for lon, lat, name, note in GOLDEN_PLACES:
        point = shapely.Point(lon, lat)
        codes = [
            "+".join(code for code, polygon in by_code.items() if polygon.covers(point))
            for by_code in polygons.values()
        ]
        if codes != answers[name]:
            raise ValueError(f"golden point {lon} {lat} is in {codes}, not in {name or 'the sea'}")
        table.writerow((lon, lat, *codes, f"{name or 'sea'}: {note}"))
    return text.getvalue()


def collection(name: str, features: Iterable[dict[str, Any]]) -> str:
    """A GeoJSON document with one feature on a line."""
    lines = ",\n".join(json.dumps(one, separators=(",", ":")) for one in features)
    return f'{{"type":"FeatureCollection","name":"{name}","features":[\n{lines}\n]}}\n'


def make(seed: int) -> dict[str, str]:
    """The text of every file by its name; raises `ValueError` when the country is flawed."""
    arcs = draw_arcs(seed)
    layers = {
        layer: [ground_feature(arcs, ground) for ground in grounds]
        for layer, grounds in LAYERS.items()
    }
    check_layers(arcs, layers)
    features = {
        **layers,
        "trunk_roads": trunk_features(seed, arcs),
        "red_routes": street_features(seed),
    }
    files = {f"{name}.geojson": collection(name, some) for name, some in features.items()}
    return {**files, "golden.csv": golden(layers)}


def stale(files: dict[str, str], folder: Path) -> list[str]:
    """Names of the files that are missing from `folder` or differ there."""
    return [
        name
        for name, text in files.items()
        if not (folder / name).is_file() or (folder / name).read_bytes() != text.encode()
    ]


def main(arguments: Sequence[str] | None = None, *, folder: Path = FOLDER) -> int:
    """Write the files, or with `--check` say which differ; returns the exit code."""
    parser = argparse.ArgumentParser(description="make the files of the example country")
    parser.add_argument("--check", action="store_true", help="write nothing; exit 1 on a change")
    options = parser.parse_args(arguments)
    try:
        files = make(SEED)
    except ValueError as error:
        sys.stderr.write(f"the example country is flawed: {error}\n")
        return 1
    changed = stale(files, folder)
    if options.check:
        for name in changed:
            sys.stderr.write(f"{name} differs; run `python -m boundaries.sample.make`\n")
        return 1 if changed else 0
    for name in changed:
        (folder / name).write_bytes(files[name].encode())
    sys.stdout.write(f"{len(files)} files, {len(changed)} of them changed\n")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
