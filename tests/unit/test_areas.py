"""What is kept of the areas comes back vertex by vertex, as GeoJSON too, or not at all."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import shapely

from boundaries.areas import AREAS, LayerAreas, geojson_polygons, read_areas, write_areas
from boundaries.build import layer_areas
from boundaries.dataset import DatasetError
from tests.support.polygons import degrees, draw, layer

RING = "AAAA/ABBA/ABCA/AAAA/..../AA.D"


def kept(name: str = "layer", *, areas: dict[str, Any] | None = None) -> LayerAreas:
    areas = areas or draw(RING, side=1000, x0=-20_000_000, y0=540_000_000)
    return layer_areas(layer(name, areas), degrees(areas))


def dataset(folder: Path, *layers: LayerAreas, **changed: Any) -> Path:
    folder.mkdir(exist_ok=True)
    entry = write_areas(folder / AREAS, layers) | changed
    (folder / "manifest.json").write_text(json.dumps({"version": "test-1", "areas": entry}))
    return folder


def test_areas_come_back_as_they_were(tmp_path: Path) -> None:
    far = draw("É", side=3_000_000_000, x0=-1_500_000_000, y0=-800_000_000)
    far = {"É": shapely.intersection(far["É"], shapely.box(-1.8e9, -9e8, 1.8e9, 9e8))}
    layers = [kept("first"), kept("second", areas=far)]
    found = read_areas(dataset(tmp_path / "one", *layers))
    assert len(found) == 2
    for one, other in zip(layers, found, strict=True):
        assert (one.layer, one.codes, one.names) == (other.layer, other.codes, other.names)
        for field in ("x", "y", "ring_starts", "ring_part", "part_area"):
            assert getattr(other, field).tolist() == getattr(one, field).tolist()
            assert getattr(other, field).dtype == np.int32


def test_the_same_areas_give_the_same_bytes(tmp_path: Path) -> None:
    one, other = (dataset(tmp_path / name, kept()) for name in ("one", "other"))
    assert (one / AREAS).read_bytes() == (other / AREAS).read_bytes()


def test_geojson_has_each_ring_closed_and_turned_as_it_should_be() -> None:
    areas = draw(RING, side=1000, x0=-20_000_000, y0=540_000_000)
    for code in areas:
        polygons = geojson_polygons(kept(), code)
        shape = shapely.geometry.shape({"type": "MultiPolygon", "coordinates": polygons})
        assert shape.equals(shapely.transform(areas[code], lambda units: units / 1e7))
        for outer, *holes in polygons:
            assert shapely.is_ccw(shapely.LinearRing(outer))
            assert not any(shapely.is_ccw(shapely.LinearRing(hole)) for hole in holes)
            assert outer[0] == outer[-1]
    assert [len(one) for one in geojson_polygons(kept(), "A")] in ([2, 1], [1, 2])  # a hole in one
    with pytest.raises(KeyError, match="no area 'X'"):
        geojson_polygons(kept(), "X")


def test_a_file_that_is_not_what_was_built_is_refused(tmp_path: Path) -> None:
    folder = dataset(tmp_path / "dataset", kept())
    whole = (folder / AREAS).read_bytes()
    (folder / AREAS).write_bytes(whole[:-1])
    with pytest.raises(DatasetError, match=r"sha256 differs; build it again"):
        read_areas(folder)
    (folder / AREAS).unlink()
    with pytest.raises(DatasetError, match=r"cannot be read: .*; build the dataset again"):
        read_areas(folder)
    (folder / "manifest.json").write_text('{"version": "older-1"}')
    with pytest.raises(DatasetError, match=r"older-1 was built without areas.npz.*build it again"):
        read_areas(folder)
    later = dataset(tmp_path / "dataset", kept(), format=2)
    with pytest.raises(DatasetError, match=r"is of format 2, and this georouter reads 1; build"):
        read_areas(later)
