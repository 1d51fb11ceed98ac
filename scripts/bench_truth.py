"""How well polygons alone agree with independent truth: where postcodes and collisions are.

Code-Point Open says in which district and county each postcode is; STATS19 says which highway
authority each collision was in. What the polygons cannot give (generalised borders, borders along
roads) is their ceiling, and this prints it. Then the router is asked, which says where it is in
doubt: what counts is how seldom it is wrong where it is certain. It needs the real data, which is
not part of the project. The last line is JSON.
"""

from __future__ import annotations

import argparse
import csv
import gzip
import json
import sys
from collections import Counter
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np

from api.routing import load_rules
from boundaries.build import layer_rings
from boundaries.canonical import canonical
from boundaries.readers import read_features
from georouter import codec
from georouter.compiler import compile_index
from georouter.index import Index
from georouter.model import DecisionState
from georouter.router import Router

Point = tuple[float, float, str]
"""Longitude, latitude, and the code of the right area."""


def main() -> int:
    """Print the agreement of each layer with each truth."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--data", type=Path, default=Path("../shared/data"))
    data: Path = parser.parse_args().data
    if not data.is_dir():
        print(f"{data} is not here: the real boundaries and truths are needed", file=sys.stderr)
        return 4
    found: dict[str, dict[str, float]] = {}
    shipped = load_rules(None)
    pothole = shipped.categories["pothole"]
    # the truths know councils only, and these layers hold no special roads
    councils = replace(pothole, tier=replace(pothole.tier, roads=()))
    rules = replace(shipped, categories={"pothole": councils})
    truths = {
        "district": {"postcodes": list(_postcodes(data, county=False))},
        "highway": {
            "postcodes": list(_postcodes(data, county=True)),
            "collisions": list(_collisions(data)),
        },
    }
    for layer, file in (
        ("district", "lad_2025_bgc.parquet"),
        ("highway", "ctyua_2025_bgc.parquet"),
        ("district", "lad_2025_bfc.parquet"),
    ):
        index = _index(layer, data / file)
        for truth, points in truths[layer].items():
            agreement, wrong = _compare(index, layer, points)
            found[f"{file} {truth}"] = {"points": len(points), "agreement": agreement}
            print(f"{file:24} {truth:10} {len(points):7} points  {agreement:.3%} agree")
            for (said, right), n in wrong.most_common(3):
                print(f"{'':36}{n:5} x {said}, truth {right}")
        if layer == "highway":
            router = Router(index, rules=rules, dataset=file)
            for truth, points in truths[layer].items():
                found[f"router {truth}"] = figures = _route(router, points)
                print(
                    f"{'router, tier highway':24} {truth:10} {len(points):7} points  "
                    f"{figures['certain_share']:.2%} certain; wrong: "
                    f"{figures['error_all']:.3%} of all, {figures['error_certain']:.3%} of these"
                )
    print(json.dumps(found))
    return 0


def _index(layer: str, path: Path) -> Index:
    features = read_features(path)
    geometries, _ = canonical(features.geometries)
    compiled = compile_index([layer_rings(layer, features, geometries)])
    return Index.from_bytes(b"".join(codec.encode(compiled)))


def _compare(
    index: Index, layer: str, points: list[Point]
) -> tuple[float, Counter[tuple[str, str]]]:
    lons, lats = np.array([p[0] for p in points]), np.array([p[1] for p in points])
    wrong: Counter[tuple[str, str]] = Counter()
    answers = index.covering_many(lons, lats, layer=layer).tolist()
    for (_, _, right), hit in zip(points, answers, strict=True):
        said = index.areas[hit].code if hit >= 0 else "nobody"
        if said != right:
            wrong[said, right] += 1
    return 1 - wrong.total() / len(points), wrong


def _route(router: Router, points: list[Point]) -> dict[str, float]:
    """How often the router is certain, and how often wrong: among all, and among the certain."""
    certain = wrong = wrong_certain = 0
    for lon, lat, right in points:
        decision = router.route(lon=lon, lat=lat, category="pothole")
        sure = decision.state is DecisionState.CERTAIN
        missed = decision.responsible is None or decision.responsible.code != right
        certain += sure
        wrong += missed
        wrong_certain += sure and missed
    return {
        "points": len(points),
        "certain_share": certain / len(points),
        "error_all": wrong / len(points),
        "error_certain": wrong_certain / certain,
    }


def _postcodes(data: Path, *, county: bool) -> Iterator[Point]:
    """The county where there is one answers for roads, else the district."""
    with gzip.open(data / "truth_postcodes_100k.csv.gz", "rt", encoding="utf-8") as file:
        for row in csv.DictReader(file):
            code = (row["county_code"] if county else "") or row["district_code"]
            yield float(row["lon"]), float(row["lat"]), code


def _collisions(data: Path) -> Iterator[Point]:
    """Left out are those whose authority was split since: the truth is empty there."""
    with (data / "truth_collisions_2k.csv").open(encoding="utf-8", newline="") as file:
        for row in csv.DictReader(file):
            if row["highway_2025"]:
                yield float(row["lon"]), float(row["lat"]), row["highway_2025"]


if __name__ == "__main__":
    sys.exit(main())
