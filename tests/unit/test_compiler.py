"""Compiled pictures: every area a hand-drawn map can show, at every cell size of the grid."""

from __future__ import annotations

import hashlib
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import shapely

from georouter import codec
from georouter.compiler import CompileError, LayerRings, compile_index
from georouter.geometry import SCALE
from georouter.index import Index
from georouter.model import Area, Layer
from tests.support.polygons import Areas, Drawing, beside, degrees, disagreements, index_of, wedges
from tests.support.polygons import layer as rings_of

ROOT = Path(__file__).parents[2]

# From letters of 2 cm, many in the finest cell, to letters of 22 km, each many top cells wide.
sides = pytest.mark.parametrize("side", [2, 14, 70_000, 2_000_000])


@sides
def test_neighbours_share_their_border(side: int) -> None:
    drawing = Drawing("AAB/ACB", side=side)

    assert drawing.covering(0.5, 0.5) == "A"
    assert drawing.covering(1.5, 0.5) == "A"
    assert drawing.covering(2.5, 1) == "B"
    assert drawing.covering(1.5, 1.5) == "C"
    assert drawing.covering(1, 1.5) == "AC"
    assert drawing.covering(1.5, 1) == "AC"
    assert drawing.covering(2, 0.5) == "AB"
    assert drawing.covering(2, 1) == "ABC"
    assert drawing.covering(0, 0) == "A"
    assert drawing.covering(-0.5, 1) == ""
    assert drawing.disagreements() == []


@sides
def test_four_meet_in_a_corner(side: int) -> None:
    drawing = Drawing("DB/CA", side=side)

    assert drawing.covering(1, 1) == "ABCD", "ascending by code, however they are drawn"
    assert drawing.covering(0.5, 1) == "CD"
    assert drawing.covering(1, 0.5) == "BD"
    assert drawing.disagreements() == []


@sides
def test_an_enclave_lies_in_a_hole(side: int) -> None:
    drawing = Drawing("AAA/ABA/AAA", "aaa/a.a/aaa", side=side)

    assert drawing.covering(1.5, 1.5) == "B"
    assert drawing.covering(1, 1.5) == "ABa"
    assert drawing.covering(0.5, 1.5) == "Aa"
    assert drawing.disagreements() == []


@sides
def test_an_exclave_and_parts_that_touch_in_a_corner(side: int) -> None:
    drawing = Drawing("AABBB/AABAB/BA..B", side=side)

    assert drawing.covering(3.5, 1.5) == "A"
    assert drawing.covering(0.5, 2.5) == "B"
    assert drawing.covering(1, 2.5) == "AB"
    assert drawing.covering(3.5, 2) == "A"
    assert drawing.covering(3, 2) == "AB"
    assert drawing.covering(2.5, 2.5) == ""
    assert drawing.disagreements() == []


@sides
def test_layers_overlap_and_keep_their_order(side: int) -> None:
    drawing = Drawing("ZZ./ZZ.", ".AA/.AA", side=side)

    assert drawing.covering(1.5, 0.5) == "ZA", "the first layer first, whatever the codes"
    assert drawing.covering(0.5, 0.5) == "Z"
    assert drawing.covering(2.5, 0.5) == "A"
    assert drawing.covering(1, 1) == drawing.covering(2, 1) == "ZA"
    assert drawing.disagreements() == []


@sides
def test_areas_of_one_layer_overlap(side: int) -> None:
    drawing = Drawing(("AA../AA..", ".BB./.BB.", "..../.CCC"), side=side)

    assert drawing.covering(1.5, 0.5) == "AB"
    assert drawing.covering(1.5, 1.5) == "ABC"
    assert drawing.covering(3.5, 1.5) == "C"
    assert drawing.covering(2, 1) == "ABC"
    assert drawing.disagreements() == []


@sides
def test_two_layers_on_the_same_lines(side: int) -> None:
    drawing = Drawing("AAB/ACB", "aab/acb", "hhh/hhh", side=side)

    assert drawing.covering(1.5, 1.5) == "Cch"
    assert drawing.covering(2, 1) == "ABCabch"
    assert drawing.disagreements() == []


@pytest.mark.parametrize(
    ("x0", "y0"),
    [
        (-1_800_000_000, -900_000_000),
        (1_800_000_000 - 3 * 1000, 900_000_000 - 2 * 1000),
        (-1500, -1000),
        (-3000, 515_000_000),
        (0, 0),
        (2**18 * 5 - 1500, 2**18 * 2 - 1000),
    ],
    ids=["south-west", "north-east", "across zero", "west of zero", "at zero", "across top cells"],
)
def test_anywhere_on_the_globe(x0: int, y0: int) -> None:
    drawing = Drawing("AAB/ACB", ".aa/.aa", x0=x0, y0=y0)

    assert drawing.covering(2, 1) == "ABCa"
    assert drawing.covering(0, 2) == "A"
    assert drawing.covering(3, 0) == "Ba"
    assert drawing.disagreements() == []


