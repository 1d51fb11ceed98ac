"""The apps of `chaos`: HTTP clients on a bad line that do not give up.

On bare streams: a client library would take more of the cores than the service.
"""

from __future__ import annotations

import asyncio
import json
import random
from collections.abc import Mapping, Sequence
from contextlib import suppress
from typing import Any, Final, Self

PATIENCE_S: Final = 10.0


class Refused(Exception):  # noqa: N818 - reads as the sentence it is
    """An answer that trying again does not change."""


class Client:
    """Asks one of the web processes, and on any failure the next, until there is an answer.

    `answers`, if given, gets each answer as it came, those that show a new secret left out.
    """

    def __init__(
        self, ports: Sequence[int], answers: list[str] | None, chance: random.Random | None = None
    ) -> None:
        self._ports = ports
        self._answers = answers
        self._at = chance.randrange(len(ports)) if chance else 0
        self._link: tuple[asyncio.StreamReader, asyncio.StreamWriter] | None = None

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        self._hang_up()

    async def insist(
        self,
        method: str,
        path: str,
        key: str,
        body: Mapping[str, Any] | None = None,
        label: str | None = None,
    ) -> dict[str, Any]:
        """The answer to a request, which must be a success in the end."""
        while True:
            try:
                status, found = await self._exchange(method, path, key, body, label)
            except (OSError, EOFError, TimeoutError):
                status = 0
            if 200 <= status < 300:
                return found
            if 400 <= status < 500:
                raise Refused(f"{method} {path} answered {status}: {found}")
            self._hang_up()
            await asyncio.sleep(0.1)

    async def ask(
        self, method: str, path: str, key: str, body: Mapping[str, Any] | None = None
    ) -> None:
        """Make a request whose answer does not matter."""
        await self._exchange(method, path, key, body, None)

    async def send_and_hang_up(
        self, path: str, key: str, body: Mapping[str, Any], label: str
    ) -> None:
        """Post, and do not hear the answer."""
        with suppress(OSError):
            _, writer = await self._connected()
            writer.write(_spell("POST", path, key, body, label))
            await writer.drain()
        self._hang_up()

    async def _exchange(
        self,
        method: str,
        path: str,
        key: str,
        body: Mapping[str, Any] | None,
        label: str | None,
    ) -> tuple[int, dict[str, Any]]:
        async with asyncio.timeout(PATIENCE_S):
            reader, writer = await self._connected()
            writer.write(_spell(method, path, key, body, label))
            head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1").lower()
            length = int(head.partition("content-length:")[2].partition("\r\n")[0])
            text = (await reader.readexactly(length)).decode()
        status = int(head.split(" ", 2)[1])
        if self._answers is not None and '"secret":"whsec_' not in text:
            self._answers.append(f"{head}{text}")
        return status, json.loads(text)

    async def _connected(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        if self._link is None:
            self._at = (self._at + 1) % len(self._ports)
            self._link = await asyncio.open_connection("127.0.0.1", self._ports[self._at])
        return self._link

    def _hang_up(self) -> None:
        if self._link is not None:
            self._link[1].close()
            self._link = None


def _spell(
    method: str, path: str, key: str, body: Mapping[str, Any] | None, label: str | None
) -> bytes:
    content = b"" if body is None else json.dumps(body).encode()
    lines = [
        f"{method} {path} HTTP/1.1",
        "host: chaos",
        f"authorization: Bearer {key}",
        "content-type: application/json",
        f"content-length: {len(content)}",
        *([f"idempotency-key: {label}"] if label else []),
    ]
    return "\r\n".join([*lines, "", ""]).encode() + content
