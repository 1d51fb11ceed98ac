"""The artefact store: a folder, and an S3 over a real socket with all that can go wrong there."""

from __future__ import annotations

import asyncio
import hashlib
import json
import shutil
from collections.abc import AsyncIterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from api.artefacts import Artefacts, ArtefactTaken, StoreUnavailable, check
from api.settings import Settings
from boundaries import sample
from boundaries.build import build_dataset
from boundaries.dataset import INDEX, MANIFEST, Dataset, DatasetError
from georouter.codec import IndexFormatError
from tests.support.fake_s3 import FakeS3


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("built") / "sample 1"
    build_dataset(
        sample.layer_files(),
        out,
        built_at=datetime(2026, 11, 23, tzinfo=UTC),
        proof_points=1_000,
    )
    return out


@pytest.fixture
async def dataset(folder: Path) -> Dataset:
    return await check(folder)


@pytest.fixture
async def s3(monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[FakeS3]:
    async with FakeS3() as s3:
        for name, value in s3.environment.items():
            monkeypatch.setenv(name, value)
        yield s3


def of(tmp_path: Path, machine: str, where: str | None = "s3://bucket/geo router") -> Artefacts:
    """The store as one machine of several sees it."""
    return Artefacts.of(Settings(data_dir=tmp_path / machine, datasets=where))


def left(artefacts: Artefacts) -> list[str]:
    """What is in the folder, but for its lock."""
    return sorted(one.name for one in artefacts.folder.iterdir() if one.name != ".lock")


# --- where it is ----------------------------------------------------------------------------------


def test_a_folder_is_the_store_itself(tmp_path: Path) -> None:
    assert of(tmp_path, "a", None).folder == tmp_path / "a" / "datasets"
    assert of(tmp_path, "a", str(tmp_path / "x y")).folder == tmp_path / "x y"
    assert of(tmp_path, "a", f"file://{tmp_path}/x%20y").folder == tmp_path / "x y"
    assert of(tmp_path, "a").folder == tmp_path / "a" / "datasets"  # of copies


@pytest.mark.parametrize("where", ["ftp://bucket", "memory:///", "https://host/folder"])
def test_a_store_of_no_known_kind_is_refused(where: str) -> None:
    with pytest.raises(ValueError, match="is none of file, s3"):
        Settings(datasets=where)


def test_a_store_that_makes_no_sense_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DatasetError, match="GEOROUTER_DATASETS: az://c/x cannot be used: "):
        of(tmp_path, "a", "az://c/x")


# --- both kinds -----------------------------------------------------------------------------------


@pytest.mark.parametrize("where", [None, "s3://bucket/geo router"])
async def test_put_open_and_remove(
    where: str | None, folder: Path, dataset: Dataset, s3: FakeS3, tmp_path: Path
) -> None:
    operator = of(tmp_path, "operator", where)
    web = operator if where is None else of(tmp_path, "web", where)
    version, manifest = dataset.version, dataset.manifest
    assert not await web.has(version)
    for _ in range(2):
        await operator.put(folder, dataset)
        assert await web.has(version)
        opened = await web.open(version, manifest)
        assert (opened.version, opened.manifest) == (version, manifest)
        assert opened.index.areas == dataset.index.areas
        assert left(web) == [version]
    whole = await web.whole(version, manifest)
    assert (whole / INDEX).read_bytes() == (folder / INDEX).read_bytes()
    for _ in range(2):
        await operator.remove(version, manifest)
        assert not await operator.has(version)
        assert left(operator) == []
    assert s3.objects == {}
    # a copy elsewhere goes on
    if web is not operator:
        assert (await web.open(version, manifest)).version == version


