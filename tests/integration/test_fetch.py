"""Sources are fetched whole or not at all, from services that misbehave on real sockets."""

from __future__ import annotations

import dataclasses
import hashlib
import io
import json
import zipfile
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import geopandas
import numpy as np
import pytest
import shapely

from boundaries.cache import Cache, CacheBusyError, CacheError
from boundaries.catalogue import Source, UnknownSourceError, read_catalogue
from boundaries.drivers.driver import FileMissingError
from boundaries.drivers.remote import USER_AGENT, Patience, Remote, RemoteError
from boundaries.fetch import Got, fetch, known
from boundaries.readers import POLYGONS, read_rows
from tests.support.fake_sources import (
    Answer,
    FakeSources,
    File,
    Layer,
    Naps,
    Request,
    at,
    at_offset,
    esri_areas,
    geojson_roads,
    square,
    xml,
)
from tests.support.realdata import real_data

MAY, DECEMBER = "CTYUA_MAY_2025_UK_BFC", "CTYUA_DEC_2025_UK_BFC"
NOW = datetime(2026, 11, 23, 9, 30, tzinfo=UTC)
BUSY = Answer(503)


@pytest.fixture
def fake() -> Iterator[FakeSources]:
    with FakeSources() as fake:
        yield fake


@pytest.fixture
def cache(tmp_path: Path) -> Cache:
    return Cache(tmp_path / "cache")


@pytest.fixture
def naps() -> Naps:
    return Naps()


@pytest.fixture
def get(cache: Cache, naps: Naps) -> Callable[..., Got]:
    def get(source: Source, **options: Any) -> Got:
        patience = Patience(timeout_s=5.0, tries=3, first_wait_s=1.0, sleep=naps)
        with Remote(patience) as remote:
            return fetch(source, cache, remote=remote, clock=lambda: NOW, **options)

    return get


@pytest.fixture
def make(tmp_path: Path) -> Callable[[str], Source]:
    def make(entry: str) -> Source:
        path = tmp_path / "catalogue.toml"
        path.write_text(
            '[sources.mine]\ntitle = "T"\npublisher = "P"\nlicence = "L"\n'
            f'attribution = "© {{year}}"\n{entry}\n'
        )
        return read_catalogue(path)["mine"]

    return make


@pytest.fixture
def counties(fake: FakeSources, make: Callable[[str], Source]) -> Source:
    return make(
        f'driver = "arcgis"\nroot = "{fake.url("/arcgis/rest/services")}"\n'
        "service = ['CTYUA_{month}_{year}_UK_BFC(_V{version})?']\npage_size = 2"
    )


@pytest.fixture
def boundary_line(fake: FakeSources, make: Callable[[str], Source]) -> Source:
    product = fake.url("/os/products/BoundaryLine")
    return make(
        f'driver = "os-downloads"\nproduct = "{product}"\nformat = "GeoPackage"\nmember = "*.gpkg"'
    )


@pytest.fixture
def trunk(fake: FakeSources, make: Callable[[str], Source]) -> Source:
    fake.types["a:roads"] = geojson_roads(5)
    return make(
        f'driver = "wfs"\nurl = "{fake.url("/wfs")}"\nfeature_type = "a:roads"\n'
        'sort_by = "fid"\npage_size = 2'
    )


def nothing_kept(cache: Cache) -> bool:
    return not list((cache.folder / "sha256").rglob("*.*")) and not cache.editions("mine")


# --- ArcGIS -------------------------------------------------------------------------------------


