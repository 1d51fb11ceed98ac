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

from itertools import pairwise
from pathlib import Path
from typing import Any, Final, Protocol

import numpy as np
import numpy.typing as npt

from georouter.codec import Compiled, decode, read
from georouter.compiler import FIN_NARROW, FIN_WIDE, LARGEST_TABLE, RECORD, SUB, UNLISTED
from georouter.geometry import SCALE, check_coordinate, meets_ray
from georouter.model import Area, InvalidCoordinate, Layer, NearBorder
from georouter.nearest import Nearest

Ints = npt.NDArray[np.int64]

_TOLERANCE: Final = 2
_MASK: Final = (1 << 24) - 1
_CHILDREN: Final = SUB - 1
_BLOCK: Final = 1 << 16  # points handled at a time: their working arrays stay in the cache


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

    def covering_many(
        self, lons: npt.ArrayLike, lats: npt.ArrayLike, *, layer: str
    ) -> npt.NDArray[np.int32]:
        """For each point the position in `areas` of the area of `layer` that covers it, or -1.

        `lons`, `lats` are degrees of shape (n,). On a shared border the lowest position wins.
        Raises `InvalidCoordinate` naming the first bad value, `KeyError` for an unknown layer and
        `ValueError` for shapes that do not match.
        """
        lon = np.asarray(lons, dtype=np.float64, order="C")
        lat = np.asarray(lats, dtype=np.float64, order="C")
        if lon.ndim != 1 or lon.shape != lat.shape:
            raise ValueError(f"lons and lats must both have shape (n,): {lon.shape}, {lat.shape}")
        _check_many(lon, lat)
        found = self._layer(layer)
        if layer not in self._lowest:
            self._lowest[layer] = _lowest_members(self._compiled, found)
        answer = np.empty(len(lon), np.int32)
        for start in range(0, len(lon), _BLOCK):
            block = slice(start, start + _BLOCK)
            answer[block] = self._block(lon[block], lat[block], found)
        return answer

    def _layer(self, name: str) -> Layer:
        found = next((layer for layer in self.layers if layer.name == name), None)
        if found is None:
            names = ", ".join(layer.name for layer in self.layers)
            raise KeyError(f"no layer {name!r} in this index; it has {names}")
        return found

    def _block(
        self, lon: npt.NDArray[np.float64], lat: npt.NDArray[np.float64], layer: Layer
    ) -> npt.NDArray[np.int32]:
        arrays, grid = self._compiled.arrays, self._compiled.grid
        # the same expressions as in the single lookup, so that both see the same cell
        x = ((lon + 180.0) * SCALE).astype(np.int64) - (180 * SCALE + grid.x0)
        y = ((lat + 90.0) * SCALE).astype(np.int64) - (90 * SCALE + grid.y0)
        column, row = x >> grid.shifts[0], y >> grid.shifts[0]
        within = (column >= 0) & (column < grid.columns) & (row >= 0) & (row < grid.rows)
        word = np.where(within, arrays["top"][np.where(within, row * grid.columns + column, 0)], 0)
        leaf = np.full(len(word), grid.shifts[0])
        for above, shift in pairwise(grid.shifts):
            deeper = np.nonzero((word >> 30) == 1)[0]
            if not len(deeper):
                break
            bits = above - shift
            side = (1 << bits) - 1
            child = (((y[deeper] >> shift) & side) << bits) + ((x[deeper] >> shift) & side)
            word[deeper] = arrays["sub"][(word[deeper] & _CHILDREN) + child]
            leaf[deeper] = shift
        at = np.nonzero(word >= RECORD)[0]
        if not len(at):
            return self._lowest[layer.name][word]
        size = 1 << leaf[at]
        sets, doubt = _count_crossings(
            arrays,
            word[at].astype(np.int64) - RECORD,
            (x[at] & (size - 1)) - size // 2,
            (y[at] & (size - 1)) - size // 2,
        )
        word[at] = np.where(doubt, 0, sets)
        answer = self._lowest[layer.name][word]
        for n in at[doubt].tolist():
            hits = self.covering(lon=float(lon[n]), lat=float(lat[n]))
            answer[n] = next((hit for hit in hits if layer.first <= hit < layer.stop), -1)
        return answer


def _check_many(lon: npt.NDArray[np.float64], lat: npt.NDArray[np.float64]) -> None:
    for name, values, limit in (("lons", lon, 180.0), ("lats", lat, 90.0)):
        bad = ~(np.abs(values) <= limit)  # catches NaN too
        if bad.any():
            first = int(np.argmax(bad))
            raise InvalidCoordinate(
                name[:-1],
                f"{name}[{first}] is {values[first]!r}; it must be a finite number of degrees "
                f"between {-limit:g} and {limit:g}",
            )


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
            mine = active[group]
            edges = vertices[group] - 1
            which = np.repeat(np.arange(len(mine)), edges)
            step = np.arange(len(which)) - np.repeat(np.cumsum(edges) - edges, edges)
            word = at[mine][which] + 1 + each * step
            if each == 1:
                x1, y1 = _unpack(records[word])
                x2, y2 = _unpack(records[word + 1])
            else:
                x1, y1, x2, y2 = (records[word + k].astype(np.int64) for k in range(4))
            of = mine[which]
            px, py = x[of], y[of]
            run, rise = x2 - x1, y2 - y1
            cross = run * (py - y1) - rise * (px - x1)
            near = np.abs(cross) <= (np.abs(run) + np.abs(rise)) * _TOLERANCE
            near &= np.minimum(x1, x2) - _TOLERANCE <= px
            near &= px <= np.maximum(x1, x2) + _TOLERANCE
            near &= np.minimum(y1, y2) - _TOLERANCE <= py
            near &= py <= np.maximum(y1, y2) + _TOLERANCE
            doubt[of[near]] = True
            crossed = ((y1 <= py) != (y2 <= py)) & ((cross > 0) == (rise > 0))
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


