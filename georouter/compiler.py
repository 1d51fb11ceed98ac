"""Compiles canonical polygons of any number of layers into the flat arrays that `Index` looks up.

The ground is a grid of square cells in units of 1e-7 degrees, refined where borders are dense. A
cell that no border comes near holds the set of areas covering it. A cell that borders cross holds a
*record*: which areas cover its reference point, and the chains of edges near the cell, so that a
lookup counts crossings instead of searching. Everything here is integer arithmetic, in numpy, and
deterministic; it uses no geometry library, so the proof of an artefact against one is independent.
It is long because the steps share their words and their invariants, which belong on one page.

Words used below
    reference point  the centre of a cell, moved by half a unit so that it is never a vertex
    border type      the set of areas that an edge bounds; an edge shared by areas is stored once
    chain            consecutive source edges of one border type, unclipped, that meet the cell
    fin              a vertical edge to infinity added where a chain ends to the right of its cell:
                     the ray towards +x from any point of the cell then sees curves without ends,
                     and the number of crossings changes only where the point crosses a border
    face             ground covered by one set of areas, named while compiling by a 64-bit hash: the
                     XOR of a random word per area (a collision has odds of about 1e-8 for a
                     million faces, and would be caught by the proof)
    palette          the areas a record can answer with, and a table from parity bits to sets

Arrays: `top` and `sub` hold a word per cell: a set number, or SUB | position in `sub` of its
children, or RECORD | position in `records`. A record is [palette, parity of the reference point
minus crossings of its ray | chains << 24], then per chain [mask of areas | vertices << 24 | WIDE]
and its x, y pairs, measured from the centre of the cell: in 16 bits each or, where a vertex is too
far away for that, in 32. A palette, at the position that records name, is the table of 2^k sets;
before it stand [k local areas][m areas covering the whole cell][k | m << 8]. Sets are slices of
`set_members`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from georouter.codec import Compiled, Grid
from georouter.geometry import SCALE
from georouter.model import Area, Layer

Ints = npt.NDArray[np.int64]
Hashes = npt.NDArray[np.uint64]
Bools = npt.NDArray[np.bool_]

SUB: Final = 1 << 30
RECORD: Final = 1 << 31
UNLISTED: Final = 0xFFFFFFFF
"""A palette entry whose set is put together at lookup: it takes a rare mix of parities."""

WIDE: Final = 1 << 31
"""Marks a chain of 32-bit coordinates."""

FIN_WIDE: Final = 2**31 - 1
FIN_NARROW: Final = 2**15 - 1
"""The y of a fin's far end, above all points of the cell, in chains of 32 and of 16 bits."""

LARGEST_TABLE: Final = 8
"""Palettes of more local areas than this have no table."""

LEAF_EDGES: Final = (1, 6, 10, 14)
"""Edges near a cell before it is divided, from the largest cells down; the last for all below.
Large cells are divided early, as most points end in them; on 361 districts of 3.8 million vertices
this gave the fastest lookups of those tried within 1.2 times the size of the GeoParquet file."""

_TOP_SHIFT: Final = 17
_STEP: Final = 2
_FINEST_SHIFT: Final = 3
_MOST_TOP_CELLS: Final = 1 << 20
_BLOCK: Final = 1 << 18  # edges worked on at a time: it bounds memory and stays near the cache
_PAD: Final = 1  # units around a cell within which an edge counts as near
_LONGEST_EDGE: Final = 1 << 28  # keeps every product below within 63 bits
_MASK_BITS: Final = 24
_MOST_CHAIN_EDGES: Final = 120  # a chain's vertex count, fins included, fits 7 bits
_NARROW_SHIFT: Final = 15  # the largest cells whose points all lie below a narrow fin


class CompileError(ValueError):
    """Polygons that cannot be compiled; the message says which and what to do."""


@dataclass(frozen=True, slots=True)
class LayerRings:
    """One layer's canonical polygons as closed rings.

    `codes` and `names` describe the areas, ascending by code. `x`, `y` are the vertices of all
    rings in units of 1e-7 degrees; ring `r` is `starts[r]:starts[r + 1]`, its last vertex equal to
    its first, and belongs to area `owner[r]`. Orientation does not matter; holes are just rings.
    """

    name: str
    codes: Sequence[str]
    names: Sequence[str]
    x: Ints
    y: Ints
    starts: Ints
    owner: Ints


@dataclass(frozen=True, slots=True)
class _Rings:
    """The rings of all layers; areas are numbered across layers."""

    x: Ints
    y: Ints
    starts: Ints
    owner: Ints


@dataclass(frozen=True, slots=True)
class _Edges:
    """The distinct undirected edges, by ascending position of their first vertex in the rings."""

    at: Ints  # position of the first vertex; edges of one chain have consecutive positions
    x1: Ints
    y1: Ints
    x2: Ints
    y2: Ints
    type: Ints
    type_areas: list[tuple[int, ...]]
    type_hash: Hashes


@dataclass(slots=True)
class _Level:
    """The cells of one refinement level."""

    shift: int
    x: Ints  # lower left corner of each cell
    y: Ints
    face: Hashes  # of the reference point: its hash, later the number of its set
    word: npt.NDArray[np.uint32]
    # (cell, edge) pairs of the cells that become records, sorted
    leaf_cell: Ints = field(default_factory=lambda: np.zeros(0, np.int64))
    leaf_edge: Ints = field(default_factory=lambda: np.zeros(0, np.int64))


