from __future__ import annotations

import io

import pytest
from PIL import Image, ImageCms

from api import picture
from api.picture import Refused, develop
from tests.support.pictures import MARK, encoded, exif, marked, opened, pixels, png

KINDS = ("JPEG", "PNG", "WEBP", "HEIF")


@pytest.fixture(autouse=True)
def all_formats(monkeypatch: pytest.MonkeyPatch) -> None:
    """As the script has it for a HEIC."""
    monkeypatch.setattr(picture, "FORMATS", list(KINDS))


@pytest.mark.parametrize("kind", KINDS)
def test_a_photo_is_a_small_upright_jpeg_and_a_thumbnail(kind: str) -> None:
    known, full, thumb = develop(encoded(pixels(100, 52).resize((2100, 1092)), kind))
    assert (known["width"], known["height"]) == (2048, 1065)
    large, small = opened(full), opened(thumb)
    assert (large.format, large.mode, large.size) == ("JPEG", "RGB", (2048, 1065))
    assert (small.format, small.mode, small.size) == ("JPEG", "RGB", (320, 166))
    assert is_red(large, 0.1, 0.1)
    assert not is_red(large, 0.9, 0.9)


def is_red(image: Image.Image, across: float, down: float) -> bool:
    found = image.getpixel((int(image.width * across), int(image.height * down)))
    assert isinstance(found, tuple)
    return found[0] > 200 and found[1] < 70


def test_a_small_photo_is_not_made_larger() -> None:
    known, full, thumb = develop(encoded(pixels(200, 100)))
    assert (known["width"], known["height"]) == (200, 100)
    assert opened(full).size == opened(thumb).size == (200, 100)


@pytest.mark.parametrize("kind", KINDS)
def test_nothing_but_pixels_is_taken_over(kind: str) -> None:
    given = marked(kind)
    assert given.count(MARK) >= 3, "the file must be full of marks"
    known, *made = develop(given)
    assert known["hint"] == {"lon": -2.5, "lat": 53.5}
    for data in made:
        assert MARK not in data
        image = opened(data)
        assert set(image.info) <= {"jfif", "jfif_version", "jfif_unit", "jfif_density"} | {
            "progressive",
            "progression",
        }
        assert len(image.getexif()) == 0
        assert segments(data) <= {0xE0, 0xC2, 0xC4, 0xDB, 0xDA}


def segments(data: bytes) -> set[int]:
    """The kinds of segments before the pixels of a JPEG."""
    found, at = set(), 2
    while True:
        assert data[at] == 0xFF
        found.add(data[at + 1])
        if data[at + 1] == 0xDA:
            return found
        at += 2 + int.from_bytes(data[at + 2 : at + 4])


@pytest.mark.parametrize(
    ("orientation", "across", "down"),
    [
        (1, 0.1, 0.1),
        (2, 0.9, 0.1),
        (3, 0.9, 0.9),
        (4, 0.1, 0.9),
        (5, 0.1, 0.1),
        (6, 0.9, 0.1),
        (7, 0.9, 0.9),
        (8, 0.1, 0.9),
    ],
)
def test_it_is_turned_as_the_camera_says(orientation: int, across: float, down: float) -> None:
    known, full, _ = develop(encoded(pixels(600, 300), exif=exif(orientation=orientation)))
    upright = (300, 600) if orientation > 4 else (600, 300)
    assert (known["width"], known["height"]) == upright
    assert is_red(opened(full), across, down)


def test_where_the_camera_was_is_told_if_it_makes_sense() -> None:
    for place in ((-2.632512, 53.544789), (151.2, -33.85), (-0.0001, 51.4)):
        hint = develop(encoded(exif=exif(gps=place)))[0]["hint"]
        assert (hint["lon"], hint["lat"]) == pytest.approx(place, abs=1e-5)
    assert develop(encoded(exif=exif(gps=(0.0, 0.0))))[0]["hint"] is None
    assert develop(encoded(exif=exif(gps=(200.0, 10.0))))[0]["hint"] is None
    broken = exif(gps=(1.0, 51.0))
    del broken.get_ifd(0x8825)[1]
    assert develop(encoded(exif=broken))[0]["hint"] is None
    assert develop(encoded())[0]["hint"] is None


