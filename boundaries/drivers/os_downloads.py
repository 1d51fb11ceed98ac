"""Fetches a product of Ordnance Survey's Downloads API: a zip, of which one file is wanted.

The API says size and MD5 of the zip; both are checked. It offers the newest edition only.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from datetime import date
from pathlib import Path
from typing import Any, Self

from boundaries.drivers.archive import extract
from boundaries.drivers.driver import Progress, Release, address
from boundaries.drivers.remote import Remote, RemoteError, parse_json
from georouter.entries import Table


@dataclass(frozen=True, slots=True)
class OsDownloads:
    """One file of one product, such as the GeoPackage of Great Britain."""

    product: str
    area: str
    format: str
    member: str

    @classmethod
    def read(cls, table: Table, _folder: Path) -> Self:
        """The driver of an entry of the catalogue; raises `Fault`."""
        return cls(
            product=address(table, "product"),
            area=table.text("area", default="GB"),
            format=table.text("format"),
            member=table.text("member"),
        )

    def releases(self, remote: Remote, *, today: date) -> list[Release]:  # noqa: ARG002 - it says
        """The one that there is. Raises `RemoteError`."""
        said = remote.read(self.product, parse_json(self.product), {})
        edition = said.get("version") if isinstance(said, dict) else None
        if not isinstance(edition, str) or not edition:
            raise RemoteError(f"{self.product} does not say of which version it is")
        return [Release(edition, f"{self.product}/downloads")]

    def download(self, release: Release, remote: Remote, work: Path, progress: Progress) -> Path:
        """The member of the zip; raises `RemoteError`."""
        file = self._file(remote.read(release.url, parse_json(release.url), {}))
        part = work / "download.zip"
        remote.download(
            file["url"],
            part,
            most_bytes=file["size"],
            progress=lambda share: progress("fetching", share),
        )
        size = part.stat().st_size
        with part.open("rb") as opened:
            md5 = hashlib.file_digest(opened, lambda: hashlib.md5(usedforsecurity=False))
        if size != file["size"] or md5.hexdigest() != file["md5"].lower():
            part.unlink()
            raise RemoteError(
                f"{file['url']} gives {size:,} bytes with MD5 {md5.hexdigest()}, and "
                f"{release.url} says {file['size']:,} with {file['md5']}; nothing was kept"
            )
        progress("unpacking", 1.0)
        return extract(part, self.member, work / "member")

    def _file(self, listed: Any) -> dict[str, Any]:
        files = [one for one in listed if isinstance(one, dict)] if isinstance(listed, list) else []
        fitting = [
            one for one in files if (one.get("area"), one.get("format")) == (self.area, self.format)
        ]
        if len(fitting) != 1:
            has = ", ".join(sorted({f"{one.get('area')} {one.get('format')}" for one in files}))
            raise RemoteError(
                f"{self.product} has {len(fitting) or 'no'} files of area {self.area!r} and format "
                f"{self.format!r}; correct the catalogue. It has: {has or 'none'}"
            )
        if not (
            isinstance(fitting[0].get("size"), int)
            and all(isinstance(fitting[0].get(key), str) for key in ("md5", "url"))
        ):
            raise RemoteError(f"{self.product} does not say size, md5 and url of its file")
        return fitting[0]
