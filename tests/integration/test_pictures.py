"""Files that somebody has made to do harm, through the process that opens them."""

from __future__ import annotations

import asyncio
import os
import re
import tempfile
import zlib
from collections.abc import Callable
from pathlib import Path

import pytest
from PIL import Image

from api import pictures
from api.errors import PhotoRefused, PhotosUnavailable
from api.pictures import Picture, Pictures
from tests.support.pictures import (
    MARK,
    encoded,
    exif,
    marked,
    opened,
    pixels,
    png,
    png_text_bomb,
    with_size,
)


async def develop(data: bytes, room: Pictures | None = None) -> Picture:
    with tempfile.TemporaryFile() as upload:
        upload.write(data)
        return await (room or Pictures()).develop(upload)


def children() -> set[str]:
    found = set()
    for path in Path("/proc").glob("[0-9]*/stat"):
        try:
            stat = path.read_text()
        except OSError:
            continue
        if stat.rpartition(")")[2].split()[1] == str(os.getpid()):
            found.add(path.parent.name)
    return found


async def test_a_heic_with_everything_in_it() -> None:
    made = await develop(marked("HEIF"))
    assert (made.width, made.height) == (640, 480)
    assert made.hint == (-2.5, 53.5)
    assert opened(made.thumb).size == (320, 240)
    assert MARK not in made.full + made.thumb


async def test_one_is_like_the_other() -> None:
    given = encoded(pixels(1200, 900), exif=exif(orientation=6))
    assert await develop(given) == await develop(given)


HUGE: dict[str, Callable[[], bytes]] = {
    "png": lambda: png(31_000, 31_000, zlib.compress(bytes(10_000_000))),
    "png of many rows": lambda: png(1, 2**31 - 1, b""),
    "png text": png_text_bomb,
    "jpeg": lambda: with_size(encoded(), "JPEG", 65_000, 65_000),
    "webp": lambda: with_size(encoded(kind="WEBP", lossless=True), "WEBP", 16_383, 16_383),
    "webp a little": lambda: with_size(encoded(kind="WEBP", lossless=True), "WEBP", 7000, 7000),
    "png a little": lambda: png(7000, 7000, zlib.compress(bytes(1000))),
    "heic": lambda: with_size(encoded(kind="HEIF"), "HEIF", 2**31 - 1, 2**31 - 1),
    "heic a little": lambda: with_size(encoded(kind="HEIF"), "HEIF", 7000, 7000),
}


@pytest.mark.parametrize("name", HUGE)
async def test_bombs_do_not_go_off(name: str) -> None:
    bomb = HUGE[name]()
    assert len(bomb) < 12_000_000
    before = children()
    with pytest.raises(PhotoRefused, match=r"cannot be used|takes too much"):
        await develop(bomb)
    assert children() == before


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP"])
async def test_fifty_million_pixels_fit_into_its_memory(kind: str) -> None:
    options = {"PNG": {"compress_level": 1}, "WEBP": {"method": 0, "quality": 1}}.get(kind, {})
    mode = "RGB" if kind == "JPEG" else "RGBA"
    given = encoded(Image.new(mode, (8000, 6250), "red"), kind, **options)
    made = await develop(given)
    assert (made.width, made.height) == (2048, 1600)


async def test_what_takes_for_ever_is_ended(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    script = tmp_path / "picture.py"
    monkeypatch.setattr(pictures, "SCRIPT", script)
    before = children()
    script.write_text("import time\ntime.sleep(100)\n")
    with pytest.raises(PhotosUnavailable, match="again shortly"):
        await develop(encoded(), Pictures(timeout_s=0.5))
    script.write_text(
        "import resource\nresource.setrlimit(resource.RLIMIT_CPU, (1, 1))\nwhile True:\n    pass\n"
    )
    with pytest.raises(PhotoRefused, match="takes too much"):
        await develop(encoded())
    # Our own mistake is none of the photo's.
    script.write_text("import nothing_of_this_name\n")
    with pytest.raises(RuntimeError, match="ended with 1"):
        await develop(encoded())
    assert children() == before


async def test_it_knows_nothing_of_the_service(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("GEOROUTER_SECRET_KEYS", "not for strangers")
    script = tmp_path / "picture.py"
    script.write_text(
        "import os, sys\n"
        "said = repr(dict(os.environ)) + repr(sys.path)\n"
        "print('{\"refused\": \"' + said.replace('\"', '') + '\"}')\n"
    )
    monkeypatch.setattr(pictures, "SCRIPT", script)
    here = tmp_path / "here"  # what lies around is not imported
    here.mkdir()
    monkeypatch.chdir(here)
    with pytest.raises(PhotoRefused) as refused:
        await develop(encoded())
    said = str(refused.value)
    assert "strangers" not in said
    assert str(here) not in re.findall(r"'([^']*)'", said)


async def test_as_many_at_a_time_as_it_is_told() -> None:
    room = Pictures(at_once=2)
    before = children()
    most = 0
    async with asyncio.TaskGroup() as tasks:
        running = [tasks.create_task(develop(encoded(seed), room)) for seed in map(noise, range(8))]
        while not all(one.done() for one in running):
            most = max(most, len(children() - before))
            await asyncio.sleep(0.005)
    assert 1 <= most <= 2
    assert len({one.result().full for one in running}) == 8


def noise(seed: int) -> Image.Image:
    return pixels(800, 600, seed=seed)


async def test_who_gives_up_leaves_no_process(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    script = tmp_path / "picture.py"
    script.write_text("import time\ntime.sleep(100)\n")
    monkeypatch.setattr(pictures, "SCRIPT", script)
    before = children()
    task = asyncio.ensure_future(develop(encoded()))
    while children() == before:  # noqa: ASYNC110 - the event is in another process
        await asyncio.sleep(0.01)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert children() == before