@pytest.mark.parametrize("where", [None, "s3://bucket/geo router"])
async def test_another_dataset_of_the_same_version_is_refused(
    where: str | None, folder: Path, dataset: Dataset, s3: FakeS3, tmp_path: Path
) -> None:
    artefacts = of(tmp_path, "a", where)
    await artefacts.put(folder, dataset)
    before = dict(s3.objects)
    other = build_dataset(
        {"highway": sample.layer_files()["district"]},
        tmp_path / "other",
        built_at=datetime(2026, 11, 23, tzinfo=UTC),
        proof_points=1_000,
    )
    told = json.dumps({**other, "version": dataset.version})
    (tmp_path / "other" / MANIFEST).write_text(told)
    with pytest.raises(ArtefactTaken, match="another dataset is kept as sample 1-"):
        await artefacts.put(tmp_path / "other", await check(tmp_path / "other"))
    assert s3.objects == before
    await artefacts.open(dataset.version, dataset.manifest)
    with pytest.raises(DatasetError, match=r"or another build of it|is not in the store"):
        # the same name, with what decides in it changed
        await of(tmp_path, "a", None).open(dataset.version, json.loads(told))


async def test_a_damaged_source_is_never_kept(
    folder: Path, dataset: Dataset, tmp_path: Path
) -> None:
    source = tmp_path / "source"
    shutil.copytree(folder, source)
    content = bytearray((source / INDEX).read_bytes())
    content[-70] ^= 1
    (source / INDEX).write_bytes(content)
    with pytest.raises((DatasetError, IndexFormatError), match="damaged"):
        await check(source)
    artefacts = of(tmp_path, "a", None)
    with pytest.raises((DatasetError, IndexFormatError), match="damaged"):
        await artefacts.put(source, dataset)
    assert left(artefacts) == []


async def test_a_whole_index_of_another_dataset_is_not_opened(
    folder: Path, dataset: Dataset, tmp_path: Path
) -> None:
    artefacts = of(tmp_path, "a", None)
    await artefacts.put(folder, dataset)
    build_dataset(
        {"highway": sample.layer_files()["district"]},
        tmp_path / "other",
        built_at=datetime(2026, 11, 23, tzinfo=UTC),
        proof_points=1_000,
    )
    shutil.copyfile(tmp_path / "other" / INDEX, artefacts.folder / dataset.version / INDEX)
    with pytest.raises(DatasetError, match="SHA-256 is not the manifest's"):
        await artefacts.open(dataset.version, dataset.manifest)
    await artefacts.put(folder, dataset)
    await artefacts.open(dataset.version, dataset.manifest)


async def test_a_version_that_leads_elsewhere_is_refused(
    folder: Path, dataset: Dataset, tmp_path: Path
) -> None:
    for version in ("../x", "a/b", ".hidden", "", "a\\b"):
        with pytest.raises(DatasetError, match="cannot be the name of a folder"):
            await of(tmp_path, "a", None).put(
                folder, Dataset(version, dataset.manifest, dataset.index)
            )


async def test_what_killed_processes_left_is_cleared_away(
    folder: Path, dataset: Dataset, tmp_path: Path
) -> None:
    artefacts = of(tmp_path, "a", None)
    partial = artefacts.folder / f".{dataset.version}.partial-1"
    partial.mkdir(parents=True)
    (partial / INDEX).write_bytes(b"half")
    await artefacts.put(folder, dataset)
    assert left(artefacts) == [dataset.version]


# --- the object store -----------------------------------------------------------------------------


@pytest.fixture
async def kept(folder: Path, dataset: Dataset, s3: FakeS3, tmp_path: Path) -> Dataset:
    """The dataset in S3, and nowhere else."""
    await of(tmp_path, "operator").put(folder, dataset)
    s3.requests.clear()
    return dataset


async def test_the_manifest_makes_it_whole(
    folder: Path, dataset: Dataset, s3: FakeS3, tmp_path: Path
) -> None:
    await of(tmp_path, "operator").put(folder, dataset)
    puts = [one.rsplit("/", 1)[1] for one in s3.requests if one.startswith("PUT")]
    assert puts[-1] == MANIFEST
    assert set(puts) == {MANIFEST, *puts[:-1]}
    assert (
        s3.objects[f"bucket/geo router/{dataset.version}/{INDEX}"] == (folder / INDEX).read_bytes()
    )


