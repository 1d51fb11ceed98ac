"""The file of an index: whole, it answers as before; anything else is refused, with the remedy."""

from __future__ import annotations

import random
from pathlib import Path

import numpy as np
import pytest

from georouter import codec
from georouter.compiler import compile_index
from georouter.index import Index
from tests.support.polygons import Drawing, beside, layer

DRAWING = Drawing("AAB/ACB", "aab/a.b", side=1000)
COMPILED = compile_index([layer(name, areas) for name, areas in DRAWING.layers.items()])
WHOLE = b"".join(codec.encode(COMPILED))
PLACES = [DRAWING.place(column / 2, row / 2) for column in range(-1, 8) for row in range(-1, 6)]
POINTS = beside(np.array(PLACES)).tolist()


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "index.grx"


def refusal(path: Path, content: bytes) -> str:
    """What both ways of opening say, the same but for the name."""
    path.write_bytes(content)
    with pytest.raises(codec.IndexFormatError) as in_file:
        Index.open(path)
    with pytest.raises(codec.IndexFormatError) as in_memory:
        Index.from_bytes(content)
    said = str(in_file.value)
    assert str(in_memory.value) == said.replace(str(path), "index in memory")
    assert said.startswith(f"{path} ")
    assert said.endswith("; build it again with `georouter boundaries build`")
    assert "\n" not in said
    return said.removeprefix(f"{path} ").partition(";")[0]


def test_a_round_trip_changes_nothing(path: Path) -> None:
    path.write_bytes(WHOLE)
    for index in (Index.open(path), Index.open(str(path)), Index.from_bytes(WHOLE)):
        assert index.layers == DRAWING.index.layers
        assert index.areas == DRAWING.index.areas
        for lon, lat in POINTS:
            assert index.covering(lon=lon, lat=lat) == DRAWING.index.covering(lon=lon, lat=lat)
    for name, array in codec.decode(WHOLE, path).arrays.items():
        assert np.array_equal(array, COMPILED.arrays[name])


def test_what_is_read_is_written_again_byte_by_byte(path: Path) -> None:
    assert b"".join(codec.encode(codec.decode(WHOLE, path))) == WHOLE


def test_names_of_any_alphabet_survive(path: Path) -> None:
    compiled = compile_index([layer("Кошары", {"č": DRAWING.layers["layer 1"]["A"]})])
    index = Index(codec.decode(b"".join(codec.encode(compiled)), path))
    assert index.layers[0].name == index.areas[0].layer == "Кошары"
    assert (index.areas[0].code, index.areas[0].name) == ("č", "Area č")


def test_arrays_are_aligned_to_be_used_in_place(path: Path) -> None:
    path.write_bytes(WHOLE)
    mapped, compiled = codec.read(path)
    for array in compiled.arrays.values():
        assert array.ctypes.data % 64 == 0
        assert not array.flags.writeable
        assert not array.flags.owndata
    assert len(mapped) == len(WHOLE)


def test_an_empty_file(path: Path) -> None:
    assert refusal(path, b"") == "is empty or cut off"


@pytest.mark.parametrize("content", [b"code,name\nE1,Wigan\n" * 9, bytes(5000), b"PAR1" * 99])
def test_a_file_of_another_kind(path: Path, content: bytes) -> None:
    assert refusal(path, content) == "is not a georouter index"


def test_a_file_cut_off_anywhere(path: Path) -> None:
    lengths = [*range(1, 200), *range(200, len(WHOLE), 97), len(WHOLE) - 1]
    for length in lengths:
        said = refusal(path, WHOLE[:length])
        assert said in {"is empty or cut off", "is cut off or has bytes added"}, length


@pytest.mark.parametrize("added", [b"\0", b"\0" * 8, b"\0" * 64, WHOLE])
def test_a_file_with_bytes_added(path: Path, added: bytes) -> None:
    assert refusal(path, WHOLE + added) == "is cut off or has bytes added"


def test_a_file_of_another_generation(path: Path) -> None:
    newer, older = bytearray(WHOLE), bytearray(WHOLE)
    newer[8] += 1
    older[8] -= 1
    assert refusal(path, bytes(newer)) == "has a newer format (2"
    assert refusal(path, bytes(older)) == "has an older format (0"


def test_every_flipped_bit_is_noticed(path: Path) -> None:
    """All of the prefix and the header, and some thousand of the rest."""
    rng = random.Random(8)
    header = 32 + int.from_bytes(WHOLE[12:16], "little")
    places = [*range(header), *(rng.randrange(header, len(WHOLE)) for _ in range(2000))]
    for place in places:
        changed = bytearray(WHOLE)
        changed[place] ^= 1 << rng.randrange(8)
        with pytest.raises(codec.IndexFormatError, match=r"^a.grx .*; build it again with "):
            codec.decode(bytes(changed), Path("a.grx"))
    for place in rng.sample(places, 20):
        changed = bytearray(WHOLE)
        changed[place] ^= 0xFF
        refusal(path, bytes(changed))


def test_parts_that_changed_places_are_noticed(path: Path) -> None:
    large = Drawing("AAB/ACB", "aab/a.b", side=900_000)
    rings = [layer(name, areas) for name, areas in large.layers.items()]
    whole = b"".join(codec.encode(compile_index(rings)))
    header = 32 + int.from_bytes(whole[12:16], "little")
    for size in (8, 64, 512):
        blocks = [whole[at : at + size] for at in range(header, len(whole), size)]
        differ = next(n for n in range(len(blocks) - 1) if blocks[n] != blocks[n + 1])
        blocks[differ : differ + 2] = blocks[differ + 1], blocks[differ]
        said = refusal(path, whole[:header] + b"".join(blocks))
        assert said == "is damaged (its checksum does not match)"


def test_a_missing_file_is_missing(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        Index.open(tmp_path / "none.grx")
