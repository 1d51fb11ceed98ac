"""A receiver for a council developer's first hour: `georouter stub` takes webhooks and shows them.

It checks signatures as a council should, answers the challenge of a registration, tells a repeated
webhook-id, and misbehaves when told to. `listening` is its HTTP server, which also serves those who
receive by the thousand; it speaks as much HTTP/1.1 as webhooks need, and keeps nothing on disk.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from typing import Any, Final, Literal, get_args

from rich.console import Console
from rich.markup import escape

from api.delivery import signing

CHALLENGE: Final = "endpoint.challenge"
LARGEST_BODY: Final = 1_000_000
DRIP_S: Final = 1.0

# How an answer comes: whole, in drips, broken off in the middle, taken but never said, or not at
# all. Those but the first are ways to misbehave.
Manner = Literal["whole", "drip", "cut", "lost", "never"]
MANNERS: Final = get_args(Manner)


class StubError(Exception):
    """The stub cannot do as it was told."""


@dataclass(frozen=True, slots=True)
class Request:
    """A request as it came; header names in lower case."""

    method: str
    path: str
    headers: Mapping[str, str]
    body: bytes


@dataclass(frozen=True, slots=True)
class Answer:
    """What to answer, and in which manner."""

    status: int = 200
    body: bytes = b""
    headers: Mapping[str, str] = field(default_factory=dict)
    manner: Manner = "whole"

    @classmethod
    def of(cls, value: Any, status: int = 200) -> Answer:
        """A JSON answer."""
        return cls(status, json.dumps(value).encode(), {"content-type": "application/json"})


Handle = Callable[[Request], Awaitable[Answer]]


def parse_answer(text: str) -> Answer:
    """A status, or a manner to misbehave in. Raises `StubError`."""
    if text.isascii() and text.isdecimal() and 200 <= int(text) <= 599:
        retry = {"retry-after": "60"} if text == "429" else {}
        return Answer(int(text), b'{"reference": "STUB-1"}' if text[0] == "2" else b"", retry)
    for manner in MANNERS[1:]:
        if text == manner:
            return Answer(200, b'{"reference": "STUB-1"}', manner=manner)
    raise StubError(f"an answer is a status from 200 to 599, or {', '.join(MANNERS[1:])}: {text!r}")


def challenge_of(body: bytes) -> str | None:
    """The text that a registration's challenge wants back; None if it is another message."""
    with suppress(ValueError, KeyError, TypeError):
        message = json.loads(body)
        if message["type"] == CHALLENGE:
            return str(message["data"]["challenge"])
    return None


class Stub:
    """What the command does with each request; `now` gives Unix seconds."""

    def __init__(
        self,
        secrets: Sequence[str],
        answers: Sequence[Answer],
        *,
        console: Console,
        now: Callable[[], float],
    ) -> None:
        """Answer in turn, the last for ever. Raises `StubError` for a secret that is none."""
        try:
            for secret in secrets:
                signing.headers([secret], message_id="m", timestamp=0, body=b"")
        except signing.InvalidSecret as error:
            raise StubError(str(error)) from None
        self._secrets = tuple(secrets)
        self._answers = list(answers)
        self._console = console
        self._now = now
        self._seen: set[str] = set()

    async def handle(self, request: Request) -> Answer:
        """Check, show and answer one request."""
        if request.method != "POST":
            return Answer.of({"error": "webhooks are posted"}, 405)
        refusal = self._refusal(request)
        message_id = request.headers.get("webhook-id", "?")
        if refusal is not None:
            self._say(f"[bold red]NOT SIGNED BY GEOROUTER[/]: {escape(refusal)}; answered 401")
            return Answer.of({"error": f"not signed by georouter: {refusal}"}, 401)
        challenge = challenge_of(request.body)
        if challenge is not None:
            self._say("[bold]challenge[/]: given back; the endpoint becomes active")
            return Answer.of({"challenge": challenge})
        answer = self._answers.pop(0) if len(self._answers) > 1 else self._answers[0]
        self._show(request, message_id, answer)
        self._seen.add(message_id)
        return answer

    def _refusal(self, request: Request) -> str | None:
        refusal = None
        for secret in self._secrets:
            try:
                signing.verify(secret, request.headers, request.body, now=self._now())
            except signing.InvalidSignature as error:
                refusal = str(error)
            else:
                return None
        return refusal

    def _show(self, request: Request, message_id: str, answer: Answer) -> None:
        try:
            message = json.loads(request.body)
            kind, data = str(message["type"]), message["data"]
        except (ValueError, KeyError, TypeError):
            kind, data = "no message of ours", request.body[:2000].decode("utf-8", "replace")
        marks = ["signature ok" if self._secrets else "[yellow]signature not checked[/]"]
        if message_id in self._seen:
            marks.append("[yellow]seen before: take it once[/]")
        said = str(answer.status) if answer.manner == "whole" else answer.manner
        self._say(f"[bold]{escape(kind)}[/] {escape(message_id)} ({', '.join(marks)}) -> {said}")
        # As JSON a stranger's text has no control characters that a terminal would obey.
        self._say(escape(json.dumps(data, indent=2, ensure_ascii=True)))

    def _say(self, text: str) -> None:
        self._console.print(text, markup=True)