def compile_index(
    layers: Sequence[LayerRings],
    *,
    leaf_edges: Sequence[int] = LEAF_EDGES,
    progress: Callable[[str, float], None] = lambda _stage, _share: None,
) -> Compiled:
    """Compile layers of canonical polygons.

    A cell is divided while more edges are near it than `leaf_edges` allows on its level: fewer make
    lookups faster and the artefact larger. `progress` is called with a stage and the share done.
    Raises `CompileError` for geometry out of bounds.
    """
    progress("edges", 0.0)
    rings = _concatenate(layers)
    area_hash = _area_hashes(sum(len(layer.codes) for layer in layers))
    edges = _distinct_edges(rings, area_hash)
    progress("cells", 0.2)
    grid, levels = _refine(rings, edges, leaf_edges)
    progress("faces", 0.5)
    sets = _Sets(len(area_hash))
    _name_faces(levels, sets, rings, area_hash)
    progress("records", 0.6)
    records, palettes = _write_records(levels, rings, edges, sets)
    progress("arrays", 1.0)
    named_layers, areas = _name_areas(layers)
    return Compiled(
        grid=grid,
        layers=named_layers,
        areas=areas,
        arrays={
            "top": levels[0].word,
            "sub": np.concatenate([np.zeros(0, np.uint32), *(level.word for level in levels[1:])]),
            "records": records,
            "palettes": palettes,
            **sets.arrays(),
        },
    )


class _Sets:
    """The distinct sets of areas, numbered: 0 is nothing, 1 + a is area a alone."""

    def __init__(self, areas: int) -> None:
        self.members: list[tuple[int, ...]] = [(), *((area,) for area in range(areas))]
        self._number = {members: number for number, members in enumerate(self.members)}

    def number(self, members: Iterable[int]) -> int:
        key = tuple(sorted(members))
        found = self._number.get(key)
        if found is None:
            found = self._number[key] = len(self.members)
            self.members.append(key)
        return found

    def arrays(self) -> dict[str, npt.NDArray[np.uint32]]:
        lengths = [len(members) for members in self.members]
        flat = [area for members in self.members for area in members]
        return {
            "set_offsets": np.concatenate([[0], np.cumsum(lengths)]).astype(np.uint32),
            "set_members": np.array(flat, dtype=np.uint32),
        }


# --- input ------------------------------------------------------------------------------------


def _concatenate(layers: Sequence[LayerRings]) -> _Rings:
    if not layers:
        raise CompileError("no layer to compile; name at least one")
    names = [layer.name for layer in layers]
    if len(set(names)) != len(names):
        raise CompileError(f"two layers have the same name: {', '.join(names)}")
    first_area, first_vertex = 0, 0
    owners: list[Ints] = []
    starts: list[Ints] = []
    for layer in layers:
        _check_layer(layer)
        owners.append(layer.owner + first_area)
        starts.append(layer.starts[:-1] + first_vertex)
        first_area += len(layer.codes)
        first_vertex += len(layer.x)
    x = np.concatenate([layer.x for layer in layers])
    y = np.concatenate([layer.y for layer in layers])
    return _Rings(x, y, np.concatenate([*starts, [first_vertex]]), np.concatenate(owners))


def _check_layer(layer: LayerRings) -> None:
    where = f"layer {layer.name!r}"
    codes = list(layer.codes)
    if not codes:
        raise CompileError(f"{where} has no areas")
    if codes != sorted(set(codes)):
        raise CompileError(f"{where}: codes must be unique and ascending")
    if np.any(np.diff(layer.owner) < 0):
        raise CompileError(f"{where}: rings must be in the order of their areas")
    missing = np.setdiff1d(np.arange(len(codes)), layer.owner)
    if len(missing):
        raise CompileError(f"{where}: area {codes[int(missing[0])]!r} has no polygon")
    if np.abs(layer.x).max() > 180 * SCALE or np.abs(layer.y).max() > 90 * SCALE:
        raise CompileError(f"{where}: coordinates are not WGS 84 degrees")
    first, last = layer.starts[:-1], layer.starts[1:] - 1
    if np.any(last - first < 3) or np.any(
        (layer.x[first] != layer.x[last]) | (layer.y[first] != layer.y[last])
    ):
        raise CompileError(f"{where}: a ring is not closed or has fewer than three edges")


def _name_areas(layers: Sequence[LayerRings]) -> tuple[tuple[Layer, ...], tuple[Area, ...]]:
    named: list[Layer] = []
    areas: list[Area] = []
    for layer in layers:
        pairs = zip(layer.codes, layer.names, strict=True)
        areas.extend(Area(layer.name, code, name) for code, name in pairs)
        named.append(Layer(layer.name, len(areas) - len(layer.codes), len(areas)))
    return tuple(named), tuple(areas)


def _area_hashes(areas: int) -> Hashes:
    """A random odd word per area; the seed is fixed so that artefacts are reproducible."""
    random = np.random.Generator(np.random.PCG64(7))
    return random.integers(0, 2**63, areas, dtype=np.uint64) * np.uint64(2) + np.uint64(1)


# --- edges ------------------------------------------------------------------------------------


