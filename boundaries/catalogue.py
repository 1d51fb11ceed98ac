"""Reads the catalogue of sources: what each is, whose, under which licence, and how it is fetched.

`catalogue.toml` says what may be in it. Promises sources that can be fetched from, or a
`SourceError` that names the file, the line, the entry and the remedy. It asks no service.
"""

from __future__ import annotations

import re
import tomllib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from boundaries.drivers.arcgis import ArcGis
from boundaries.drivers.driver import Driver
from boundaries.drivers.files import LocalFile, PlainUrl
from boundaries.drivers.os_downloads import OsDownloads
from boundaries.drivers.wfs import Wfs
from boundaries.tomlfile import faults_with_lines, read_text
from georouter.entries import Fault, Table

SHIPPED: Final = Path(__file__).with_name("catalogue.toml")
DRIVERS: Final[dict[str, Callable[[Table, Path], Driver]]] = {
    "arcgis": ArcGis.read,
    "os-downloads": OsDownloads.read,
    "wfs": Wfs.read,
    "url": PlainUrl.read,
    "file": LocalFile.read,
}


class UnknownSourceError(Exception):
    """A source, or an edition of one, that there is not."""


@dataclass(frozen=True, slots=True)
class Source:
    """A publisher's product. `{year}` in the attribution stands for the edition's year."""

    name: str
    title: str
    publisher: str
    licence: str
    attribution: str
    verified: bool
    """Whether somebody has fetched it from the live service as it is described."""
    driver: Driver


Catalogue = dict[str, Source]


def read_catalogue(own: Path | None = None) -> Catalogue:
    """The sources shipped, replaced and added to by those of a file of one's own, by name."""
    return _read(SHIPPED) | (_read(own) if own else {})


def pick(catalogue: Catalogue, name: str) -> Source:
    """A source by its name; raises `UnknownSourceError`."""
    if name not in catalogue:
        raise UnknownSourceError(
            f"there is no source {name!r}; take one of {', '.join(catalogue)}, or add it to a "
            "catalogue of your own (GEOROUTER_CATALOGUE)"
        )
    return catalogue[name]


def _read(path: Path) -> Catalogue:
    text = read_text(path)
    with faults_with_lines(path, text):
        top = Table((), tomllib.loads(text), "the file")
        sources = {
            name: _source(name, entry, path.parent)
            for name, entry in top.tables("sources", "source").items()
        }
        top.nothing_else()
    return sources


def _source(name: str, table: Table, folder: Path) -> Source:
    if not re.fullmatch("[a-z0-9]+(-[a-z0-9]+)*", name):  # it becomes the name of a file
        raise Fault(
            table.at, f"{table.what}: a name is of small letters, digits and single hyphens"
        )
    kind = table.text("driver")
    if kind not in DRIVERS:
        table.fault("driver", f"there is no driver {kind!r}; take one of {', '.join(DRIVERS)}")
    found = Source(
        name=name,
        title=table.text("title"),
        publisher=table.text("publisher"),
        licence=table.text("licence"),
        attribution=table.text("attribution"),
        verified=table.flag("verified"),
        driver=DRIVERS[kind](table, folder),
    )
    table.nothing_else()
    return found
