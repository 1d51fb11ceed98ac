"""One upload made into a photo, in a process of its own: stdin in, stdout out, then it is over.

Run as a script, never imported: what decodes a stranger's file has no database, no keys, no
environment, and bounded memory and time. Its output is a line of JSON, then the bytes that the line
announces. The line has `refused`, with the remedy, where it is no photo that can be used.

Of the upload nothing is taken over but the pixels: they are copied into an image that has never
known the file.
"""

from __future__ import annotations

import io
import json
import resource
import sys
import warnings
from typing import Any

MEMORY_BYTES = 1536 * 1024 * 1024
CPU_S = 20
# Before these, no import: whatever the libraries do is bounded, too.
if __name__ == "__main__":
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY_BYTES, MEMORY_BYTES))
    resource.setrlimit(resource.RLIMIT_CPU, (CPU_S, CPU_S))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    resource.setrlimit(resource.RLIMIT_FSIZE, (0, 0))

from PIL import (  # noqa: E402
    Image,
    ImageCms,
    ImageOps,
    JpegImagePlugin,
    MpoImagePlugin,
    PngImagePlugin,
    UnidentifiedImageError,
    WebPImagePlugin,
)

MAX_PIXELS = 50_000_000
EDGE, THUMB_EDGE = 2048, 320
QUALITY = 85
DECODERS = (JpegImagePlugin, MpoImagePlugin, PngImagePlugin, WebPImagePlugin)  # by their import
FORMATS = ["JPEG", "PNG", "WEBP"]  # and HEIF, where it is asked for
GPS, LATITUDE, LONGITUDE = 0x8825, (1, 2), (3, 4)

WRONG_TYPE = "it is no JPEG, PNG, WebP or HEIC; save it as JPEG and send that"
DAMAGED = "it is damaged or cut off; send the file again, or take the photo again"
TOO_LARGE = f"it has more than {MAX_PIXELS // 1_000_000} million pixels; send a smaller copy"


class Refused(Exception):  # noqa: N818 - reads as the sentence it is
    """No photo that can be used; the message says why, and what to do."""


def develop(data: bytes) -> tuple[dict[str, Any], bytes, bytes]:
    """What is known of a photo, the photo, and a small one. Raises `Refused`."""
    try:
        _open(data).verify()  # after which it must be opened anew
        image = _open(data)
        hint = _place(image)
        profile = image.info.get("icc_profile")
        image.draft("RGB", (EDGE, EDGE))  # a JPEG is decoded at a fraction of its size
        image.load()
        # Shrunk first: what follows then costs little.
        if image.mode.startswith("I"):
            image = image.convert("I").point(lambda value: value / 256).convert("L")
        elif image.mode in {"P", "PA", "1"}:
            image = image.convert("RGBA")
        image.thumbnail((EDGE, EDGE))
        upright = ImageOps.exif_transpose(image)
        plain = _plain(upright, profile)
        full = _encoded(plain)
        known = {"width": plain.width, "height": plain.height, "hint": hint}
        plain.thumbnail((THUMB_EDGE, THUMB_EDGE))
        return known, full, _encoded(plain)
    except (Image.DecompressionBombError, Image.DecompressionBombWarning, MemoryError):
        raise Refused(TOO_LARGE) from None
    except Refused:
        raise
    except Exception:  # noqa: BLE001 - decoders raise anything at a file that is not as it should be
        raise Refused(DAMAGED) from None


def _open(data: bytes) -> Image.Image:
    """The image with its header read, and known to be of a bearable size."""
    try:
        image = Image.open(io.BytesIO(data), formats=FORMATS)
    except UnidentifiedImageError:
        known = (b"\xff\xd8\xff", b"\x89PNG\r\n\x1a\n", b"RIFF")
        cut_off = data.startswith(known) or data[4:8] == b"ftyp"
        raise Refused(DAMAGED if cut_off else WRONG_TYPE) from None
    if image.width * image.height > MAX_PIXELS:
        raise Refused(TOO_LARGE)
    return image


def _plain(image: Image.Image, profile: bytes | None) -> Image.Image:
    """The pixels as sRGB, on white, in an image that knows nothing else."""
    if "A" in image.getbands() or "transparency" in image.info:
        image = image.convert("RGBA")
        ground = Image.new("RGBA", image.size, "white")
        ground.alpha_composite(image)
        image = ground.convert("RGB")
    plain = Image.new("RGB", image.size)
    plain.paste(_srgb(image, profile))
    return plain


def _srgb(image: Image.Image, profile: bytes | None) -> Image.Image:
    if profile:
        try:
            given = ImageCms.ImageCmsProfile(io.BytesIO(profile))
            there = ImageCms.createProfile("sRGB")
            converted = ImageCms.profileToProfile(image, given, there, outputMode="RGB")
        except (ImageCms.PyCMSError, OSError, ValueError):
            converted = None  # a profile that is none, or another mode's
        if converted is not None:
            return converted
    return image.convert("RGB")


def _encoded(image: Image.Image) -> bytes:
    target = io.BytesIO()
    image.save(target, "JPEG", quality=QUALITY, optimize=True, progressive=True)
    return target.getvalue()


def _place(image: Image.Image) -> dict[str, float] | None:
    """Where the camera says it was; None if it does not, or makes no sense."""
    try:
        gps = image.getexif().get_ifd(GPS)
        lat, lon = (_degrees(gps, *keys) for keys in (LATITUDE, LONGITUDE))
    except Exception:  # noqa: BLE001 - a hint is no reason to refuse a photo
        return None
    if not (abs(lat) <= 90 and abs(lon) <= 180) or (lat, lon) == (0.0, 0.0):
        return None
    return {"lon": round(lon, 6), "lat": round(lat, 6)}


def _degrees(gps: Any, side: int, value: int) -> float:
    degrees, minutes, seconds = (float(part) for part in gps[value])
    sign = -1.0 if str(gps[side]).strip("\0 ").upper() in {"S", "W"} else 1.0
    return sign * (degrees + minutes / 60 + seconds / 3600)


def main() -> None:
    """Do one."""
    warnings.simplefilter("error", Image.DecompressionBombWarning)
    Image.MAX_IMAGE_PIXELS = MAX_PIXELS
    data = sys.stdin.buffer.read()
    if data[4:8] == b"ftyp":
        import pillow_heif  # noqa: PLC0415 - most photos are none, and it takes time

        pillow_heif.options.DECODE_THREADS = 1
        pillow_heif.register_heif_opener()
        FORMATS.append("HEIF")
    try:
        known, full, thumb = develop(data)
    except Refused as refused:
        known, full, thumb = {"refused": str(refused)}, b"", b""
    head = json.dumps({**known, "full": len(full), "thumb": len(thumb)})
    sys.stdout.buffer.write(head.encode() + b"\n" + full + thumb)


if __name__ == "__main__":
    main()
