"""Open streams of events: tells each that waits what became of its report.

However many there are, one task of the process asks the database for all of them at once, every
second and when one opens; a stream itself holds no connection. It promises each event after a
stream's number, once and in order, while the stream lasts; a client that comes back with its last
number misses none.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any, Final
from uuid import UUID

import asyncpg
import structlog

from api import db
from api.errors import TooManyStreams
from api.store import events

RETRY_S: Final = 30.0

log = structlog.get_logger()


class Stream:
    """One client's; `fresh` is what it has not been sent yet."""

    def __init__(self, report_id: UUID, n: int) -> None:
        self.report_id = report_id
        self.n = n
        self.ended = False
        self._fresh: list[Mapping[str, Any]] = []
        self._woken = asyncio.Event()

    @property
    def hungry(self) -> bool:
        """Whether it has taken all that there was: a slow client's rest waits in the database."""
        return not self.ended and not self._fresh

    def give(self, row: Mapping[str, Any]) -> None:
        """Add an event, unless it has it."""
        if row["n"] > self.n:
            self.n = row["n"]
            self._fresh.append(row)
            self._woken.set()

    def end(self) -> None:
        """Let it finish at once."""
        self.ended = True
        self._woken.set()

    async def take(self, *, within_s: float) -> list[Mapping[str, Any]]:
        """What is new, as soon as there is something; nothing if there is not, or it has ended."""
        try:
            async with asyncio.timeout(within_s):
                await self._woken.wait()
        except TimeoutError:
            return []
        if not self.ended:
            self._woken.clear()
        fresh, self._fresh = self._fresh, []
        return fresh


class Streams:
    """The streams of one web process, at most `limit`."""

    def __init__(self, pool: asyncpg.Pool, *, limit: int, every_s: float = 1.0) -> None:
        self._pool = pool
        self._limit = limit
        self._every_s = every_s
        self._open: set[Stream] = set()
        self._opened = asyncio.Event()
        self._ending = False

    def open(self, report_id: UUID, since: int) -> Stream:
        """A stream of what comes after number `since`. Raises `TooManyStreams`."""
        if len(self._open) >= self._limit:
            raise TooManyStreams(
                "this process serves as many streams as it may; ask again later, or poll",
                retry_after_s=RETRY_S,
            )
        stream = Stream(report_id, since)
        self._open.add(stream)
        if self._ending:
            stream.end()
        self._opened.set()
        return stream

    def close(self, stream: Stream) -> None:
        """Forget a stream."""
        stream.end()
        self._open.discard(stream)

    def end(self) -> None:
        """End all streams, and those to come: the process stops."""
        self._ending = True
        for stream in self._open:
            stream.end()

    @contextmanager
    def ended_by(self, hooks: list[Callable[[], object]]) -> Iterator[None]:
        """Be ended by whoever calls `hooks`, from whatever thread or signal handler."""
        loop = asyncio.get_running_loop()

        def hook() -> object:
            return loop.call_soon_threadsafe(self.end)

        hooks.append(hook)
        try:
            yield
        finally:
            hooks.remove(hook)
            self.end()

    async def run(self) -> None:
        """Feed the streams, for ever."""
        cut_off = False
        while True:
            await self._opened.wait()
            self._opened.clear()
            try:
                await self._feed()
                cut_off = False
            except db.DatabaseUnavailable:
                if not cut_off:
                    log.warning("streams wait", reason="database unavailable")
                cut_off = True
            except Exception:
                # A loop that ended would leave streams silent without a sign.
                log.exception("feeding streams failed")
            if self._open:
                try:
                    async with asyncio.timeout(self._every_s):
                        await self._opened.wait()
                except TimeoutError:
                    self._opened.set()

    async def _feed(self) -> None:
        waiting: dict[UUID, list[Stream]] = {}
        for stream in self._open:
            if stream.hungry:
                waiting.setdefault(stream.report_id, []).append(stream)
        if not waiting:
            return
        async with db.acquire(self._pool) as conn:
            since = {report: min(one.n for one in streams) for report, streams in waiting.items()}
            rows = await events.list_news(conn, since)
        for row in rows:
            for stream in waiting[row["report_id"]]:
                stream.give(row)
