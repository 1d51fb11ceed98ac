"""Events as they come: an answer of server-sent events that lasts.

Each event carries its number as id; a comment every `HEARTBEAT_S` keeps the line open and finds out
that nobody is there. After `LASTS_S` it ends, and the client comes back by itself: who may no
longer see the report is told so then.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from typing import Any, Final

from pydantic import BaseModel
from starlette.background import BackgroundTask
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from api.streams import Stream, Streams

MEDIA_TYPE: Final = "text/event-stream"
HEARTBEAT_S: Final = 15.0
LASTS_S: Final = 600.0
RETRY_MS: Final = 3000
LAST_EVENT_ID: Final = {"description": "Sent by browsers that come back: goes before `since`."}

Shape = Callable[[Mapping[str, Any]], BaseModel | None]


def wanted(accept: str) -> bool:
    """Whether a stream is asked for."""
    return MEDIA_TYPE in accept


def beginning(since: int, last_event_id: str | None) -> int:
    """After which number to begin."""
    given = last_event_id or ""
    return int(given) if given.isascii() and given.isdigit() and len(given) < 10 else since


class EventStream(Response):
    """A stream's answer; `shape` makes what is sent of an event, or nothing."""

    def __init__(
        self,
        streams: Streams,
        stream: Stream,
        shape: Shape,
        headers: Mapping[str, str],
        *,
        heartbeat_s: float = HEARTBEAT_S,
        lasts_s: float = LASTS_S,
    ) -> None:
        self.status_code = 200
        self.media_type = MEDIA_TYPE
        self.background: BackgroundTask | None = None
        self.body = b""
        # For proxies that would collect what is sent
        self.init_headers({**headers, "Cache-Control": "no-store", "X-Accel-Buffering": "no"})
        del self.headers["content-length"]
        self._streams = streams
        self._stream = stream
        self._shape = shape
        self._heartbeat_s = heartbeat_s
        self._lasts_s = lasts_s

    async def __call__(self, _scope: Scope, receive: Receive, send: Send) -> None:
        """Send what comes, until one of us goes."""
        try:
            await send(
                {
                    "type": "http.response.start",
                    "status": self.status_code,
                    "headers": self.raw_headers,
                }
            )
            async with asyncio.TaskGroup() as tasks:
                leaving = tasks.create_task(self._until_left(receive))
                try:
                    async with asyncio.timeout(self._lasts_s):
                        await self._send_events(send)
                except TimeoutError:
                    pass
                leaving.cancel()
            await send({"type": "http.response.body", "body": b"", "more_body": False})
        finally:
            self._streams.close(self._stream)

    async def _send_events(self, send: Send) -> None:
        await _write(send, f"retry: {RETRY_MS}\n\n")
        while not self._stream.ended:
            fresh = await self._stream.take(within_s=self._heartbeat_s)
            for row in fresh:
                shaped = self._shape(row)
                if shaped is not None:
                    await _write(send, f"id: {row['n']}\ndata: {shaped.model_dump_json()}\n\n")
            if not fresh and not self._stream.ended:
                await _write(send, ":\n\n")

    async def _until_left(self, receive: Receive) -> None:
        while (await receive())["type"] != "http.disconnect":
            pass
        self._stream.end()


async def _write(send: Send, text: str) -> None:
    await send({"type": "http.response.body", "body": text.encode(), "more_body": True})
