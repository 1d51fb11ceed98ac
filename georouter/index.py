"""The compiled index: which areas cover a point, exactly, in about a microsecond.

`Index` is immutable, memory-mapped and safe to share between threads. It promises which canonical
polygons cover the point, borders and vertices included (see `geometry`), as exact arithmetic has
it; so does GEOS, but for its own rounding beside borders within a hair of longitude or latitude 0.
It does not know what areas mean, and it never changes: a new dataset is a new index.

A lookup walks the grid (see `compiler`) to a cell. Either the cell lies inside one set of areas, or
the edges near it are counted against a ray in integers. Where the point comes within two units
(2.2 cm) of an edge the integers cannot tell, and the same count is made exactly.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path
from struct import Struct
from typing import Any, Final, Protocol

import numpy as np
import numpy.typing as npt

from georouter.codec import Compiled, decode, read
from georouter.compiler import FIN_NARROW, FIN_WIDE, LARGEST_TABLE, RECORD, SUB, UNLISTED
from georouter.geometry import SCALE, check_coordinate, meets_ray
from georouter.model import Area, InvalidCoordinate, Layer, NearBorder
from georouter.nearest import Nearest

Ints = npt.NDArray[np.int64]
Floats = npt.NDArray[np.float64]

_TOLERANCE: Final = 2
_MASK: Final = (1 << 24) - 1
_CHILDREN: Final = SUB - 1
_BLOCK: Final = 1 << 17  # points handled at a time: their working arrays stay near the cache


class _Lookup(Protocol):
    def __call__(self, *, lon: float, lat: float) -> tuple[int, ...]: ...


class Index:
    """A compiled index over any number of layers.

    `covering(lon=, lat=)` answers with the positions in `areas` of all areas that cover a point,
    ascending, `()` when there are none. Degrees, WGS 84; raises `InvalidCoordinate` on NaN,
    infinities and values out of range.
    """

    covering: _Lookup

    def __init__(self, compiled: Compiled) -> None:
        self.layers: tuple[Layer, ...] = compiled.layers
        self.areas: tuple[Area, ...] = compiled.areas
        self._compiled = compiled
        self.covering = _make_lookup(compiled)
        self._nearest = Nearest(compiled)
        self._every = Layer("", 0, len(self.areas))
        self._lowest: dict[str, npt.NDArray[np.int32]] = {}

    @classmethod
    def open(cls, path: Path | str) -> Index:
        """Memory-map an artefact. Raises `IndexFormatError`, or `OSError` as `open` does."""
        _, compiled = read(Path(path))
        return cls(compiled)

    @classmethod
    def from_bytes(cls, data: bytes) -> Index:
        """An index held in memory. Raises `IndexFormatError`."""
        return cls(decode(data, Path("index in memory")))

    def nearest_border(
        self, *, lon: float, lat: float, layer: str, within_m: float
    ) -> tuple[NearBorder, ...]:
        """The other areas of `layer` whose border is within `within_m` metres, nearest first.

        Other than those that cover the point; from outside every area, those it is near to. The
        distance is right to 1 % up to a kilometre. Raises as `covering` does, `KeyError` for an
        unknown layer, and `ValueError` for a distance that is negative or above 10 km.
        """
        return self._nearest.borders(
            lon=lon,
            lat=lat,
            layer=self._layer(layer),
            within_m=within_m,
            covering=self.covering(lon=lon, lat=lat),
        )

    def borders_near(self, *, lon: float, lat: float, within_m: float) -> tuple[NearBorder, ...]:
        """All areas of all layers whose border is within `within_m` metres, nearest first.

        Of an area that covers the point it says how deep inside the point is. Otherwise as
        `nearest_border`.
        """
        check_coordinate(lon, lat)
        return self._nearest.borders(
            lon=lon, lat=lat, layer=self._every, within_m=within_m, covering=()
        )

    def covering_many(
        self, lons: npt.ArrayLike, lats: npt.ArrayLike, *, layer: str
    ) -> npt.NDArray[np.int32]:
        """For each point the position in `areas` of the area of `layer` that covers it, or -1.

        `lons`, `lats` are degrees of shape (n,). On a shared border the lowest position wins.
        Raises `InvalidCoordinate` naming the first bad value, `KeyError` for an unknown layer and
        `ValueError` for shapes that do not match.
        """
        return self.covering_layers(lons, lats, layers=[layer])[0]  # type: ignore[no-any-return]

    def covering_layers(
        self, lons: npt.ArrayLike, lats: npt.ArrayLike, *, layers: Sequence[str]
    ) -> npt.NDArray[np.int32]:
        """`covering_many` for several layers in one walk: shape (layers, n)."""
        lon, lat = _points(lons, lats)
        return self._many(lon, lat, [self._layer(name) for name in layers])

    def _many(self, lon: Floats, lat: Floats, layers: list[Layer]) -> npt.NDArray[np.int32]:
        for layer in layers:
            if layer.name not in self._lowest:
                self._lowest[layer.name] = _lowest_members(self._compiled, layer)
        answer = np.empty((len(layers), len(lon)), np.int32)
        for start in range(0, len(lon), _BLOCK):
            block = slice(start, start + _BLOCK)
            sets, doubt = self._sets(lon[block], lat[block])
            for row, layer in enumerate(layers):
                answer[row, block] = self._lowest[layer.name][sets]
            for n in doubt.tolist():
                hits = self.covering(lon=float(lon[start + n]), lat=float(lat[start + n]))
                for row, layer in enumerate(layers):
                    mine = (hit for hit in hits if layer.first <= hit < layer.stop)
                    answer[row, start + n] = next(mine, -1)
        return answer

    def _layer(self, name: str) -> Layer:
        found = next((layer for layer in self.layers if layer.name == name), None)
        if found is None:
            names = ", ".join(layer.name for layer in self.layers)
            raise KeyError(f"no layer {name!r} in this index; it has {names}")
        return found

    def _sets(self, lon: Floats, lat: Floats) -> tuple[npt.NDArray[np.uint32], Ints]:
        """The sets of some points, and which of them need the exact count."""
        arrays, grid = self._compiled.arrays, self._compiled.grid
        # the same expressions as in the single lookup, so that both see the same cell
        x = (lon * SCALE - grid.x0).astype(np.int64)
        y = (lat * SCALE - grid.y0).astype(np.int64)
        column, row = x >> grid.shifts[0], y >> grid.shifts[0]
        cell = row * grid.columns + column
        within = (column >= 0) & (column < grid.columns) & (row >= 0) & (row < grid.rows)
        if within.all():
            word = arrays["top"][cell]
        else:
            word = np.where(within, arrays["top"][np.where(within, cell, 0)], 0)
        at = np.nonzero(word >= RECORD)[0]
        records, sizes = [at], [np.full(len(at), 1 << grid.shifts[0])]
        deeper = np.nonzero((word >> 30) == 1)[0]
        for above, shift in pairwise(grid.shifts):
            if not len(deeper):
                break
            bits = above - shift
            side = (1 << bits) - 1
            child = (((y[deeper] >> shift) & side) << bits) + ((x[deeper] >> shift) & side)
            below = arrays["sub"][(word[deeper] & _CHILDREN) + child]
            word[deeper] = below
            at = deeper[below >= RECORD]
            records.append(at)
            sizes.append(np.full(len(at), 1 << shift))
            deeper = deeper[(below >> 30) == 1]
        at, size = np.concatenate(records), np.concatenate(sizes)
        sets, doubt = _count_crossings(
            arrays,
            word[at].astype(np.int64) - RECORD,
            (x[at] & (size - 1)) - (size >> 1),
            (y[at] & (size - 1)) - (size >> 1),
        )
        word[at] = np.where(doubt, 0, sets)
        return word, at[doubt]


def _points(lons: npt.ArrayLike, lats: npt.ArrayLike) -> tuple[Floats, Floats]:
    lon = np.asarray(lons, dtype=np.float64, order="C")
    lat = np.asarray(lats, dtype=np.float64, order="C")
    if lon.ndim != 1 or lon.shape != lat.shape:
        raise ValueError(f"lons and lats must both have shape (n,): {lon.shape}, {lat.shape}")
    for name, values, limit in (("lons", lon, 180.0), ("lats", lat, 90.0)):
        bad = ~(np.abs(values) <= limit)  # catches NaN too
        if bad.any():
            first = int(np.argmax(bad))
            raise InvalidCoordinate(
                name[:-1],
                f"{name}[{first}] is {values[first]!r}; it must be a finite number of degrees "
                f"between {-limit:g} and {limit:g}",
            )
    return lon, lat


def _lowest_members(compiled: Compiled, layer: Layer) -> npt.NDArray[np.int32]:
    """Per set the lowest area of the layer, or -1."""
    offsets = compiled.arrays["set_offsets"].astype(np.int64)
    members = compiled.arrays["set_members"].astype(np.int64)
    lowest = np.full(len(offsets) - 1, len(compiled.areas), np.int64)
    of = np.repeat(np.arange(len(lowest)), np.diff(offsets))
    mine = (members >= layer.first) & (members < layer.stop)
    np.minimum.at(lowest, of[mine], members[mine])
    return np.where(lowest == len(compiled.areas), -1, lowest).astype(np.int32)


def _count_crossings(
    arrays: dict[str, npt.NDArray[Any]], record: Ints, x: Ints, y: Ints
) -> tuple[Ints, npt.NDArray[np.bool_]]:
    """The sets of points in cells with records, and which points need the exact count.

    `x`, `y` are measured from the centre of the cell.
    """
    records, palettes = arrays["records"], arrays["palettes"]
    head = records[record + 1].view(np.uint32).astype(np.int64)
    parity, chains = head & _MASK, head >> 24
    doubt = np.zeros(len(record), bool)
    at = record + 2
    active = np.nonzero(chains)[0]
    nth = 0
    while len(active):  # the nth chain of every record that has one
        head = records[at[active]].astype(np.int64)
        vertices = (head >> 24) & 0x7F
        wide = head < 0
        for group, each in ((~wide, 1), (wide, 2)):
            mine, count = active[group], vertices[group]
            ends = np.cumsum(count)
            which = np.repeat(np.arange(len(mine)), count)
            word = np.arange(len(which)) - np.repeat(ends - count, count)
            word = each * word + (at[mine] + 1)[which]
            if each == 1:  # 16 bits each: differences fit 32
                pair = records[word]
                dx = ((pair << 16) >> 16) - x.astype(np.int32)[mine][which]
                dy = (pair >> 16) - y.astype(np.int32)[mine][which]
            else:
                dx, dy = records[word] - x[mine][which], records[word + 1] - y[mine][which]
            crossed, near = _meet_rays(dx, dy, ends)
            doubt[mine[which[near]]] = True
            odd = np.bincount(which[crossed], minlength=len(mine)) & 1
            parity[mine] ^= np.where(odd == 1, head[group] & _MASK, 0)
        at[active] += 1 + vertices * (1 + wide)
        nth += 1
        active = active[chains[active] > nth]
    palette = records[record].view(np.uint32).astype(np.int64)
    small = (palettes[palette - 1] & 0xFF) <= LARGEST_TABLE
    sets = np.full(len(record), UNLISTED, np.int64)
    sets[small] = palettes[palette[small] + parity[small]]
    return sets, doubt | (sets == UNLISTED)


def _meet_rays(dx: npt.NDArray[Any], dy: npt.NDArray[Any], ends: Ints) -> tuple[Ints, Ints]:
    """The edges that the ray of their point crosses, and those too near to it to tell.

    Vertices of chains in a row, seen from the point; `ends` is one past the last of each chain. An
    edge is named by its first vertex.
    """
    left, low, high = dx < -_TOLERANCE, dy < -_TOLERANCE, dy > _TOLERANCE
    away = (left[1:] & left[:-1]) | (low[1:] & low[:-1]) | (high[1:] & high[:-1])
    away[ends[:-1] - 1] = True  # no edge leads from one chain to the next
    edge = np.nonzero(~away)[0]
    x1, y1 = dx[edge].astype(np.int64), dy[edge].astype(np.int64)
    x2, y2 = dx[edge + 1].astype(np.int64), dy[edge + 1].astype(np.int64)
    run, rise = x2 - x1, y2 - y1
    cross = rise * x1 - run * y1
    near = np.abs(cross) <= (np.abs(run) + np.abs(rise)) * _TOLERANCE
    near &= (np.minimum(x1, x2) <= _TOLERANCE) & (np.maximum(x1, x2) >= -_TOLERANCE)
    near &= (np.minimum(y1, y2) <= _TOLERANCE) & (np.maximum(y1, y2) >= -_TOLERANCE)
    crossed = ((y1 <= 0) != (y2 <= 0)) & ((cross > 0) == (rise > 0))
    return edge[crossed], edge[near]


def _make_lookup(compiled: Compiled) -> _Lookup:  # noqa: C901, PLR0915 - one closure is the speed
    """The single lookup as a closure over memory views: the fastest that plain Python does."""
    views = {name: array.data for name, array in compiled.arrays.items()}
    top, sub, records = views["top"], views["sub"], views["records"]
    palettes, set_offsets, set_members = (
        views["palettes"],
        views["set_offsets"],
        views["set_members"],
    )
    grid = compiled.grid
    columns, shift = grid.columns, grid.shifts[0]
    scale, x_first, y_first = float(SCALE), float(grid.x0), float(grid.y0)
    # the ground on which there may be areas: a point that is not a number is not between either
    west, east = (
        max(-180.0, x_first / scale),
        min(180.0, (x_first + (columns << shift) - 1) / scale),
    )
    south = max(-90.0, y_first / scale)
    north = min(90.0, (y_first + (grid.rows << shift) - 1) / scale)
    # per level: shift and mask of x; shift and mask that leave y as the offset of its row
    steps = [
        (
            below,
            (1 << above - below) - 1,
            2 * below - above,
            (1 << 2 * (above - below)) - (1 << above - below),
        )
        for above, below in pairwise(grid.shifts)
    ]
    tolerance = _TOLERANCE
    sub_bit, record_bit, mask_bits = SUB, RECORD, _MASK
    # unpacking from the bytes is quicker than slicing a view; a record starts with 3 words
    raw = records.cast("B")
    shorts = raw.cast("h")
    three_words, one_word = Struct("<iIi").unpack_from, Struct("<i").unpack_from
    narrow = [Struct(f"<{2 * vertices}h").unpack_from for vertices in range(128)]
    wide = [Struct(f"<{2 * vertices}i").unpack_from for vertices in range(128)]
    # sets are decoded when first met
    known: list[tuple[int, ...] | None] = [None] * (len(set_offsets) - 1)

    def members(number: int) -> tuple[int, ...]:
        found = known[number]
        if found is None:
            start, stop = set_offsets[number], set_offsets[number + 1]
            found = known[number] = tuple(set_members[start:stop].tolist())
        return found

    def covering(*, lon: float, lat: float) -> tuple[int, ...]:
        if not (west <= lon <= east and south <= lat <= north):
            check_coordinate(lon, lat)
            return ()
        x, y = int(lon * scale - x_first), int(lat * scale - y_first)
        word = top[(y >> shift) * columns + (x >> shift)]
        if word >= sub_bit:
            below = shift
            if word < record_bit:
                for below, side, lift, rows in steps:
                    word = sub[word - sub_bit + (y >> lift & rows) + (x >> below & side)]
                    if word < sub_bit or word >= record_bit:
                        break
            if word >= record_bit:
                return at_record(word - record_bit, x, y, 1 << below, lon, lat)
        found = known[word]
        return members(word) if found is None else found

    def at_record(  # noqa: C901, PLR0912 - split up it would call functions per edge
        record: int, x_grid: int, y_grid: int, size: int, lon: float, lat: float
    ) -> tuple[int, ...]:
        half, side = size >> 1, size - 1
        x, y = (x_grid & side) - half, (y_grid & side) - half
        x_low, x_high, y_low, y_high = x - tolerance, x + tolerance, y - tolerance, y + tolerance
        at = record << 2
        palette, parity, head = three_words(raw, at)
        chains, parity = parity >> 24, parity & mask_bits
        at += 12
        while True:
            vertices = head >> 24
            if vertices >= 0:
                chain = narrow[vertices](raw, at)
                at += vertices << 2
            else:
                vertices &= 0x7F
                chain = wide[vertices](raw, at)
                at += vertices << 3
            below = chain[1] < y
            position = 0
            for y2 in chain[1::2]:
                # an edge with both ends on one side of the band around the point's height is far
                # from the point and does not meet its ray
                if y2 < y_low:
                    if below:
                        position += 2
                        continue
                    below = True
                elif y2 > y_high:
                    if not below:
                        position += 2
                        continue
                    below = False
                else:
                    return exactly(record, x_grid - x, y_grid - y, lon, lat)
                x1, x2 = chain[position - 2], chain[position]
                if x1 > x_high and x2 > x_high:
                    parity ^= head & mask_bits
                elif x1 >= x_low or x2 >= x_low:
                    y1 = chain[position - 1]
                    run, rise = x2 - x1, y2 - y1
                    cross = run * (y - y1) - rise * (x - x1)
                    slack = (abs(run) + abs(rise)) * tolerance
                    if -slack <= cross <= slack:
                        return exactly(record, x_grid - x, y_grid - y, lon, lat)
                    if (cross > 0) is (rise > 0):
                        parity ^= head & mask_bits
                position += 2
            chains -= 1
            if not chains:
                break
            (head,) = one_word(raw, at)
            at += 4
        return answer(palette, parity)

    def exactly(
        record: int, x_centre: int, y_centre: int, lon: float, lat: float
    ) -> tuple[int, ...]:
        """Count again with the canonical polygons' floats; areas touched at the point are added."""
        head = records[record + 1]
        parity, touched = head & _MASK, 0
        at = record + 2
        for _ in range((head >> 24) & 0xFF):
            head = records[at]
            mask = head & _MASK
            if head < 0:
                end = at + 1 + 2 * ((head >> 24) & 0x7F)
                chain, fin = records[at + 1 : end].tolist(), FIN_WIDE
            else:
                end = at + 1 + (head >> 24)
                chain, fin = shorts[2 * at + 2 : 2 * end].tolist(), FIN_NARROW
            at = end
            ends = [
                (
                    (x + x_centre + x_first) / scale,
                    float("inf") if y == fin else (y + y_centre + y_first) / scale,
                )
                for x, y in zip(chain[::2], chain[1::2], strict=True)
            ]
            for (x1, y1), (x2, y2) in pairwise(ends):
                meets = meets_ray(lon, lat, x1, y1, x2, y2)
                if meets is None:
                    touched |= mask
                elif meets:
                    parity ^= mask
        return answer(records[record], parity | touched)

    def answer(palette: int, parity: int) -> tuple[int, ...]:
        size = palettes[palette - 1]
        near = size & 0xFF
        if near <= LARGEST_TABLE:
            number = palettes[palette + parity]
            if number != UNLISTED:
                found = known[number]
                return members(number) if found is None else found
        start = palette - 1 - (size >> 8) - near
        local = palettes[start : start + near].tolist()
        inside = [area for bit, area in enumerate(local) if parity >> bit & 1]
        return tuple(sorted(inside + palettes[start + near : palette - 1].tolist()))

    return covering
