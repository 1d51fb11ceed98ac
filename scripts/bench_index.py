"""Speed, size and memory of `Index` against what a reader would otherwise use, in one run.

Every figure is measured beside its peer: same process, same points, in turns, the best of several
rounds. Absolute times mean little on a shared machine; the ratios hold. Without the real boundaries
the example country is measured instead, and said so: it shows nothing of speed at size. The last
line is JSON.
"""

from __future__ import annotations

import argparse
import asyncio
import gc
import json
import os
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any, Final

import geopandas
import numpy as np
import numpy.typing as npt
import shapely

from boundaries.build import layer_rings
from boundaries.canonical import canonical
from boundaries.prove import Points
from boundaries.readers import Geometries, read_features
from boundaries.sample import layer_files
from georouter.index import Index
from scripts import peers
from scripts.figures import (
    INVENTED,
    OURS,
    Figure,
    Growth,
    faster,
    figures_table,
    growth_table,
    limited,
    more,
    plot,
)
from scripts.points import Borders, anywhere, invented_coverage, population_like, postcodes
from scripts.probes import LAYER, probe

SEED: Final = 20_251

Draw = Callable[[int], Points]
"""So many points."""


@dataclass(frozen=True, slots=True)
class Scale:
    """How much is measured."""

    single: int  # points a round
    rounds: int
    bulk: int
    bulk_rounds: int
    slow: int  # points for peers of milliseconds
    memory: int  # lookups of the second process
    invented: tuple[int, ...]  # rows, and columns, of the invented coverages


FULL: Final = Scale(5_000, 15, 1_000_000, 3, 200, 100_000, (32, 71, 141, 200))
QUICK: Final = Scale(300, 2, 5_000, 1, 10, 2_000, (4, 8))


@dataclass(frozen=True, slots=True)
class Ground:
    """A set of polygons, ready to be measured on."""

    name: str
    parquet: Path
    artefact: Path
    polygons: Geometries
    index: Index
    centres: Points | None  # where people live; None: uniformly
    build: dict[str, float | None]

    @property
    def megabytes(self) -> tuple[float, float]:
        """Sizes of the artefact and of the GeoParquet file."""
        return self.artefact.stat().st_size / 1e6, self.parquet.stat().st_size / 1e6

    def population(self, n: int, random: np.random.Generator) -> Points:
        """Points as reports come."""
        if self.centres is None:
            return anywhere(self.polygons, n, random)
        return population_like(self.centres, n, random)


