"""Files that were fetched: which source and edition each is, and where it lies."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path


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


class Cache:
    """A folder of fetched files; `sources/` says what they are."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def newest(self, source: str) -> Fetched | None:
        """The newest edition that was fetched."""
        found = self._editions(source)
        return found[-1] if found else None

    def find(self, source: str, edition: str) -> Fetched | None:
        """An edition, or None where it was not fetched."""
        return next((one for one in self._editions(source) if one.edition == edition), None)

    def _editions(self, source: str) -> list[Fetched]:
        path = self.folder / "sources" / f"{source}.json"
        if not path.is_file():
            return []
        entries = json.loads(path.read_text(encoding="utf-8"))
        return [
            Fetched(
                source,
                entry["edition"],
                self.folder / entry["file"],
                entry["sha256"],
                entry["origin"],
            )
            for entry in sorted(entries, key=lambda entry: str(entry["edition"]))
        ]
