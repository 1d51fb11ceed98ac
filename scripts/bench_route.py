"""What a second layer costs a lookup, and what routing costs over a bare lookup.

Both as ratios of medians measured in the same run at the same points: where people live, within
50 m of a border, and within 30 m of a special road. On the real counties, districts, trunk roads
and red routes where they are, else on the example country. The last line is JSON.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

import numpy as np

from api.routing import load_rules
from boundaries.build import layer_rings
from boundaries.canonical import canonical
from boundaries.prove import Points
from boundaries.readers import read_features
from boundaries.roads import RoadsSource, read_roads
from boundaries.sample import RED_ROUTES, TRUNK_ROADS, layer_files
from georouter.compiler import compile_index
from georouter.index import Index
from georouter.router import Router
from scripts.points import Borders, anywhere, population_like, postcodes

SEED: Final = 20251
POINTS: Final = 4_000
ROUNDS: Final = 7


def main() -> int:
    """Print the figures."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, default=Path("../shared/data"))
    data: Path = parser.parse_args().data
    real = data.is_dir()
    if not real:
        print(f"{data} IS NOT HERE: measuring on the example country", file=sys.stderr)
    files = {
        "highway": data / "ctyua_2025_bgc.parquet" if real else layer_files()["highway"],
        "district": data / "lad_2025_bgc.parquet" if real else layer_files()["district"],
    }
    special = {
        "red_route": (RED_ROUTES, None)
        if not real
        else (data / "tfl_red_routes_2017.parquet", ("TFL", "Transport for London")),
        "trunk": (TRUNK_ROADS, None)
        if not real
        else (data / "national_highways_area6.parquet", ("NH", "National Highways")),
    }
    features = {name: read_features(path) for name, path in files.items()}
    roads = {name: read_roads([RoadsSource(path, body)]) for name, (path, body) in special.items()}
    features |= {name: read.features for name, read in roads.items()}
    polygons = {name: canonical(found.geometries)[0] for name, found in features.items()}
    rings = [layer_rings(name, features[name], polygons[name]) for name in features]
    one, two = Index(compile_index(rings[:1])), Index(compile_index(rings[:2]))
    router = Router(
        Index(compile_index(rings)),
        rules=load_rules(None),
        dataset="bench",
        roads={name: read.roads for name, read in roads.items()},
    )
    random = np.random.default_rng(SEED)
    homes = postcodes(data / "truth_postcodes_100k.csv.gz") if real else None
    places = {
        "population": anywhere(polygons["highway"], POINTS, random)
        if homes is None
        else population_like(homes, POINTS, random),
        "within 50 m": Borders(polygons["highway"]).near(POINTS, random),
        "near a road": Borders(polygons["trunk"]).near(POINTS, random, within_m=30.0),
    }
    found = {name: _measure(points, one, two, router) for name, points in places.items()}
    for name, figures in found.items():
        print(
            f"{name:12} one layer {figures['one_us']:.2f} us, two {figures['two_us']:.2f} us "
            f"({figures['layers_ratio']:.2f} x); routed {figures['route_us']:.1f} us "
            f"({figures['route_us'] - figures['two_us']:+.1f} us, {figures['route_ratio']:.1f} x)"
        )
    print(json.dumps({"real": real, **found}))
    return 0


def _measure(points: Points, one: Index, two: Index, router: Router) -> dict[str, float]:
    """Medians in microseconds over points, of each the best of several interleaved rounds."""

    def route(*, lon: float, lat: float) -> object:
        return router.route(lon=lon, lat=lat, category="pothole")

    subjects: dict[str, Callable[..., Any]] = {
        "one_us": one.covering,
        "two_us": two.covering,
        "route_us": route,
    }
    best = {name: np.full(len(points), np.inf) for name in subjects}
    places = points.tolist()
    clock = time.perf_counter_ns
    for _ in range(ROUNDS):
        for name, call in subjects.items():
            times = best[name]
            for n, (lon, lat) in enumerate(places):
                start = clock()
                call(lon=lon, lat=lat)
                times[n] = min(times[n], clock() - start)
    medians = {name: float(np.median(times)) / 1e3 for name, times in best.items()}
    return {
        **medians,
        "layers_ratio": medians["two_us"] / medians["one_us"],
        "route_ratio": medians["route_us"] / medians["two_us"],
    }


if __name__ == "__main__":
    sys.exit(main())