class Bench:
    """Measures; counts every answer that differs from a peer's."""

    def __init__(self, scale: Scale, folder: Path, data: Path) -> None:
        self.scale = scale
        self.folder = folder
        self.data = data
        self.compared = 0
        self.mismatches = 0
        self._random = np.random.default_rng(SEED)

    # --- grounds ------------------------------------------------------------------------------

    def main_ground(self) -> Ground:
        """The districts at full resolution, or the example country."""
        if self.data.is_dir():
            return self._ground("lad_2025_bfc", self.data / "lad_2025_bfc.parquet", self._homes())
        _say(
            f"{self.data} IS NOT HERE: measuring on the example country, which is tiny; "
            "no figure below says anything about real boundaries"
        )
        parquet = self.folder / "example.parquet"
        features = read_features(layer_files()["district"])
        _write_parquet(parquet, features.geometries)
        return self._ground("example", parquet, None)

    def growth_grounds(self) -> Iterator[Ground]:
        """More and more polygons, made one at a time because of their size."""
        if self.data.is_dir():
            wards = self.data / "wards_2025_bgc.parquet"
            yield self._ground("wards_2025_bgc", wards, self._homes())
        most = max(self.scale.invented)
        country = invented_coverage(most, most, np.random.default_rng(SEED)).reshape(most, most)
        for side in self.scale.invented:
            name = f"{INVENTED}_{side * side}"
            parquet = self.folder / f"{name}.parquet"
            _write_parquet(parquet, country[:side, :side].reshape(-1))
            yield self._ground(name, parquet, None)

    def _homes(self) -> Points:
        return postcodes(self.data / "truth_postcodes_100k.csv.gz")

    def _ground(self, name: str, parquet: Path, centres: Points | None) -> Ground:
        _say(f"building {name}")
        artefact = self.folder / f"{name}.grx"
        build = probe("build", parquet, artefact)
        polygons, _ = canonical(read_features(parquet).geometries)
        return Ground(name, parquet, artefact, polygons, Index.open(artefact), centres, build)

    # --- one point at a time ------------------------------------------------------------------

    def single(self, ground: Ground, draw: Draw) -> dict[str, tuple[float, float]]:
        """Median and 99th percentile in microseconds by contestant."""
        contestants = {OURS: ground.index.covering, **peers.Shapely(ground.polygons).single()}
        return self._in_turns(contestants, draw, self.scale.single, self.scale.rounds)

    def _in_turns(
        self, contestants: Mapping[str, peers.Lookup], draw: Draw, n: int, rounds: int
    ) -> dict[str, tuple[float, float]]:
        """The best of rounds of `n` points; each round has its own, the same for all."""
        best = dict.fromkeys(contestants, (np.inf, np.inf))
        names = list(contestants)
        for turn in range(rounds + 1):
            points = [(lon, lat) for lon, lat in draw(n).tolist()]
            if not turn:  # the first round warms up, and compares
                self._compare(contestants, points)
            for name in names[turn % len(names) :] + names[: turn % len(names)]:
                p50, p99 = (np.percentile(_time_each(contestants[name], points), (50, 99))).tolist()
                if turn:
                    best[name] = min(best[name][0], p50 / 1e3), min(best[name][1], p99 / 1e3)
        return best

    def _compare(
        self, contestants: Mapping[str, peers.Lookup], points: Sequence[tuple[float, float]]
    ) -> None:
        ours = contestants[OURS]
        for name, theirs in contestants.items():
            if name == OURS:
                continue
            for lon, lat in points[:2_000]:
                want = sorted(set(theirs(lon=lon, lat=lat)))
                self._count(differ=list(ours(lon=lon, lat=lat)) != want)

    def _count(self, *, differ: bool) -> None:
        self.compared += 1
        self.mismatches += differ

    # --- many at once -------------------------------------------------------------------------

    def bulk(self, ground: Ground, points: Points) -> tuple[dict[str, float], dict[str, float]]:
        """Million points a second by contestant: against shapely as usual, and against it tuned.

        In seconds of the processor, which on a busy machine are those of an idle one.
        """
        lon, lat = (np.ascontiguousarray(points[:, axis]) for axis in (0, 1))
        shapes = peers.Shapely(ground.polygons)
        usual, tuned = shapes.bulk(), shapes.tuned_bulk()

        def ours(lon: peers.Floats, lat: peers.Floats) -> peers.Positions:
            return ground.index.covering_many(lon, lat, layer=LAYER)

        contestants: dict[str, peers.Bulk] = {OURS: ours, **usual, **tuned}
        want = ours(lon, lat)
        rate = dict.fromkeys(contestants, 0.0)
        for _ in range(self.scale.bulk_rounds):
            for name, contestant in contestants.items():
                start = time.process_time()
                got = contestant(lon, lat)
                rate[name] = max(rate[name], len(lon) / (time.process_time() - start) / 1e6)
                self.compared += len(lon)
                self.mismatches += int(np.count_nonzero(got != want))
        return (
            {name: rate[name] for name in (OURS, *usual)},
            {name: rate[name] for name in (OURS, *tuned)},
        )

    # --- the tables ---------------------------------------------------------------------------

    def figures(self, ground: Ground, postgis_url: str | None) -> list[Figure]:
        """Everything that has a target, on one ground."""
        borders = Borders(ground.polygons)

        def population(n: int) -> Points:
            return ground.population(n, self._random)

        def near_border(n: int) -> Points:
            return borders.near(n, self._random)

        return [
            *self._single_figures("population", "population-like", ground, population, (24, 6)),
            *self._single_figures("border", "within 50 m of a border", ground, near_border, (4, 0)),
            *self._bulk_figures("population", "population-like", ground, population, 30),
            *self._bulk_figures("border", "within 50 m of a border", ground, near_border, 3),
            *self._file_figures(ground),
            self._memory_figure(ground, population(self.scale.memory)),
            *self._building_figures(ground),
            *self._other_peers(ground, population, postgis_url),
        ]

    def _single_figures(
        self, key: str, where: str, ground: Ground, draw: Draw, least: tuple[float, float]
    ) -> Iterator[Figure]:
        _say(f"single lookups, {where}")
        times = self.single(ground, draw)
        for nth, percentile in enumerate(("p50", "p99")):
            each = {name: both[nth] for name, both in times.items()}
            what = f"{where}, {percentile}"
            yield faster(f"single_{key}_{percentile}", what, "us", each, least[nth])

    def _bulk_figures(
        self, key: str, where: str, ground: Ground, draw: Draw, least: float
    ) -> Iterator[Figure]:
        _say(f"{self.scale.bulk:,} points in bulk, {where}")
        usual, tuned = self.bulk(ground, draw(self.scale.bulk))
        yield more(f"bulk_{key}", f"bulk, {where}", "M/s", usual, least)
        yield more(f"bulk_{key}_tuned", "  the same, peer tuned", "M/s", tuned, 0)

    def _file_figures(self, ground: Ground) -> Iterator[Figure]:
        _say("opening")
        taken = _time_opening(ground, self.scale.bulk_rounds)
        yield faster("open", "open, first answer", "ms", taken, 100)
        yield limited("open_ms", "  the same, absolutely", "ms", taken[OURS], 20)
        ours, source = ground.megabytes
        share = ours / source
        yield Figure(
            key="size",
            what="size of the artefact",
            unit="MB",
            ours=ours,
            target="<= 1.2 x it",
            met=share <= 1.2,
            peers={"the GeoParquet file": source},
            peer="the GeoParquet file",
            ratio=1 / share,
        )

    def _memory_figure(self, ground: Ground, points: Points) -> Figure:
        _say("memory of a second process")
        path = self.folder / "points.npy"
        np.save(path, points)
        added = probe("memory", ground.artefact, path)["private_mb"]
        return limited("memory_mb", "memory of its own, a 2nd process", "MB", added, 10)

    def _building_figures(self, ground: Ground) -> Iterator[Figure]:
        _say("compiling without reading")
        rings = layer_rings(LAYER, read_features(ground.parquet), ground.polygons)
        path = self.folder / "rings.npz"
        np.savez(path, **{field.name: getattr(rings, field.name) for field in fields(rings)})
        alone = probe("compile", path, self.folder / "again.grx")
        both = ground.build
        yield limited("build_s", "build, one core, from polygons", "s", both["build_s"], 15)
        yield limited("build_gb", "  its peak memory, with reading", "GB", both["peak_gb"], 1.5)
        yield limited("compile_gb", "  compiling alone", "GB", alone["peak_gb"], 1.5)

    def _other_peers(self, ground: Ground, draw: Draw, postgis_url: str | None) -> Iterator[Figure]:
        _say("other peers")
        ours = ground.index.covering
        what = "population-like, p50"
        for name, peer, n in (
            ("rtree + prepared", peers.rtree_lookup(ground.polygons), self.scale.single),
            ("geopandas sjoin", peers.geopandas_lookup(ground.polygons), self.scale.slow),
        ):
            times = self._in_turns({OURS: ours, name: peer}, draw, n, 3)
            each = {which: both[0] for which, both in times.items()}
            yield faster(f"single_{name.split()[0]}", what, "us", each, 0)
        if postgis_url:
            points = draw(self.scale.slow * 5)
            taken, answers = asyncio.run(peers.postgis(postgis_url, ground.polygons, points))
            listed = [(lon, lat) for lon, lat in points.tolist()]
            for (lon, lat), want in zip(listed, answers, strict=True):
                self._count(differ=list(ours(lon=lon, lat=lat)) != sorted(set(want)))
            each = {
                OURS: float(np.median(_time_each(ours, listed))) / 1e3,
                "PostGIS, subdivided, asyncpg": float(np.median(taken)) / 1e3,
            }
            yield faster("single_postgis", what, "us", each, 0)

    def growth(self, ground: Ground, first: Growth | None) -> Growth:
        """The same few figures on any ground."""
        _say(f"growth: {ground.name}")

        def draw(n: int) -> Points:
            return ground.population(n, self._random)

        times = self.single(ground, draw)
        p50, p99 = times.pop(OURS)
        rates, _ = self.bulk(ground, draw(self.scale.bulk))
        artefact_mb, parquet_mb = ground.megabytes
        return Growth(
            name=ground.name,
            polygons=len(ground.polygons),
            vertices=int(shapely.get_num_coordinates(ground.polygons).sum()),
            p50_us=p50,
            p99_us=p99,
            shapely_p50_us=min(both[0] for both in times.values()),
            shapely_p99_us=min(both[1] for both in times.values()),
            of_first=p50 / first.p50_us if first else 1.0,
            bulk=rates.pop(OURS),
            shapely_bulk=max(rates.values()),
            artefact_mb=artefact_mb,
            parquet_mb=parquet_mb,
            open_ms=_time_opening(ground, self.scale.bulk_rounds)[OURS],
            build_s=ground.build["build_s"] or 0.0,
        )