async def run_stub(stub: Stub, *, host: str, port: int, console: Console) -> None:
    """Serve until cancelled. Raises `StubError` when the address cannot be had."""
    try:
        async with listening(stub.handle, host=host, port=port) as bound:
            console.print(f"listening on http://{host}:{bound}/ (any path); Ctrl-C ends it")
            await asyncio.Event().wait()
    except OSError as error:
        raise StubError(f"cannot listen on {host}:{port}: {error.strerror}") from None


# --- the server -----------------------------------------------------------------------------------


@asynccontextmanager
async def listening(
    handle: Handle, *, host: str = "127.0.0.1", port: int = 0
) -> AsyncIterator[int]:
    """Serve `handle` on an address; gives the port. At the end all connections are closed."""
    conversations: set[asyncio.Task[Any]] = set()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None  # noqa: S101 - asyncio runs this in a task
        conversations.add(task)
        # A client that goes away, and our own end, are business as usual.
        with suppress(
            OSError, EOFError, ValueError, asyncio.LimitOverrunError, asyncio.CancelledError
        ):
            while await _converse(handle, reader, writer):
                pass
        conversations.discard(task)
        writer.close()

    server = await asyncio.start_server(serve, host, port)
    try:
        yield int(server.sockets[0].getsockname()[1])
    finally:
        server.close()
        for task in conversations:
            task.cancel()
        await asyncio.gather(*conversations, return_exceptions=True)


async def _converse(
    handle: Handle, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
) -> bool:
    """Read one request and answer it; whether the connection can take another."""
    request = await _read(reader)
    if request is None:
        await _write(Answer(411), writer)
        return False
    answer = await handle(request)
    if answer.manner == "never":
        # As long as the other side stays
        await reader.read(1)
        return False
    if answer.manner == "lost":
        return False
    return await _write(answer, writer)


async def _read(reader: asyncio.StreamReader) -> Request | None:
    """The next request; None for one without a usable length. Raises `EOFError` at the end."""
    head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1").split("\r\n")
    method, path, _ = head[0].split(" ", 2)
    pairs = (line.partition(":") for line in head[1:-2])
    headers = {name.lower(): value.strip() for name, _, value in pairs}
    length = headers.get("content-length", "0" if method != "POST" else "")
    if not (length.isascii() and length.isdecimal() and len(length) < 10):
        return None
    if int(length) > LARGEST_BODY:
        return None
    return Request(method, path, headers, await reader.readexactly(int(length)))


async def _write(answer: Answer, writer: asyncio.StreamWriter) -> bool:
    headers = {**answer.headers, "content-length": str(len(answer.body))}
    lines = [f"HTTP/1.1 {answer.status} X", *(f"{name}: {at}" for name, at in headers.items())]
    head = "\r\n".join([*lines, "", ""]).encode("latin-1")
    match answer.manner:
        case "cut":
            writer.write(head + answer.body[: len(answer.body) // 2])
        case "drip":
            writer.write(head)
            for n in range(len(answer.body)):
                await writer.drain()
                await asyncio.sleep(DRIP_S)
                writer.write(answer.body[n : n + 1])
        case _:
            writer.write(head + answer.body)
    await writer.drain()
    return answer.manner != "cut"
