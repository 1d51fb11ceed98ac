"""The object store: a folder, S3, Google Cloud Storage or Azure, by the URL in the settings.

It promises that an object is there whole or not at all, and still there after a crash once `put`
has returned. Its failures show as `PhotosUnavailable`.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import obstore
from obstore.exceptions import BaseError
from obstore.store import LocalStore, from_url

from api.errors import PhotosUnavailable
from api.settings import Settings


class ObjectStoreUnusable(Exception):  # noqa: N818 - reads as the sentence it is
    """The object store of the settings cannot be opened."""


class Objects:
    """Bytes by name; a name is made of words and slashes."""

    def __init__(self, store: Any) -> None:
        self._store = store

    async def put(self, name: str, content: bytes) -> None:
        """Store an object, in the place of one that is there. Raises `PhotosUnavailable`."""
        with _translated():
            await obstore.put_async(self._store, name, content)
            if isinstance(self._store, LocalStore) and self._store.prefix is not None:
                # It is renamed into its place, but not written through to the disk.
                await asyncio.to_thread(_sync, Path(self._store.prefix), name)

    async def get(self, name: str) -> bytes | None:
        """An object; None if there is none. Raises `PhotosUnavailable`."""
        with _translated():
            try:
                found = await obstore.get_async(self._store, name)
                return bytes(await found.bytes_async())
            except FileNotFoundError:
                return None

    async def delete(self, name: str) -> None:
        """Remove an object, if there is one. Raises `PhotosUnavailable`."""
        with _translated(), suppress(FileNotFoundError):
            await obstore.delete_async(self._store, name)


@contextmanager
def _translated() -> Iterator[None]:
    try:
        yield
    except (BaseError, OSError) as error:
        raise PhotosUnavailable(
            "the store of photos cannot be reached; send the same request again shortly"
        ) from error


def _sync(root: Path, name: str) -> None:
    path = root / name
    # The file, and the folders in which its name and that of its folder stand
    for one in (path, path.parent, path.parent.parent):
        handle = os.open(one, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)


def open_objects(settings: Settings) -> Objects:
    """The object store of the settings. Raises `ObjectStoreUnusable`.

    Of one that is not on this machine only the URL is looked at.
    """
    url = settings.photos or (settings.data_dir / "photos").as_uri()
    try:
        if url.startswith("file:"):
            return Objects(LocalStore.from_url(url, mkdir=True, automatic_cleanup=True))
        return Objects(from_url(url))
    except (BaseError, OSError, ValueError) as error:
        raise ObjectStoreUnusable(
            f"GEOROUTER_PHOTOS: {url} cannot be used as an object store ({type(error).__name__}); "
            "name a folder that can be written as file:///..., or s3://, gs:// or az://"
        ) from error
