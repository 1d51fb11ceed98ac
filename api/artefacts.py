"""The artefact store: where the files of datasets are kept, and this machine's copies of them.

A dataset's artefact lies in the store under its version and is whole or not there. The store is a
folder, which is opened in place, or an object store, from which each machine fetches copies into a
folder of its own. What is opened has the checksums of the manifest; a copy that has not is fetched
again. Which dataset is in force, and which may go, is not known here.

Credentials and endpoints of object stores come from the environment, as obstore documents it.
"""

from __future__ import annotations

import asyncio
import fcntl
import hashlib
import json
import os
import re
import shutil
from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import asynccontextmanager, contextmanager, suppress
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, Self
from urllib.parse import unquote, urlsplit

import obstore
from obstore.exceptions import BaseError
from obstore.store import ObjectStore, from_url

from api.settings import Settings
from boundaries.dataset import INDEX, MANIFEST, Dataset, DatasetError, open_dataset
from georouter.codec import IndexFormatError

if TYPE_CHECKING:
    from obstore.store import RetryConfig  # exists for type checkers only

PIECE_BYTES: Final = 8 << 20
"""Files are fetched in pieces, so that no request lasts longer than obstore allows one to."""

# For a process that starts or polls: what lasts longer is for its next poll.
RETRIES: Final[RetryConfig] = {"max_retries": 3, "retry_timeout": timedelta(seconds=10)}


class ArtefactTaken(DatasetError):  # noqa: N818 - reads as the sentence it is
    """Another dataset has this version."""


class StoreUnavailable(DatasetError):  # noqa: N818 - reads as the sentence it is
    """The object store cannot be reached, or refuses."""


