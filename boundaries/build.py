"""Builds a dataset from boundary files: read, make canonical, compile, prove, write the manifest.

The result is a folder with `manifest.json` and `index.grx`. It appears whole, under its name, or
not at all: everything is made in a folder beside it, which is renamed at the very end. The index
depends on the input alone, so the same files give the same bytes.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import os
import shutil
from collections.abc import Callable, Mapping, Sequence
from datetime import datetime
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import shapely

from boundaries.dataset import INDEX, MANIFEST
from boundaries.prove import Proof, prove
from boundaries.readers import Features, Geometries, SourceError, read_features
from boundaries.roads import DEFAULT_BUFFER_M, read_roads
from georouter import codec
from georouter.compiler import LEAF_EDGES, CompileError, LayerRings, compile_index
from georouter.geometry import SCALE
from georouter.index import Index

Progress = Callable[[str, float], None]

_MOST_REPAIRS = 8


@dataclasses.dataclass(frozen=True, slots=True)
class RoadsSource:
    """A file of special roads, the body (code, name) that mends them, and their half width."""

    path: Path
    body: tuple[str, str] | None = None
    buffer_m: float = DEFAULT_BUFFER_M


class BuildConflictError(Exception):
    """The place where the dataset should go is taken."""


def build_dataset(
    layers: Mapping[str, Path],
    out: Path,
    *,
    built_at: datetime,
    roads: Mapping[str, RoadsSource] | None = None,
    code_field: str | None = None,
    name_field: str | None = None,
    proof_points: int = 105_000,
    leaf_edges: Sequence[int] = LEAF_EDGES,
    seed: int = 1,
    progress: Progress = lambda _stage, _share: None,
) -> dict[str, Any]:
    """Build the dataset folder `out` from one file per layer, `roads` being those of roads.

    `leaf_edges` weighs size against speed, see `compile_index`. Returns the manifest. Raises
    `SourceError` for a file, `CompileError` for polygons, `ProofError` when the index is wrong,
    `BuildConflictError` when `out` exists; nothing is left behind then.
    """
    if out.exists():
        raise BuildConflictError(f"{out} exists already; remove it or choose another --out")
    rings: list[LayerRings] = []
    polygons: list[Geometries] = []
    described: list[dict[str, Any]] = []
    for number, (name, path) in enumerate(layers.items()):
        progress(f"reading {name}", number / len(layers))
        features = read_features(path, code_field=code_field, name_field=name_field)
        prepared = _prepare(name, path, features)
        rings.append(prepared[0])
        polygons.append(prepared[1])
        described.append(prepared[2])
        del features, prepared  # as read they are as large as all the rest
    for name, source in (roads or {}).items():
        progress(f"reading {name}", 1.0)
        read = read_roads(source.path, body=source.body, buffer_m=source.buffer_m)
        road_rings, ground, description = _prepare(name, source.path, read.features)
        rings.append(road_rings)
        polygons.append(ground)
        stretches = {code: dataclasses.asdict(road) for code, road in read.roads.items()}
        described.append({**description, "roads": stretches})
    compiled = compile_index(rings, leaf_edges=leaf_edges, progress=progress)
    partial = out.with_name(f".{out.name}.partial-{os.getpid()}")
    try:
        partial.mkdir(parents=True)
        digest = _write_index(partial / INDEX, compiled)
        proof = prove(
            Index.open(partial / INDEX), polygons, points=proof_points, seed=seed, progress=progress
        )
        manifest = _manifest(
            f"{out.name}-{digest[:8]}",
            built_at,
            described,
            polygons,
            digest,
            partial,
            proof,
        )
        _write_durably(partial / MANIFEST, json.dumps(manifest, indent=2).encode() + b"\n")
        partial.rename(out)
    finally:
        shutil.rmtree(partial, ignore_errors=True)
    return manifest


def _prepare(
    name: str, path: Path, features: Features
) -> tuple[LayerRings, Geometries, dict[str, Any]]:
    """The layer for the compiler, for the proof, and for the manifest."""
    geometries, repaired = canonical(features.geometries)
    gone = [code for code, g in zip(features.codes, geometries, strict=True) if g.is_empty]
    if gone:
        raise SourceError(
            f"{path}: area {gone[0]!r} is smaller than the grid of 1e-7 degrees; remove it"
        )
    rings = layer_rings(name, features, geometries)
    described = {
        "name": name,
        "areas": len(features.codes),
        "vertices": len(rings.x),
        "repaired": [features.codes[n] for n in repaired],
        "source": features.origin,
    }
    return rings, geometries, described


def canonical(geometries: Geometries) -> tuple[Geometries, list[int]]:
    """The canonical polygons, and the positions of those that needed repair.

    Every vertex is moved to the grid of 1e-7 degrees (at most 5.6 mm along each axis). A polygon
    that is not valid then is made valid by GEOS and moved to the grid again, until it stays valid;
    where a few rounds do not get there, snap rounding does (GEOS `set_precision`).
    """
    snapped = _snap(geometries)
    invalid = np.nonzero(~shapely.is_valid(snapped))[0]
    repaired = invalid.tolist()
    for _ in range(_MOST_REPAIRS):
        if not len(invalid):
            break
        fixed = shapely.make_valid(snapped[invalid], method="structure", keep_collapsed=False)
        snapped[invalid] = _snap(_polygons_only(fixed))
        invalid = invalid[~shapely.is_valid(snapped[invalid])]
    if len(invalid):
        fixed = shapely.set_precision(shapely.make_valid(snapped[invalid]), 1 / SCALE)
        snapped[invalid] = _snap(_polygons_only(fixed))
    if not shapely.is_valid(snapped).all():
        where = shapely.is_valid_reason(snapped[~shapely.is_valid(snapped)][0])
        raise CompileError(f"a polygon cannot be made valid on the grid of 1e-7 degrees: {where}")
    return snapped, repaired


def layer_rings(name: str, features: Features, geometries: Geometries) -> LayerRings:
    """The rings of canonical polygons in grid units, as the compiler takes them."""
    parts, area = shapely.get_parts(geometries, return_index=True)
    rings, part = shapely.get_rings(parts, return_index=True)
    degrees, ring = shapely.get_coordinates(rings, return_index=True)
    units = np.rint(degrees * SCALE).astype(np.int64)
    lengths = np.bincount(ring, minlength=len(rings))
    return LayerRings(
        name=name,
        codes=features.codes,
        names=features.names,
        x=np.ascontiguousarray(units[:, 0]),
        y=np.ascontiguousarray(units[:, 1]),
        starts=np.concatenate([[0], np.cumsum(lengths)]),
        owner=area[part].astype(np.int64),
    )


def _snap(geometries: Geometries) -> Geometries:
    def to_grid(degrees: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
        return np.rint(degrees * SCALE) / SCALE

    return np.asarray(shapely.transform(geometries, to_grid), dtype=object)


def _polygons_only(geometries: Geometries) -> Geometries:
    """What repair left over as lines and points is dropped."""
    kept = np.empty(len(geometries), dtype=object)
    for n, geometry in enumerate(geometries):
        parts = shapely.get_parts(geometry)
        if shapely.get_type_id(geometry) == shapely.GeometryType.GEOMETRYCOLLECTION:
            parts = shapely.get_parts(parts)
        flat = [part for part in parts if part.geom_type == "Polygon" and not part.is_empty]
        kept[n] = shapely.MultiPolygon(flat)  # empty when nothing is left
    return kept


def _write_index(path: Path, compiled: codec.Compiled) -> str:
    digest = hashlib.sha256()
    with path.open("wb") as file:
        for piece in codec.encode(compiled):
            digest.update(piece)
            file.write(piece)
        file.flush()
        os.fsync(file.fileno())
    return digest.hexdigest()


def _write_durably(path: Path, content: bytes) -> None:
    with path.open("wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())


def _manifest(
    version: str,
    built_at: datetime,
    layers: list[dict[str, Any]],
    polygons: list[Geometries],
    digest: str,
    folder: Path,
    proof: Proof,
) -> dict[str, Any]:
    bounds = shapely.total_bounds(np.concatenate(polygons))
    return {
        "version": version,
        "built_at": built_at.isoformat(),
        "index": {
            "file": INDEX,
            "sha256": digest,
            "bytes": (folder / INDEX).stat().st_size,
            "format": codec.GENERATION,
        },
        "canonical": {
            "grid_degrees": 1 / SCALE,
            "rule": "vertices moved to the nearest grid point, then made valid again",
        },
        "bounds": [float(value) for value in bounds],
        "layers": layers,
        "proof": {
            "oracle": f"rtree candidates, GEOS {shapely.geos_version_string} covers",
            "seed": proof.seed,
            "points": proof.points,
            "mismatches": 0,
            "settled_in_rationals": proof.settled,
        },
    }
