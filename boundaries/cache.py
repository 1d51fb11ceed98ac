"""Files that were fetched, by the SHA-256 of their content, and which source and edition each is.

A file appears whole or not at all, and is checked when it is taken out: `newest` and `find` never
give one that is damaged. Two processes never fetch one source at the same time. It fetches nothing.
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
import re
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

_READ_ONLY: Final = 0o444


class CacheError(Exception):
    """A cache that cannot be used as it is; the message says what to do."""


class CacheBusyError(CacheError):
    """Somebody else is fetching the same source."""


@dataclass(frozen=True, slots=True)
class Fetched:
    """A file of the cache. Its suffix tells the format.

    `origin` says where it came from: source, title, publisher, edition, url, fetched_at, licence,
    attribution.
    """

    source: str
    edition: str
    path: Path
    sha256: str
    origin: dict[str, str]


@dataclass(frozen=True, slots=True)
class Seen:
    """The newest edition that a service had when it was last asked."""

    edition: str
    at: str


class Cache:
    """A folder of fetched files: `sha256/` has them, `sources/` says what they are.

    `work/` has what is being fetched, kept over a cut so that it can be gone on with, and `seen/`
    what services had when they were last asked.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def newest(self, source: str) -> Fetched | None:
        """The newest edition that was fetched; raises `CacheError` where it is damaged.

        An older one would be another country: it is never taken in its place.
        """
        kept = self.editions(source)
        if not kept:
            return None
        if not _is_whole(kept[-1]):
            raise CacheError(
                f"{kept[-1].path} is damaged or gone; run `georouter boundaries fetch {source}`"
            )
        return kept[-1]

    def find(self, source: str, edition: str) -> Fetched | None:
        """An edition as last fetched; None where there is none, or it is damaged."""
        kept = [one for one in self.editions(source) if one.edition == edition]
        return kept[-1] if kept and _is_whole(kept[-1]) else None

    def editions(self, source: str) -> list[Fetched]:
        """All that was fetched of a source, the newest edition last; files are not looked at."""
        path = self.folder / "sources" / f"{source}.json"
        entries = _read_json(path, [])
        try:
            found = [
                Fetched(
                    source=source,
                    edition=entry["edition"],
                    path=self.folder / entry["file"],
                    sha256=entry["sha256"],
                    origin=dict(entry["origin"]),
                )
                for entry in entries
            ]
        except (TypeError, KeyError, ValueError):
            raise CacheError(f"{path} is damaged; remove it and fetch {source} again") from None
        return sorted(found, key=lambda one: edition_order(one.edition))

    def keep(self, source: str, edition: str, made: Path, origin: Mapping[str, str]) -> Fetched:
        """Take a whole file over from the work folder. Call it with the source `locked`."""
        digest = _sha256(made)
        file = Path("sha256") / digest[:2] / f"{digest}{made.suffix}"
        path = self.folder / file
        path.parent.mkdir(parents=True, exist_ok=True)
        _sync(made)
        made.chmod(_READ_ONLY)
        made.replace(path)
        _sync(path.parent)
        fetched = Fetched(source, edition, path, digest, dict(origin))
        others = [
            one for one in self.editions(source) if (one.edition, one.sha256) != (edition, digest)
        ]
        entries = [
            {
                "edition": one.edition,
                "file": one.path.relative_to(self.folder).as_posix(),
                "sha256": one.sha256,
                "origin": one.origin,
            }
            for one in [*others, fetched]
        ]
        write_json(self.folder / "sources" / f"{source}.json", entries)
        return fetched

    @contextmanager
    def locked(self, source: str) -> Iterator[Path]:
        """The source's folder to work in, for this process alone; raises `CacheBusyError`.

        What is in it stays when the work is broken off, and goes when it ends well.
        """
        work = self.folder / "work" / source
        work.parent.mkdir(parents=True, exist_ok=True)
        with work.with_suffix(".lock").open("ab") as lock:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                raise CacheBusyError(
                    f"{source} is being fetched by another process; let it finish"
                ) from None
            work.mkdir(exist_ok=True)  # after the lock, or the one before would take it away
            yield work
            shutil.rmtree(work)

    def note_seen(self, source: str, edition: str, at: str) -> None:
        """Remember the newest edition that a service has."""
        write_json(self.folder / "seen" / f"{source}.json", {"edition": edition, "at": at})

    def seen(self, source: str) -> Seen | None:
        """The newest edition that its service had when it was last asked."""
        try:
            return Seen(**_read_json(self.folder / "seen" / f"{source}.json", None))
        except TypeError:
            return None  # none yet, or nothing that is worth a message


def edition_order(edition: str) -> list[tuple[int, str]]:
    """A key by which editions sort: numbers in them count as numbers, 2025-05 before 2025-05-v2."""
    return [(int(part), "") if part.isdigit() else (-1, part) for part in _parts(edition)]


def _parts(edition: str) -> list[str]:
    return re.findall(r"\d+|\D+", edition)


def write_json(path: Path, value: Any) -> None:
    """Write JSON that is there whole or not at all."""
    write_whole(path, json.dumps(value, indent=2, ensure_ascii=False).encode() + b"\n")


def write_whole(path: Path, content: bytes) -> None:
    """Write a file that is there whole or not at all, whatever is killed when."""
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f".{path.name}.partial-{os.getpid()}")
    try:
        with partial.open("wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        partial.replace(path)
    finally:
        partial.unlink(missing_ok=True)
    _sync(path.parent)


def _read_json(path: Path, default: Any) -> Any:
    try:
        return json.loads(path.read_bytes())
    except FileNotFoundError:
        return default
    except ValueError:
        raise CacheError(f"{path} is damaged; remove it and fetch again") from None
    except OSError as error:
        raise CacheError(f"{path} cannot be read: {error.strerror}; give us the right to") from None


def _is_whole(fetched: Fetched) -> bool:
    try:
        return _sha256(fetched.path) == fetched.sha256
    except OSError:
        return False


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _sync(path: Path) -> None:
    """Have a file, or a folder's list of names, on the disk before going on."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