def test_a_layer_is_fetched_in_pages_and_its_own_system(
    fake: FakeSources, counties: Source, cache: Cache, get: Callable[..., Got]
) -> None:
    fake.layers = {MAY: Layer(esri_areas(4)), DECEMBER: Layer(esri_areas(5)), "X_BGC": Layer([])}
    got = get(counties)
    one = got.fetched
    assert got.fresh
    assert (one.source, one.edition, one.path.suffix) == ("mine", "2025-12", ".parquet")
    assert one.origin == {
        "source": "mine",
        "title": "T",
        "publisher": "P",
        "edition": "2025-12",
        "url": fake.url(f"/arcgis/rest/services/{DECEMBER}/FeatureServer/0"),
        "fetched_at": "2026-11-23T09:30:00Z",
        "licence": "L",
        "attribution": "© 2025",
    }
    assert fake.offsets() == [0, 2, 4]
    assert {request.headers["user-agent"] for request in fake.requests} == {USER_AGENT}
    frame = geopandas.read_parquet(one.path)
    assert frame.crs.to_epsg() == 27700
    assert [shapely.get_coordinates(g).tolist() for g in frame.geometry] == [
        square(n) for n in range(1, 6)
    ]
    rows = read_rows(one.path, kinds=POLYGONS, fields={"code": None, "name": None})
    assert rows.columns["code"] == [f"E{n:08}" for n in range(1, 6)]
    assert hashlib.sha256(one.path.read_bytes()).hexdigest() == one.sha256 == one.path.stem
    assert cache.newest("mine") == one
    assert not (cache.folder / "work" / "mine").exists()
    # the directory is asked, and nothing else
    fake.requests.clear()
    assert get(counties) == Got(one, fresh=False)
    assert [request.path for request in fake.requests] == ["/arcgis/rest/services"]


def test_an_older_edition_is_not_the_newest_for_being_fetched_last(
    fake: FakeSources, counties: Source, cache: Cache, get: Callable[..., Got]
) -> None:
    fake.layers = {MAY: Layer(esri_areas(4)), f"{MAY}_V2": Layer(esri_areas(5))}
    newest = get(counties).fetched
    older = get(counties, edition="2025-05").fetched
    assert (newest.edition, older.edition) == ("2025-05-v2", "2025-05")
    assert cache.newest("mine") == newest
    fake.requests.clear()
    assert get(counties, edition="2025-05") == Got(older, fresh=False)
    assert not fake.requests
    with pytest.raises(UnknownSourceError, match=r"no edition '2024-05'; it has 2025-05, 2025-05"):
        get(counties, edition="2024-05")


def test_a_renamed_edition_is_found(
    fake: FakeSources, counties: Source, get: Callable[..., Got]
) -> None:
    fake.layers = {MAY: Layer(esri_areas(2))}
    assert get(counties).fetched.edition == "2025-05"
    fake.layers = {"ctyua_November_2026_uk_bfc": Layer(esri_areas(3))}
    assert get(counties).fetched.edition == "2026-11"
    fake.layers = {"COUNTIES_2027": Layer(esri_areas(3))}
    with pytest.raises(RemoteError, match=r"no service whose name fits; correct .*: COUNTIES_2027"):
        get(counties)


def test_pages_shorter_than_asked_for_are_gone_on_with(
    fake: FakeSources, counties: Source, get: Callable[..., Got]
) -> None:
    fake.layers = {MAY: Layer(esri_areas(5), most=3, fewer=1)}
    assert len(geopandas.read_parquet(get(counties).fetched.path)) == 5
    assert fake.offsets() == [0, 1, 2, 3, 4]


@pytest.mark.parametrize(
    ("layer", "fault"),
    [
        (Layer(esri_areas(5), count=6), "counts 6 features, and gives none after 5"),
        (Layer(esri_areas(5), count=4), "counts 4 features, and gives more"),
        (Layer(esri_areas(5), count=3), "counts 3 features, and gives more"),
        (Layer(esri_areas(5), fewer=0), "counts 5 features, and gives none after 0"),
        (Layer([*esri_areas(4), *esri_areas(1)]), "gives the feature 1 twice"),
        (Layer([*esri_areas(4), {"attributes": {}}]), "a feature has no object id in OBJECTID"),
        (Layer([]), "gives no features"),
        (Layer(esri_areas(2), reference={}), "does not say the number of its coordinate system"),
        (
            Layer([{"attributes": {"OBJECTID": 1}, "geometry": {"x": 0}}]),
            "object 1: a geometry of x is neither",
        ),
    ],
)
def test_a_service_that_contradicts_itself_is_not_believed(
    fake: FakeSources,
    counties: Source,
    cache: Cache,
    get: Callable[..., Got],
    layer: Layer,
    fault: str,
) -> None:
    fake.layers = {MAY: layer}
    with pytest.raises(RemoteError, match=fault):
        get(counties)
    assert nothing_kept(cache)


