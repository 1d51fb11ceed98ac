"""Publishers' services for tests, on a real socket: ArcGIS, OS Downloads, WFS and plain files.

It speaks the protocols as the services do, keeps every request, and misbehaves when told to.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import ssl
import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from email.utils import formatdate
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import TracebackType
from typing import Any, Self
from urllib.parse import parse_qsl, urlsplit
from xml.sax.saxutils import escape

CORNER = (400_000.0, 300_000.0)


@dataclass(frozen=True, slots=True)
class Request:
    method: str
    path: str
    query: Mapping[str, str]
    headers: Mapping[str, str]


@dataclass(frozen=True, slots=True)
class Answer:
    """`cut_at` closes the connection after so many bytes of the body; `hang` before any of it."""

    status: int = 200
    body: bytes = b""
    headers: Mapping[str, str] = field(default_factory=dict)
    cut_at: int | None = None
    hang: bool = False


@dataclass
class Layer:
    """A layer of a FeatureServer. `count` is what it says where that is not the truth."""

    features: list[dict[str, Any]]
    edited: int = 1_747_000_000_000
    most: int = 2000
    fewer: int | None = None  # gives no more than so many, and says `exceededTransferLimit`
    count: int | None = None
    reference: Mapping[str, Any] = field(
        default_factory=lambda: {"wkid": 27700, "latestWkid": 27700}
    )


@dataclass
class File:
    content: bytes
    etag: str | None = None
    changed: float | None = None

    @classmethod
    def tagged(cls, content: bytes) -> Self:
        return cls(content, f'"{hashlib.sha256(content).hexdigest()[:12]}"')


def square(number: int, size_m: float = 900.0) -> list[list[float]]:
    """A ring of its own for each number, clockwise as Esri wants it."""
    x, y = CORNER[0] + 1000.0 * number, CORNER[1]
    return [[x, y], [x, y + size_m], [x + size_m, y + size_m], [x + size_m, y], [x, y]]


def esri_areas(count: int, *, year: int = 25) -> list[dict[str, Any]]:
    return [
        {
            "attributes": {
                "OBJECTID": n,
                f"CTYUA{year}CD": f"E{n:08}",
                f"CTYUA{year}NM": f"Area {n}",
            },
            "geometry": {"rings": [square(n)]},
        }
        for n in range(1, count + 1)
    ]


def geojson_roads(count: int) -> list[dict[str, Any]]:
    return [
        {
            "type": "Feature",
            "id": f"roads.{n}",
            "properties": {"fid": n, "road": f"A{n}"},
            "geometry": {
                "type": "LineString",
                "coordinates": [[CORNER[0] + n, CORNER[1]], [CORNER[0] + n, CORNER[1] + 500.0]],
            },
        }
        for n in range(1, count + 1)
    ]


Matches = Callable[[Request], bool]


class FakeSources:
    """Used as `with FakeSources() as fake`, then `fake.url("/arcgis/rest/services")`."""

    def __init__(self, *, tls: ssl.SSLContext | None = None) -> None:
        self.requests: list[Request] = []
        self.layers: dict[str, Layer] = {}
        self.version = "2025-10"
        self.downloads: list[dict[str, Any]] = []
        self.files: dict[str, File] = {}
        self.types: dict[str, list[dict[str, Any]]] = {}
        self.matched: int | None = None  # instead of the truth
        self.matched_on_pages: int | None = None
        self.crs = "urn:ogc:def:crs:EPSG::27700"
        self.before: Callable[[Request], None] = lambda _request: None
        self._instead: list[tuple[Matches, Answer]] = []
        self._released = threading.Event()
        self._hanging = threading.Event()
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), self._handler())
        self._server.handle_error = lambda *_: None  # type: ignore[method-assign]
        self._tls = tls is not None
        if tls:
            self._server.socket = tls.wrap_socket(
                self._server.socket, server_side=True, do_handshake_on_connect=False
            )
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.02,))

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._released.set()
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()

    def url(self, path: str = "") -> str:
        scheme = "https" if self._tls else "http"
        return f"{scheme}://127.0.0.1:{self._server.server_port}{path}"

    def instead(self, matches: Matches, *answers: Answer) -> None:
        """Answer the next requests that match with these, one each."""
        self._instead += [(matches, answer) for answer in answers]

    def wait_until_hanging(self, timeout_s: float = 30.0) -> None:
        assert self._hanging.wait(timeout_s)

    def release(self) -> None:
        self._released.set()

    def offsets(self) -> list[int]:
        """Of the pages that were asked for, in order."""
        keys = ("resultOffset", "startIndex")
        return [int(r.query[key]) for r in self.requests for key in keys if key in r.query]

    # --- serving ------------------------------------------------------------------------------

    def _handler(self) -> type[BaseHTTPRequestHandler]:
        fake = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                parts = urlsplit(self.path)
                request = Request(
                    self.command,
                    parts.path,
                    dict(parse_qsl(parts.query)),
                    {name.lower(): value for name, value in self.headers.items()},
                )
                fake.requests.append(request)
                answer = fake._answer(request)
                if answer.hang:
                    fake._hanging.set()
                    fake._released.wait(60.0)
                self.send_response_only(answer.status)
                headers = {"Content-Length": str(len(answer.body)), **answer.headers}
                for name, value in headers.items():
                    if value:
                        self.send_header(name, value)
                self.end_headers()
                if self.command == "GET":
                    with contextlib.suppress(OSError):
                        self.wfile.write(answer.body[: answer.cut_at])

            do_HEAD = do_GET  # noqa: N815 - so it is called there

            def log_message(self, *_: object) -> None:
                pass

        return Handler

    def _answer(self, request: Request) -> Answer:
        self.before(request)
        for position, (matches, answer) in enumerate(self._instead):
            if matches(request):
                del self._instead[position]
                return answer
        found: Any = None
        if request.path.startswith("/arcgis/rest/services"):
            found = self._arcgis(request)
        elif request.path == "/os/products/BoundaryLine":
            found = {"id": "BoundaryLine", "version": self.version}
        elif request.path == "/os/products/BoundaryLine/downloads":
            found = self.downloads
        elif request.path == "/wfs":
            return self._wfs(request.query)
        elif request.path in self.files:
            return self._file(request, self.files[request.path])
        if found is None:
            return Answer(404, b"no such thing")
        return Answer(body=json.dumps(found).encode())

    def _arcgis(self, request: Request) -> Any:
        rest = request.path.removeprefix("/arcgis/rest/services").strip("/").split("/")
        if rest == [""]:
            services = [{"name": name, "type": "FeatureServer"} for name in self.layers]
            return {"currentVersion": 11.4, "services": [*services, {"name": "X", "type": "Map"}]}
        layer = self.layers.get(rest[0])
        if layer is None:
            return {"error": {"code": 400, "message": "Invalid URL", "details": []}}
        if rest[1:] == ["FeatureServer", "0"]:
            return {
                "objectIdField": "OBJECTID",
                "maxRecordCount": layer.most,
                "editingInfo": {"lastEditDate": layer.edited},
                "advancedQueryCapabilities": {"supportsPagination": True},
            }
        query = request.query
        assert query["f"] == "json"
        assert "outSR" not in query
        if query.get("returnCountOnly") == "true":
            return {"count": len(layer.features) if layer.count is None else layer.count}
        assert query["orderByFields"] == "OBJECTID ASC"
        begin, wanted = int(query["resultOffset"]), int(query["resultRecordCount"])
        number = min(wanted, layer.most, wanted if layer.fewer is None else layer.fewer)
        given = layer.features[begin : begin + number]
        found: dict[str, Any] = {"spatialReference": layer.reference, "features": given}
        if begin + number < len(layer.features):
            found["exceededTransferLimit"] = True
        return found

    def _wfs(self, query: Mapping[str, str]) -> Answer:
        assert (query["service"], query["version"]) == ("WFS", "2.0.0")
        if query["request"] == "GetCapabilities":
            names = "".join(
                f"<FeatureType><Name>{escape(name)}</Name></FeatureType>" for name in self.types
            )
            return xml(
                '<wfs:WFS_Capabilities xmlns:wfs="http://www.opengis.net/wfs/2.0">'
                f"<FeatureTypeList>{names}</FeatureTypeList></wfs:WFS_Capabilities>"
            )
        features = self.types[query["typeNames"]]
        matched = len(features) if self.matched is None else self.matched
        if query.get("resultType") == "hits":
            return xml(
                '<wfs:FeatureCollection xmlns:wfs="http://www.opengis.net/wfs/2.0" '
                f'numberMatched="{matched}" numberReturned="0"/>'
            )
        assert query["outputFormat"] == "application/json"
        assert query["sortBy"]
        begin = int(query["startIndex"])
        given = features[begin : begin + int(query["count"])]
        collection = {
            "type": "FeatureCollection",
            "features": given,
            "numberMatched": self.matched_on_pages or matched,
            "numberReturned": len(given),
            "crs": {"type": "name", "properties": {"name": self.crs}},
        }
        return Answer(body=json.dumps(collection).encode())

    def _file(self, request: Request, file: File) -> Answer:
        headers = {"ETag": file.etag} if file.etag else {}
        if file.changed is not None:
            headers["Last-Modified"] = formatdate(file.changed, usegmt=True)
        wanted = request.headers.get("range", "")
        if not wanted or request.headers.get("if-range") not in headers.values():
            return Answer(body=file.content, headers=headers)
        begin = int(wanted.removeprefix("bytes=").removesuffix("-"))
        size = len(file.content)
        if begin >= size:
            return Answer(416, headers={**headers, "Content-Range": f"bytes */{size}"})
        return Answer(
            206,
            file.content[begin:],
            {**headers, "Content-Range": f"bytes {begin}-{size - 1}/{size}"},
        )


def xml(text: str) -> Answer:
    return Answer(body=f'<?xml version="1.0" encoding="UTF-8"?>{text}'.encode())


def at_offset(offset: int) -> Matches:
    """The page from a position on."""
    keys = ("resultOffset", "startIndex")
    return lambda request: any(request.query.get(key) == str(offset) for key in keys)


def at(path: str) -> Matches:
    return lambda request: request.path == path and request.method == "GET"


class Naps:
    """A sleep that takes no time and is remembered."""

    def __init__(self) -> None:
        self.taken: list[float] = []

    def __call__(self, seconds: float) -> None:
        self.taken.append(seconds)