def _unpack(words: npt.NDArray[np.int32]) -> tuple[Ints, Ints]:
    """The x and y of narrow vertices."""
    pairs = words.astype(np.int64)
    return ((pairs & 0xFFFF) ^ 0x8000) - 0x8000, pairs >> 16


def _make_lookup(compiled: Compiled) -> _Lookup:  # noqa: C901, PLR0915 - one closure is the speed
    """The single lookup as a closure over memory views: the fastest that plain Python does."""
    views = {name: array.data for name, array in compiled.arrays.items()}
    top, sub, records = views["top"], views["sub"], views["records"]
    narrow = records.cast("B").cast("h")  # the same bytes, as 16-bit coordinates
    palettes, set_offsets, set_members = (
        views["palettes"],
        views["set_offsets"],
        views["set_members"],
    )
    grid = compiled.grid
    columns, rows, shift = grid.columns, grid.rows, grid.shifts[0]
    # measured from -180, -90 a coordinate is positive, so that int() rounds down
    x_origin, y_origin = 180 * SCALE + grid.x0, 90 * SCALE + grid.y0
    x_first, y_first = grid.x0, grid.y0
    steps = [
        (below, above - below, (1 << (above - below)) - 1) for above, below in pairwise(grid.shifts)
    ]
    scale = float(SCALE)
    tolerance = _TOLERANCE
    # sets are decoded when first met; None and the empty set both leave the fast path
    known: list[tuple[int, ...] | None] = [None] * (len(set_offsets) - 1)

    def members(number: int) -> tuple[int, ...]:
        found = known[number]
        if found is None:
            start, stop = set_offsets[number], set_offsets[number + 1]
            found = known[number] = tuple(set_members[start:stop].tolist())
        return found

    def covering(*, lon: float, lat: float) -> tuple[int, ...]:
        try:
            x = int((lon + 180.0) * scale) - x_origin
            y = int((lat + 90.0) * scale) - y_origin
        except (ValueError, OverflowError):
            check_coordinate(lon, lat)
            raise
        column, row = x >> shift, y >> shift
        if not (0 <= column < columns and 0 <= row < rows):
            check_coordinate(lon, lat)
            return ()
        word = top[row * columns + column]
        if word >= SUB:
            below = shift
            if word < RECORD:
                for below, bits, side in steps:
                    word = sub[
                        (word & _CHILDREN) + (((y >> below) & side) << bits) + ((x >> below) & side)
                    ]
                    if word < SUB or word >= RECORD:
                        break
            if word >= RECORD:
                hits = at_record(word - RECORD, x, y, 1 << below, lon, lat)
                if not hits:  # a cell on the rim of the world reaches beyond the range
                    check_coordinate(lon, lat)
                return hits
        found = known[word]
        if found:
            return found
        check_coordinate(lon, lat)
        return members(word)

    def at_record(  # noqa: C901, PLR0912 - split up it would call functions per edge
        record: int, x_grid: int, y_grid: int, size: int, lon: float, lat: float
    ) -> tuple[int, ...]:
        x, y = (x_grid & (size - 1)) - (size >> 1), (y_grid & (size - 1)) - (size >> 1)
        head = records[record + 1]
        parity = head & _MASK
        at = record + 2
        x_low, x_high, y_low, y_high = x - tolerance, x + tolerance, y - tolerance, y + tolerance
        for _ in range((head >> 24) & 0xFF):
            head = records[at]
            if head < 0:
                end = at + 1 + 2 * ((head >> 24) & 0x7F)
                chain = records[at + 1 : end].tolist()
            else:
                end = at + 1 + (head >> 24)
                chain = narrow[2 * at + 2 : 2 * end].tolist()
            at = end
            ys = chain[1::2]
            if max(ys) < y_low or min(ys) > y_high:
                continue
            mask = head & _MASK
            was_below = ys[0] <= y
            y1 = ys[0]
            position = 0  # of the edge's far end in the chain
            for y2 in ys:
                below = y2 <= y
                if below is not was_below:
                    was_below = below
                    x1, x2 = chain[position - 2], chain[position]
                    if x1 > x_high and x2 > x_high:
                        parity ^= mask
                    elif x1 >= x_low or x2 >= x_low:
                        run, rise = x2 - x1, y2 - y1
                        cross = run * (y - y1) - rise * (x - x1)
                        slack = (abs(run) + abs(rise)) * tolerance
                        if -slack <= cross <= slack:
                            return exactly(record, x_grid - x, y_grid - y, lon, lat)
                        if (cross > 0) is (rise > 0):
                            parity ^= mask
                elif position and (y_low <= y2 <= y_high or y_low <= y1 <= y_high):
                    # no crossing, but an end so close in height that the edge may touch the point
                    x1, x2 = chain[position - 2], chain[position]
                    if (x1 <= x_high or x2 <= x_high) and (x1 >= x_low or x2 >= x_low):
                        run, rise = x2 - x1, y2 - y1
                        cross = run * (y - y1) - rise * (x - x1)
                        slack = (abs(run) + abs(rise)) * tolerance
                        if -slack <= cross <= slack:
                            return exactly(record, x_grid - x, y_grid - y, lon, lat)
                y1 = y2
                position += 2
        return answer(records[record], parity)

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
                chain, fin = narrow[2 * at + 2 : 2 * end].tolist(), FIN_NARROW
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