def _distinct_edges(rings: _Rings, area_hash: Hashes) -> _Edges:
    """Store each undirected edge once, with the areas on whose borders it lies."""
    half = np.int64(1) << 31
    vertex_key = ((rings.x + half).astype(np.uint64) << np.uint64(32)) | (rings.y + half).astype(
        np.uint64
    )
    _, vertex = np.unique(vertex_key, return_inverse=True)
    del vertex_key
    ring = np.repeat(np.arange(len(rings.owner)), np.diff(rings.starts))
    at = np.nonzero((ring[1:] == ring[:-1]) & (vertex[1:] != vertex[:-1]))[0]
    a, b = vertex[at], vertex[at + 1]
    key = (np.minimum(a, b) << 32) | np.maximum(a, b)
    del a, b, vertex
    order = np.argsort(key, kind="stable")
    first = _run_starts(key[order])
    owner = rings.owner[ring[at[order]]]  # ascending within a run: rings come by area
    _refuse_doubled(rings, at[order], owner, first)
    hashed = np.bitwise_xor.reduceat(area_hash[owner], first)
    kinds, sample, kind = np.unique(hashed, return_index=True, return_inverse=True)
    ends = np.append(first[1:], len(owner))
    type_areas = [tuple(owner[first[s] : ends[s]].tolist()) for s in sample.tolist()]
    at = at[order][first]  # a stable sort puts the first occurrence first
    along = np.argsort(at, kind="stable")
    at, kind = at[along], kind[along]
    edges = _Edges(
        at=at,
        x1=rings.x[at],
        y1=rings.y[at],
        x2=rings.x[at + 1],
        y2=rings.y[at + 1],
        type=kind.astype(np.int64),
        type_areas=type_areas,
        type_hash=kinds,
    )
    longest = max(np.abs(edges.x2 - edges.x1).max(), np.abs(edges.y2 - edges.y1).max())
    if longest > _LONGEST_EDGE:
        raise CompileError(
            f"an edge spans {longest / SCALE:.0f} degrees; add vertices so that none exceeds "
            f"{_LONGEST_EDGE / SCALE:.0f}"
        )
    return edges


def _refuse_doubled(rings: _Rings, at: Ints, owner: Ints, first: Ints) -> None:
    same = np.ones(len(owner), bool)
    same[first] = False
    same[1:] &= owner[1:] == owner[:-1]
    if same.any():
        where = int(at[np.nonzero(same)[0][0]])
        raise CompileError(
            "an area's border runs twice along one edge near lon "
            f"{rings.x[where] / SCALE:.7f}, lat {rings.y[where] / SCALE:.7f}; "
            "the polygon is not valid, repair it first"
        )


# --- cells ------------------------------------------------------------------------------------


