"""Builds a dataset from boundary files: read, repair, validate, compile, prove, write the manifest.

The result is a folder with `manifest.json`, `index.grx` and `areas.npz`. It appears whole, under
its name, or not at all: everything is made in a folder beside it, which is renamed at the very end.
The index depends on the input alone, so the same files give the same bytes.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import os
import shutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import date, datetime
from pathlib import Path
from typing import Any

import numpy as np
import shapely

from boundaries.areas import AREAS, LayerAreas, write_areas
from boundaries.canonical import canonical, repairs
from boundaries.corrections import accept
from boundaries.dataset import INDEX, MANIFEST, road_as_json
from boundaries.findings import Finding, as_json, ordered, stop
from boundaries.prove import Proof, prove
from boundaries.readers import (
    ALL,
    AS_IT_SAYS,
    Choice,
    Features,
    Geometries,
    Reading,
    SourceError,
    read_features,
)
from boundaries.roads import RoadsSource, read_roads
from boundaries.succession import succeed
from boundaries.validate import Validation, admit, areas_m2, check
from georouter import codec
from georouter.compiler import LEAF_EDGES, LayerRings, compile_index
from georouter.geometry import SCALE
from georouter.index import Index
from georouter.model import Succession

Progress = Callable[[str, float], None]


class BuildConflictError(Exception):
    """The place where the dataset should go is taken."""


@dataclass(frozen=True, slots=True)
class LayerSource:
    """The file of a layer, how it is read, which of its areas are wanted, and what is known of it.

    `known` goes into the manifest: title, publisher, edition, licence, attribution, ...
    """

    path: Path
    code_field: str | None = None
    name_field: str | None = None
    reading: Reading = AS_IT_SAYS
    choice: Choice = ALL
    known: Mapping[str, str] = field(default_factory=dict)

    def read(self) -> Features:
        """The layer as it is in the file, areas without ground included. Raises `SourceError`."""
        features = read_features(
            self.path,
            code_field=self.code_field,
            name_field=self.name_field,
            reading=self.reading,
            choice=self.choice,
            keep_empty=True,
        )
        return dataclasses.replace(features, origin={**features.origin, **self.known})


def build_dataset(
    layers: Mapping[str, Path | LayerSource],
    out: Path,
    *,
    built_at: datetime,
    roads: Mapping[str, Sequence[RoadsSource]] | None = None,
    successions: Sequence[Succession] = (),
    as_of: date | None = None,
    code_field: str | None = None,
    name_field: str | None = None,
    proof_points: int = 105_000,
    leaf_edges: Sequence[int] = LEAF_EDGES,
    seed: int = 1,
    recipe: Mapping[str, Any] | None = None,
    validation: Validation | None = None,
    progress: Progress = lambda _stage, _share: None,
) -> dict[str, Any]:
    """Build the dataset folder `out` from one file per layer, `roads` being those of roads.

    With `as_of` the areas that have ended by that day are replaced by those of their successors.
    `leaf_edges` weighs size against speed, see `compile_index`. The manifest, which is returned,
    has what `validation` found, and keeps the `recipe` that the arguments were made of. Raises
    `SourceError` for a file or a correction, `FindingsError` for findings that stop it,
    `CompileError` for polygons, `ProofError` when the index is wrong, `BuildConflictError` when
    `out` exists; nothing is left behind then.
    """
    if out.exists():
        raise BuildConflictError(f"{out} exists already; remove it or choose another --out")
    how = validation or Validation()
    how.corrections.need_layers(layers)
    files = {
        name: LayerSource(given, code_field, name_field) if isinstance(given, Path) else given
        for name, given in layers.items()
    }
    read, described, findings = _read_layers(files, how, progress)
    areas = {name: dict(zip(one.codes, one.geometries, strict=True)) for name, one in read.items()}
    if as_of is not None:
        read, replaced = succeed(read, successions, as_of=as_of)
        for layer in described:
            name = layer["name"]
            if name in replaced:
                layer["replaced"] = replaced[name]
                read[name], _ = _canonical_features(f"layer {name!r}", read[name])
                areas[name] |= dict(zip(read[name].codes, read[name].geometries, strict=True))
    findings += _validated(read, described, how, progress)
    findings, accepted = accept(findings, how.corrections, layers)
    stop(findings, strict=how.strict)
    for name, sources in (roads or {}).items():
        progress(f"reading {name}", 1.0)
        special = read_roads(sources, areas=areas)
        where = ", ".join(str(source.path) for source in sources)
        read[name], repaired = _canonical_features(where, special.features)
        described.append(
            {
                "name": name,
                "repairs": repaired,
                "sources": special.origins,
                "roads": {code: road_as_json(road) for code, road in special.roads.items()},
            }
        )
    rings = [layer_rings(name, one, one.geometries) for name, one in read.items()]
    polygons = [one.geometries for one in read.values()]
    for layer, ring in zip(described, rings, strict=True):
        layer |= {"areas": len(ring.codes), "vertices": len(ring.x)}
    compiled = compile_index(rings, leaf_edges=leaf_edges, progress=progress)
    partial = out.with_name(f".{out.name}.partial-{os.getpid()}")
    try:
        partial.mkdir(parents=True)
        digest = _write_index(partial / INDEX, compiled)
        kept = [layer_areas(*one) for one in zip(rings, polygons, strict=True)]
        areas_entry = write_areas(partial / AREAS, kept)
        proof = prove(
            Index.open(partial / INDEX), polygons, points=proof_points, seed=seed, progress=progress
        )
        manifest = _manifest(
            f"{out.name}-{digest[:8]}",
            built_at,
            as_of,
            described,
            polygons,
            digest,
            partial,
            proof,
        )
        manifest["areas"] = areas_entry
        if recipe is not None:
            manifest["recipe"] = dict(recipe)
        manifest["findings"] = as_json(ordered(findings))
        if accepted:
            manifest["accepted"] = accepted
        _write_durably(partial / MANIFEST, json.dumps(manifest, indent=2).encode() + b"\n")
        partial.rename(out)
    finally:
        shutil.rmtree(partial, ignore_errors=True)
    return manifest


def _read_layers(
    layers: Mapping[str, LayerSource], how: Validation, progress: Progress
) -> tuple[dict[str, Features], list[dict[str, Any]], list[Finding]]:
    """The layers as canonical polygons, corrected; what the manifest says of them; findings."""
    findings: list[Finding] = []
    read: dict[str, Features] = {}
    described: list[dict[str, Any]] = []
    for number, (name, source) in enumerate(layers.items()):
        progress(f"reading {name}", number / len(layers))
        features = source.read()
        admitted = admit(name, features, how)
        read[name] = admitted.features
        findings += admitted.findings
        stop(findings, strict=False)
        described.append({"name": name, **admitted.as_json(), "source": features.origin})
        del features, admitted  # as read they are as large as all the rest
    return read, described, findings


def _validated(
    layers: Mapping[str, Features],
    described: Sequence[dict[str, Any]],
    how: Validation,
    progress: Progress,
) -> list[Finding]:
    """What is found in the layers; the sizes of their areas go into their descriptions."""
    findings: list[Finding] = []
    for number, layer in enumerate(described):
        progress(f"validating {layer['name']}", number / len(described))
        findings += check(layer["name"], layers[layer["name"]], how)
        layer["area_m2"] = areas_m2(layers[layer["name"]])
    return findings


def _canonical_features(where: str, features: Features) -> tuple[Features, list[dict[str, Any]]]:
    """The areas as canonical polygons, and what had to be repaired."""
    geometries, repaired = canonical(features.geometries)
    gone = [code for code, g in zip(features.codes, geometries, strict=True) if g.is_empty]
    if gone:
        raise SourceError(
            f"{where}: area {gone[0]!r} is smaller than the grid of 1e-7 degrees; remove it"
        )
    told = repairs(features.codes, features.geometries, geometries, repaired)
    return (
        dataclasses.replace(features, geometries=geometries),
        [dataclasses.asdict(one) for one in told],
    )


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


def layer_areas(rings: LayerRings, geometries: Geometries) -> LayerAreas:
    """The same rings as they are kept beside the index, with the parts that they belong to."""
    parts, area = shapely.get_parts(geometries, return_index=True)
    part = np.repeat(np.arange(len(parts)), 1 + shapely.get_num_interior_rings(parts))
    return LayerAreas(
        layer=rings.name,
        codes=tuple(rings.codes),
        names=tuple(rings.names),
        x=rings.x.astype(np.int32),
        y=rings.y.astype(np.int32),
        ring_starts=rings.starts.astype(np.int32),
        ring_part=part.astype(np.int32),
        part_area=area.astype(np.int32),
    )


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
    as_of: date | None,
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
        **({"as_of": as_of.isoformat()} if as_of else {}),
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
