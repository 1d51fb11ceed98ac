"""The canonical polygons of a dataset, kept beside its index: written by `build`, read by all else.

Answers what the areas of each layer look like: for diffs, pictures and exports, and as GeoJSON for
the service. It promises the vertices as whole units of 1e-7 degrees, just as the index was compiled
from them, from a file whose digest the manifest has. It knows numpy only, no GIS library, and takes
no part in routing: a dataset without the file still decides.

`areas.npz` holds, for the layer at position n, the arrays `n.codes`, `n.names` and `n.x`, `n.y`,
`n.ring_starts`, `n.ring_part`, `n.part_area`, which are the fields of `LayerAreas`; `layers` are
the names. Coordinates are stored as steps from vertex to vertex, the lowest bytes of all first:
that packs to half of what they take as they are.
"""

from __future__ import annotations

import hashlib
import io
import os
import zipfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from boundaries.dataset import DatasetError, DatasetNotFoundError, read_manifest
from georouter.geometry import SCALE

AREAS: Final = "areas.npz"
GENERATION: Final = 1

Ints = npt.NDArray[np.int32]
Position = tuple[float, float]
Polygon = list[list[Position]]
"""The rings of a polygon as GeoJSON has them: closed, the outer one first."""


class LayerNotFoundError(DatasetNotFoundError):
    """A layer that a dataset does not have."""


@dataclass(frozen=True, slots=True, eq=False)
class LayerAreas:
    """The areas of one layer, ascending by code.

    `x`, `y` are the vertices of all rings in units of 1e-7 degrees, each ring closed. Ring r has
    those from `ring_starts[r]` up to `ring_starts[r + 1]`, and is of part `ring_part[r]`; the first
    ring of a part is its outer one, the others are holes. Part p is of area `part_area[p]`.
    """

    layer: str
    codes: tuple[str, ...]
    names: tuple[str, ...]
    x: Ints
    y: Ints
    ring_starts: Ints
    ring_part: Ints
    part_area: Ints


_COORDINATES: Final = ("x", "y")
_STRUCTURE: Final = ("ring_starts", "ring_part", "part_area")


def write_areas(path: Path, layers: Sequence[LayerAreas]) -> dict[str, Any]:
    """Write the areas, durably; returns the manifest's entry. The same areas give the same bytes.

    (The same on one machine: the libraries that compress are not alike on all.)
    """
    arrays: dict[str, npt.NDArray[Any]] = {"layers": np.array([one.layer for one in layers])}
    for n, one in enumerate(layers):
        arrays[f"{n}.codes"], arrays[f"{n}.names"] = np.array(one.codes), np.array(one.names)
        arrays |= {f"{n}.{name}": _packed(getattr(one, name)) for name in _COORDINATES}
        arrays |= {f"{n}.{name}": getattr(one, name).astype("<i4") for name in _STRUCTURE}
    with path.open("w+b") as file:
        np.savez_compressed(file, allow_pickle=False, **arrays)
        file.flush()
        os.fsync(file.fileno())
        size = file.tell()
        file.seek(0)
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    return {"file": path.name, "sha256": digest, "bytes": size, "format": GENERATION}


def read_areas(folder: Path, *, layers: Sequence[str] = ()) -> list[LayerAreas]:
    """The areas of the dataset in `folder`, of all layers or some.

    Raises `DatasetError`, and `LayerNotFoundError` for a layer that it does not have.
    """
    manifest = read_manifest(folder)
    described = manifest.get("areas")
    if not isinstance(described, dict):
        raise DatasetError(
            f"dataset {manifest['version']} was built without {AREAS}, which is needed to compare, "
            "draw or export it; build it again (it can be used for routing as it is)"
        )
    if described.get("format") != GENERATION:
        raise DatasetError(
            f"{folder / AREAS} is of format {described.get('format')}, and this georouter reads "
            f"{GENERATION}; build the dataset again"
        )
    path = folder / AREAS
    try:
        content = path.read_bytes()
    except OSError as error:
        raise DatasetError(
            f"{path} cannot be read: {error.strerror}; build the dataset again"
        ) from None
    if hashlib.sha256(content).hexdigest() != described.get("sha256"):
        raise DatasetError(f"{path} is not what was built: its sha256 differs; build it again")
    try:
        with np.load(io.BytesIO(content), allow_pickle=False) as arrays:
            numbers = {name: n for n, name in enumerate(arrays["layers"].tolist())}
            for name in layers:
                if name not in numbers:
                    raise LayerNotFoundError(
                        f"dataset {manifest['version']} has no layer {name!r}; it has "
                        f"{', '.join(numbers)}"
                    )
            return [_layer(arrays, numbers[name], name) for name in layers or numbers]
    except (zipfile.BadZipFile, KeyError, ValueError) as error:
        raise DatasetError(f"{path} cannot be read: {error}; build the dataset again") from None


def geojson_polygons(areas: LayerAreas, code: str) -> list[Polygon]:
    """An area's polygons as the coordinates of a GeoJSON MultiPolygon (RFC 7946).

    Rings of (longitude, latitude) in degrees, closed; outer ones counter-clockwise, holes
    clockwise. Raises `KeyError` for a code that the layer does not have.
    """
    if code not in areas.codes:
        raise KeyError(f"layer {areas.layer!r} has no area {code!r}")
    parts = np.nonzero(areas.part_area == areas.codes.index(code))[0]
    first, last = np.searchsorted(areas.ring_part, [parts[0], parts[-1] + 1]).tolist()
    found: dict[int, Polygon] = {}
    for ring in range(first, last):
        polygon = found.setdefault(int(areas.ring_part[ring]), [])
        polygon.append(_ring(areas, ring, counter_clockwise=not polygon))
    return list(found.values())


def _ring(areas: LayerAreas, ring: int, *, counter_clockwise: bool) -> list[Position]:
    run = slice(areas.ring_starts[ring], areas.ring_starts[ring + 1])
    x, y = areas.x[run].astype(np.int64), areas.y[run].astype(np.int64)
    # from the first vertex, so that no product of two coordinates overflows
    east, north = x - x[0], y - y[0]
    twice_area = float(np.sum(east[:-1] * north[1:] - east[1:] * north[:-1], dtype=np.float64))
    if (twice_area > 0) != counter_clockwise:
        x, y = x[::-1], y[::-1]
    return list(zip((x / SCALE).tolist(), (y / SCALE).tolist(), strict=True))


def _layer(arrays: Any, n: int, name: str) -> LayerAreas:
    return LayerAreas(
        name,
        tuple(arrays[f"{n}.codes"].tolist()),
        tuple(arrays[f"{n}.names"].tolist()),
        *(_unpacked(arrays[f"{n}.{field}"]) for field in _COORDINATES),
        *(arrays[f"{n}.{field}"] for field in _STRUCTURE),
    )


def _packed(values: Ints) -> npt.NDArray[np.uint8]:
    # in 32 bits steps wrap around, and so does their sum: back to where it was
    steps = np.diff(values.astype("<i4"), prepend=np.int32(0)).astype("<i4")
    return np.ascontiguousarray(steps.view(np.uint8).reshape(-1, 4).T)


def _unpacked(planes: npt.NDArray[np.uint8]) -> Ints:
    steps = np.ascontiguousarray(planes.T).view("<i4").ravel()
    return np.cumsum(steps, dtype=np.int32)