async def test_large_files_go_in_parts(
    folder: Path, s3: FakeS3, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("api.artefacts.PIECE_BYTES", 100_000)
    source = tmp_path / "source"
    shutil.copytree(folder, source)
    ballast = bytes(range(256)) * 24_000  # more than obstore sends at once
    manifest = json.loads((source / MANIFEST).read_text())
    manifest["areas"] = {
        "file": "areas.npz",
        "sha256": hashlib.sha256(ballast).hexdigest(),
        "bytes": len(ballast),
    }
    (source / MANIFEST).write_text(json.dumps(manifest))
    (source / "areas.npz").write_bytes(ballast)
    dataset = await check(source)
    await of(tmp_path, "operator").put(source, dataset)
    assert s3.objects[f"bucket/geo router/{dataset.version}/areas.npz"] == ballast
    web = of(tmp_path, "web")
    await web.open(dataset.version, manifest)
    assert s3.count("GET", INDEX) > 1
    assert s3.count("GET", "areas.npz") == 0  # which deciding does not need
    whole = await web.whole(dataset.version, manifest)
    assert (whole / "areas.npz").read_bytes() == ballast


@pytest.mark.parametrize("faults", [["busy"], ["busy", "busy"], ["cut"], ["cut", "busy"]])
async def test_what_passes_is_got_over(
    faults: list[Any], kept: Dataset, s3: FakeS3, tmp_path: Path
) -> None:
    s3.faults = faults
    web = of(tmp_path, "web")
    assert (await web.open(kept.version, kept.manifest)).version == kept.version
    assert s3.faults == []


async def test_wrong_bytes_are_never_opened_and_fetched_anew(
    kept: Dataset, s3: FakeS3, tmp_path: Path
) -> None:
    web = of(tmp_path, "web")
    s3.faults = ["wrong"]
    with pytest.raises((DatasetError, IndexFormatError)):
        await web.open(kept.version, kept.manifest)
    assert left(web) == []
    await web.open(kept.version, kept.manifest)


async def test_a_damaged_copy_is_replaced(kept: Dataset, s3: FakeS3, tmp_path: Path) -> None:
    web = of(tmp_path, "web")
    first = await web.open(kept.version, kept.manifest)
    for _ in range(2):
        assert await web.open(kept.version, kept.manifest)
    assert s3.count("GET", INDEX) == 1
    copy = web.folder / kept.version / INDEX
    content = copy.read_bytes()
    copy.unlink()  # not in place, which would change what `first` has mapped
    copy.write_bytes(content[:-100] + bytes(100))
    await web.open(kept.version, kept.manifest)
    assert copy.read_bytes() == content
    assert left(web) == [kept.version]
    assert first.index.covering(lon=2.12, lat=54.71)


async def test_without_the_store_a_good_copy_serves_and_nothing_else(
    kept: Dataset, s3: FakeS3, tmp_path: Path
) -> None:
    web, other = of(tmp_path, "web"), of(tmp_path, "other")
    await web.open(kept.version, kept.manifest)
    await s3.__aexit__(None, None, None)
    try:
        assert (await web.open(kept.version, kept.manifest)).version == kept.version
        faults = set()
        for _ in range(2):
            with pytest.raises(StoreUnavailable, match="the store of datasets: ") as refused:
                await other.open(kept.version, kept.manifest)
            faults.add(str(refused.value))
        assert len(faults) == 1, "the same each time, so that it is said once"
    finally:
        await s3.__aenter__()
    await other.open(kept.version, kept.manifest)


async def test_what_is_not_in_the_store_is_said_so(
    dataset: Dataset, s3: FakeS3, tmp_path: Path
) -> None:
    with pytest.raises(DatasetError, match=r"index.grx is not in the store; activate its folder"):
        await of(tmp_path, "web").open(dataset.version, dataset.manifest)
    assert s3.count("GET", INDEX) == 1


async def test_processes_of_a_machine_fetch_once(kept: Dataset, s3: FakeS3, tmp_path: Path) -> None:
    opened = await asyncio.gather(
        *(of(tmp_path, "web").open(kept.version, kept.manifest) for _ in range(4))
    )
    assert [one.version for one in opened] == [kept.version] * 4
    assert s3.count("GET", INDEX) == 1
