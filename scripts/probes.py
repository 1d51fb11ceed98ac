"""What a benchmark must measure in a process of its own: memory, and building on one core.

`probe` starts this module as a program, which prints one line of JSON. Figures that the operating
system does not tell (they come from Linux's /proc) are None.
"""

from __future__ import annotations

import gc
import json
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Final

import numpy as np

from georouter import codec
from georouter.compiler import LayerRings, compile_index
from georouter.index import Index

Measured = dict[str, float | None]

LAYER: Final = "layer"
"""What the one layer of every artefact made here is called."""


def probe(kind: str, source: Path, target: Path) -> Measured:
    """Run one of the probes below in a fresh process, on absolute paths."""
    done = subprocess.run(  # noqa: S603 - this very program
        [sys.executable, "-m", "scripts.probes", kind, source.resolve(), target.resolve()],
        cwd=Path(__file__).parents[1],
        check=True,
        stdout=subprocess.PIPE,
    )
    answer: Measured = json.loads(done.stdout)
    return answer


def build(parquet: Path, artefact: Path) -> Measured:
    """Build as `build_dataset` does, up to the proof; the polygons, which that needs, are kept.

    The time is the processor's, from polygons in memory to the file; the peak that of the process.
    """
    from boundaries.build import layer_rings  # noqa: PLC0415 - only here is GEOS needed
    from boundaries.canonical import canonical  # noqa: PLC0415
    from boundaries.readers import read_features  # noqa: PLC0415

    _one_core()
    features = read_features(parquet)
    start = time.process_time()
    polygons, _ = canonical(features.geometries)
    _compile(layer_rings(LAYER, features, polygons), artefact)
    return {"build_s": time.process_time() - start, "peak_gb": _peak_gb()}


def compile_only(rings: Path, artefact: Path) -> Measured:
    """Compile rings that lie in an .npz file: no GIS library, no source in memory."""
    _one_core()
    with np.load(rings) as kept:
        layer = LayerRings(
            name=str(kept["name"]),
            codes=kept["codes"].tolist(),
            names=kept["names"].tolist(),
            x=kept["x"],
            y=kept["y"],
            starts=kept["starts"],
            owner=kept["owner"],
        )
    start = time.process_time()
    _compile(layer, artefact)
    return {"compile_s": time.process_time() - start, "peak_gb": _peak_gb()}


def memory(artefact: Path, points: Path) -> Measured:
    """What opening an artefact and looking up points adds to the process's own memory.

    Pages of the file that another process has mapped too are shared and do not count. The points
    are listed a few at a time, so that no freed list makes room for what is measured.
    """
    drawn = np.load(points)
    gc.collect()
    before = _private_mb()
    covering = Index.open(artefact).covering
    for start in range(0, len(drawn), 100):
        for lon, lat in drawn[start : start + 100].tolist():
            covering(lon=lon, lat=lat)
    after = _private_mb()
    return {"private_mb": after - before if after and before else None}


_PROBES: Final = {"build": build, "compile": compile_only, "memory": memory}


def _compile(layer: LayerRings, artefact: Path) -> None:
    with artefact.open("wb") as file:
        for piece in codec.encode(compile_index([layer])):
            file.write(piece)


def _one_core() -> None:
    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, [min(os.sched_getaffinity(0))])


def _peak_gb() -> float | None:
    """Of this program only: what `getrusage` says is inherited from the process that started it."""
    peak = _kilobytes(Path("/proc/self/status"), ("VmHWM:",))
    return peak / 1e6 if peak else None


def _private_mb() -> float | None:
    private = _kilobytes(Path("/proc/self/smaps_rollup"), ("Private_Clean:", "Private_Dirty:"))
    return private / 1e3 if private else None


def _kilobytes(path: Path, fields: tuple[str, ...]) -> float | None:
    if not path.exists():
        return None
    lines = (line.split() for line in path.read_text(encoding="ascii").splitlines())
    return sum(1.024 * int(words[1]) for words in lines if words[0] in fields)


if __name__ == "__main__":
    kind, source, target = sys.argv[1:]
    print(json.dumps(_PROBES[kind](Path(source), Path(target))))  # noqa: T201 - the answer