class Artefacts:
    """A store of artefacts: `folder` itself or, with a `remote` one, `folder` has copies of it."""

    def __init__(self, folder: Path, remote: ObjectStore | None = None) -> None:
        self.folder = folder
        self._remote = remote

    @classmethod
    def of(cls, settings: Settings) -> Self:
        """The store of these settings; raises `DatasetError`."""
        where, own = settings.datasets, settings.data_dir / "datasets"
        if where is None:
            return cls(own)
        if "://" not in where:
            return cls(Path(where).absolute())
        if where.startswith("file://"):
            return cls(Path(unquote(urlsplit(where).path)))
        try:
            return cls(own, from_url(where, retry_config=RETRIES))
        except (BaseError, ValueError) as error:
            raise DatasetError(
                f"GEOROUTER_DATASETS: {where} cannot be used: {_in_brief(error)}"
            ) from None

    async def put(self, source: Path, dataset: Dataset) -> None:
        """Keep the dataset that `check` found in the folder `source`.

        Raises `DatasetError` and `IndexFormatError`.
        """
        if not _nameable(dataset.version):
            raise DatasetError(
                f"{dataset.version!r} cannot be the name of a folder; build it under another name"
            )
        if self._remote is not None:
            await self._upload(source, dataset)
            return
        async with self._locked():
            kept = await self._kept(dataset.version, whole=True)
            if kept is not None and deciding(kept.manifest) != deciding(dataset.manifest):
                raise _taken(dataset)
            if kept is not None and _files(kept.manifest) == _files(dataset.manifest):
                return
            # A damaged one is replaced: processes that have mapped it keep what they have.
            async with self._made(dataset.version) as partial:
                for name in [*_files(dataset.manifest), MANIFEST]:
                    await asyncio.to_thread(_copy, source / name, partial / name)
                # the source may have changed meanwhile, or be damaged itself
                await asyncio.to_thread(_open, partial, dataset.manifest, whole=True)

    async def open(self, version: str, manifest: Mapping[str, Any]) -> Dataset:
        """Open a dataset, from a copy fetched for it where need be.

        Raises `DatasetError`, `IndexFormatError` and `OSError`.
        """
        if self._remote is not None:
            kept = await self._kept(version, manifest)
            if kept is not None:
                return kept
            await self._fetch(version, manifest, whole=False)
        return await asyncio.to_thread(_open, self.folder / version, manifest)

    async def whole(self, version: str, manifest: Mapping[str, Any]) -> Path:
        """The folder with all files of a dataset, fetched where need be; raises as `open`."""
        if self._remote is not None and await self._kept(version, manifest, whole=True) is None:
            await self._fetch(version, manifest, whole=True)
        await asyncio.to_thread(_open, self.folder / version, manifest, whole=True)
        return self.folder / version

    async def has(self, version: str) -> bool:
        """Whether the store has an artefact of this version; raises `DatasetError`."""
        if self._remote is None:
            return (self.folder / version / MANIFEST).is_file()
        try:
            with _translated():
                await obstore.head_async(self._remote, f"{version}/{MANIFEST}")
        except FileNotFoundError:
            return False
        return True

    async def remove(self, version: str, manifest: Mapping[str, Any]) -> None:
        """Remove an artefact and this machine's copy; nothing happens if there is none.

        Raises `DatasetError`.
        """
        if self._remote is not None:
            # The manifest first: without it the rest is not an artefact any more.
            for name in [MANIFEST, *_files(manifest)]:
                with _translated(), suppress(FileNotFoundError):
                    await obstore.delete_async(self._remote, f"{version}/{name}")
        async with self._locked():
            home = self.folder / version
            if home.exists():
                gone = self._beside(version)
                home.rename(gone)
                await asyncio.to_thread(shutil.rmtree, gone, ignore_errors=True)

    # --- the object store -------------------------------------------------------------------------

    async def _upload(self, source: Path, dataset: Dataset) -> None:
        assert self._remote is not None  # noqa: S101 - `put` has looked
        names = [*_files(dataset.manifest), MANIFEST]
        with _translated():
            with suppress(FileNotFoundError, ValueError):  # not there, or damaged
                found = await obstore.get_async(self._remote, f"{dataset.version}/{MANIFEST}")
                if deciding(json.loads(bytes(await found.bytes_async()))) != deciding(
                    dataset.manifest
                ):
                    raise _taken(dataset)
            # The manifest last: with it the artefact is there. What is there already is written
            # again, since that is how a damaged one is mended.
            for name in names:
                await obstore.put_async(self._remote, f"{dataset.version}/{name}", source / name)

    async def _fetch(self, version: str, manifest: Mapping[str, Any], *, whole: bool) -> None:
        """Copy a dataset's index, or all its files, into the folder; its manifest is known."""
        async with self._locked():
            if await self._kept(version, manifest, whole=whole) is not None:
                return  # another process has fetched it meanwhile
            files = _files(manifest)
            async with self._made(version) as partial:
                for name in files if whole else [INDEX]:
                    await self._download(f"{version}/{name}", partial / name, files[name]["bytes"])
                _write(partial / MANIFEST, json.dumps(manifest).encode())
                await asyncio.to_thread(_open, partial, manifest, whole=whole)

    async def _download(self, key: str, path: Path, size: int) -> None:
        assert self._remote is not None  # noqa: S101 - `open` has looked
        try:
            with path.open("xb") as file:
                for start in range(0, size, PIECE_BYTES):
                    length = min(PIECE_BYTES, size - start)
                    with _translated():
                        piece = await obstore.get_range_async(
                            self._remote, key, start=start, length=length
                        )
                    await asyncio.to_thread(file.write, piece)
                file.flush()
                os.fsync(file.fileno())
        except FileNotFoundError:
            raise DatasetError(f"{key} is not in the store; activate its folder again") from None

    # --- the folder -------------------------------------------------------------------------------

    @asynccontextmanager
    async def _locked(self) -> AsyncIterator[None]:
        """One process at a time changes the folder; the kernel frees the lock of a killed one."""
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            with (self.folder / ".lock").open("a") as lock:
                while True:
                    try:
                        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                    except BlockingIOError:
                        await asyncio.sleep(0.05)  # not in a thread, which could not be cancelled
                    else:
                        break
                yield
        except OSError as error:
            raise DatasetError(f"{self.folder} cannot be written: {error}") from error

    @asynccontextmanager
    async def _made(self, version: str) -> AsyncIterator[Path]:
        """A folder to fill, which then takes the place of that version's. Holds the lock."""
        for left in self.folder.glob(".*.partial-*"):  # by a process that was killed
            shutil.rmtree(left, ignore_errors=True)
        partial = self._beside(version)
        try:
            partial.mkdir()
            yield partial
            home = self.folder / version
            if home.exists():
                home.rename(self._beside(f"{version}.old"))
            partial.rename(home)
            _sync(self.folder)
        finally:
            shutil.rmtree(partial, ignore_errors=True)
            shutil.rmtree(self._beside(f"{version}.old"), ignore_errors=True)

    def _beside(self, name: str) -> Path:
        return self.folder / f".{name}.partial-{os.getpid()}"

    async def _kept(
        self, version: str, manifest: Mapping[str, Any] | None = None, *, whole: bool = False
    ) -> Dataset | None:
        """What the folder has of a version, if it can be used."""
        try:
            return await asyncio.to_thread(_open, self.folder / version, manifest, whole=whole)
        except (DatasetError, IndexFormatError, OSError):
            return None


