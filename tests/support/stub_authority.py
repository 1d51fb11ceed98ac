"""An authority's back office for tests: an HTTP server on a real socket that does as it is told.

It records every request, and answers each path from a list: one answer after the other, the last
one for ever. An answer may be late, come in drips, or never come. A challenge it answers as it
should and keeps apart, unless `echoes` is off.
"""

from __future__ import annotations

import asyncio
import json
import ssl
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from types import TracebackType
from typing import Any, Self


@dataclass(frozen=True, slots=True)
class Received:
    """A request as it came; header names in lower case."""

    method: str
    path: str
    headers: Mapping[str, str]
    body: bytes
    at: float


@dataclass(frozen=True, slots=True)
class Answer:
    """What to answer. `cut` closes the connection instead, with the request on record."""

    status: int = 200
    body: bytes = b""
    headers: Mapping[str, str] = field(default_factory=dict)
    delay_s: float = 0.0
    drip_s: float = 0.0  # before each byte of the body
    cut: bool = False


OK = Answer()
# or any coroutine function that writes to the socket itself
Respond = Callable[[Received, asyncio.StreamWriter], Awaitable[None]]


class StubAuthority:
    """Used as `async with StubAuthority() as stub`, then `stub.url("/intake")`."""

    def __init__(self, host: str = "127.0.0.1", *, tls: ssl.SSLContext | None = None) -> None:
        self.host = host
        self.tls = tls
        self.port = 0
        self.received: list[Received] = []
        self.challenges: list[Received] = []
        self.echoes = True
        self.connections = 0
        self._answers: dict[str, list[Answer | Respond]] = {}
        self._arrived = asyncio.Condition()
        self._handlers: set[asyncio.Task[Any]] = set()

    async def __aenter__(self) -> Self:
        self._server = await asyncio.start_server(self._serve, self.host, 0, ssl=self.tls)
        self.port = self._server.sockets[0].getsockname()[1]
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._server.close()
        await self.hang_up()
        await self._server.wait_closed()

    async def hang_up(self) -> None:
        """Close every connection, whatever it waits for."""
        for task in self._handlers:
            task.cancel()
        await asyncio.gather(*self._handlers, return_exceptions=True)

    def url(self, path: str = "/intake") -> str:
        scheme = "https" if self.tls else "http"
        return f"{scheme}://{self.host}:{self.port}{path}"

    def answer(self, path: str, *answers: Answer | Respond) -> None:
        self._answers[path] = list(answers)

    def at(self, path: str) -> Sequence[Received]:
        return [request for request in self.received if request.path == path]

    async def wait_for(self, count: int, *, timeout_s: float = 5.0) -> Sequence[Received]:
        """Wait until so many requests have come, over all paths."""
        async with asyncio.timeout(timeout_s), self._arrived:
            await self._arrived.wait_for(lambda: len(self.received) >= count)
        return self.received

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        task = asyncio.current_task()
        assert task is not None
        self._handlers.add(task)
        # A client that goes away, or a test that ends, in the middle: both are business as usual.
        with suppress(OSError, asyncio.IncompleteReadError, asyncio.CancelledError):
            await self._converse(reader, writer)
        self._handlers.discard(task)
        writer.close()
        with suppress(OSError, asyncio.CancelledError):
            await writer.wait_closed()

    async def _converse(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1").split("\r\n")
        method, target, _ = head[0].split(" ", 2)
        headers = {}
        for line in head[1:-2]:
            name, value = line.split(":", 1)
            headers[name.lower()] = value.strip()
        body = await reader.readexactly(int(headers.get("content-length", "0")))
        request = Received(method, target, headers, body, time.time())
        challenge = _challenge(body) if self.echoes else None
        if challenge is not None:
            self.challenges.append(request)
            await self._answer(Answer(200, json.dumps({"challenge": challenge}).encode()), writer)
            return
        async with self._arrived:
            self.received.append(request)
            self._arrived.notify_all()
        answers = self._answers.get(target, [OK])
        answer = answers.pop(0) if len(answers) > 1 else answers[0]
        if isinstance(answer, Answer):
            await self._answer(answer, writer)
        else:
            await answer(request, writer)

    async def _answer(self, answer: Answer, writer: asyncio.StreamWriter) -> None:
        await asyncio.sleep(answer.delay_s)
        if answer.cut:
            return
        headers = {
            "content-length": str(len(answer.body)),
            "connection": "close",
            **answer.headers,
        }
        lines = [f"HTTP/1.1 {answer.status} X", *(f"{n}: {v}" for n, v in headers.items())]
        writer.write("\r\n".join([*lines, "", ""]).encode("latin-1"))
        parts = [answer.body[i : i + 1] for i in range(len(answer.body))]
        for part in parts if answer.drip_s else [answer.body]:
            await asyncio.sleep(answer.drip_s)
            writer.write(part)
            await writer.drain()


def _challenge(body: bytes) -> str | None:
    try:
        message = json.loads(body)
    except ValueError:
        return None
    if not isinstance(message, dict) or message.get("type") != "endpoint.challenge":
        return None
    return str(message["data"]["challenge"])


# --- ways to misbehave that write to the socket themselves ----------------------------------------


async def break_off(_: Received, writer: asyncio.StreamWriter) -> None:
    """Promise a hundred bytes, send ten, and close."""
    writer.write(b"HTTP/1.1 200 OK\r\ncontent-length: 100\r\n\r\n0123456789")
    await writer.drain()


async def say_nothing(_: Received, _writer: asyncio.StreamWriter) -> None:
    """Take the request and never answer."""
    await asyncio.Event().wait()


@dataclass
class Flood:
    """Answers 200 with so many bytes, and counts how many could be sent."""

    size: int
    sent: int = 0
    cut_off: bool = False
    over: asyncio.Event = field(default_factory=asyncio.Event)

    async def __call__(self, _: Received, writer: asyncio.StreamWriter) -> None:
        head = f"HTTP/1.1 200 OK\r\ncontent-length: {self.size}\r\n\r\n"
        writer.write(head.encode())
        part = bytes(64 * 1024)
        try:
            while self.sent < self.size:
                writer.write(part)
                await writer.drain()
                self.sent += len(part)
        except OSError:
            self.cut_off = True
        finally:
            self.over.set()