def main() -> int:
    """Print the tables and, last, the line of JSON."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--data", type=Path, default=Path("../shared/data"))
    parser.add_argument("--quick", action="store_true", help="few points: does it run at all")
    parser.add_argument("--json", action="store_true", help="print the line of JSON only")
    parser.add_argument("--plot", type=Path, help="draw growth into this image")
    parser.add_argument(
        "--postgis-url",
        help="also measure PostGIS, in temporary tables of a database that has the extension",
    )
    options = parser.parse_args()
    started = time.perf_counter()
    busy = os.getloadavg()[0] if hasattr(os, "getloadavg") else None
    with tempfile.TemporaryDirectory(prefix="bench-index-") as folder:
        bench = Bench(QUICK if options.quick else FULL, Path(folder), options.data)
        ground = bench.main_ground()
        measured = ground.name
        figures = bench.figures(ground, options.postgis_url)
        growth = [bench.growth(ground, None)]
        del ground
        growth += [bench.growth(each, growth[0]) for each in bench.growth_grounds()]
    if not options.json:
        print(
            f"{measured}; the clock's own 0.05 to 0.08 us are in each lookup; "
            f"load at the start {busy}\n"
        )
        print(f"{figures_table(figures)}\n\n{growth_table(growth)}\n")
        print(f"{bench.compared:,} answers compared with peers, {bench.mismatches} differ")
    if options.plot:
        plot(growth, options.plot)
    found = {
        "ground": measured,
        "quick": options.quick,
        "seed": SEED,
        "load": busy,
        "seconds": round(time.perf_counter() - started, 1),
        "compared": bench.compared,
        "mismatches": bench.mismatches,
        "figures": {figure.key: asdict(figure) for figure in figures},
        "growth": [{**asdict(row), "ahead": row.ahead, "met": row.met} for row in growth],
    }
    print(json.dumps(found))
    return 1 if bench.mismatches else 0


# --- clocks -----------------------------------------------------------------------------------


def _time_each(lookup: peers.Lookup, points: Sequence[tuple[float, float]]) -> npt.NDArray[Any]:
    """Nanoseconds per lookup; those of the clock itself, some 50, are in them."""
    taken = [0] * len(points)
    clock = time.perf_counter_ns
    gc.collect()
    gc.disable()
    for n, (lon, lat) in enumerate(points):
        start = clock()
        lookup(lon=lon, lat=lat)
        taken[n] = clock() - start
    gc.enable()
    return np.array(taken)


def _time_opening(ground: Ground, rounds: int) -> dict[str, float]:
    """Milliseconds to a first answer: from the artefact, and from the GeoParquet file and a tree.

    Both files are in the page cache.
    """
    lon, lat = shapely.get_coordinates(ground.polygons[0].representative_point())[0].tolist()
    peer = "read_parquet, STRtree, prepared"
    best = {OURS: np.inf, peer: np.inf}
    for _ in range(rounds):
        for _ in range(3):
            start = time.perf_counter()
            Index.open(ground.artefact).covering(lon=lon, lat=lat)
            best[OURS] = min(best[OURS], 1e3 * (time.perf_counter() - start))
        start = time.perf_counter()
        polygons = np.asarray(geopandas.read_parquet(ground.parquet).geometry)
        peers.first_answer(polygons, lon=lon, lat=lat)
        best[peer] = min(best[peer], 1e3 * (time.perf_counter() - start))
    return best


# --- files ------------------------------------------------------------------------------------


def _write_parquet(path: Path, polygons: Geometries) -> None:
    codes = [f"X{n:06}" for n in range(len(polygons))]
    frame = {"code": codes, "name": [f"Area {code}" for code in codes]}
    geopandas.GeoDataFrame(frame, geometry=polygons, crs="EPSG:4326").to_parquet(path)


def _say(what: str) -> None:
    print(what, file=sys.stderr, flush=True)


if __name__ == "__main__":
    sys.exit(main())