async def check(folder: Path) -> Dataset:
    """Open a dataset folder and look at all its files; raises as `Artefacts.open`."""
    return await asyncio.to_thread(_open, folder, whole=True)


def deciding(manifest: Mapping[str, Any]) -> tuple[str | None, dict[str, Any]]:
    """What of a dataset its decisions depend on: the index, and what its roads stand for.

    Two builds of the same files are the same dataset, whatever else their manifests say.
    """
    roads = {
        layer["name"]: layer["roads"] for layer in manifest.get("layers", []) if "roads" in layer
    }
    return manifest.get("index", {}).get("sha256"), roads


def _files(manifest: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    """The files that a manifest names, with their checksums and sizes; the index is one of them."""
    found = {
        part["file"]: {"sha256": part["sha256"], "bytes": part["bytes"]}
        for part in manifest.values()
        if isinstance(part, dict) and {"file", "sha256", "bytes"} <= part.keys()
    }
    if INDEX not in found or not all(map(_nameable, found)):
        raise DatasetError("the manifest does not name the files of a dataset; build it again")
    return found


def _taken(dataset: Dataset) -> ArtefactTaken:
    return ArtefactTaken(
        f"another dataset is kept as {dataset.version}; build this one again under another name"
    )


def _nameable(name: str) -> bool:
    return name.isprintable() and not re.search(r"^\.|[/\\]|^$", name)


def _open(
    folder: Path, manifest: Mapping[str, Any] | None = None, *, whole: bool = False
) -> Dataset:
    """Open what is in a folder, if that is the dataset of this manifest and as the manifest says.

    Of its files the index is looked at, or all.
    """
    opened = open_dataset(folder)
    if manifest is None:
        manifest = opened.manifest
    elif opened.version != manifest["version"] or deciding(opened.manifest) != deciding(manifest):
        raise DatasetError(f"{folder} holds {opened.version} instead, or another build of it")
    files = _files(manifest)
    for name in files if whole else [INDEX]:
        try:
            with (folder / name).open("rb") as file:
                found = hashlib.file_digest(file, "sha256").hexdigest()
        except OSError as error:
            raise DatasetError(f"{folder / name} cannot be read: {error}") from None
        if found != files[name]["sha256"]:
            raise DatasetError(f"{folder / name} is damaged (its SHA-256 is not the manifest's)")
    return opened


def _copy(source: Path, target: Path) -> None:
    try:
        shutil.copyfile(source, target)
    except FileNotFoundError:
        raise DatasetError(f"{source} is missing; build the dataset again") from None
    with target.open("rb") as file:
        os.fsync(file.fileno())


def _write(path: Path, content: bytes) -> None:
    with path.open("xb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())


def _sync(folder: Path) -> None:
    """Make a rename last."""
    number = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(number)
    finally:
        os.close(number)


@contextmanager
def _translated() -> Iterator[None]:
    """Turn the object store's errors into `StoreUnavailable`; a missing object passes."""
    try:
        yield
    except BaseError as error:
        raise StoreUnavailable(f"the store of datasets: {_in_brief(error)}") from None


def _in_brief(error: Exception) -> str:
    """An error's first line, without the times that make each the first of its kind."""
    line = str(error).split("\n", 1)[0]
    return re.sub(r" in [\d.]+[mµn]?s\b(, after .*?retry_timeout: \w+)?", "", line).strip()