def test_faults_that_pass_are_waited_for(
    fake: FakeSources, counties: Source, naps: Naps, get: Callable[..., Got]
) -> None:
    fake.layers = {MAY: Layer(esri_areas(5))}
    late = {"Date": "Mon, 23 Nov 2026 09:30:00 GMT", "Retry-After": "Mon, 23 Nov 2026 09:30:40 GMT"}
    fake.instead(at_offset(0), Answer(500), Answer(429, headers={"Retry-After": "7"}))
    fake.instead(at_offset(2), Answer(503, headers=late), Answer(body=b"<html>try later"))
    again = json.dumps({"error": {"code": 504, "message": "timeout"}}).encode()
    fake.instead(at_offset(4), Answer(body=again))
    assert len(geopandas.read_parquet(get(counties).fetched.path)) == 5
    assert fake.offsets() == [0, 0, 0, 2, 2, 2, 4, 4]
    assert naps.taken == [1.0, 7.0, 40.0, 2.0, 1.0]


def test_patience_ends(
    fake: FakeSources, counties: Source, naps: Naps, cache: Cache, get: Callable[..., Got]
) -> None:
    fake.layers = {MAY: Layer(esri_areas(5))}
    fake.instead(at_offset(2), *[Answer(502)] * 3)
    with pytest.raises(RemoteError, match=r"/query answers 502 .*; tried 3 times"):
        get(counties)
    assert naps.taken == [1.0, 2.0]
    fake.instead(at_offset(2), Answer(429, headers={"Retry-After": "3600"}))
    with pytest.raises(RemoteError, match=r"answers 429 .*; it wants to be left alone 3600 s"):
        get(counties)
    assert naps.taken == [1.0, 2.0]
    assert nothing_kept(cache)
    assert fake.offsets() == [0, 2, 2, 2, 2]


def test_an_error_with_status_200_is_a_failure(
    fake: FakeSources, counties: Source, naps: Naps, cache: Cache, get: Callable[..., Got]
) -> None:
    fake.layers = {MAY: Layer(esri_areas(5))}
    body = json.dumps({"error": {"code": 400, "message": "Cannot perform query"}}).encode()
    fake.instead(at_offset(2), Answer(body=body))
    with pytest.raises(RemoteError, match="answers with error 400: Cannot perform query"):
        get(counties)
    assert naps.taken == []
    assert nothing_kept(cache)


def test_a_cut_page_is_asked_for_again_and_whole_ones_are_not(
    fake: FakeSources, counties: Source, get: Callable[..., Got]
) -> None:
    fake.layers = {MAY: Layer(esri_areas(5))}
    whole = json.dumps({"features": esri_areas(2)}).encode()
    fake.instead(at_offset(2), *[Answer(body=whole, cut_at=40)] * 3)
    with pytest.raises(RemoteError, match="tried 3 times"):
        get(counties)
    assert fake.offsets() == [0, 2, 2, 2]
    fake.requests.clear()
    assert len(geopandas.read_parquet(get(counties).fetched.path)) == 5
    assert fake.offsets() == [2, 4]


def test_pages_that_were_damaged_meanwhile_are_asked_for_again(
    fake: FakeSources, counties: Source, cache: Cache, get: Callable[..., Got]
) -> None:
    fake.layers = {MAY: Layer(esri_areas(5))}
    fake.instead(at_offset(4), *[BUSY] * 3)
    with pytest.raises(RemoteError):
        get(counties)
    first, second = sorted((cache.folder / "work" / "mine" / "pages").glob("page-*"))
    second.write_bytes(second.read_bytes()[:-20])
    fake.requests.clear()
    get(counties)
    assert fake.offsets() == [2, 4]
    assert not first.exists()