def test_a_whole_hemisphere_in_pieces_of_twenty_degrees() -> None:
    drawing = Drawing("ABCDEFGHI/JKLMNOPQR", side=200_000_000, x0=-1_800_000_000, y0=0)

    assert drawing.covering(1, 1) == "ABJK"
    assert drawing.covering(9, 0) == "I"
    assert drawing.disagreements() == []


def circle(vertices: int, *, radius: int, x: int = 0, y: int = 0) -> Any:
    turns = 2 * np.pi * np.arange(vertices) / vertices
    rim = np.column_stack([x + radius * np.cos(turns), y + radius * np.sin(turns)])
    return shapely.Polygon(np.rint(rim))


def around(areas: Areas, *, every: int = 1) -> np.ndarray[Any, Any]:
    vertices = np.unique(shapely.get_coordinates(degrees(areas)), axis=0)[::every]
    return beside(np.concatenate([vertices, (vertices[1:] + vertices[:-1]) / 2]))


def test_a_chain_longer_than_a_record_counts_is_cut() -> None:
    areas = {"A": circle(900, radius=2000, x=31, y=510_000_007)}
    compiled = compile_index([rings_of("one", areas)], leaf_edges=[10**6])
    assert len(compiled.arrays["sub"]) == 0, "all edges are near the same cells"

    assert disagreements(Index(compiled), {"one": areas}, around(areas, every=45)) == []


def test_a_dense_ring_in_a_tiny_place() -> None:
    areas = {"A": circle(1200, radius=330, x=31, y=510_000_007)}

    assert disagreements(index_of(one=areas), {"one": areas}, around(areas, every=30)) == []


@pytest.mark.parametrize("radius", [40, 50_000, 30_000_000])
@pytest.mark.parametrize("count", [8, 9, 12, 24])
def test_many_areas_meet_in_one_vertex(count: int, radius: int) -> None:
    areas = wedges(count, radius=radius, x=77, y=521_000_000)
    index = index_of(one=areas)

    assert index.covering(lon=77 / SCALE, lat=52.1) == tuple(range(count))
    assert disagreements(index, {"one": areas}, around(areas)) == []


