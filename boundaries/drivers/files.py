"""Fetches a plain file: from a URL, or from this machine."""

from __future__ import annotations

import hashlib
import re
import shutil
from dataclasses import dataclass
from datetime import UTC, date, datetime
from pathlib import Path, PurePosixPath
from typing import Final, Self
from urllib.parse import urlsplit

from boundaries.drivers.archive import extract
from boundaries.drivers.driver import FileMissingError, Progress, Release, address
from boundaries.drivers.remote import Remote, RemoteError
from georouter.entries import Table

MOST_BYTES: Final = 16 << 30


@dataclass(frozen=True, slots=True)
class PlainUrl:
    """A file under a URL, or one file of the zip that is there."""

    url: str
    edition: str
    """Empty: the day when the file was last changed, as its server says."""
    sha256: str
    member: str

    @classmethod
    def read(cls, table: Table, _folder: Path) -> Self:
        """The driver of an entry of the catalogue; raises `Fault`."""
        found = cls(
            url=address(table, "url"),
            edition=table.text("edition", default=""),
            sha256=table.text("sha256", default="").lower(),
            member=table.text("member", default=""),
        )
        if found.sha256 and not re.fullmatch("[0-9a-f]{64}", found.sha256):
            table.fault("sha256", "sha256 must be 64 hexadecimal digits")
        suffix = found.suffix
        if not suffix or (suffix == ".zip") != bool(found.member):
            table.fault(
                "url",
                "the file's name must end with its format, such as .gpkg; with .zip, name the "
                'file in it that is wanted, such as member = "*.gpkg"',
            )
        return found

    @property
    def suffix(self) -> str:
        """That of the file's name in the URL."""
        return PurePosixPath(urlsplit(self.url).path).suffix.lower()

    def releases(self, remote: Remote, *, today: date) -> list[Release]:
        """The one that there is; raises `RemoteError`."""
        if self.edition:
            return [Release(self.edition, self.url)]
        changed = remote.last_modified(self.url)
        return [Release(str(changed.astimezone(UTC).date() if changed else today), self.url)]

    def download(self, release: Release, remote: Remote, work: Path, progress: Progress) -> Path:
        """The file as it is; raises `RemoteError`."""
        part = work / f"download{self.suffix}"
        remote.download(
            release.url,
            part,
            most_bytes=MOST_BYTES,
            progress=lambda share: progress("fetching", share),
        )
        with part.open("rb") as file:
            digest = hashlib.file_digest(file, "sha256").hexdigest()
        if self.sha256 and digest != self.sha256:
            part.unlink()
            raise RemoteError(
                f"{release.url} has SHA-256 {digest}, and the catalogue wants {self.sha256}; "
                "nothing was kept"
            )
        return extract(part, self.member, work / "member") if self.member else part


@dataclass(frozen=True, slots=True)
class LocalFile:
    """A file of this machine, such as one that came by mail."""

    path: Path
    edition: str
    """Empty: the day when the file was last changed."""

    @classmethod
    def read(cls, table: Table, folder: Path) -> Self:
        """The driver of an entry of the catalogue in `folder`; raises `Fault`."""
        return cls(folder / table.text("file"), table.text("edition", default=""))

    def releases(self, remote: Remote, *, today: date) -> list[Release]:  # noqa: ARG002 - asks none
        """The one that there is; raises `FileMissingError`."""
        if not self.path.is_file():
            raise FileMissingError(f"{self.path} does not exist or is no file")
        changed = datetime.fromtimestamp(self.path.stat().st_mtime, UTC).date()
        return [Release(self.edition or str(changed), self.path.absolute().as_uri())]

    def download(self, release: Release, remote: Remote, work: Path, progress: Progress) -> Path:  # noqa: ARG002
        """A copy of it."""
        progress("copying", 0.0)
        made = work / f"copy{self.path.suffix.lower()}"
        shutil.copyfile(self.path, made)
        return made
