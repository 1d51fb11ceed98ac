"""An object store for tests that speaks S3 over a real socket, in memory, path-style, unsigned.

GET with ranges, HEAD, PUT, multipart uploads, and deletion. It keeps no more rules than a client
needs, and breaks down as it is told: `faults` are taken one by one by the requests for a file.
"""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import Mapping
from contextlib import suppress
from types import TracebackType
from typing import Any, Literal, Self
from urllib.parse import parse_qs, unquote, urlsplit
from xml.etree import ElementTree as ET

Fault = Literal["busy", "cut", "wrong"]
ACCESS = {"AWS_ACCESS_KEY_ID": "test", "AWS_SECRET_ACCESS_KEY": "test", "AWS_REGION": "test"}


class FakeS3:
    """Used as `async with FakeS3() as s3`; what it holds is in `objects`, by "bucket/key"."""

    def __init__(self) -> None:
        self.objects: dict[str, bytes] = {}
        self.requests: list[str] = []
        self.faults: list[Fault] = []
        self.port = 0
        self._uploads: dict[str, dict[int, bytes]] = {}
        self._handlers: set[asyncio.Task[Any]] = set()

    @property
    def environment(self) -> dict[str, str]:
        """What a client needs to find it."""
        url = f"http://127.0.0.1:{self.port}"
        return {**ACCESS, "AWS_ENDPOINT_URL": url, "AWS_ALLOW_HTTP": "true"}

    @property
    def serving(self) -> bool:
        return self._server.is_serving()

    async def __aenter__(self) -> Self:
        # The same port again: a client keeps the address that it was given.
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", self.port)
        self.port = self._server.sockets[0].getsockname()[1]
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._server.close()
        for task in self._handlers:
            task.cancel()
        await asyncio.gather(*self._handlers, return_exceptions=True)
        await self._server.wait_closed()

    def count(self, method: str, ending: str) -> int:
        """How many requests there were for files of that ending."""
        return sum(one.startswith(f"{method} ") and one.endswith(ending) for one in self.requests)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._handlers.add(task)
        with suppress(OSError, asyncio.IncompleteReadError, asyncio.CancelledError):
            while await self._answer(reader, writer):
                pass
        self._handlers.discard(task)
        writer.close()
        with suppress(OSError, asyncio.CancelledError):
            await writer.wait_closed()

    async def _answer(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bool:
        """Answer one request; False if the connection is to be closed."""
        lines = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1").split("\r\n")
        method, target, _ = lines[0].split(" ", 2)
        headers = {
            name.lower(): value.strip()
            for name, _, value in (line.partition(":") for line in lines[1:] if line)
        }
        body = await reader.readexactly(int(headers.get("content-length", "0")))
        url = urlsplit(target)
        key = unquote(url.path).lstrip("/")
        self.requests.append(f"{method} {key}")
        fault = self.faults.pop(0) if self.faults and key.endswith(".grx") else None
        if fault == "busy":
            return await _write(writer, 503)
        query = parse_qs(url.query, keep_blank_values=True)
        if method in {"GET", "HEAD"}:
            return await self._give(writer, key, headers, fault, head=method == "HEAD")
        return await self._take(writer, method, key, query, body)

    async def _give(
        self,
        writer: asyncio.StreamWriter,
        key: str,
        headers: Mapping[str, str],
        fault: Fault | None,
        *,
        head: bool,
    ) -> bool:
        content = self.objects.get(key)
        if content is None:
            return await _write(writer, 404)
        told = {
            "etag": f'"{hashlib.sha256(content).hexdigest()}"',
            "last-modified": "Mon, 02 Nov 2026 08:15:00 GMT",
        }
        if fault == "wrong":
            content = bytes(len(content))
        status = 200
        if "range" in headers:
            first, last = headers["range"].removeprefix("bytes=").split("-")
            end = min(int(last) + 1, len(content))
            told["content-range"] = f"bytes {first}-{end - 1}/{len(content)}"
            content, status = content[int(first) : end], 206
        if fault == "cut":
            await _write(writer, status, content, told, send=len(content) // 2)
            return False
        return await _write(writer, status, content, told, send=0 if head else None)

    async def _take(
        self,
        writer: asyncio.StreamWriter,
        method: str,
        key: str,
        query: Mapping[str, list[str]],
        body: bytes,
    ) -> bool:
        answer = b""
        if method == "POST" and "uploads" in query:
            upload = f"upload-{len(self.requests)}"
            self._uploads[upload] = {}
            answer = (
                "<InitiateMultipartUploadResult>"
                f"<UploadId>{upload}</UploadId></InitiateMultipartUploadResult>"
            ).encode()
        elif method == "PUT" and "partNumber" in query:
            self._uploads[query["uploadId"][0]][int(query["partNumber"][0])] = body
        elif method == "POST" and "uploadId" in query:
            parts = self._uploads.pop(query["uploadId"][0])
            self.objects[key] = b"".join(parts[number] for number in sorted(parts))
            answer = (
                b"<CompleteMultipartUploadResult><ETag>x</ETag></CompleteMultipartUploadResult>"
            )
        elif method == "POST" and "delete" in query:
            asked = ET.fromstring(body)  # noqa: S314 - our own client's
            keys = [str(one.text) for one in asked.iter() if one.tag.endswith("Key")]
            for one in keys:
                self.requests.append(f"DELETE {one}")
                self.objects.pop(f"{key}/{one}", None)
            gone = "".join(f"<Deleted><Key>{one}</Key></Deleted>" for one in keys)
            answer = f"<DeleteResult>{gone}</DeleteResult>".encode()
        elif method == "PUT":
            self.objects[key] = body
        elif method == "DELETE":
            self.objects.pop(key, None)
        else:
            return await _write(writer, 405)
        return await _write(writer, 200, answer, {"etag": '"x"'})


async def _write(
    writer: asyncio.StreamWriter,
    status: int,
    content: bytes = b"",
    headers: Mapping[str, str] | None = None,
    *,
    send: int | None = None,
) -> bool:
    """Write an answer, of its body only `send` bytes."""
    told = {**(headers or {}), "content-length": str(len(content))}
    head = [f"HTTP/1.1 {status} X", *(f"{name}: {value}" for name, value in told.items())]
    writer.write("\r\n".join([*head, "", ""]).encode("latin-1") + content[:send])
    await writer.drain()
    return True