@pytest.mark.parametrize("half", range(32_760, 32_776))
def test_vertices_about_as_far_away_as_16_bits_reach(half: int) -> None:
    """Spokes from the middle of a square of 700 m; the finest cells are those at the hub."""
    x, y = 20_000_000, 521_000_000
    steps = (-half, -half // 2, 0, half // 2, half)
    rim = [(side, step) for side in (-half, half) for step in steps]
    rim = sorted({*rim, *((step, side) for side, step in rim)}, key=lambda at: np.arctan2(*at))
    corners = [[(0, 0), rim[n - 1], rim[n]] for n in range(len(rim))]
    areas = {
        f"A{n:02}": shapely.Polygon([(x + dx, y + dy) for dx, dy in corner])
        for n, corner in enumerate(corners)
    }
    reach = np.arange(-20, 21, 4) + 0.5
    hub = np.array([(x + dx, y + dy) for dx in reach for dy in reach]) / SCALE

    beside_hub = beside(np.array([[x, y], [x + 2, y + 4], [x - 4, y - 2]]) / SCALE)
    compiled = compile_index([rings_of("one", areas)], leaf_edges=[1])

    assert compiled.grid.shifts[-1] == 3
    points = np.concatenate([hub, beside_hub])
    assert disagreements(Index(compiled), {"one": areas}, points) == []


def test_more_areas_than_a_record_can_name() -> None:
    with pytest.raises(CompileError) as refused:
        index_of(one=wedges(25, radius=5000, x=20_000_000, y=521_000_000))
    assert str(refused.value).startswith("25 areas have borders near lon ")
    assert str(refused.value).endswith("; at most 24 can meet: put fewer layers into one index")


def test_more_borders_in_a_cell_than_a_record_can_hold() -> None:
    squares = [shapely.box(x, y, x + 2, y + 2) for x in range(0, 72, 4) for y in range(0, 72, 4)]
    areas = {"A": shapely.MultiPolygon(squares)}
    index = index_of(one=areas)
    assert disagreements(index, {"one": areas}, around(areas, every=40)) == []

    with pytest.raises(CompileError, match=r"324 borders meet near lon .*; simplify the polygons"):
        compile_index([rings_of("one", areas)], leaf_edges=[10**6])


def test_vertices_given_twice_in_a_row_do_not_matter() -> None:
    ring = [(0, 0), (9, 0), (9, 0), (9, 9), (0, 9), (0, 9), (0, 9), (0, 0)]
    areas = {"A": shapely.Polygon(ring)}

    assert disagreements(index_of(one=areas), {"one": areas}, around(areas)) == []


def test_layers_and_areas_are_named_in_order() -> None:
    index = index_of(second={"B": shapely.box(0, 0, 9, 9)}, first=wedges(3, radius=9))

    assert index.layers == (Layer("second", 0, 1), Layer("first", 1, 4))
    assert index.areas == (
        Area("second", "B", "Area B"),
        *(Area("first", code, f"Area {code}") for code in ("A01", "A02", "A03")),
    )


def test_progress_ends_with_everything_done() -> None:
    told: list[tuple[str, float]] = []
    compile_index(
        [rings_of("one", {"A": shapely.box(0, 0, 9, 9)})],
        progress=lambda stage, share: told.append((stage, share)),
    )
    shares = [share for _, share in told]
    assert shares == sorted(shares)
    assert told[-1] == ("arrays", 1.0)


# --- what is refused --------------------------------------------------------------------------

SQUARE = rings_of("one", {"A": shapely.box(0, 0, 9, 9)})
PAIR = rings_of("one", {"A": shapely.box(0, 0, 9, 9), "B": shapely.box(9, 0, 18, 9)})


def moved(rings: LayerRings, x: int, y: int) -> LayerRings:
    return replace(rings, x=rings.x + x, y=rings.y + y)


def opened(rings: LayerRings) -> LayerRings:
    x = rings.x.copy()
    x[-1] += 1
    return replace(rings, x=x)


@pytest.mark.parametrize(
    ("layers", "message"),
    [
        ([], "no layer to compile; name at least one"),
        ([SQUARE, SQUARE], "two layers have the same name: one, one"),
        ([replace(PAIR, codes=("B", "A"))], "layer 'one': codes must be unique and ascending"),
        ([replace(PAIR, codes=("A", "A"))], "layer 'one': codes must be unique and ascending"),
        ([replace(SQUARE, codes=(), names=())], "layer 'one' has no areas"),
        (
            [replace(SQUARE, codes=("A", "B"), names=("a", "b"))],
            "layer 'one': area 'B' has no polygon",
        ),
        (
            [replace(PAIR, owner=PAIR.owner[::-1])],
            "layer 'one': rings must be in the order of their areas",
        ),
        (
            [opened(SQUARE)],
            "layer 'one': a ring is not closed or has fewer than three edges",
        ),
        (
            [replace(SQUARE, x=SQUARE.x[:3], y=SQUARE.y[:3], starts=np.array([0, 3]))],
            "layer 'one': a ring is not closed or has fewer than three edges",
        ),
        ([moved(SQUARE, 1_800_000_000, 0)], "layer 'one': coordinates are not WGS 84 degrees"),
        ([moved(SQUARE, 0, -900_000_001)], "layer 'one': coordinates are not WGS 84 degrees"),
        (
            [rings_of("one", {"A": shapely.box(0, 0, 300_000_000, 9)})],
            "an edge spans 30 degrees; add vertices so that none exceeds 27",
        ),
        (
            [rings_of("one", {"A": shapely.Polygon([(0, 0), (9, 0), (9, 9), (9, 0), (0, 9)])})],
            (
                "an area's border runs twice along one edge near lon 0.0000009, lat 0.0000009; "
                "the polygon is not valid, repair it first"
            ),
        ),
    ],
)
def test_refusals_say_what_is_wrong(layers: list[LayerRings], message: str) -> None:
    with pytest.raises(CompileError) as refused:
        compile_index(layers)
    assert str(refused.value) == message


# --- the same input gives the same bytes ------------------------------------------------------


def encoded() -> bytes:
    drawing = Drawing("AAB/ACB/DDD", "aab/acb/...", side=4321)
    rings = [rings_of(name, areas) for name, areas in drawing.layers.items()]
    fan = rings_of("fan", wedges(12, radius=7000, x=20_005_000, y=540_004_000))
    return b"".join(codec.encode(compile_index([*rings, fan])))


def test_compiling_twice_gives_the_same_bytes() -> None:
    assert encoded() == encoded()


def test_another_process_gives_the_same_bytes() -> None:
    program = (
        "from tests.unit.test_compiler import encoded; import hashlib;"
        "print(hashlib.sha256(encoded()).hexdigest())"
    )
    digests = {
        subprocess.run(
            [sys.executable, "-c", program],
            cwd=ROOT,
            env={"PYTHONHASHSEED": hash_seed},
            check=True,
            capture_output=True,
            text=True,
        ).stdout.strip()
        for hash_seed in ("1", "2")
    }
    assert digests == {hashlib.sha256(encoded()).hexdigest()}
