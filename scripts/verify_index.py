"""The long check that the index is exact: tens of millions of points against GEOS.

`prove` checks an artefact on a hundred thousand points when it is built; this goes on for minutes,
after a change to the compiler or the lookup. Bulk answers are compared with GEOS on every point,
single ones in full on a sample of every kind, and GEOS's fast prepared predicate with its plain one
on a smaller sample. Where they differ rational numbers decide: GEOS rounds too. It goes through to
the end and exits with 1 if the index was wrong anywhere. The last line is JSON.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np
import numpy.typing as npt
import shapely

from boundaries.build import layer_rings
from boundaries.canonical import canonical
from boundaries.prove import Points, covering_exactly, sample_points
from boundaries.readers import Geometries, read_features
from boundaries.sample import layer_files
from georouter import codec
from georouter.compiler import compile_index
from georouter.index import Index
from scripts.points import Borders, anywhere, population_like, postcodes, ulp_beside

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]
Pairs = tuple[Ints, Ints]
"""Points and the polygons that cover them, sorted."""

SEED: Final = 7
CHUNK: Final = 250_000
SHOWN: Final = 10
MOST_SETTLED: Final = 2_000
"""Rational numbers take milliseconds a point; an index wrong so often needs no more of them."""

SHARES: Final = {"within 50 m": 0.30, "population": 0.20, "anywhere": 0.20, "shared": 0.02}
"""Of the points of a ground; "shared ulp" is four times "shared". The rest are `sample_points`."""

BORDER: Final = frozenset({"within 50 m", "metres", "millimetres"})
EXACT: Final = frozenset({"vertex", "edge", "ulp", "shared", "shared ulp"})


class Oracle:
    """GEOS on the canonical polygons of one layer."""

    def __init__(self, polygons: Geometries) -> None:
        self._plain = shapely.STRtree(shapely.from_wkb(shapely.to_wkb(polygons)))
        self._polygons = polygons
        shapely.prepare(polygons)
        self._tree = shapely.STRtree(polygons)

    def covering(self, lon: Floats, lat: Floats) -> Pairs:
        """By prepared polygons; for a point `intersects` and `covers` are the same."""
        point, polygon = self._tree.query(shapely.points(lon, lat))
        order = np.argsort(polygon, kind="stable")
        point, polygon = point[order], polygon[order]
        starts = np.searchsorted(polygon, np.arange(len(self._polygons) + 1)).tolist()
        covers = np.zeros(len(point), bool)
        for n, shape in enumerate(self._polygons):
            near = slice(starts[n], starts[n + 1])
            if starts[n] < starts[n + 1]:
                covers[near] = shapely.intersects_xy(shape, lon[point[near]], lat[point[near]])
        return _sorted(point[covers], polygon[covers])

    def plainly(self, lon: Floats, lat: Floats) -> Pairs:
        """By polygons that are not prepared, with GEOS's own `covered_by`."""
        point, polygon = self._plain.query(shapely.points(lon, lat), predicate="covered_by")
        return _sorted(point, polygon)

    def contradictions(self, lon: Floats, lat: Floats, some: Ints, said: Pairs) -> list[int]:
        """Which of `some` points GEOS answers otherwise when the polygons are not prepared."""
        point, polygon = said
        again, other = self.plainly(lon[some], lat[some])
        kept, span = np.isin(point, some), np.int64(1) << 32
        differ = np.setxor1d(point[kept] * span + polygon[kept], some[again] * span + other)
        found: list[int] = np.unique(differ // span).tolist()
        return found


@dataclass(frozen=True, slots=True)
class Ground:
    """An index, and polygons and an oracle for each of its layers."""

    name: str
    index: Index
    polygons: tuple[Geometries, ...]
    oracles: tuple[Oracle, ...]
    homes: Points | None

    def truth(self, lon: float, lat: float, lowest_of: int | None) -> list[int]:
        """In rational numbers: all areas that cover a point, or the lowest of one layer or -1."""
        every = [
            [layer.first + n for n in covering_exactly(polygons, lon=lon, lat=lat)]
            for layer, polygons in zip(self.index.layers, self.polygons, strict=True)
        ]
        if lowest_of is None:
            return [area for areas in every for area in areas]
        return every[lowest_of][:1] or [-1]


class Check:
    """Compares, and counts by kind of point."""

    def __init__(self, single_share: float, plain_share: float) -> None:
        self.points: Counter[str] = Counter()
        self.single = self.plain = self.settled = 0
        self.mismatches: Counter[str] = Counter()
        self._shares = single_share, plain_share
        self._random = np.random.default_rng(SEED)

    def compare(self, ground: Ground, kind: str, points: Points) -> None:
        """All answers on the points, of all layers."""
        lon, lat = (np.ascontiguousarray(points[:, axis]) for axis in (0, 1))
        drawn = self._random.random(len(points))
        sample = np.nonzero(drawn < self._shares[0])[0]
        plain = np.nonzero(drawn < self._shares[1])[0]
        want: list[list[int]] = [[] for _ in sample]
        for number, (layer, oracle) in enumerate(
            zip(ground.index.layers, ground.oracles, strict=True)
        ):
            point, polygon = oracle.covering(lon, lat)
            area = polygon + layer.first
            lowest = np.full(len(points), -1, np.int64)
            lowest[point[::-1]] = area[::-1]  # pairs are sorted: the lowest is written last
            bulk = ground.index.covering_many(lon, lat, layer=layer.name)
            for n in np.nonzero(bulk != lowest)[0].tolist():
                self._settle(ground, kind, points[n], [int(bulk[n])], lowest_of=number)
            starts, stops = (np.searchsorted(point, sample, side) for side in ("left", "right"))
            for n, (start, stop) in enumerate(zip(starts.tolist(), stops.tolist(), strict=True)):
                want[n] += area[start:stop].tolist()
            for n in oracle.contradictions(lon, lat, plain, (point, polygon)):
                self._settle(ground, kind, points[n], [int(bulk[n])], lowest_of=number)
            self.plain += len(plain)
        covering = ground.index.covering
        for n, hits in zip(sample.tolist(), want, strict=True):
            got = list(covering(lon=float(lon[n]), lat=float(lat[n])))
            if got != hits:
                self._settle(ground, kind, points[n], got, lowest_of=None)
        self.points[kind] += len(points)
        self.single += len(sample)

    def _settle(
        self, ground: Ground, kind: str, point: Points, got: list[int], *, lowest_of: int | None
    ) -> None:
        """Where GEOS says otherwise: `got` is the lowest area of a layer, or all areas of all."""
        lon, lat = point.tolist()
        truth: list[int] = []
        if self.settled + self.mismatches.total() < MOST_SETTLED:
            truth = ground.truth(lon, lat, lowest_of)
            if truth == got:
                self.settled += 1
                return
        self.mismatches[kind] += 1
        if self.mismatches.total() <= SHOWN:
            print(f"{ground.name}, {kind}: at lon {lon!r}, lat {lat!r} {got}, not {truth}")


def main() -> int:
    """Print the counts by kind and, last, the line of JSON."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--data", type=Path, default=Path("../shared/data"))
    parser.add_argument("--points", type=int, default=24_000_000, help="how many in all, about")
    options = parser.parse_args()
    started = time.perf_counter()
    # half a million single lookups, and a few ten thousand plain predicates, which are slow
    check = Check(min(1.0, 700_000 / options.points), min(1.0, 30_000 / options.points))
    for share, ground in _grounds(options.data):
        total = int(options.points * share)
        random = np.random.default_rng(SEED)
        for kind, points in _kinds(ground, total, random):
            check.compare(ground, kind, points)
            done = f"{ground.name}: {check.points.total():,} of about {options.points:,} points"
            _say(f"{done}, {check.mismatches.total()} mismatches, {kind}")
    for kind, n in check.points.items():
        print(f"{kind:12}{n:12,} points{check.mismatches[kind]:8} mismatches")
    print(f"{check.settled} answers that GEOS rounds otherwise are right in rational numbers")
    print(
        json.dumps(
            {
                "points": check.points.total(),
                "border_points": sum(check.points[kind] for kind in BORDER),
                "exact_points": sum(check.points[kind] for kind in EXACT),
                "single_points": check.single,
                "plain_points": check.plain,
                "settled": check.settled,
                "mismatches": check.mismatches.total(),
                "kinds": check.points,
                "seconds": round(time.perf_counter() - started, 1),
            }
        )
    )
    return 1 if check.mismatches else 0


def _grounds(data: Path) -> Iterator[tuple[float, Ground]]:
    """What to check and its share of the points, one at a time because of their size."""
    if not data.is_dir():
        _say(f"{data} IS NOT HERE: checking the example country only")
        yield 1.0, _ground("example", layer_files(), None)
        return
    homes = postcodes(data / "truth_postcodes_100k.csv.gz")
    yield 0.85, _ground("full resolution", {"district": data / "lad_2025_bfc.parquet"}, homes)
    layers = {"highway": "ctyua_2025_bgc.parquet", "district": "lad_2025_bgc.parquet"}
    files = {name: data / file for name, file in layers.items()}
    yield 0.15, _ground("two layers", files, homes)


def _ground(name: str, files: dict[str, Path], homes: Points | None) -> Ground:
    _say(f"building {name}")
    polygons, rings = [], []
    for layer, path in files.items():
        features = read_features(path)
        shapes, _ = canonical(features.geometries)
        rings.append(layer_rings(layer, features, shapes))
        polygons.append(shapes)
    index = Index.from_bytes(b"".join(codec.encode(compile_index(rings))))
    return Ground(name, index, tuple(polygons), tuple(Oracle(each) for each in polygons), homes)


def _kinds(ground: Ground, total: int, random: np.random.Generator) -> Iterator[tuple[str, Points]]:
    """Points of every kind, in chunks that keep memory small."""
    every = np.concatenate(ground.polygons)
    borders = Borders(every)

    def population(n: int) -> Points:
        if ground.homes is None:
            return anywhere(every, n, random)
        return population_like(ground.homes, n, random)

    drawn: dict[str, Callable[[int], Points]] = {
        "within 50 m": lambda n: borders.near(n, random),
        "population": population,
        "anywhere": lambda n: anywhere(every, n, random),
    }
    for kind, draw in drawn.items():
        for n in _chunks(int(total * SHARES[kind])):
            yield kind, draw(n)
    shared = borders.shared(int(total * SHARES["shared"]), random)
    awkward = sample_points(
        every, int(total * (1 - sum(SHARES.values()) - 4 * SHARES["shared"])), random
    )
    for kind, points in {"shared": shared, "shared ulp": ulp_beside(shared), **awkward}.items():
        for start in range(0, len(points), CHUNK):
            yield kind, points[start : start + CHUNK]


def _chunks(total: int) -> Iterator[int]:
    for start in range(0, total, CHUNK):
        yield min(CHUNK, total - start)


def _sorted(point: Ints, polygon: Ints) -> Pairs:
    order = np.lexsort((polygon, point))
    return point[order], polygon[order]


def _say(what: str) -> None:
    print(what, file=sys.stderr, flush=True)


if __name__ == "__main__":
    sys.exit(main())
