"""Speed and memory of `georouter route`, Parquet to Parquet, against pyarrow copying alone.

Each run is a process of its own on one core. "Apart from I/O" is its time less that of pyarrow
reading the same input and writing the same output columns, in turns with it; of several rounds the
best of each counts. Times are CPU seconds, as other work on a shared machine is in the way of any
clock. Without the real boundaries the example country is measured. The last line is JSON.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import subprocess
import sys
import tempfile
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from boundaries.build import build_dataset
from boundaries.bulk import BATCH_ROWS, route_file
from boundaries.dataset import open_dataset
from boundaries.prove import Points
from boundaries.sample import layer_files
from boundaries.tables import parquet_options
from scripts.points import population_like, postcodes

SEED: Final = 20_251
CHUNK: Final = 1_000_000
DOGGERLAND: Final = (1.5, 54.3, 3.2, 55.2)  # west, south, east, north


def main() -> int:
    """Print the figures; the last line is JSON."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--data", type=Path, default=Path("../shared/data"))
    parser.add_argument("--rows", type=int, default=5_000_000)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--child", nargs="+", help=argparse.SUPPRESS)
    asked = parser.parse_args()
    if asked.child:
        print(json.dumps(_child(*asked.child)))
        return 0
    real = asked.data.is_dir()
    if not real:
        print(f"{asked.data} is not here: the example country is measured instead")
    with tempfile.TemporaryDirectory(prefix="georouter-bench-") as name:
        found = _measure(Path(name), asked.data if real else None, asked.rows, asked.rounds)
    print(json.dumps({"rows": asked.rows, "real": real, **found}))
    return 0


def _measure(folder: Path, data: Path | None, rows: int, rounds: int) -> dict[str, Any]:
    dataset, layers = folder / "dataset", _layers(data)
    built_at = datetime(2026, 1, 1, tzinfo=UTC)  # no matter here
    build_dataset(layers, dataset, built_at=built_at, proof_points=1000)
    _make_points(folder / "few.parquet", data, min(rows, CHUNK))
    points = folder / "points.parquet"
    _make_points(points, data, rows)
    found: dict[str, Any] = {}
    print(f"{'layers':20} {'total':>8} {'pyarrow':>8} {'apart':>8}   seconds on one core")
    for asked in ([next(iter(layers))], list(layers)):
        total, alone = [], []
        for _ in range(rounds):
            out = folder / "out.parquet"
            total.append(_run("route", dataset, points, out, *asked))
            alone.append(_run("copy", points, out))
            out.unlink()
        total_s = min(one["cpu_s"] for one in total)
        alone_s = min(one["cpu_s"] for one in alone)
        figures = {
            "rows_per_s": round(rows / total_s),
            "rows_per_s_apart_from_io": round(rows / (total_s - alone_s)),
            "ratio_to_pyarrow_alone": round(total_s / alone_s, 2),
            "wall_s": round(min(one["wall_s"] for one in total), 2),
        }
        found["+".join(asked)] = figures
        print(f"{'+'.join(asked):20} {total_s:8.2f} {alone_s:8.2f} {total_s - alone_s:8.2f}")
        for what, value in figures.items():
            print(f"{'':20} {what}: {value:,}")
    for what in ("few", "points"):
        out = folder / "out.parquet"
        peak = _run("route", dataset, folder / f"{what}.parquet", out, *layers)["peak_mb"]
        out.unlink()
        count = pq.read_metadata(folder / f"{what}.parquet").num_rows
        found[f"peak_mb_{count}_rows"] = peak
        print(f"peak memory with {count:,} rows: {peak} MB")
    return found


def _layers(data: Path | None) -> dict[str, Path]:
    if data is None:
        return layer_files()
    return {"highway": data / "ctyua_2025_bgc.parquet", "district": data / "lad_2025_bgc.parquet"}


def _make_points(path: Path, data: Path | None, rows: int) -> None:
    """A file with lon, lat and id: where people live, or anywhere over the example country."""
    random = np.random.default_rng(SEED)
    centres = None if data is None else postcodes(data / "truth_postcodes_100k.csv.gz")
    schema = pa.schema([("lon", pa.float64()), ("lat", pa.float64()), ("id", pa.int64())])
    with pq.ParquetWriter(path, schema) as writer:
        for start in range(0, rows, CHUNK):
            count = min(CHUNK, rows - start)
            points = _points(centres, count, random)
            ids = np.arange(start, start + count)
            columns = [pa.array(np.ascontiguousarray(of)) for of in (*points.T, ids)]
            writer.write_batch(pa.record_batch(columns, schema=schema))


def _points(centres: Points | None, count: int, random: np.random.Generator) -> Points:
    if centres is not None:
        return population_like(centres, count, random)
    west, south, east, north = DOGGERLAND
    return np.column_stack([random.uniform(west, east, count), random.uniform(south, north, count)])


def _run(*arguments: str | Path) -> dict[str, float]:
    command = [sys.executable, "-m", "scripts.bench_route_file", "--child", *map(str, arguments)]
    done = subprocess.run(command, check=True, capture_output=True, text=True)  # noqa: S603
    figures: dict[str, float] = json.loads(done.stdout)
    return figures


def _child(what: str, *arguments: str) -> dict[str, float]:
    """One measured run, in a process of its own."""
    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, {max(os.sched_getaffinity(0))})
    pa.array([0])  # pyarrow imports pandas with its first array: that is the start, not the rows
    wall, cpu = time.perf_counter(), time.process_time()
    unmeasured = 0.0
    if what == "route":
        dataset, source, out, *layers = arguments
        route_file(Path(source), Path(out), open_dataset(Path(dataset)), layers=layers)
    else:
        unmeasured = _copy(*map(Path, arguments))
    return {
        "wall_s": time.perf_counter() - wall,
        "cpu_s": time.process_time() - cpu - unmeasured,
        "peak_mb": _peak_mb(),
    }


def _copy(source: Path, out: Path) -> float:
    """Read `source` and write the columns of `out`, as routing does; returns what is none of it.

    That is the reading of `out`, in CPU seconds.
    """
    for _ in _batches(source):
        pass
    started = time.process_time()
    batches = list(_batches(out))
    reading = time.process_time() - started
    schema = batches[0].schema
    copy = out.with_name("copy.parquet")
    with pq.ParquetWriter(copy, schema, **parquet_options(schema)) as writer:
        for batch in batches:
            writer.write_batch(batch)
    copy.unlink()
    return reading


def _batches(path: Path) -> Any:
    return pq.ParquetFile(path, pre_buffer=False, buffer_size=1 << 20).iter_batches(BATCH_ROWS)


def _peak_mb() -> float:
    """Of this process alone: what `getrusage` says includes that of its parent."""
    status = Path("/proc/self/status")
    found = re.search(r"VmHWM:\s+(\d+)", status.read_text()) if status.exists() else None
    return round(int(found[1]) / 1024, 1) if found else float("nan")


if __name__ == "__main__":
    sys.exit(main())