@pytest.mark.parametrize("change", ["edition", "count", "edited"])
def test_what_changed_since_the_cut_is_read_anew(
    fake: FakeSources, counties: Source, get: Callable[..., Got], change: str
) -> None:
    fake.layers = {MAY: Layer(esri_areas(5))}
    fake.instead(at_offset(4), *[BUSY] * 3)
    with pytest.raises(RemoteError):
        get(counties)
    features = esri_areas(6 if change == "count" else 5, year=26)
    if change == "edition":
        fake.layers[DECEMBER] = Layer(features)
    else:
        fake.layers[MAY] = Layer(features, edited=1_747_000_000_000 + (change == "edited"))
    fake.requests.clear()
    frame = geopandas.read_parquet(get(counties).fetched.path)
    assert (len(frame), "CTYUA26CD" in frame, "CTYUA25CD" in frame) == (len(features), True, False)
    assert fake.offsets() == [0, 2, 4]


def test_what_changes_while_it_is_read_is_read_anew(
    fake: FakeSources, counties: Source, cache: Cache, get: Callable[..., Got]
) -> None:
    layer = fake.layers[MAY] = Layer(esri_areas(5))

    def edit(request: Request) -> None:
        if at_offset(4)(request) and times:
            times.pop()
            layer.features = [*esri_areas(4), esri_areas(6 + len(times))[-1]]
            layer.edited += 1

    times = [1]
    fake.before = edit
    frame = geopandas.read_parquet(get(counties).fetched.path)
    assert frame["OBJECTID"].tolist() == [1, 2, 3, 4, 6]
    assert fake.offsets() == [0, 2, 4, 0, 2, 4]
    times = [1] * 9
    with pytest.raises(RemoteError, match="was changed while it was read, 3 times in a row"):
        get(counties, refresh=True)
    assert cache.newest("mine") is not None


def test_a_service_without_a_date_in_its_name_is_of_its_last_change(
    fake: FakeSources, make: Callable[[str], Source], get: Callable[..., Got]
) -> None:
    root = fake.url("/arcgis/rest/services")
    source = make(f"driver = 'arcgis'\nroot = '{root}'\nservice = ['Network(_Model)?']")
    fake.layers = {"Network": Layer(esri_areas(1), edited=1_760_000_000_000)}
    assert get(source).fetched.edition == "2025-10-09"
    fake.layers["Network_Model"] = Layer(esri_areas(1))
    with pytest.raises(RemoteError, match="has both Network and Network_Model; narrow service"):
        get(source)


@pytest.mark.realdata
def test_a_country_comes_through_as_it_is(
    fake: FakeSources, counties: Source, get: Callable[..., Got]
) -> None:
    real = geopandas.read_parquet(real_data() / "lad_2025_bgc.parquet")
    outlines = np.asarray(real.geometry.values)
    parts, area = shapely.get_parts(shapely.orient_polygons(outlines), return_index=True)
    rings, part = shapely.get_rings(parts, return_index=True)
    features: list[dict[str, Any]] = [
        {"attributes": {"OBJECTID": n, "LAD25CD": code}, "geometry": {"rings": []}}
        for n, code in enumerate(real["code"])
    ]
    for ring, n in zip(rings, area[part], strict=True):
        # shapely's outer rings run the other way than Esri's; the last of an area comes first
        points = shapely.get_coordinates(ring)[::-1].tolist()
        features[n]["geometry"]["rings"].insert(0, points)
    fake.layers = {MAY: Layer(features, most=40, reference={"wkid": 4326})}
    source = dataclasses.replace(counties, driver=dataclasses.replace(counties.driver, page_size=0))
    frame = geopandas.read_parquet(get(source).fetched.path)
    assert frame["LAD25CD"].tolist() == real["code"].tolist()
    same = shapely.equals_identical(
        shapely.normalize(np.asarray(frame.geometry.values)), shapely.normalize(outlines)
    )
    assert same.all()


# --- OS Downloads and files ---------------------------------------------------------------------


