"""The compiled index as bytes: encoder and decoder side by side.

A file is a fixed prefix (magic, format generation, header length, checksums), a JSON header, and
flat little-endian arrays, each aligned to 64 bytes so that it can be used straight from a memory
map. Reading checks magic, generation, lengths and checksums and promises an `IndexFormatError` with
a remedy for anything else than a whole file of this format; it does not check what the compiler and
the proof at build time have already established.
"""

from __future__ import annotations

import json
import mmap
import struct
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from georouter.model import Area, Layer

MAGIC: Final = b"georoutX"
GENERATION: Final = 1
_PREFIX: Final = struct.Struct("<8sIIIIQ")  # magic, generation, header bytes, 2 checksums, size
_ALIGN: Final = 64
_BLOCK: Final = 512  # words in a row of the checksum's matrix

ARRAYS: Final = {
    "top": "<u4",
    "sub": "<u4",
    "records": "<i4",
    "palettes": "<u4",
    "set_offsets": "<u4",
    "set_members": "<u4",
}
"""The arrays of an index in file order, with their types; `compiler` says what they hold."""


class IndexFormatError(ValueError):
    """A file that is not a whole index of this format; the message says what to do."""


@dataclass(frozen=True, slots=True)
class Grid:
    """The top grid in units of 1e-7 degrees, and the cell sizes of all levels as powers of two."""

    x0: int
    y0: int
    columns: int
    rows: int
    shifts: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Compiled:
    """Everything a lookup needs, as flat arrays, whether just compiled or mapped from a file."""

    grid: Grid
    layers: tuple[Layer, ...]
    areas: tuple[Area, ...]
    arrays: dict[str, npt.NDArray[Any]]


def encode(compiled: Compiled) -> Iterator[bytes]:
    """The file's bytes in order. The same input gives the same bytes."""
    layout: dict[str, tuple[int, int]] = {}
    end = 0
    for name, dtype in ARRAYS.items():
        start = _aligned(end)
        layout[name] = (start, len(compiled.arrays[name]))
        end = start + len(compiled.arrays[name]) * np.dtype(dtype).itemsize
    body = bytearray(_aligned(end))
    for name, dtype in ARRAYS.items():
        raw = compiled.arrays[name].astype(dtype, copy=False).tobytes()
        body[layout[name][0] : layout[name][0] + len(raw)] = raw
    grid = compiled.grid
    header = json.dumps(
        {
            "grid": [grid.x0, grid.y0, grid.columns, grid.rows, list(grid.shifts)],
            "layers": [[layer.name, layer.first, layer.stop] for layer in compiled.layers],
            "areas": [[area.code, area.name] for area in compiled.areas],
            "arrays": layout,
        },
        ensure_ascii=False,
        separators=(",", ":"),
    ).encode()
    header += b" " * (_aligned(_PREFIX.size + len(header)) - _PREFIX.size - len(header))
    yield _PREFIX.pack(
        MAGIC,
        GENERATION,
        len(header),
        zlib.crc32(header),
        _checksum(body),
        _PREFIX.size + len(header) + len(body),
    )
    yield header
    yield bytes(body)


def read(path: Path) -> tuple[mmap.mmap, Compiled]:
    """Map the file and read its header. Raises `IndexFormatError`, or `OSError` as `open` does."""
    with path.open("rb") as file:
        if path.stat().st_size < _PREFIX.size:
            raise IndexFormatError(_remedy(path, "is empty or cut off"))
        mapped = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
    return mapped, decode(mapped, path)


def decode(buffer: mmap.mmap | bytes, path: Path) -> Compiled:
    """The index in a buffer; `path` is used in messages only."""
    if len(buffer) < _PREFIX.size:
        raise IndexFormatError(_remedy(path, "is empty or cut off"))
    magic, generation, header_len, header_sum, body_sum, size = _PREFIX.unpack_from(buffer)
    if magic != MAGIC:
        raise IndexFormatError(_remedy(path, "is not a georouter index"))
    if generation != GENERATION:
        age = "a newer" if generation > GENERATION else "an older"
        raise IndexFormatError(
            _remedy(path, f"has {age} format ({generation}; this version reads {GENERATION})")
        )
    if size != len(buffer) or header_len > len(buffer) - _PREFIX.size:
        raise IndexFormatError(_remedy(path, "is cut off or has bytes added"))
    raw = bytes(buffer[_PREFIX.size : _PREFIX.size + header_len])
    start = _PREFIX.size + header_len
    if zlib.crc32(raw) != header_sum or _checksum(memoryview(buffer)[start:]) != body_sum:
        raise IndexFormatError(_remedy(path, "is damaged (its checksum does not match)"))
    try:
        return _assemble(json.loads(raw), buffer, start)
    except (ValueError, KeyError, TypeError, IndexError) as error:
        raise IndexFormatError(
            _remedy(path, f"has a header that makes no sense: {error}")
        ) from None


def _assemble(header: dict[str, Any], buffer: mmap.mmap | bytes, start: int) -> Compiled:
    x0, y0, columns, rows, shifts = header["grid"]
    layers = tuple(Layer(name, first, stop) for name, first, stop in header["layers"])
    pairs = header["areas"]
    areas = tuple(
        Area(layer.name, code, name)
        for layer in layers
        for code, name in pairs[layer.first : layer.stop]
    )
    arrays = {
        name: np.frombuffer(
            buffer, dtype, header["arrays"][name][1], start + header["arrays"][name][0]
        )
        for name, dtype in ARRAYS.items()
    }
    return Compiled(Grid(x0, y0, columns, rows, tuple(shifts)), layers, areas, arrays)


def _aligned(offset: int) -> int:
    return -(-offset // _ALIGN) * _ALIGN


def _checksum(body: bytearray | memoryview) -> int:
    """CRC-32 over the row sums and the column sums of the body seen as a matrix of words.

    Any flipped bit changes a sum, moved blocks change the order of the sums, and it runs at the
    speed of memory where a CRC of every byte would be the slowest part of opening.
    """
    words = np.frombuffer(body, "<u8")
    whole = len(words) // _BLOCK * _BLOCK
    matrix = words[:whole].reshape(-1, _BLOCK)
    crc = zlib.crc32(np.add.reduce(matrix, axis=1, dtype=np.uint64).tobytes())
    crc = zlib.crc32(np.add.reduce(matrix, axis=0, dtype=np.uint64).tobytes(), crc)
    return zlib.crc32(words[whole:].tobytes(), crc)


def _remedy(path: Path, fault: str) -> str:
    return f"{path} {fault}; build it again with `georouter boundaries build`"
