from __future__ import annotations

from pathlib import Path

import pytest
from pydantic import ValidationError

from api.objects import ObjectStoreUnusable, open_objects
from api.settings import Settings


@pytest.mark.parametrize(
    "given", ["https://georouter.example", "http://127.0.0.1:8080", "https://x.example/reports"]
)
def test_links_begin_as_told(given: str) -> None:
    assert Settings(public_url=given).link_base == given


@pytest.mark.parametrize(
    "given", ["georouter.example", "https://x.example/", "https://x/?a", "ftp://x", "https://x y"]
)
def test_a_base_that_links_cannot_begin_with_is_refused(given: str) -> None:
    with pytest.raises(ValidationError):
        Settings(public_url=given)


def test_without_it_they_begin_with_host_and_port() -> None:
    assert Settings(host="127.0.0.1", port=81).link_base == "http://127.0.0.1:81"


async def test_the_folder_is_in_the_data_directory_unless_told(tmp_path: Path) -> None:
    objects = open_objects(Settings(data_dir=tmp_path))
    await objects.put("a/b", b"x")
    assert (tmp_path / "photos" / "a" / "b").read_bytes() == b"x"
    assert await objects.get("a/b") == b"x"
    for _ in range(2):
        await objects.delete("a/b")
    assert await objects.get("a/b") is None
    assert list((tmp_path / "photos").iterdir()) == []


def test_a_store_that_cannot_be_opened_is_said_with_a_remedy(tmp_path: Path) -> None:
    (tmp_path / "photos").write_text("in the way")
    for one in (
        Settings(data_dir=tmp_path),
        Settings(photos="nonsense"),
        Settings(photos="ftp://x"),
    ):
        with pytest.raises(ObjectStoreUnusable, match="GEOROUTER_PHOTOS"):
            open_objects(one)
