"""Image files for tests: good ones, and ones that somebody has made to do harm."""

from __future__ import annotations

import io
import struct
import zlib
from typing import Any

import numpy as np
import pillow_heif
from PIL import ExifTags, Image, ImageCms, PngImagePlugin

pillow_heif.register_heif_opener()

TYPES = {"JPEG": "image/jpeg", "PNG": "image/png", "WEBP": "image/webp", "HEIF": "image/heic"}
MARK = b"PLANTED-MARK"  # in every kind of metadata, and nowhere in pixels


def pixels(width: int = 640, height: int = 480, *, seed: int = 1) -> Image.Image:
    """Something with an up and a left: red at the top left, noise elsewhere."""
    noise = np.random.default_rng(seed).integers(0, 120, (height, width, 3), dtype=np.uint8)
    noise[: height // 4, : width // 4] = (250, 10, 10)
    return Image.fromarray(noise)


def exif(
    *, orientation: int = 1, gps: tuple[float, float] | None = None, mark: bool = False
) -> Image.Exif:
    tags = Image.Exif()
    tags[ExifTags.Base.Orientation] = orientation
    if mark:
        tags[ExifTags.Base.Artist] = MARK.decode()
        tags[ExifTags.Base.ImageDescription] = MARK.decode()
        inner = tags.get_ifd(ExifTags.IFD.Exif)
        inner[ExifTags.Base.UserComment] = b"ASCII\0\0\0" + MARK
        inner[ExifTags.Base.MakerNote] = MARK
    if gps is not None:
        lon, lat = gps
        place = tags.get_ifd(ExifTags.IFD.GPSInfo)
        place[1], place[2] = "N" if lat >= 0 else "S", _parts(lat)
        place[3], place[4] = "E" if lon >= 0 else "W", _parts(lon)
    return tags


def _parts(value: float) -> tuple[float, float, float]:
    value = abs(value)
    return float(int(value)), float(int(value * 60) % 60), value * 3600 % 60


def encoded(image: Image.Image | None = None, kind: str = "JPEG", **options: Any) -> bytes:
    target = io.BytesIO()
    (image or pixels()).save(target, kind, **options)
    return target.getvalue()


def opened(data: bytes) -> Image.Image:
    image = Image.open(io.BytesIO(data))
    image.load()
    return image


def marked(kind: str) -> bytes:
    """A file with the mark in all the places that its format has for what is no pixel."""
    profile = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    options: dict[str, Any] = {
        "exif": exif(orientation=1, gps=(-2.5, 53.5), mark=True),
        "icc_profile": profile + MARK,
        "xmp": b"<x:xmpmeta>" + MARK + b"</x:xmpmeta>",
    }
    if kind == "PNG":
        texts = PngImagePlugin.PngInfo()
        texts.add_text("Comment", MARK.decode())
        texts.add_text("Author", MARK.decode(), zip=True)
        texts.add_itxt("XML:com.adobe.xmp", MARK.decode())
        del options["xmp"]
        return encoded(kind=kind, pnginfo=texts, **options) + MARK
    if kind == "JPEG":
        thumbnail = encoded(pixels(64, 48)) + MARK
        options["comment"] = MARK
        # IPTC, and a thumbnail in a segment of its own, as cameras put them
        options["extra"] = b"".join(
            marker + struct.pack(">H", len(body) + 2) + body
            for marker, body in (
                (b"\xff\xed", b"Photoshop 3.0\x008BIM\x04\x04\0\0\0\0\0\x10" + MARK),
                (b"\xff\xe5", thumbnail),
            )
        )
        return encoded(kind=kind, **options) + MARK
    return encoded(kind=kind, **options) + (b"" if kind == "WEBP" else MARK)


def png(width: int, height: int, rows: bytes, *, after: bytes = b"") -> bytes:
    """A PNG as one likes it: 8-bit RGB by its header, whatever the rows are."""

    def chunk(name: bytes, body: bytes) -> bytes:
        check = zlib.crc32(name + body)
        return struct.pack(">I", len(body)) + name + body + struct.pack(">I", check)

    head = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    body = chunk(b"IHDR", head) + after + chunk(b"IDAT", rows) + chunk(b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + body


def png_text_bomb() -> bytes:
    """A hundred kilobytes that unfold to a hundred megabytes, in a text."""
    folded = zlib.compress(bytes(100 * 1024 * 1024), 1)
    body = b"Comment\0\0" + folded
    check = zlib.crc32(b"zTXt" + body)
    text = struct.pack(">I", len(body)) + b"zTXt" + body + struct.pack(">I", check)
    return png(8, 8, zlib.compress(bytes(8 * 25)), after=text)


def with_size(data: bytes, kind: str, width: int, height: int) -> bytes:
    """The same file with another size in its header."""
    if kind == "JPEG":
        at = next(data.index(marker) for marker in (b"\xff\xc0", b"\xff\xc2") if marker in data)
        return data[: at + 5] + struct.pack(">HH", height, width) + data[at + 9 :]
    if kind == "WEBP":  # a lossless one
        at = data.index(b"VP8L") + 9
        bits = int.from_bytes(data[at : at + 4], "little") >> 28 << 28
        bits |= (width - 1) | (height - 1) << 14
        return data[:at] + struct.pack("<I", bits) + data[at + 4 :]
    if kind == "HEIF":
        at = data.index(b"ispe") + 8
        return data[:at] + struct.pack(">II", width, height) + data[at + 8 :]
    raise ValueError(kind)
