"""Fetches a layer of an ArcGIS FeatureServer, page by page, in the coordinate system it is kept in.

Editions are services of their own, whose names carry the month and the year, so the directory is
asked for those that fit a pattern. A service whose name does not say when is of the day when it was
last edited.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, date, datetime
from pathlib import Path
from typing import Any, Final, Self, TypeVar

from boundaries.drivers.driver import Progress, Release, address, whole_number
from boundaries.drivers.features import from_esri, write_features
from boundaries.drivers.pages import Page, State, read_pages
from boundaries.drivers.remote import PassingError, Remote, RemoteError, parse_json
from georouter.entries import Table

T = TypeVar("T")

_MONTHS: Final = (
    "jan",
    "feb",
    "mar",
    "apr",
    "may",
    "jun",
    "jul",
    "aug",
    "sep",
    "oct",
    "nov",
    "dec",
)
_MONTH: Final = (
    "jan(?:uary)?|feb(?:ruary)?|mar(?:ch)?|apr(?:il)?|may|june?|july?|aug(?:ust)?|sept?(?:ember)?"
    "|oct(?:ober)?|nov(?:ember)?|dec(?:ember)?"
)
_PLACES: Final = {
    "{month}": rf"(?P<month>{_MONTH})",
    "{year}": r"(?P<year>20\d\d)",
    "{version}": r"(?P<version>\d{1,2})",
}
_ALL: Final = {"where": "1=1", "f": "json"}


@dataclass(frozen=True, slots=True)
class ArcGis:
    """A layer of the newest service, of those in a directory whose name fits a pattern."""

    root: str
    services: tuple[re.Pattern[str], ...]
    layer: int
    page_size: int
    """0: as large as the service allows."""

    @classmethod
    def read(cls, table: Table, _folder: Path) -> Self:
        """The driver of an entry of the catalogue; raises `Fault`."""
        patterns = table.texts("service", hint="patterns of the service's name")
        if len({"{year}" in pattern for pattern in patterns}) != 1:
            table.fault("service", "some patterns have a {year} and some do not; make them alike")
        return cls(
            root=address(table, "root"),
            services=tuple(_pattern(table, pattern) for pattern in patterns),
            layer=whole_number(table, "layer", default=0, most=10_000),
            page_size=whole_number(table, "page_size", default=0, most=100_000),
        )

    def releases(self, remote: Remote, *, today: date) -> list[Release]:
        """By date, then by version. Raises `RemoteError`."""
        names = sorted(self._names(remote))
        found: dict[str, str] = {}
        for pattern in self.services:
            fitting: dict[str, str] = {}
            for name in names:
                if (match := pattern.fullmatch(name)) is None:
                    continue
                edition = _edition(match.groupdict())
                if edition in fitting:
                    raise RemoteError(
                        f"{self.root} has both {fitting[edition]} and {name}; narrow service in "
                        "the catalogue"
                    )
                fitting[edition] = name
            # an edition that fits several patterns is taken by the first
            found = fitting | found
        if not found:
            some = ", ".join(names[:10]) or "none"
            raise RemoteError(
                f"{self.root} has no service whose name fits; correct service in the catalogue. "
                f"It has {len(names)}, such as: {some}"
            )
        if "" in found:
            url = self._url(found.pop(""))
            edited = _last_edit(_ask(remote, url, {"f": "json"}))
            day = datetime.fromtimestamp(edited / 1000, UTC).date() if edited else today
            return [Release(str(day), url)]
        return [
            Release(edition, self._url(found[edition])) for edition in sorted(found, key=_order)
        ]

    def download(self, release: Release, remote: Remote, work: Path, progress: Progress) -> Path:
        """GeoParquet; raises `RemoteError`."""
        url = release.url
        described = _ask(remote, url, {"f": "json"})
        id_field = _id_field(described, url)
        if (described.get("advancedQueryCapabilities") or {}).get("supportsPagination") is False:
            raise RemoteError(f"{url} gives no pages, so it cannot be read whole")
        most = described.get("maxRecordCount") or 1000
        size = min(self.page_size or most, most)

        def parse(body: bytes) -> Page:
            return _page(body, url, id_field)

        def state() -> State:
            edited = _last_edit(_ask(remote, url, {"f": "json"}))
            counted = _ask(remote, f"{url}/query", {**_ALL, "returnCountOnly": "true"})
            if not isinstance(counted.get("count"), int):
                raise RemoteError(f"{url} does not say how many features it has")
            return State(url, counted["count"], str(edited or ""))

        def ask(offset: int) -> Page:
            return _read(
                remote,
                f"{url}/query",
                {
                    **_ALL,
                    "outFields": "*",
                    "orderByFields": f"{id_field} ASC",
                    "resultOffset": offset,
                    "resultRecordCount": size,
                },
                parse,
            )

        pages = read_pages(work / "pages", state=state, ask=ask, parse=parse, progress=progress)
        return _write(work / "layer.parquet", pages, url, id_field, progress)

    def _url(self, name: str) -> str:
        return f"{self.root}/{name}/FeatureServer/{self.layer}"

    def _names(self, remote: Remote) -> set[str]:
        services = _ask(remote, self.root, {"f": "json"}).get("services")
        if not isinstance(services, list):
            raise RemoteError(f"{self.root} is no directory of services")
        return {
            # in a directory of a folder, names begin with that folder
            str(one.get("name", "")).rpartition("/")[2]
            for one in services
            if isinstance(one, dict) and one.get("type") == "FeatureServer"
        }


# --- names and editions ---------------------------------------------------------------------------


def _pattern(table: Table, text: str) -> re.Pattern[str]:
    wanted = text
    for place, means in _PLACES.items():
        wanted = wanted.replace(place, means)
    try:
        pattern = re.compile(wanted, re.IGNORECASE)
    except re.error as error:
        table.fault("service", f"service {text!r} is no regular expression: {error}; correct it")
    if "{month}" in text and "{year}" not in text:
        table.fault("service", f"service {text!r} has a {{month}} and no {{year}}; add it")
    return pattern


def _edition(named: Mapping[str, str | None]) -> str:
    """Such as 2025-05, or 2025-05-v2; nothing where the name has no year."""
    year, month, version = (named.get(key) for key in ("year", "month", "version"))
    if year is None:
        return ""
    edition = f"{year}-{_MONTHS.index(month[:3].lower()) + 1:02}" if month else year
    return f"{edition}-v{int(version)}" if version and int(version) > 1 else edition


def _order(edition: str) -> tuple[str, int]:
    day, _, version = edition.partition("-v")
    return day, int(version or 1)


def _last_edit(described: Mapping[str, Any]) -> int | None:
    """In milliseconds since 1970."""
    info = described.get("editingInfo") or {}
    edited = info.get("dataLastEditDate") or info.get("lastEditDate")
    return edited if isinstance(edited, int) else None


# --- answers --------------------------------------------------------------------------------------


def _ask(remote: Remote, url: str, params: Mapping[str, Any]) -> dict[str, Any]:
    return _read(remote, url, params, lambda body: _object(body, url))


def _read(remote: Remote, url: str, params: Mapping[str, Any], parse: Callable[[bytes], T]) -> T:
    return remote.read(url, parse, params)


def _object(body: bytes, url: str) -> dict[str, Any]:
    """The object that an answer is. ArcGIS answers 200 also when it fails."""
    answer = parse_json(url)(body)
    if not isinstance(answer, dict):
        raise RemoteError(f"{url} answers with something else than an object")
    if (error := answer.get("error")) is not None:
        error = error if isinstance(error, dict) else {"message": error}
        code = error.get("code")
        said = f"{url} answers with error {code}: {error.get('message') or error.get('details')}"
        if isinstance(code, int) and (code == 429 or code >= 500):
            raise PassingError(said)
        raise RemoteError(said)
    return answer


def _id_field(described: Mapping[str, Any], url: str) -> str:
    named = described.get("objectIdField")
    fields = described.get("fields") or []
    found = named or next(
        (one["name"] for one in fields if one.get("type") == "esriFieldTypeOID"), None
    )
    if not isinstance(found, str):
        raise RemoteError(f"{url} has no object ids, so its pages cannot be told apart")
    return found


def _page(body: bytes, url: str, id_field: str) -> Page:
    answer = _object(body, url)
    features = answer.get("features")
    if not isinstance(features, list):
        raise RemoteError(f"{url} answers without features")
    ids = []
    for feature in features:
        found = feature.get("attributes", {}).get(id_field)
        if not isinstance(found, int):
            raise RemoteError(f"{url}: a feature has no object id in {id_field}")
        ids.append(found)
    return Page(body, ids, more=answer.get("exceededTransferLimit"))


def _write(path: Path, pages: list[Path], url: str, id_field: str, progress: Progress) -> Path:
    attributes: list[Mapping[str, Any]] = []
    geometries: list[Any] = []
    systems = set()
    for number, page in enumerate(pages):
        progress("reading", number / len(pages))
        answer = json.loads(page.read_bytes())
        systems.add(_crs(answer.get("spatialReference") or {}, url))
        for feature in answer["features"]:
            which = f"{url}, object {feature['attributes'][id_field]}"
            attributes.append(feature["attributes"])
            geometries.append(from_esri(feature.get("geometry"), which))
    if len(systems) != 1:
        has = "no features" if not pages else f"pages in different systems: {sorted(systems)}"
        raise RemoteError(f"{url} gives {has}")
    progress("writing", 1.0)
    return write_features(path, attributes, geometries, crs=systems.pop(), where=url)


def _crs(reference: Mapping[str, Any], url: str) -> str:
    """The number in EPSG's list, if it has one: `wkid` may be one of Esri's own from before."""
    number = reference.get("latestWkid") or reference.get("wkid")
    if not isinstance(number, int):
        raise RemoteError(f"{url} does not say the number of its coordinate system")
    # Esri's own numbers begin where EPSG's end
    return f"{'EPSG' if number < 37_000 else 'ESRI'}:{number}"
