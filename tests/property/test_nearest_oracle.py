"""Distances to borders against PROJ and GEOS: the plane there, their distance here."""

from __future__ import annotations

import numpy as np
import pyproj
import pytest
import shapely
from hypothesis import given, settings
from hypothesis import strategies as st

from boundaries import sample
from boundaries.build import layer_rings
from boundaries.canonical import canonical
from boundaries.readers import read_features
from georouter.compiler import compile_index
from georouter.index import Index

FEATURES = read_features(sample.layer_files()["district"])
POLYGONS, _ = canonical(FEATURES.geometries)
INDEX = Index(compile_index([layer_rings("district", FEATURES, POLYGONS)]))
VERTICES = shapely.get_coordinates(POLYGONS)


def distances(lon: float, lat: float, within_m: float) -> dict[int, float]:
    """By GEOS on a plane that PROJ lays through the point, to areas that do not cover it."""
    plane = pyproj.Transformer.from_crs(
        "EPSG:4326", f"+proj=aeqd +lon_0={lon} +lat_0={lat} +ellps=WGS84", always_xy=True
    )
    box = shapely.box(lon - 0.05, lat - 0.03, lon + 0.05, lat + 0.03)
    point, origin = shapely.Point(lon, lat), shapely.Point(0, 0)
    found: dict[int, float] = {}
    for area, polygon in enumerate(POLYGONS):
        if shapely.covers(polygon, point) or not shapely.intersects(polygon, box):
            continue
        near = shapely.clip_by_rect(polygon, *box.bounds)
        flat = shapely.transform(
            near, lambda degrees: np.column_stack(plane.transform(degrees[:, 0], degrees[:, 1]))
        )
        distance = shapely.distance(origin, flat)
        if distance <= within_m:
            found[area] = distance
    return found


@settings(max_examples=120, deadline=None, derandomize=True)
@given(
    vertex=st.integers(0, len(VERTICES) - 1),
    east_m=st.floats(-1200, 1200),
    north_m=st.floats(-1200, 1200),
    within_m=st.sampled_from([5.0, 50.0, 200.0, 1000.0]),
)
def test_right_to_one_percent(vertex: int, east_m: float, north_m: float, within_m: float) -> None:
    lon = float(VERTICES[vertex, 0]) + east_m / 64_000
    lat = float(VERTICES[vertex, 1]) + north_m / 111_000
    near = INDEX.nearest_border(lon=lon, lat=lat, layer="district", within_m=within_m)
    wanted = distances(lon, lat, within_m * 1.01)
    assert [found.distance_m for found in near] == sorted(found.distance_m for found in near)
    for found in near:
        assert found.distance_m == pytest.approx(wanted[found.area], rel=0.01, abs=0.02)
    missed = wanted.keys() - {found.area for found in near}
    assert all(wanted[area] > within_m * 0.99 for area in missed)
