"""Esri's rings become polygons: outer ones run clockwise, holes the other way."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import geopandas
import pytest
import shapely

from boundaries.drivers.features import from_esri, write_features
from boundaries.drivers.remote import RemoteError


def ring(x: float, y: float, size: float) -> list[list[float]]:
    return [[x, y], [x, y + size], [x + size, y + size], [x + size, y], [x, y]]


def hole(x: float, y: float, size: float) -> list[list[float]]:
    return ring(x, y, size)[::-1]


def polygon(*rings: list[list[float]]) -> Any:
    return from_esri({"rings": list(rings)}, "here")


def test_an_island_in_a_lake_gets_the_hole_that_is_in_it() -> None:
    # holes first: the order means nothing
    found = polygon(
        hole(4.5, 4.5, 0.5),
        hole(3, 3, 4),
        ring(20, 0, 2),
        ring(0, 0, 10),
        ring(4, 4, 2),
    )
    wanted = shapely.union_all(
        [
            shapely.box(0, 0, 10, 10) - shapely.box(3, 3, 7, 7),
            shapely.box(4, 4, 6, 6) - shapely.box(4.5, 4.5, 5, 5),
            shapely.box(20, 0, 22, 2),
        ]
    )
    assert shapely.get_num_geometries(found) == 3
    assert shapely.is_valid(found)
    assert shapely.equals(found, wanted)


def test_a_hole_may_touch_its_ring() -> None:
    found = polygon(ring(0, 0, 4), [[2, 4], [1, 3], [3, 3], [2, 4]])
    assert found.geom_type == "Polygon"
    assert found.area == pytest.approx(15.0)


def test_far_from_the_origin_small_rings_keep_their_direction() -> None:
    found = polygon(ring(655_000, 1_220_000, 1e-4), ring(655_001, 1_220_000, 1e-4))
    assert shapely.get_num_geometries(found) == 2


def test_a_hole_in_nothing_is_a_fault() -> None:
    with pytest.raises(RemoteError, match="here: a ring runs as a hole and lies in no other ring"):
        polygon(ring(0, 0, 1), hole(5, 5, 1))


def test_what_encloses_nothing_goes_and_heights_go() -> None:
    found = polygon([[x, y, 7.0] for x, y in ring(0, 0, 1)], [[0, 0], [1, 1], [0, 0]])
    assert found.equals(shapely.box(0, 0, 1, 1))
    assert not found.has_z


def test_paths_are_lines() -> None:
    assert from_esri({"paths": [[[0, 0], [1, 1]]]}, "here").geom_type == "LineString"
    two = from_esri({"paths": [[[0, 0], [1, 1]], [[2, 2], [3, 3]]]}, "here")
    assert (two.geom_type, two.length) == ("MultiLineString", pytest.approx(2 * 2**0.5))


@pytest.mark.parametrize(
    "geometry", [{"x": 1, "y": 2}, {"curveRings": []}, {"rings": [[1]]}, {"paths": [[[1, 1]]]}]
)
def test_other_geometries_are_refused(geometry: dict[str, Any]) -> None:
    with pytest.raises(RemoteError, match="here"):
        from_esri(geometry, "here")


def test_nothing_is_nothing() -> None:
    assert from_esri(None, "here") is None


def test_the_file_keeps_coordinates_and_their_system(tmp_path: Path) -> None:
    areas = [polygon(ring(400_000.123456789, 300_000, 10)), None]
    rows: list[dict[str, Any]] = [{"CD": "E1", "n": 1}, {"CD": "E2", "n": None}]
    made = [
        write_features(tmp_path / name, rows, areas, crs="EPSG:27700", where="here")
        for name in ("a.parquet", "b.parquet")
    ]
    assert made[0].read_bytes() == made[1].read_bytes()
    frame = geopandas.read_parquet(made[0])
    assert frame.crs.to_authority() == ("EPSG", "27700")
    assert shapely.equals_identical(frame.geometry[0], areas[0])
    assert frame["CD"].tolist() == ["E1", "E2"]
    with pytest.raises(RemoteError, match="here is in EPSG:1, which nobody knows"):
        write_features(tmp_path / "c.parquet", rows, areas, crs="EPSG:1", where="here")
