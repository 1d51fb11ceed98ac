"""Writes the areas of a dataset to a file that other programs read.

GeoParquet, GeoPackage or GeoJSON, with code, name, layer and polygon of each area, and in the
file's metadata the dataset's version and the attribution that the sources ask for. The file appears
whole or not at all.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Final

import geopandas
import numpy as np
import pyarrow.parquet as pq

from boundaries.areas import LayerAreas, geojson_polygons
from boundaries.shapes import polygons


class ExportError(Exception):
    """A file that cannot be written; the message says what to do."""


class ExportConflictError(ExportError):
    """The place where the file should go is taken."""


def export_areas(layers: Sequence[LayerAreas], out: Path, *, version: str, attribution: str) -> int:
    """Write the areas to `out`, in the format of its suffix; returns how many there are.

    Raises `ExportError`.
    """
    write = _FORMATS.get(out.suffix.lower())
    if write is None:
        raise ExportError(f"{out} has an unknown extension; use {', '.join(_FORMATS)}")
    if out.exists():
        raise ExportConflictError(f"{out} exists already; remove it or choose another --out")
    partial = out.with_name(f".{out.stem}.partial-{os.getpid()}{out.suffix}")
    try:
        write(layers, partial, {"dataset": version, "attribution": attribution})
        with partial.open("rb") as file:
            os.fsync(file.fileno())
        partial.rename(out)
    except OSError as error:
        raise ExportError(f"{out} cannot be written: {error.strerror or error}") from None
    finally:
        partial.unlink(missing_ok=True)
    return sum(len(one.codes) for one in layers)


def _frame(layers: Sequence[LayerAreas]) -> Any:
    return geopandas.GeoDataFrame(
        {
            "layer": [one.layer for one in layers for _ in one.codes],
            "code": [code for one in layers for code in one.codes],
            "name": [name for one in layers for name in one.names],
        },
        geometry=np.concatenate([polygons(one) for one in layers]),
        crs="EPSG:4326",
    )


def _write_parquet(layers: Sequence[LayerAreas], path: Path, about: Mapping[str, str]) -> None:
    _frame(layers).to_parquet(path)
    table = pq.read_table(path)
    told = {key.encode(): value.encode() for key, value in about.items()}
    pq.write_table(table.replace_schema_metadata({**table.schema.metadata, **told}), path)


def _write_geopackage(layers: Sequence[LayerAreas], path: Path, about: Mapping[str, str]) -> None:
    _frame(layers).to_file(path, layer="areas", engine="pyogrio", dataset_metadata=dict(about))


def _write_geojson(layers: Sequence[LayerAreas], path: Path, about: Mapping[str, str]) -> None:
    with path.open("w", encoding="utf-8") as file:
        file.write(f'{{"type": "FeatureCollection", {json.dumps(about)[1:-1]}, "features": [')
        comma = ""
        for layer in layers:
            for code, name in zip(layer.codes, layer.names, strict=True):
                feature = {
                    "type": "Feature",
                    "properties": {"layer": layer.layer, "code": code, "name": name},
                    "geometry": {
                        "type": "MultiPolygon",
                        "coordinates": geojson_polygons(layer, code),
                    },
                }
                file.write(comma + "\n" + json.dumps(feature, separators=(",", ":")))
                comma = ","
        file.write("\n]}\n")


_FORMATS: Final[dict[str, Callable[[Sequence[LayerAreas], Path, Mapping[str, str]], None]]] = {
    ".parquet": _write_parquet,
    ".gpkg": _write_geopackage,
    ".geojson": _write_geojson,
}
