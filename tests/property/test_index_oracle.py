"""The index against GEOS on random coverages: coarse and fine, everywhere, at awkward points.

Vertices lie on a lattice, so that collinear edges, vertices on edges and areas that touch in a
point are the rule; on a lattice of one grid unit (1 cm) neighbours part and overlap by that unit
once their vertices are snapped. Most points lie on a vertex or an edge, or a hair beside one.
"""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np
import numpy.typing as npt
import shapely
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from boundaries.build import layer_rings
from boundaries.canonical import canonical
from boundaries.prove import Oracle
from boundaries.readers import Features
from georouter import codec
from georouter.compiler import LayerRings, compile_index
from georouter.geometry import SCALE
from georouter.index import Index
from tests.support.polygons import beside, covers_exactly

Polygons = npt.NDArray[Any]
Points = npt.NDArray[np.float64]

LATTICE = 12  # steps along each side
STEPS = (1, 3, 900, 70_000, 1_500_000)  # in grid units: 1 cm, 3 cm, 10 m, 800 m, 17 km
CORNERS = (  # in degrees, and where of the lattice that is
    (-2.6325, 53.545, 0.5, 0.5),
    (0.0, 51.4779, 0.5, 0.5),
    (0.0, 60.0, 0.0, 1.0),
    (0.0, 0.0, 0.5, 0.5),
    (1.7, 0.0, 0.0, 0.0),
    (180.0, 66.5, 1.0, 0.5),
    (-180.0, -16.5, 0.0, 0.5),
    (15.5, 90.0, 0.5, 1.0),
    (-180.0, -90.0, 0.0, 0.0),
)
FEW = settings(max_examples=50, deadline=None, derandomize=True)

lattice_points = st.lists(
    st.tuples(st.integers(0, LATTICE), st.integers(0, LATTICE)),
    min_size=3,
    max_size=11,
    unique=True,
)


@dataclasses.dataclass(frozen=True)
class Country:
    """Canonical polygons by layer, and points to ask about."""

    layers: list[Polygons]
    points: Points = dataclasses.field(repr=False)

    def rings(self) -> list[LayerRings]:
        return [rings_of(f"layer {n}", some) for n, some in enumerate(self.layers, start=1)]


def rings_of(name: str, polygons: Polygons) -> LayerRings:
    codes = tuple(f"{n:02}" for n in range(len(polygons)))
    return layer_rings(name, Features(codes, codes, polygons, {}), polygons)


def voronoi(points: Any, _: list[int]) -> list[Any]:
    box = shapely.box(0, 0, LATTICE, LATTICE)
    cells = shapely.voronoi_polygons(shapely.multipoints(points), extend_to=box)
    return [cell.intersection(box) for cell in shapely.get_parts(cells)]


def triangles(points: Any, labels: list[int]) -> list[Any]:
    found = shapely.get_parts(shapely.delaunay_triangles(shapely.multipoints(points)))
    label = np.resize(labels, len(found))
    return [shapely.union_all(found[label == one]) for one in sorted(set(label.tolist()))]


def star(points: Any, _: list[int]) -> list[Any]:
    middle = points.mean(axis=0)
    order = np.argsort(np.arctan2(*(points - middle).T), kind="stable")
    return [shapely.Polygon(points[order])]


def tangle(points: Any, _: list[int]) -> list[Any]:
    """An outline that mostly crosses itself, for `canonical` to repair, over its hull."""
    return [shapely.Polygon(points), shapely.convex_hull(shapely.multipoints(points))]


@st.composite
def countries(draw: st.DrawFn) -> Country:
    step, corner = draw(st.sampled_from(STEPS)), draw(st.sampled_from(CORNERS))
    lon, lat, across, up = corner
    side = LATTICE * step
    x, y = round(lon * SCALE - across * side), round(lat * SCALE - up * side)
    layers = []
    for _ in range(draw(st.integers(1, 3))):
        shapes: list[Any] = []
        for _ in range(draw(st.integers(1, 2))):
            kind = draw(st.sampled_from([voronoi, triangles, star, tangle]))
            labels = draw(st.lists(st.integers(0, 2), min_size=1, max_size=5))
            shapes += kind(np.array(draw(lattice_points), dtype=np.float64), labels)
        snapped = [
            shapely.transform(shape, lambda at: np.rint(at * step + [x, y]) / SCALE)
            for shape in shapes
            if shape.geom_type in {"Polygon", "MultiPolygon"} and shape.area > 0
        ]
        # areas that vanish on the grid are refused by `build_dataset`
        repaired = [
            shapely.make_valid(shape, method="structure", keep_collapsed=False) for shape in snapped
        ]
        kept = [shape for shape, area in zip(snapped, repaired, strict=True) if area.area > 0]
        if kept:
            polygons, _ = canonical(np.array(kept, dtype=object))
            layers.append(polygons)
    assume(0 < sum(map(len, layers)) <= 24)  # more cannot meet in one cell
    random = np.random.default_rng(draw(st.integers(0, 2**32)))
    return Country(layers, awkward_points(np.concatenate(layers), random))


