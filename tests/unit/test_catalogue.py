from __future__ import annotations

from datetime import date
from pathlib import Path

import pytest

from boundaries.cache import edition_order
from boundaries.catalogue import (
    UnknownSourceError,
    pick,
    read_catalogue,
)
from boundaries.drivers.arcgis import ArcGis, _edition
from boundaries.drivers.files import LocalFile
from boundaries.drivers.remote import Remote
from boundaries.errors import SourceError

ABOUT = """
title = "T"
publisher = "P"
licence = "L"
attribution = "A"
"""


def own(tmp_path: Path, entry: str, *, name: str = "mine") -> Path:
    path = tmp_path / "own.toml"
    path.write_text(f"[sources.{name}]{ABOUT}{entry}")
    return path


def test_what_is_shipped_is_not_said_to_be_verified() -> None:
    shipped = read_catalogue()
    assert list(shipped) == [
        "ons-ctyua",
        "ons-lad",
        "os-boundary-line",
        "national-highways",
        "tfl-tlrn",
        "datamapwales-trunk",
    ]
    assert not any(source.verified for source in shipped.values())
    assert all(source.attribution and source.licence for source in shipped.values())


def test_a_catalogue_of_ones_own_adds_and_replaces(tmp_path: Path) -> None:
    path = own(tmp_path, 'driver = "file"\nfile = "a.gpkg"\nedition = "2026"', name="ons-lad")
    path.write_text(
        path.read_text() + f'\n[sources.more]{ABOUT}driver = "url"\nurl = "https://a.test/b.gpkg"'
    )
    found = read_catalogue(path)
    assert len(found) == len(read_catalogue()) + 1
    assert found["ons-lad"].driver == LocalFile(tmp_path / "a.gpkg", "2026")
    with pytest.raises(UnknownSourceError, match=r"no source 'mor'; take one of ons-ctyua, .*more"):
        pick(found, "mor")


ARCGIS = 'driver = "arcgis"\nroot = "https://a.test"\n'
WFS = 'driver = "wfs"\nurl = "https://a.test"\nfeature_type = "a:b"\nsort_by = "c"\n'


@pytest.mark.parametrize(
    ("entry", "line", "fault"),
    [
        ("", 1, "source 'mine' has no driver; add it"),
        ('driver = "ftp"', 6, "there is no driver 'ftp'; take one of arcgis, os-downloads"),
        (
            'driver = "arcgis"\nroot = "http://a.test"\nservice = ["a"]',
            7,
            "root must be a URL that begins with ht",
        ),
        (ARCGIS + "service = []", 8, "service must list patterns"),
        (ARCGIS + 'service = ["("]', 8, "is no regular expression"),
        (ARCGIS + 'service = ["{month}"]', 8, "has a {month} and no {year}; add it"),
        (ARCGIS + 'service = ["a{year}", "b"]', 8, "some patterns have a {year} and some do not"),
        (ARCGIS + 'service = ["a"]\nlayer = 0.5', 9, "layer must be a whole number from 0"),
        (ARCGIS + 'service = ["a"]\nlayers = 1', 9, "'layers' means nothing here, 'layer' does"),
        ('driver = "os-downloads"\nproduct = "https://a.test"', 1, "has no format; add it"),
        (WFS + 'crs = "BNG"', 10, "crs must be such as EPSG:27700"),
        (WFS + "page_size = 0", 10, "page_size must be at least 1"),
        ('driver = "url"\nurl = "https://a.test/b"', 7, "must end with its format, such as .gpkg"),
        ('driver = "url"\nurl = "https://a.test/b.zip"', 7, "name the file in it that is wanted"),
        (
            'driver = "url"\nurl = "https://a.test/b.gpkg"\nsha256 = "abc"',
            8,
            "sha256 must be 64 hexadecimal digits",
        ),
        ('driver = "file"\nfile = "a.gpkg"\nverified = 1', 8, "verified must be true or false"),
    ],
)
def test_a_fault_names_entry_line_and_remedy(
    tmp_path: Path, entry: str, line: int, fault: str
) -> None:
    with pytest.raises(SourceError) as refused:
        read_catalogue(own(tmp_path, entry))
    assert f"own.toml, line {line}: source 'mine'" in str(refused.value)
    assert fault in str(refused.value)


def test_names_become_files_and_are_checked(tmp_path: Path) -> None:
    with pytest.raises(SourceError, match="a name is of small letters"):
        read_catalogue(own(tmp_path, 'driver = "file"', name='"../x"'))
    with pytest.raises(SourceError, match="does not exist"):
        read_catalogue(tmp_path / "none.toml")
    (tmp_path / "own.toml").write_text("[sources\n")
    with pytest.raises(SourceError, match=r"line 1: this is no TOML"):
        read_catalogue(tmp_path / "own.toml")


@pytest.mark.parametrize(
    ("source", "name", "edition"),
    [
        ("ons-ctyua", "Counties_and_Unitary_Authorities_May_2025_UK_BFC", "2025-05"),
        ("ons-ctyua", "COUNTIES_AND_UNITARY_AUTHORITIES_DEC_2024_UK_BFC_V3", "2024-12-v3"),
        (
            "ons-ctyua",
            "Counties_and_Unitary_Authorities_December_2024_Boundaries_UK_BFC_2",
            "2024-12-v2",
        ),
        ("ons-ctyua", "CTYUA_MAY_2025_UK_BFC", "2025-05"),
        ("ons-lad", "LAD_MAY_2025_UK_BFC_V2", "2025-05-v2"),
        ("ons-lad", "Local_Authority_Districts_May_2024_Boundaries_UK_BFC", "2024-05"),
        ("ons-lad", "LAD_MAY_2025_UK_BGC_V2", None),
        ("ons-lad", "LAD_MAYBE_2025_UK_BFC", None),
    ],
)
def test_editions_are_read_off_names(source: str, name: str, edition: str | None) -> None:
    driver = read_catalogue()[source].driver
    assert isinstance(driver, ArcGis)
    fits = [match for pattern in driver.services if (match := pattern.fullmatch(name))]
    assert (_edition(fits[0].groupdict()) if fits else None) == edition


def test_editions_sort_by_date_then_version() -> None:
    ordered = ["2024-12", "2025-05", "2025-05-v2", "2025-05-v10", "2025-11", "2026-01-02"]
    found = ordered[::-1]
    found.sort(key=edition_order)
    assert found == ordered


def test_a_local_file_is_of_the_day_when_it_was_changed(tmp_path: Path) -> None:
    path = tmp_path / "a.gpkg"
    path.write_bytes(b"a")
    day = date(2027, 1, 1)
    with Remote() as remote:
        (release,) = LocalFile(path, "").releases(remote, today=day)
    assert release.edition < str(day)
    assert release.url == path.as_uri()