def test_other_colours_become_srgb() -> None:
    green = Image.new("RGB", (64, 64), (0, 200, 0))
    swapped = ImageCms.createProfile("LAB")  # of another mode: no use, and no harm
    useless = ImageCms.ImageCmsProfile(swapped).tobytes()
    for profile in (b"no profile at all", useless):
        made = develop(encoded(green, "PNG", icc_profile=profile))[1]
        assert opened(made).getpixel((9, 9)) == pytest.approx((0, 200, 0), abs=12)


@pytest.mark.parametrize("mode", ["1", "L", "LA", "P", "RGBA", "I;16"])
def test_every_mode_becomes_rgb(mode: str) -> None:
    if mode == "I;16":
        image = Image.new("I;16", (64, 64), 128 * 256)
    elif mode == "RGBA":
        image = Image.new("RGBA", (64, 64), (0, 0, 0, 0))  # nothing to be seen
    else:
        image = Image.new("L", (64, 64), 255).convert(mode)
    made = opened(develop(encoded(image, "PNG"))[1])
    assert made.mode == "RGB"
    expected = (128, 128, 128) if mode == "I;16" else (255, 255, 255)
    assert made.getpixel((9, 9)) == pytest.approx(expected, abs=6)


def test_cmyk_is_taken() -> None:
    made = opened(develop(encoded(Image.new("CMYK", (64, 64), (0, 255, 255, 0))))[1])
    found = made.getpixel((9, 9))
    assert isinstance(found, tuple)
    assert found[0] > 200
    assert found[1] < 60


@pytest.mark.parametrize("kind", ["PNG", "WEBP"])
def test_of_an_animation_the_first_frame_is_taken(kind: str) -> None:
    frames = [Image.new("RGB", (64, 64), colour) for colour in ("red", "blue", "blue")]
    given = encoded(frames[0], kind, save_all=True, append_images=frames[1:])
    assert is_red(opened(develop(given)[1]), 0.5, 0.5)


@pytest.mark.parametrize("kind", KINDS)
def test_what_is_cut_off_is_refused_with_a_remedy(kind: str) -> None:
    whole = encoded(pixels(), kind)
    for size in (16, len(whole) // 3, len(whole) - 40):
        with pytest.raises(Refused, match="send the file again"):
            develop(whole[:size])


@pytest.mark.parametrize(
    "given",
    [
        b"",
        b"hello",
        b"%PDF-1.7\n" + encoded(),
        b"<svg xmlns='http://www.w3.org/2000/svg'><script>alert(1)</script></svg>",
        b"GIF89a" + bytes(100),
        b"<!doctype html>" + encoded(),
        encoded(kind="TIFF"),
        encoded(kind="BMP"),
        encoded(kind="GIF"),
    ],
    ids=["empty", "text", "pdf", "svg", "gif header", "html", "tiff", "bmp", "gif"],
)
def test_what_is_no_photo_is_refused_with_a_remedy(given: bytes) -> None:
    with pytest.raises(Refused, match="save it as JPEG"):
        develop(given)


def test_what_else_a_file_may_be_does_not_come_through() -> None:
    script = b"*/=1;alert(1);/*<script>alert(1)</script>PK\x03\x04"
    for given in (encoded(comment=script) + script, encoded(kind="PNG") + script):
        for made in develop(given)[1:]:
            assert b"script" not in made
            assert b"PK\x03\x04" not in made
            assert made.endswith(b"\xff\xd9")


def test_damage_in_the_middle_is_refused() -> None:
    whole = bytearray(encoded(kind="PNG"))
    whole[len(whole) // 2] ^= 0xFF
    with pytest.raises(Refused, match="damaged"):
        develop(bytes(whole))


def test_more_pixels_than_allowed_are_refused_by_the_header_alone() -> None:
    too_large = png(10_000, 5_001, b"")
    with pytest.raises(Refused, match="50 million"):
        develop(too_large)
    just = io.BytesIO(png(10_000, 5_000, b""))
    with Image.open(just) as image:
        assert image.size == (10_000, 5_000)
    with pytest.raises(Refused, match="damaged"):  # and not its size
        develop(just.getvalue())
