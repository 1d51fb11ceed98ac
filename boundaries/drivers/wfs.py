"""Fetches a feature type of a WFS 2.0.0, such as GeoServer, page by page as GeoJSON.

Counts are asked for first and compared. Where the service fails it answers in XML, often with
status 200. It says nothing of editions, so the edition is the day when it is fetched.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import date
from pathlib import Path
from typing import Any, Final, NoReturn, Self
from xml.parsers import expat

from boundaries.drivers.driver import Progress, Release, address, whole_number
from boundaries.drivers.features import write_features
from boundaries.drivers.pages import Page, State, read_pages
from boundaries.drivers.remote import Remote, RemoteError, one_line, parse_json
from georouter.entries import Table

_WFS: Final = {"service": "WFS", "version": "2.0.0"}


@dataclass(frozen=True, slots=True)
class Wfs:
    """One feature type in one coordinate system."""

    url: str
    feature_type: str
    sort_by: str
    crs: str
    page_size: int

    @classmethod
    def read(cls, table: Table, _folder: Path) -> Self:
        """The driver of an entry of the catalogue; raises `Fault`."""
        found = cls(
            url=address(table, "url"),
            feature_type=table.text("feature_type"),
            sort_by=table.text("sort_by"),
            crs=table.text("crs", default="EPSG:27700"),
            page_size=whole_number(table, "page_size", default=1000, most=100_000),
        )
        if not re.fullmatch(r"EPSG:\d+", found.crs):
            table.fault("crs", "crs must be such as EPSG:27700")
        if not found.page_size:
            table.fault("page_size", "page_size must be at least 1")
        return found

    def releases(self, remote: Remote, *, today: date) -> list[Release]:
        """What there is today; raises `RemoteError` where the service does not have the type."""

        def parse(body: bytes) -> list[str]:
            return _parse_xml(body, self.url).names

        names = remote.read(self.url, parse, {**_WFS, "request": "GetCapabilities"})
        if self.feature_type not in names:
            like = [name for name in names if _last_word(self.feature_type) in name.lower()]
            some = ", ".join((like or names)[:10]) or "none"
            raise RemoteError(
                f"{self.url} has no feature type {self.feature_type!r}; correct feature_type in "
                f"the catalogue. It has {len(names)}, such as: {some}"
            )
        return [Release(str(today), self.url)]

    def download(self, release: Release, remote: Remote, work: Path, progress: Progress) -> Path:
        """GeoParquet; raises `RemoteError`."""
        url = release.url
        get = {**_WFS, "request": "GetFeature", "typeNames": self.feature_type}

        def count(body: bytes) -> int:
            matched = _parse_xml(body, url).matched
            if not matched.isdigit():
                raise RemoteError(f"{url} does not say how many features it has")
            return int(matched)

        def state() -> State:
            hits = remote.read(url, count, {**get, "resultType": "hits"})
            return State(f"{url} {self.feature_type}", hits)

        def parse(body: bytes) -> Page:
            return _page(body, url)

        def ask(offset: int) -> Page:
            return remote.read(
                url,
                parse,
                {
                    **get,
                    "startIndex": offset,
                    "count": self.page_size,
                    "sortBy": self.sort_by,
                    "srsName": self.crs,
                    "outputFormat": "application/json",
                },
            )

        pages = read_pages(work / "pages", state=state, ask=ask, parse=parse, progress=progress)
        return self._write(work / "features.parquet", pages)

    def _write(self, path: Path, pages: list[Path]) -> Path:
        import shapely

        attributes: list[Mapping[str, Any]] = []
        geometries: list[Any] = []
        for page in pages:
            answer = json.loads(page.read_bytes())
            _check_crs(answer.get("crs"), self.crs, self.url)
            for feature in answer["features"]:
                attributes.append(feature.get("properties") or {})
                geometry = feature.get("geometry")
                try:
                    read = shapely.from_geojson(json.dumps(geometry)) if geometry else None
                except shapely.errors.GEOSException as error:
                    raise RemoteError(
                        f"{self.url}, feature {feature['id']}: its geometry is none: "
                        f"{one_line(error)}"
                    ) from None
                geometries.append(read)
        if not pages:
            raise RemoteError(f"{self.url} has no features of {self.feature_type}")
        return write_features(path, attributes, geometries, crs=self.crs, where=self.url)


def _page(body: bytes, url: str) -> Page:
    if body.lstrip().startswith(b"<"):
        _parse_xml(body, url)
        raise RemoteError(f"{url} answers in XML where JSON was asked for")
    answer = parse_json(url)(body)
    features = answer.get("features") if isinstance(answer, dict) else None
    if not isinstance(features, list):
        raise RemoteError(f"{url} answers without features")
    ids = [feature.get("id") for feature in features]
    if not all(isinstance(one, str) and one for one in ids):
        raise RemoteError(f"{url}: a feature has no id, so pages cannot be told apart")
    matched = answer.get("numberMatched")  # "unknown" where it takes too long to count
    return Page(body, ids, total=matched if isinstance(matched, int) else None)


def _check_crs(said: Any, crs: str, url: str) -> None:
    """GeoServer says the system of each page; GeoJSON without one would be in degrees."""
    name = str(((said or {}).get("properties") or {}).get("name", ""))
    number = re.search(r"(\d+)$", name)
    given = f"EPSG:{number[1]}" if number else "EPSG:4326"
    if given != crs:
        raise RemoteError(f"{url} answers in {name or 'degrees'} where {crs} was asked for")


def _last_word(feature_type: str) -> str:
    return re.split(r"[:_]", feature_type)[-1].lower()


# --- XML ------------------------------------------------------------------------------------------


class _Xml:
    """What is wanted of a document: names of feature types, how many match, what went wrong."""

    def __init__(self) -> None:
        self.names: list[str] = []
        self.matched = ""
        self.failed = False
        self.said = ""
        self._path: list[str] = []
        self._text = ""

    def start(self, name: str, attributes: dict[str, str]) -> None:
        name = name.rpartition(":")[2]
        self._path.append(name)
        self._text = ""
        if len(self._path) == 1:
            self.matched = attributes.get("numberMatched", "")
            self.failed = name in {"ExceptionReport", "ServiceExceptionReport"}

    def text(self, piece: str) -> None:
        self._text += piece

    def end(self, _name: str) -> None:
        if self._path[-2:] == ["FeatureType", "Name"]:
            self.names.append(self._text.strip())
        elif self._path[-1] in {"ExceptionText", "ServiceException"}:
            self.said = self.said or " ".join(self._text.split())[:200]
        self._path.pop()


def _parse_xml(body: bytes, url: str) -> _Xml:
    """Read an answer in XML; raises `RemoteError`, also for what says that it failed.

    A document that declares entities, which could grow without end or read files, is refused.
    """
    found = _Xml()
    parser = expat.ParserCreate()
    parser.buffer_text = True
    parser.StartElementHandler = found.start
    parser.EndElementHandler = found.end
    parser.CharacterDataHandler = found.text

    def refuse(*_: object) -> NoReturn:
        raise RemoteError(f"{url} answers with XML that declares entities; not read")

    parser.EntityDeclHandler = refuse
    try:
        parser.Parse(body, True)
    except expat.ExpatError as error:
        raise RemoteError(f"{url} answers with something that is no XML: {error}") from None
    if found.failed:
        raise RemoteError(f"{url} answers: {found.said or 'an exception without a text'}")
    return found
