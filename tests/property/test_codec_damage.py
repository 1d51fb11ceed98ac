"""A damaged artefact is refused with a remedy: it neither answers wrongly nor crashes."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from georouter import codec
from georouter.compiler import compile_index
from georouter.index import Index
from tests.support.polygons import draw, layer

WHOLE = b"".join(
    codec.encode(
        compile_index(
            [
                layer("one", draw("AAB/ACB", side=300_000)),
                layer("two", draw("aab/acb", side=300_000)),
            ]
        )
    )
)
places = st.integers(0, len(WHOLE) - 1)


def refused(data: bytes) -> None:
    with pytest.raises(codec.IndexFormatError, match="build it again with `georouter boundaries"):
        Index.from_bytes(data)


@settings(max_examples=400, deadline=None, derandomize=True)
@given(st.dictionaries(places, st.integers(1, 255), min_size=1, max_size=8))
def test_flipped_bytes(flips: dict[int, int]) -> None:
    data = bytearray(WHOLE)
    for at, bits in flips.items():
        data[at] ^= bits
    refused(bytes(data))


@settings(max_examples=200, deadline=None, derandomize=True)
@given(places, st.binary(max_size=64))
def test_cut_and_continued(at: int, after: bytes) -> None:
    data = WHOLE[:at] + after
    if data != WHOLE:
        refused(data)


@settings(max_examples=200, deadline=None, derandomize=True)
@given(st.data())
def test_a_piece_moved_elsewhere(data: st.DataObject) -> None:
    start, stop = sorted((data.draw(places), data.draw(places)))
    to = data.draw(places)
    moved = bytearray(WHOLE)
    moved[to : to + stop - start] = WHOLE[start:stop]
    moved = moved[: len(WHOLE)]
    if bytes(moved) != WHOLE:
        refused(bytes(moved))


@settings(max_examples=200, deadline=None, derandomize=True)
@given(st.binary(max_size=400))
def test_anything_else(data: bytes) -> None:
    refused(data)