def awkward_points(polygons: Polygons, random: np.random.Generator) -> Points:
    rings = shapely.get_rings(shapely.get_parts(polygons))
    vertices, ring = shapely.get_coordinates(rings, return_index=True)
    starts = np.nonzero(ring[1:] == ring[:-1])[0]
    picked = random.choice(starts, min(25, len(starts)), replace=False)
    a, b = vertices[picked], vertices[picked + 1]
    share = random.choice([0.5, 0.25, 0.1, 1 / 3, random.random()], (len(picked), 1))
    borders = random.permutation(beside(np.concatenate([a, a + (b - a) * share])))[:250]
    west, south, east, north = shapely.total_bounds(polygons)
    margin = max(east - west, north - south) / 8
    anywhere = np.column_stack(
        [
            random.uniform(west - margin, east + margin, 60),
            random.uniform(south - margin, north + margin, 60),
        ]
    )
    level = np.column_stack([anywhere[: len(a), 0], a[:, 1]])
    upright = np.column_stack([a[:, 0], anywhere[: len(a), 1]])
    points = np.concatenate([borders, anywhere, level, upright])
    return np.asarray(np.clip(points, [-180.0, -90.0], [180.0, 90.0]))


def answers(index: Index, points: Points) -> list[tuple[int, ...]]:
    return [index.covering(lon=lon, lat=lat) for lon, lat in points.tolist()]


def bulk(index: Index, points: Points) -> list[list[int]]:
    return [
        index.covering_many(points[:, 0], points[:, 1], layer=layer.name).tolist()
        for layer in index.layers
    ]


@FEW
@given(countries())
def test_covering_is_what_geos_says(country: Country) -> None:
    index = Index(compile_index(country.rings()))
    found = answers(index, country.points)
    for layer, polygons in zip(index.layers, country.layers, strict=True):
        got = [[n - layer.first for n in hits if layer.first <= n < layer.stop] for hits in found]
        shapes = shapely.points(country.points)
        plain = np.array([shapely.covers(polygon, shapes) for polygon in polygons]).T
        by_geos = [np.nonzero(row)[0].tolist() for row in plain]
        by_oracle = Oracle(polygons).covering(country.points)
        for (lon, lat), mine, *theirs in zip(
            country.points.tolist(), got, by_geos, by_oracle, strict=True
        ):
            if theirs != [mine, mine]:
                # GEOS computes with 106 bits. Near the equator or Greenwich the last places of a
                # point reach further down than that beside a long edge; rationals keep them all
                assert min(abs(lon), abs(lat)) < 1, (lon, lat, mine, theirs)
                exact = [
                    n
                    for n, polygon in enumerate(polygons)
                    if covers_exactly(polygon, lon=lon, lat=lat)
                ]
                assert mine == exact, (lon, lat, mine, theirs)


@FEW
@given(countries())
def test_many_at_once_are_answered_as_one_by_one(country: Country) -> None:
    index = Index(compile_index(country.rings()))
    found = answers(index, country.points)
    for layer, lowest in zip(index.layers, bulk(index, country.points), strict=True):
        assert lowest == [
            next((n for n in hits if layer.first <= n < layer.stop), -1) for hits in found
        ]


@FEW
@given(countries())
def test_bytes_answer_as_the_index_they_were_made_of(country: Country) -> None:
    compiled = compile_index(country.rings())
    whole = b"".join(codec.encode(compiled))
    index, read = Index(compiled), Index.from_bytes(whole)
    points = country.points[::4]

    assert (read.layers, read.areas) == (index.layers, index.areas)
    assert answers(read, points) == answers(index, points)
    assert bulk(read, points) == bulk(index, points)
    assert b"".join(codec.encode(compile_index(country.rings()))) == whole


@FEW
@given(countries(), st.sampled_from([(1, 32), (3, 16), (1000, 1000)]))
def test_neither_cell_sizes_nor_the_direction_of_rings_show(
    country: Country, most: tuple[int, int]
) -> None:
    index = Index(compile_index(country.rings()))
    other = Index(
        compile_index(
            [
                rings_of(rings.name, shapely.reverse(polygons))
                for rings, polygons in zip(country.rings(), country.layers, strict=True)
            ],
            leaf_edges=most,
        )
    )
    points = country.points[::4]
    assert answers(other, points) == answers(index, points)
    assert bulk(other, points) == bulk(index, points)
