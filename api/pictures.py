"""Makes photos of uploads, each in a process of its own, as many at a time as there are cores.

It promises that no file, however made, stops or stalls this process, holds more than one core or
more memory than `picture` allows itself, or leaves a process behind.
"""

from __future__ import annotations

import asyncio
import json
import os
import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import BinaryIO, Final

from api import errors

# By its path: it must not find the rest of the service, nor the service import it.
SCRIPT: Final = Path(__file__).with_name("picture.py")
TIMEOUT_S: Final = 60.0


@dataclass(frozen=True, slots=True)
class Picture:
    """A photo: JPEG in two sizes, and where the camera says it was, as (lon, lat)."""

    width: int
    height: int
    hint: tuple[float, float] | None
    full: bytes = field(repr=False)
    thumb: bytes = field(repr=False)


class Pictures:
    """Where uploads are made into photos; `at_once` of them at a time."""

    def __init__(self, *, at_once: int | None = None, timeout_s: float = TIMEOUT_S) -> None:
        self._turn = asyncio.Semaphore(at_once or os.cpu_count() or 1)
        self._timeout_s = timeout_s

    async def develop(self, upload: BinaryIO) -> Picture:
        """Make a photo of a file. Raises `PhotoRefused`, or `PhotosUnavailable` if it may pass."""
        async with self._turn:
            upload.seek(0)
            process = await asyncio.create_subprocess_exec(
                sys.executable,
                "-I",
                str(SCRIPT),
                stdin=upload,
                stdout=asyncio.subprocess.PIPE,
                stderr=asyncio.subprocess.DEVNULL,
                env={},
            )
            try:
                async with asyncio.timeout(self._timeout_s):
                    said, _ = await process.communicate()
            except TimeoutError:
                # Its own limit is of processor time: the machine is too busy to get there.
                raise errors.PhotosUnavailable(
                    "too much is going on; send the same request again shortly"
                ) from None
            finally:
                if process.returncode is None:
                    process.kill()
                    await process.wait()
        if process.returncode is not None and process.returncode > 0:
            raise RuntimeError(f"{SCRIPT.name} ended with {process.returncode}")
        return _read(said)


def _read(said: bytes) -> Picture:
    head, _, rest = said.partition(b"\n")
    try:
        known = json.loads(head)
    except ValueError:
        # Ended by a signal: out of time or memory, or a decoder has crashed.
        raise errors.PhotoRefused(
            "the photo takes too much to open; send it as a plain JPEG"
        ) from None
    if "refused" in known:
        raise errors.PhotoRefused(f"the photo cannot be used: {known['refused']}")
    hint = known["hint"]
    return Picture(
        width=known["width"],
        height=known["height"],
        hint=(hint["lon"], hint["lat"]) if hint else None,
        full=rest[: known["full"]],
        thumb=rest[known["full"] :],
    )