def _refine(rings: _Rings, edges: _Edges, leaf_edges: Sequence[int]) -> tuple[Grid, list[_Level]]:
    """Lay the grid and refine it until few edges are near each cell."""
    grid = _top_grid(rings)
    corner, shape = (np.int64(grid.x0), np.int64(grid.y0)), (grid.rows, grid.columns)
    cell = np.arange(grid.rows * grid.columns)
    faces = np.zeros(len(cell), np.uint64)
    pairs: list[tuple[Ints, Ints]] = []
    for begin, end in _blocks(np.ones(len(edges.at), np.int64)):
        some = np.arange(begin, end)
        strand = (edges.x1[some], edges.y1[some], edges.x2[some], edges.y2[some])
        hashed = edges.type_hash[edges.type[some]]
        faces ^= _face_rows(strand, hashed, 0 * some, 1, corner, grid.shifts[0], shape)
        pair, row, column = _near(edges, some, *corner, grid.shifts[0], *shape)
        pairs.append((row * grid.columns + column, some[pair]))
    cells, near_edges = (np.concatenate(part) for part in zip(*pairs, strict=True))
    near = _by_cell(cells, near_edges, len(edges.at))
    levels = [
        _Level(
            shift=grid.shifts[0],
            x=grid.x0 + ((cell % grid.columns) << grid.shifts[0]),
            y=grid.y0 + ((cell // grid.columns) << grid.shifts[0]),
            face=faces,
            word=np.zeros(len(cell), np.uint32),
        )
    ]
    children_at = 0
    for shift, below in zip(grid.shifts, [*grid.shifts[1:], None], strict=True):
        level = levels[-1]
        cells, edge = near
        first = _run_starts(cells)
        count = np.diff(np.append(first, len(cells)))
        most = leaf_edges[min(len(levels), len(leaf_edges)) - 1]
        split = count > most if below is not None else np.zeros(len(first), bool)
        in_split = np.repeat(split, count)
        level.leaf_cell, level.leaf_edge = cells[~in_split], edge[~in_split]
        if below is None or not split.any():
            break
        parents = cells[first][split]
        fan = 1 << (shift - below)
        level.word[parents] = np.arange(len(parents)) * fan * fan + children_at + SUB
        child, near = _split(edges, level, parents, count[split], edge[in_split], below)
        children_at += len(child.word)
        levels.append(child)
    return Grid(grid.x0, grid.y0, grid.columns, grid.rows, grid.shifts[: len(levels)]), levels


def _top_grid(rings: _Rings) -> Grid:
    """The top grid with a free cell all around, coarse enough to stay small."""
    west, east = int(rings.x.min()), int(rings.x.max())
    south, north = int(rings.y.min()), int(rings.y.max())
    shift = _TOP_SHIFT
    while (((east - west) >> shift) + 3) * (((north - south) >> shift) + 3) > _MOST_TOP_CELLS:
        shift += 1
    x0, y0 = ((west >> shift) - 1) << shift, ((south >> shift) - 1) << shift
    columns, rows = ((east - x0) >> shift) + 2, ((north - y0) >> shift) + 2
    return Grid(x0, y0, columns, rows, tuple(range(shift, _FINEST_SHIFT - 1, -_STEP)))


def _split(
    edges: _Edges, level: _Level, parents: Ints, count: Ints, edge: Ints, shift: int
) -> tuple[_Level, tuple[Ints, Ints]]:
    """The children of the cells `parents`, and the (child, edge) pairs near each other.

    `edge` has the edges near each parent in a row, `count` of them. A block of parents at a time:
    the working arrays are many times larger than the result.
    """
    fan = 1 << (level.shift - shift)
    inner = np.arange(fan * fan)
    faces: list[Hashes] = []
    pairs: list[tuple[Ints, Ints]] = []
    done = 0
    for first, stop in _blocks(count):
        x, y = level.x[parents[first:stop]], level.y[parents[first:stop]]
        parent = np.repeat(np.arange(stop - first), count[first:stop])
        mine = edge[done : done + len(parent)]
        done += len(parent)
        strand, hashed, of = _strands(edges, parent, mine, x, y, level.shift)
        # the face of a child is the parent's, changed by what lies between their reference points:
        # the crossings of the parent's ray, undone, and those of the child's
        base = level.face[parents[first:stop]]
        crossed = _right_of_reference(strand, x[of], y[of], np.int64(1) << level.shift)
        np.bitwise_xor.at(base, of[crossed], hashed[crossed])
        rows = _face_rows(strand, hashed, of, stop - first, (x, y), shift, (fan, fan))
        faces.append(rows ^ np.repeat(base, fan * fan))
        pair, row, column = _near(edges, mine, x[parent], y[parent], shift, fan, fan)
        cell = parent[pair] * (fan * fan) + row * fan + column
        cell, by = _by_cell(cell, mine[pair], len(edges.at))
        pairs.append((cell + first * fan * fan, by))
    child = _Level(
        shift=shift,
        x=(level.x[parents][:, None] + ((inner % fan) << shift)).reshape(-1),
        y=(level.y[parents][:, None] + ((inner // fan) << shift)).reshape(-1),
        face=np.concatenate(faces),
        word=np.zeros(len(parents) * fan * fan, np.uint32),
    )
    cells, near = (np.concatenate(part) for part in zip(*pairs, strict=True))
    return child, (cells, near)


def _strands(
    edges: _Edges, parent: Ints, edge: Ints, x: Ints, y: Ints, shift: int
) -> tuple[tuple[Ints, Ints, Ints, Ints], Hashes, Ints]:
    """The edges near each parent cell and the fins of their chains: ends, hashes, parents."""
    hashed = edges.type_hash[edges.type[edge]]
    first = _chain_starts(edges, parent, edge)
    last = np.append(first[1:], len(edge)) - 1
    tip_x = np.concatenate([edges.x1[edge[first]], edges.x2[edge[last]]])
    tip_y = np.concatenate([edges.y1[edge[first]], edges.y2[edge[last]]])
    of = np.concatenate([parent[first], parent[last]])
    fin = np.nonzero(_needs_fin(tip_x, tip_y, x[of], y[of], np.int64(1) << shift))[0]
    above = y[of[fin]] + (np.int64(2) << shift)
    strand = (
        np.concatenate([edges.x1[edge], tip_x[fin]]),
        np.concatenate([edges.y1[edge], tip_y[fin]]),
        np.concatenate([edges.x2[edge], tip_x[fin]]),
        np.concatenate([edges.y2[edge], above]),
    )
    tips = np.concatenate([hashed[first], hashed[last]])[fin]
    return strand, np.concatenate([hashed, tips]), np.concatenate([parent, of[fin]])


def _chain_starts(edges: _Edges, cell: Ints, edge: Ints) -> Ints:
    """Where a new chain begins among (cell, edge) pairs sorted by cell, then edge."""
    new = np.ones(len(edge), bool)
    at, kind = edges.at[edge], edges.type[edge]
    new[1:] = (cell[1:] != cell[:-1]) | (at[1:] != at[:-1] + 1) | (kind[1:] != kind[:-1])
    return np.nonzero(new)[0]


def _needs_fin(tip_x: Ints, tip_y: Ints, x: Ints, y: Ints, size: Ints | np.int64) -> Bools:
    """Whether a chain end lies where rays from the cell at `x`, `y` sweep, beyond the cell."""
    return (tip_x > x + size + _PAD) & (tip_y >= y - _PAD) & (tip_y <= y + size + _PAD)


def _face_rows(
    strand: tuple[Ints, Ints, Ints, Ints],
    hashed: Hashes,
    of: Ints,
    parents: int,
    at: tuple[Any, Any],
    shift: int,
    shape: tuple[int, int],
) -> Hashes:
    """XOR of the hashes of the strands that the ray from each cell's reference point crosses.

    A strand toggles, in each row of cells whose reference line it crosses, the cells left of the
    crossing: one toggle at the last of them and a running XOR from the right do it for all.
    """
    rows, columns = shape
    crossed, row, left = _crossings(strand, of, at, shift, rows, columns)
    seen = left > 0
    crossed, row, left = crossed[seen], row[seen], left[seen]
    toggles = np.zeros((parents * rows, columns), np.uint64)
    np.bitwise_xor.at(toggles, (of[crossed] * rows + row, left - 1), hashed[crossed])
    return np.bitwise_xor.accumulate(toggles[:, ::-1], axis=1)[:, ::-1].reshape(-1)


def _crossings(
    strand: tuple[Ints, Ints, Ints, Ints],
    of: Ints,
    at: tuple[Any, Any],
    shift: int,
    rows: int,
    columns: int,
) -> tuple[Ints, Ints, Ints]:
    """Strands against the reference lines of the rows of their parent's cells.

    Returns (strand, row, number of leading columns whose reference point is left of the crossing).
    In doubled units a reference point is odd and a vertex even, so that none is level with one.
    """
    x1, y1, x2, y2 = strand
    down = y1 > y2
    x1, x2 = np.where(down, x2, x1), np.where(down, x1, x2)
    y1, y2 = np.where(down, y2, y1), np.where(down, y1, y2)
    px, py = (np.broadcast_to(p if np.ndim(p) == 0 else p[of], x1.shape) for p in at)
    half = (1 << shift) + 1
    low = np.clip(_ceil_shift(2 * (y1 - py) - half, shift + 1), 0, rows)
    high = np.clip(_ceil_shift(2 * (y2 - py) - half, shift + 1), 0, rows)
    which, nth = _expand(np.maximum(high - low, 0))
    row = low[which] + nth
    height, run = (y2 - y1)[which], (x2 - x1)[which]
    rise = 2 * (py - y1)[which] + (row << (shift + 1)) + half
    offset = 2 * (x1 - px)[which] - half
    left = -((-(offset * height + rise * run)) // (height << (shift + 1)))
    return which, row, np.clip(left, 0, columns)


def _right_of_reference(
    strand: tuple[Ints, Ints, Ints, Ints], x: Ints, y: Ints, size: Ints | np.int64
) -> Bools:
    """Whether each strand crosses the ray towards +x from the reference point of its cell."""
    return _right_of(strand, 2 * x + size + 1, 2 * y + size + 1)


def _right_of(strand: tuple[Ints, Ints, Ints, Ints], x2nd: Any, y2nd: Any) -> Bools:
    """Whether strands cross the ray from a point given in doubled, odd units."""
    x1, y1, x2, y2 = strand
    down = y1 > y2
    ax, bx = np.where(down, x2, x1), np.where(down, x1, x2)
    ay, by = np.where(down, y2, y1), np.where(down, y1, y2)
    level = (2 * ay < y2nd) & (y2nd < 2 * by)
    ahead = (2 * ax - x2nd) * (by - ay) + (y2nd - 2 * ay) * (bx - ax) > 0
    return np.asarray(level & ahead)


def _near(
    edges: _Edges, edge: Ints, px: Any, py: Any, shift: int, rows: int, columns: int
) -> tuple[Ints, Ints, Ints]:
    """Pairs (position in `edge`, row, column) of edges and the cells whose padded square they meet.

    `px`, `py` is the corner of the parent of each edge. First the cells that the edge's box meets,
    then, where there are several, those that its line meets.
    """
    x1, y1, x2, y2 = edges.x1[edge], edges.y1[edge], edges.x2[edge], edges.y2[edge]
    left = np.clip((np.minimum(x1, x2) - px - 2 * _PAD) >> shift, 0, columns - 1)
    right = np.clip((np.maximum(x1, x2) - px + _PAD) >> shift, 0, columns - 1)
    low = np.clip((np.minimum(y1, y2) - py - 2 * _PAD) >> shift, 0, rows - 1)
    high = np.clip((np.maximum(y1, y2) - py + _PAD) >> shift, 0, rows - 1)
    width = right - left + 1
    count = width * (high - low + 1)
    pair, nth = _expand(count)
    row, column = low[pair] + nth // width[pair], left[pair] + nth % width[pair]
    doubt = np.nonzero(count[pair] > 1)[0]
    of = pair[doubt]
    west = (px[of] if np.ndim(px) else px) + (column[doubt] << shift) - _PAD
    south = (py[of] if np.ndim(py) else py) + (row[doubt] << shift) - _PAD
    east, north = west + (1 << shift) + 2 * _PAD, south + (1 << shift) + 2 * _PAD
    ax, ay, bx, by = x1[of], y1[of], x2[of], y2[of]
    dx, dy = bx - ax, by - ay
    corners = [dx * (v - ay) - dy * (u - ax) for u in (west, east) for v in (south, north)]
    apart = (np.minimum.reduce(corners) > 0) | (np.maximum.reduce(corners) < 0)
    apart |= (np.maximum(ax, bx) < west) | (np.minimum(ax, bx) > east)
    apart |= (np.maximum(ay, by) < south) | (np.minimum(ay, by) > north)
    keep = np.ones(len(pair), bool)
    keep[doubt[apart]] = False
    return pair[keep], row[keep], column[keep]


# --- faces ------------------------------------------------------------------------------------


def _name_faces(levels: list[_Level], sets: _Sets, rings: _Rings, area_hash: Hashes) -> None:
    """Turn each cell's face hash into the number of its set of areas, in `level.face`.

    Cells that stay plain get it as their word. A face of several areas is named by counting
    crossings at one of its reference points.
    """
    samples: dict[int, tuple[int, int]] = {}
    for level in levels:
        size = 1 << level.shift
        starts = _run_starts(level.face)  # runs first: neighbours mostly share a face
        hashes, first = np.unique(level.face[starts], return_index=True)
        cells = starts[first]
        points = zip(
            (2 * level.x[cells] + size + 1).tolist(),
            (2 * level.y[cells] + size + 1).tolist(),
            strict=True,
        )
        for hashed, point in zip(hashes.tolist(), points, strict=True):
            samples.setdefault(hashed, point)
    alone = {hashed: area for area, hashed in enumerate(area_hash.tolist())}
    boxes = _ring_boxes(rings)
    numbers: dict[int, int] = {0: 0}
    for hashed, point in samples.items():
        if hashed in alone:
            numbers[hashed] = 1 + alone[hashed]
        elif hashed:
            numbers[hashed] = sets.number(_areas_at(rings, boxes, point, hashed, area_hash))
    hashes = np.sort(np.array(list(numbers), dtype=np.uint64))
    number = np.array([numbers[hashed] for hashed in hashes.tolist()], dtype=np.uint64)
    for level in levels:
        level.face = number[np.searchsorted(hashes, level.face)]
        plain = level.word == 0
        level.word[plain] = level.face[plain]


def _ring_boxes(rings: _Rings) -> tuple[Ints, Ints, Ints]:
    """Per ring, in doubled units: its largest x, its smallest and its largest y."""
    starts = rings.starts[:-1]
    return (
        2 * np.maximum.reduceat(rings.x, starts),
        2 * np.minimum.reduceat(rings.y, starts),
        2 * np.maximum.reduceat(rings.y, starts),
    )


def _areas_at(
    rings: _Rings,
    boxes: tuple[Ints, Ints, Ints],
    point: tuple[int, int],
    hashed: int,
    area_hash: Hashes,
) -> set[int]:
    x2nd, y2nd = point
    east, south, north = boxes
    inside: set[int] = set()
    for ring in np.nonzero((east > x2nd) & (south < y2nd) & (y2nd < north))[0].tolist():
        start, stop = int(rings.starts[ring]), int(rings.starts[ring + 1])
        x, y = rings.x[start:stop], rings.y[start:stop]
        if np.count_nonzero(_right_of((x[:-1], y[:-1], x[1:], y[1:]), x2nd, y2nd)) % 2:
            inside ^= {int(rings.owner[ring])}
    named = 0
    for area in inside:
        named ^= int(area_hash[area])
    if named != hashed:
        raise CompileError(
            f"the borders near lon {x2nd / 2 / SCALE:.7f}, lat {y2nd / 2 / SCALE:.7f} do not close"
        )
    return inside


# --- records ----------------------------------------------------------------------------------


def _write_records(
    levels: list[_Level], rings: _Rings, edges: _Edges, sets: _Sets
) -> tuple[npt.NDArray[np.int32], npt.NDArray[np.uint32]]:
    """The records of all leaf cells that borders cross; sets the words of those cells."""
    leaves = _Leaves(levels)
    cell, edge = leaves.cell, leaves.edge
    if not len(cell):
        return np.zeros(0, np.int32), np.zeros(0, np.uint32)
    first = _chain_starts(edges, cell, edge)
    length = np.diff(np.append(first, len(edge)))
    first, length = _cut(first, length)
    chain_cell = cell[first]
    start = edges.at[edge[first]]
    mask, local, local_first = _masks(edges, leaves, chain_cell, edges.type[edge[first]])
    palettes = _Palettes(sets)
    position, parity = palettes.of_cells(leaves.set, local, local_first, chain_cell, mask)

    # the parity of the reference point, less what its own ray crosses: chains, then fins
    x, y, size = leaves.x, leaves.y, leaves.size
    chain = np.repeat(np.arange(len(first)), length)
    for begin in range(0, len(edge), _BLOCK):
        some = slice(begin, begin + _BLOCK)
        by, of = edge[some], cell[some]
        strand = (edges.x1[by], edges.y1[by], edges.x2[by], edges.y2[by])
        crossed = _right_of_reference(strand, x[of], y[of], size[of])
        np.bitwise_xor.at(parity, of[crossed], mask[chain[some][crossed]])
    ends: list[Bools] = []
    for tip in (start, start + length):
        fin = _needs_fin(rings.x[tip], rings.y[tip], x[chain_cell], y[chain_cell], size[chain_cell])
        below = fin & (2 * rings.y[tip] < 2 * y[chain_cell] + size[chain_cell] + 1)
        np.bitwise_xor.at(parity, chain_cell[below], mask[below])
        ends.append(fin)

    chains = np.bincount(chain_cell, minlength=len(x))
    if chains.max() > 255:
        worst = int(np.argmax(chains))
        raise CompileError(
            f"{chains.max()} borders meet near lon {x[worst] / SCALE:.7f}, "
            f"lat {y[worst] / SCALE:.7f}; simplify the polygons there"
        )
    blocks = [
        _chain_bodies(
            rings, leaves, chain_cell[a:b], start[a:b], length[a:b], (ends[0][a:b], ends[1][a:b])
        )
        for a, b in _blocks(length)
    ]
    bodies, chain_words, heads = (np.concatenate(part) for part in zip(*blocks, strict=True))
    del blocks
    chain_at = np.cumsum(chain_words) - chain_words + 2 * (chain_cell + 1)
    record_words = 2 + np.bincount(chain_cell, weights=chain_words, minlength=len(x)).astype(
        np.int64
    )
    record_at = np.cumsum(record_words) - record_words
    words = np.zeros(int(record_words.sum()), np.uint32)
    words[record_at] = position
    words[record_at + 1] = parity | chains << _MASK_BITS
    words[chain_at] = mask | heads
    is_body = np.ones(len(words), bool)
    is_body[record_at] = is_body[record_at + 1] = is_body[chain_at] = False
    words[is_body] = bodies
    leaves.point_to(levels, record_at)
    return words.view(np.int32), palettes.array()


def _chain_bodies(
    rings: _Rings,
    leaves: _Leaves,
    chain_cell: Ints,
    start: Ints,
    length: Ints,
    fins: tuple[Bools, Bools],
) -> tuple[npt.NDArray[np.uint32], Ints, Ints]:
    """The vertices of some chains as words in a row; words per chain, its head included; heads.

    Vertices are measured from the centre of the cell. A chain is narrow where all fit 16 bits.
    """
    half = leaves.size // 2
    centre_x, centre_y = (leaves.x + half)[chain_cell], (leaves.y + half)[chain_cell]
    chain, nth = _expand(length + 1)
    fin_first, fin_last = np.nonzero(fins[0])[0], np.nonzero(fins[1])[0]
    vertices = length + 1 + fins[0] + fins[1]
    tips = np.concatenate([start[fin_first], (start + length)[fin_last]])
    at = np.concatenate([start[chain] + nth, tips])
    of = np.concatenate([chain, fin_first, fin_last])
    order = np.concatenate([fins[0][chain] + nth, 0 * fin_first, (vertices - 1)[fin_last]])
    x, y = rings.x[at] - centre_x[of], rings.y[at] - centre_y[of]
    far = (np.abs(x) >= FIN_NARROW) | (np.abs(y) >= FIN_NARROW)
    wide = leaves.size[chain_cell] > 1 << _NARROW_SHIFT
    wide[of[far]] = True
    y[len(chain) :] = np.where(wide[of[len(chain) :]], FIN_WIDE, FIN_NARROW)
    each = np.where(wide, 2, 1)
    words = vertices * each
    to = (np.cumsum(words) - words)[of] + order * each[of]
    bodies = np.zeros(int(words.sum()), np.int64)
    wide_vertex = wide[of]
    bodies[to[~wide_vertex]] = ((x & 0xFFFF) | (y & 0xFFFF) << 16)[~wide_vertex]
    bodies[to[wide_vertex]] = x[wide_vertex]
    bodies[to[wide_vertex] + 1] = y[wide_vertex]
    return (
        (bodies & 0xFFFFFFFF).astype(np.uint32),
        words + 1,
        vertices << _MASK_BITS | np.where(wide, WIDE, 0),
    )


class _Leaves:
    """The leaf cells near borders, of all levels in one row."""

    def __init__(self, levels: list[_Level]) -> None:
        cells, pairs, edges = [], [], []
        count = 0
        for level in levels:
            first = _run_starts(level.leaf_cell)
            sizes = np.diff(np.append(first, len(level.leaf_cell)))
            pairs.append(np.repeat(np.arange(len(first)), sizes) + count)
            edges.append(level.leaf_edge)
            cells.append(level.leaf_cell[first])
            count += len(first)
        self._cells = cells
        self.cell: Ints = np.concatenate(pairs)
        self.edge: Ints = np.concatenate(edges)
        of_level = list(zip(levels, cells, strict=True))
        self.x: Ints = np.concatenate([level.x[c] for level, c in of_level])
        self.y: Ints = np.concatenate([level.y[c] for level, c in of_level])
        self.size: Ints = np.concatenate([np.full(len(c), 1 << lv.shift) for lv, c in of_level])
        self.set: Ints = np.concatenate([lv.face[c].astype(np.int64) for lv, c in of_level])

    def point_to(self, levels: list[_Level], record_at: Ints) -> None:
        """Write the records' positions into the words of their cells."""
        done = 0
        for level, cells in zip(levels, self._cells, strict=True):
            level.word[cells] = record_at[done : done + len(cells)] + RECORD
            done += len(cells)


def _cut(first: Ints, length: Ints) -> tuple[Ints, Ints]:
    """Cut chains that are longer than a record can count."""
    which, nth = _expand(-(-length // _MOST_CHAIN_EDGES))
    done = nth * _MOST_CHAIN_EDGES
    return first[which] + done, np.minimum(length[which] - done, _MOST_CHAIN_EDGES)


def _masks(
    edges: _Edges, leaves: _Leaves, chain_cell: Ints, chain_type: Ints
) -> tuple[Ints, Ints, Ints]:
    """A bit per area that has a border near the cell.

    Returns each chain's mask, the local areas of all cells in a row, and where each cell's begin.
    """
    types = len(edges.type_areas)
    pair, of_chain = np.unique(chain_cell * types + chain_type, return_inverse=True)
    pair_cell, pair_type = pair // types, pair % types
    sizes = np.array([len(areas) for areas in edges.type_areas])
    flat = np.array([area for areas in edges.type_areas for area in areas])
    which, nth = _expand(sizes[pair_type])
    area = flat[(np.cumsum(sizes) - sizes)[pair_type[which]] + nth]
    span = int(flat.max()) + 1
    local, of_area = np.unique(pair_cell[which] * span + area, return_inverse=True)
    local_first = np.searchsorted(local // span, np.arange(len(leaves.x)))
    count = np.diff(np.append(local_first, len(local)))
    if count.max() > _MASK_BITS:
        worst = int(np.argmax(count))
        raise CompileError(
            f"{count.max()} areas have borders near lon {leaves.x[worst] / SCALE:.7f}, lat "
            f"{leaves.y[worst] / SCALE:.7f}; at most {_MASK_BITS} can meet: put fewer layers "
            "into one index"
        )
    bit = np.arange(len(local)) - local_first[local // span]
    mask = np.zeros(len(pair), np.int64)
    np.bitwise_or.at(mask, which, np.int64(1) << bit[of_area])
    return mask[of_chain], local % span, local_first


class _Palettes:
    """Collects the palettes and the parities each can be asked for."""

    def __init__(self, sets: _Sets) -> None:
        self._sets = sets
        self._words: list[int] = []

    def of_cells(
        self, cell_set: Ints, local: Ints, local_first: Ints, chain_cell: Ints, mask: Ints
    ) -> tuple[Ints, Ints]:
        """Per cell: the position of its palette and the parity bits of its reference point."""
        count = np.diff(np.append(local_first, len(local)))
        mixed = np.add.reduceat(_area_hashes(int(local.max()) + 1)[local], local_first)
        _, sample, kind = np.unique(
            mixed * np.uint64(0x9E3779B97F4A7C15) + cell_set.astype(np.uint64),
            return_index=True,
            return_inverse=True,
        )
        uses: dict[tuple[tuple[int, ...], tuple[int, ...]], tuple[set[int], set[int]]] = {}
        keys = []
        parities = np.zeros(len(sample), np.int64)
        for n, cell in enumerate(sample.tolist()):
            near = tuple(local[local_first[cell] : local_first[cell] + count[cell]].tolist())
            covering = self._sets.members[cell_set[cell]]
            whole = tuple(area for area in covering if area not in near)
            parities[n] = sum(1 << bit for bit, area in enumerate(near) if area in covering)
            keys.append((near, whole))
            uses.setdefault(keys[-1], (set(), set()))[0].add(int(parities[n]))
        span = np.int64(1) << _MASK_BITS
        for pair in np.unique(kind[chain_cell] * span + mask).tolist():
            uses[keys[pair >> _MASK_BITS]][1].add(pair & (span - 1))
        position = {key: self._add(*key, *found) for key, found in uses.items()}
        return np.array([position[key] for key in keys], dtype=np.int64)[kind], parities[kind]

    def _add(
        self, near: tuple[int, ...], whole: tuple[int, ...], start: set[int], masks: set[int]
    ) -> int:
        self._words += [*near, *whole, len(near) | len(whole) << 8]
        position = len(self._words)
        if len(near) <= LARGEST_TABLE:
            table = [UNLISTED] * (1 << len(near))
            for parity in _reachable(start, masks):
                inside = (area for bit, area in enumerate(near) if parity >> bit & 1)
                table[parity] = self._sets.number((*whole, *inside))
            self._words += table
        return position

    def array(self) -> npt.NDArray[np.uint32]:
        return np.array(self._words, dtype=np.uint32)


def _reachable(start: set[int], masks: set[int]) -> set[int]:
    """Parities a lookup can end with: crossings toggle masks, points on borders add them."""
    found = set(start)
    for mask in masks:
        found |= {parity ^ mask for parity in found}
    for mask in masks:
        found |= {parity | mask for parity in found}
    return found


# --- numpy ------------------------------------------------------------------------------------


def _blocks(counts: Ints) -> Iterator[tuple[int, int]]:
    """Ranges of positions with about `_BLOCK` counts in each."""
    starts = _run_starts((np.cumsum(counts) - 1) // _BLOCK)
    return pairwise([*starts.tolist(), len(counts)])


def _run_starts(sorted_values: npt.NDArray[Any]) -> Ints:
    """Where a new value begins in an array of runs."""
    new = np.ones(len(sorted_values), bool)
    np.not_equal(sorted_values[1:], sorted_values[:-1], out=new[1:])
    return np.nonzero(new)[0]


def _expand(counts: Ints) -> tuple[Ints, Ints]:
    """For counts (2, 0, 3): (0, 0, 2, 2, 2) and (0, 1, 0, 1, 2)."""
    which = np.repeat(np.arange(len(counts)), counts)
    return which, np.arange(len(which)) - np.repeat(np.cumsum(counts) - counts, counts)


def _ceil_shift(values: Ints, bits: int) -> Ints:
    return -((-values) >> bits)


def _by_cell(cell: Ints, edge: Ints, edges: int) -> tuple[Ints, Ints]:
    """Pairs sorted by cell, then edge."""
    key = cell * edges + edge
    key.sort()
    return key // edges, key % edges