def zipped(members: dict[str, bytes]) -> bytes:
    made = io.BytesIO()
    with zipfile.ZipFile(made, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in members.items():
            archive.writestr(name, content)
    return made.getvalue()


def offer(fake: FakeSources, content: bytes, **wrong: Any) -> None:
    """A zip as OS offers it: under a URL that leads to another."""
    fake.files["/storage/bdline.zip"] = File.tagged(content)
    fake.instead(
        at("/os/bdline.zip"), *[Answer(307, headers={"Location": "/storage/bdline.zip"})] * 9
    )
    fake.downloads = [
        {"area": "GB", "format": "ESRI® Shapefile", "md5": "0", "size": 1, "url": "x"},
        {
            "area": "GB",
            "format": "GeoPackage",
            "md5": hashlib.md5(content, usedforsecurity=False).hexdigest(),
            "size": len(content),
            "url": fake.url("/os/bdline.zip"),
            **wrong,
        },
    ]


NOISE = b"".join(hashlib.sha256(bytes([n % 251, n // 251])).digest() for n in range(20_000))


def test_a_zip_is_fetched_checked_and_unpacked(
    fake: FakeSources, boundary_line: Source, cache: Cache, get: Callable[..., Got]
) -> None:
    offer(fake, zipped({"Doc/licence.txt": b"OGL", "Data/bdline_gb.gpkg": NOISE}))
    one = get(boundary_line).fetched
    assert (one.edition, one.path.suffix) == ("2025-10", ".gpkg")
    assert one.path.read_bytes() == NOISE
    assert one.origin["url"] == fake.url("/os/products/BoundaryLine/downloads")
    fake.version = "2026-05"
    offer(fake, zipped({"a.gpkg": b"newer"}))
    assert get(boundary_line).fetched.path.read_bytes() == b"newer"
    assert [kept.edition for kept in cache.editions("mine")] == ["2025-10", "2026-05"]


def test_a_cut_download_goes_on_where_it_was(
    fake: FakeSources, boundary_line: Source, get: Callable[..., Got]
) -> None:
    content = zipped({"a.gpkg": NOISE})
    offer(fake, content)
    tag = fake.files["/storage/bdline.zip"].etag or ""
    path = "/storage/bdline.zip"
    fake.instead(at(path), Answer(body=content, headers={"ETag": tag}, cut_at=200_000), BUSY, BUSY)
    with pytest.raises(RemoteError, match="tried 3 times"):
        get(boundary_line)
    fake.requests.clear()
    assert get(boundary_line).fetched.path.read_bytes() == NOISE
    asked = [request.headers for request in fake.requests if request.path == path]
    assert [(one["range"], one["if-range"]) for one in asked] == [("bytes=200000-", tag)]


def test_a_file_that_changed_since_the_cut_is_fetched_anew(
    fake: FakeSources, make: Callable[[str], Source], get: Callable[..., Got]
) -> None:
    source = make(f'driver = "url"\nurl = "{fake.url("/a.gpkg")}"\nedition = "2026"')
    before = File.tagged(b"before" * 1000)
    cut = Answer(body=before.content, headers={"ETag": before.etag or ""}, cut_at=3000)
    fake.instead(at("/a.gpkg"), cut, BUSY, BUSY)
    with pytest.raises(RemoteError):
        get(source)
    fake.files["/a.gpkg"] = File.tagged(b"after" * 1000)
    fake.requests.clear()
    assert get(source).fetched.path.read_bytes() == b"after" * 1000
    assert [request.headers.get("range") for request in fake.requests] == ["bytes=3000-"]


def test_without_a_tag_nothing_is_put_together_of_two_answers(
    fake: FakeSources, make: Callable[[str], Source], get: Callable[..., Got]
) -> None:
    source = make(f'driver = "url"\nurl = "{fake.url("/a.gpkg")}"\nedition = "2026"')
    fake.instead(at("/a.gpkg"), Answer(body=b"a" * 1000, cut_at=600))
    fake.files["/a.gpkg"] = File(b"b" * 1000)
    assert get(source).fetched.path.read_bytes() == b"b" * 1000
    assert [request.headers.get("range") for request in fake.requests] == [None, None]


def test_what_could_be_cut_without_notice_is_not_taken(
    fake: FakeSources, make: Callable[[str], Source], cache: Cache, get: Callable[..., Got]
) -> None:
    source = make(f'driver = "url"\nurl = "{fake.url("/a.gpkg")}"\nedition = "2026"')
    fake.instead(at("/a.gpkg"), Answer(body=b"a" * 1000, headers={"Content-Length": ""}, cut_at=9))
    with pytest.raises(RemoteError, match="does not say how long it is"):
        get(source)
    assert nothing_kept(cache)


@pytest.mark.parametrize(
    ("members", "wrong", "fault"),
    [
        ({"a.gpkg": b"a"}, {"md5": "0" * 32}, "and .* says .* with 0{32}; nothing was kept"),
        ({"a.gpkg": b"a"}, {"size": 9_999}, "says 9,999 with"),
        ({"a.gpkg": b"a"}, {"size": 20}, "is larger than 20 bytes"),
        ({"../a.gpkg": b"a"}, {}, "has a file that would go to '../a.gpkg'; not used"),
        ({"a.gpkg": b"a", "/etc/x": b""}, {}, "has a file that would go to '/etc/x'; not used"),
        ({"a.txt": b"a"}, {}, r"none of the zip's files fit member '\*.gpkg' .*; it has: a.txt"),
        ({"a.gpkg": b"a", "b.gpkg": b"b"}, {}, "2 of the zip's files fit member"),
        ({"a.gpkg": b"a"}, {"format": "GML"}, "has no files of area 'GB' and format 'GeoPackage'"),
        ({"a.gpkg": b"a"}, {"md5": None}, "does not say size, md5 and url"),
    ],
)
def test_a_zip_that_is_not_what_it_should_be_is_not_used(
    fake: FakeSources,
    boundary_line: Source,
    cache: Cache,
    get: Callable[..., Got],
    members: dict[str, bytes],
    wrong: dict[str, Any],
    fault: str,
) -> None:
    offer(fake, zipped(members), **wrong)
    with pytest.raises(RemoteError, match=fault):
        get(boundary_line)
    assert nothing_kept(cache)
    assert not list(cache.folder.parent.rglob("a.gpkg"))


def test_a_zip_that_is_larger_than_it_says_is_not_used(
    fake: FakeSources, boundary_line: Source, cache: Cache, get: Callable[..., Got]
) -> None:
    content = zipped({"a.gpkg": b"\0" * 5_000_000})
    offer(fake, content.replace((5_000_000).to_bytes(4, "little"), (50).to_bytes(4, "little")))
    with pytest.raises(RemoteError, match="the zip that was fetched is of no use: "):
        get(boundary_line)
    assert nothing_kept(cache)
    offer(fake, content[: len(content) // 2])
    with pytest.raises(RemoteError, match="the zip that was fetched is of no use"):
        get(boundary_line)


def test_a_plain_file_is_held_to_its_digest_and_dated_by_its_server(
    fake: FakeSources, make: Callable[[str], Source], cache: Cache, get: Callable[..., Got]
) -> None:
    fake.files["/a.gpkg"] = File(b"a" * 10, changed=1_760_000_000.0)
    url = fake.url("/a.gpkg")
    wrong = make(f'driver = "url"\nurl = "{url}"\nsha256 = "{"0" * 64}"')
    with pytest.raises(RemoteError, match=r"has SHA-256 .* and the catalogue wants 0{64}"):
        get(wrong)
    assert nothing_kept(cache)
    digest = hashlib.sha256(b"a" * 10).hexdigest()
    right = make(f'driver = "url"\nurl = "{url}"\nsha256 = "{digest}"')
    one = get(right).fetched
    assert (one.edition, one.sha256) == ("2025-10-09", digest)


def test_no_redirect_leads_out_of_tls(
    fake: FakeSources, make: Callable[[str], Source], get: Callable[..., Got]
) -> None:
    source = make(f'driver = "url"\nurl = "{fake.url("/a.gpkg")}"\nedition = "2026"')
    away = Answer(302, headers={"Location": "http://boundaries.example/a.gpkg"})
    fake.instead(at("/a.gpkg"), away)
    with pytest.raises(RemoteError, match=r"http://boundaries.example/a.gpkg is not over TLS"):
        get(source)
    around = Answer(302, headers={"Location": "/a.gpkg"})
    fake.instead(at("/a.gpkg"), *[around] * 9)
    with pytest.raises(RemoteError, match="redirects"):
        get(source)


def test_a_local_file_is_copied(
    tmp_path: Path, make: Callable[[str], Source], get: Callable[..., Got]
) -> None:
    source = make('driver = "file"\nfile = "mail/a.gpkg"\nedition = "2026"')
    with pytest.raises(FileMissingError, match=r"mail/a.gpkg does not exist"):
        get(source)
    (tmp_path / "mail").mkdir()
    (tmp_path / "mail" / "a.gpkg").write_bytes(b"a")
    one = get(source).fetched
    (tmp_path / "mail" / "a.gpkg").unlink()
    assert one.path.read_bytes() == b"a"


# --- WFS ----------------------------------------------------------------------------------------


def test_a_feature_type_is_fetched_in_pages(
    fake: FakeSources, trunk: Source, get: Callable[..., Got]
) -> None:
    fake.types["a:roads"][1]["geometry"] = None
    fake.instead(at_offset(2), Answer(500))
    one = get(trunk).fetched
    assert one.edition == "2026-11-23"
    frame = geopandas.read_parquet(one.path)
    assert frame.crs.to_epsg() == 27700
    assert frame["road"].tolist() == ["A1", "A2", "A3", "A4", "A5"]
    assert frame.geometry.isna().tolist() == [False, True, False, False, False]
    assert fake.offsets() == [0, 2, 2, 4]
    pages = [request.query for request in fake.requests if "startIndex" in request.query]
    assert {(page["sortBy"], page["count"], page["srsName"]) for page in pages} == {
        ("fid", "2", "EPSG:27700")
    }
    fake.requests.clear()
    assert not get(trunk).fresh


def test_a_cut_feature_type_is_gone_on_with(
    fake: FakeSources, trunk: Source, get: Callable[..., Got]
) -> None:
    fake.instead(at_offset(4), *[Answer(body=b"{" * 100, cut_at=50)] * 3)
    with pytest.raises(RemoteError):
        get(trunk)
    fake.requests.clear()
    assert len(geopandas.read_parquet(get(trunk).fetched.path)) == 5
    assert fake.offsets() == [4]


EXCEPTION = xml(
    '<ows:ExceptionReport xmlns:ows="http://www.opengis.net/ows/1.1">'
    '<ows:Exception exceptionCode="InvalidParameterValue"><ows:ExceptionText>Illegal property\n'
    "name: fid</ows:ExceptionText></ows:Exception></ows:ExceptionReport>"
)
BOMB = xml('<!DOCTYPE a [<!ENTITY b "ha"><!ENTITY c "&b;&b;">]><a numberMatched="5">&c;</a>')


@pytest.mark.parametrize(
    ("matches", "answer", "fault"),
    [
        (at_offset(2), EXCEPTION, "/wfs answers: Illegal property name: fid$"),
        (lambda r: r.query.get("resultType") == "hits", EXCEPTION, "Illegal property name"),
        (lambda r: r.query.get("resultType") == "hits", BOMB, "declares entities; not read"),
        (lambda r: r.query.get("resultType") == "hits", xml("<a/>"), "does not say how many"),
        (lambda r: r.query["request"] == "GetCapabilities", xml("<a>"), "that is no XML"),
        (lambda r: r.query["request"] == "GetCapabilities", EXCEPTION, "Illegal property name"),
        (at_offset(2), xml("<a/>"), "answers in XML where JSON was asked for"),
        (at_offset(2), Answer(body=b'{"features": [{}]}'), "a feature has no id"),
        (at_offset(0), Answer(400, b"no"), "answers 400 Bad Request"),
    ],
)
def test_a_wfs_that_fails_is_told_so(
    fake: FakeSources,
    trunk: Source,
    cache: Cache,
    get: Callable[..., Got],
    matches: Callable[[Request], bool],
    answer: Answer,
    fault: str,
) -> None:
    fake.instead(matches, answer)
    with pytest.raises(RemoteError, match=fault):
        get(trunk)
    assert nothing_kept(cache)


def test_what_a_wfs_says_must_fit(
    fake: FakeSources, trunk: Source, cache: Cache, get: Callable[..., Got]
) -> None:
    for matched, fault in ((7, "gives none after 5"), (3, "counts 3 features, and gives more")):
        fake.matched = matched
        with pytest.raises(RemoteError, match=fault):
            get(trunk)
    fake.matched = None
    fake.matched_on_pages = 6
    with pytest.raises(RemoteError, match="counts 5 features, and on a page 6"):
        get(trunk)
    fake.matched_on_pages = None
    fake.crs = "urn:ogc:def:crs:EPSG::4326"
    with pytest.raises(RemoteError, match=r"EPSG::4326 where EPSG:27700 was asked for"):
        get(trunk)
    fake.types = {"b:trunk_roads": [], "b:rivers": []}
    with pytest.raises(RemoteError, match=r"no feature type 'a:roads'; .* such as: b:trunk_roads$"):
        get(trunk)
    assert nothing_kept(cache)


# --- the cache ----------------------------------------------------------------------------------


def test_damage_is_noticed_and_fetched_again(
    fake: FakeSources, counties: Source, cache: Cache, get: Callable[..., Got]
) -> None:
    fake.layers = {MAY: Layer(esri_areas(3))}
    one = get(counties).fetched
    content = one.path.read_bytes()
    for damage in (content[:-1], content[:-1] + b"?", None):
        one.path.unlink()
        if damage is not None:
            one.path.write_bytes(damage)
        with pytest.raises(CacheError, match="damaged or gone; run `georouter boundaries fetch m"):
            cache.newest("mine")
        assert cache.find("mine", "2025-05") is None
        assert get(counties) == Got(one, fresh=True)
        assert one.path.read_bytes() == content
    assert len(cache.editions("mine")) == 1


def test_refresh_fetches_again_and_keeps_what_was(
    fake: FakeSources, counties: Source, cache: Cache, get: Callable[..., Got]
) -> None:
    fake.layers = {MAY: Layer(esri_areas(3))}
    before = get(counties).fetched
    assert get(counties, refresh=True).fetched == before
    fake.layers = {MAY: Layer(esri_areas(4))}
    assert get(counties).fetched == before
    after = get(counties, refresh=True).fetched
    assert (after.edition, after.sha256 == before.sha256) == ("2025-05", False)
    assert before.path.exists()
    assert cache.newest("mine") == cache.find("mine", "2025-05") == after


def test_a_source_is_fetched_by_one_at_a_time(
    fake: FakeSources, counties: Source, cache: Cache, get: Callable[..., Got]
) -> None:
    fake.layers = {MAY: Layer(esri_areas(3))}
    with (
        cache.locked("mine"),
        pytest.raises(CacheBusyError, match="mine is being fetched by another process; let it"),
    ):
        get(counties)
    assert get(counties).fresh


def test_a_cache_that_cannot_be_used_is_said(
    fake: FakeSources, counties: Source, cache: Cache, get: Callable[..., Got]
) -> None:
    fake.layers = {MAY: Layer(esri_areas(3))}
    cache.folder.write_bytes(b"")
    with pytest.raises(CacheError, match=r"cache cannot be written to \(.*\); make room"):
        get(counties)
    cache.folder.unlink()
    get(counties)
    for damage in (b"{", b'[{"edition": 1}]', b"3"):
        (cache.folder / "sources" / "mine.json").write_bytes(damage)
        with pytest.raises(CacheError, match=r"mine.json is damaged; remove it and fetch"):
            cache.newest("mine")


def test_what_is_known_is_put_together(
    fake: FakeSources, counties: Source, cache: Cache, get: Callable[..., Got]
) -> None:
    (nothing,) = known([counties], cache)
    assert (nothing.in_use, nothing.cached, nothing.newest, nothing.asked_at) == (None,) * 4
    fake.layers = {MAY: Layer(esri_areas(3))}
    get(counties)
    fake.layers[DECEMBER] = Layer(esri_areas(3), count=9)
    with pytest.raises(RemoteError):
        get(counties)
    for manifest in (
        {
            "layers": [
                {"source": {"file": "x"}},
                {"source": {"source": "mine", "edition": "2024-12"}},
            ]
        },
        {"layers": [{"sources": [{"file": "x"}, {"source": "mine", "edition": "2024-12"}]}]},
    ):
        (one,) = known([counties], cache, manifest)
        assert (one.in_use, one.cached, one.newest) == ("2024-12", "2025-05", "2025-12")
        assert one.asked_at == "2026-11-23T09:30:00Z"
