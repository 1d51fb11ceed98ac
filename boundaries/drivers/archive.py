"""Takes one file out of a zip that a stranger made: to a name of ours, and of bounded size."""

from __future__ import annotations

import zipfile
import zlib
from fnmatch import fnmatch
from pathlib import Path, PurePosixPath
from typing import Final

from boundaries.drivers.remote import RemoteError, one_line

MOST_BYTES: Final = 16 << 30
_PIECE: Final = 1 << 20


def extract(archive: Path, pattern: str, out: Path, *, most_bytes: int = MOST_BYTES) -> Path:
    """Write the one member whose name fits to `out`, which gets its suffix.

    Raises `RemoteError`.
    """
    try:
        with zipfile.ZipFile(archive) as opened:
            member = _member(opened, pattern, most_bytes)
            path = out.with_suffix(PurePosixPath(member.filename).suffix.lower())
            with opened.open(member) as packed, path.open("wb") as file:
                left = member.file_size
                while piece := packed.read(_PIECE):
                    left -= len(piece)
                    if left < 0:
                        raise RemoteError(f"{member.filename} is larger than the zip says")
                    file.write(piece)
    except (zipfile.BadZipFile, zlib.error, NotImplementedError, EOFError, RuntimeError) as error:
        raise RemoteError(f"the zip that was fetched is of no use: {one_line(error)}") from None
    return path


def _member(opened: zipfile.ZipFile, pattern: str, most_bytes: int) -> zipfile.ZipInfo:
    members = [one for one in opened.infolist() if not one.is_dir()]
    for one in members:
        # Nothing is written to a name from the zip; whoever puts in such a name means no good.
        name = one.filename.replace("\\", "/")
        if name.startswith("/") or ".." in name.split("/") or ":" in name:
            raise RemoteError(f"the zip has a file that would go to {one.filename!r}; not used")
    fitting = [one for one in members if fnmatch(PurePosixPath(one.filename).name, pattern)]
    if len(fitting) != 1:
        names = ", ".join(one.filename for one in members[:10]) or "nothing"
        raise RemoteError(
            f"{len(fitting) or 'none'} of the zip's files fit member {pattern!r} of the catalogue; "
            f"it has: {names}"
        )
    if fitting[0].file_size > most_bytes:
        raise RemoteError(
            f"{fitting[0].filename} in the zip unpacks to more than {most_bytes:,} bytes; not used"
        )
    return fitting[0]
