"""A bad line: forwards connections to a local port late, and breaks them, as its chances want it.

What it breaks off while it goes up never arrives whole; what it breaks off on the way down was
done, and only the answer is lost. It reads nothing of what passes.
"""

from __future__ import annotations

import asyncio
import random
from collections import Counter
from contextlib import suppress
from typing import Final, Self

CHUNK: Final = 16_384
HANGS_S: Final = 30.0


class BadLine:
    """Listens on `port` while it is entered; `fates` counts what became of connections.

    Of ten connections six are slow only; the others break on the way up or down, or hang.
    """

    def __init__(self, to: int, chance: random.Random, *, latency_s: float = 0.05) -> None:
        self.port = 0
        self.fates: Counter[str] = Counter()
        self._to = to
        self._chance = chance
        self._latency_s = latency_s

    async def __aenter__(self) -> Self:
        self._tasks = await asyncio.TaskGroup().__aenter__()
        self._serving: set[asyncio.Task[None]] = set()
        self._server = await asyncio.start_server(self._accept, "127.0.0.1", 0)
        self.port = self._server.sockets[0].getsockname()[1]
        return self

    async def __aexit__(self, *_: object) -> None:
        self._server.close()
        for task in list(self._serving):
            task.cancel()
        await self._tasks.__aexit__(None, None, None)
        await self._server.wait_closed()

    def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = self._tasks.create_task(self._serve(reader, writer))
        self._serving.add(task)
        task.add_done_callback(self._serving.discard)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        fate = self._chance.choices(
            ["slow", "cut up", "cut down", "no answer", "hangs"], [60, 15, 10, 13, 2]
        )[0]
        self.fates[fate] += 1
        there: asyncio.StreamWriter | None = None
        try:
            back, there = await asyncio.open_connection("127.0.0.1", self._to)
            up = self._chance.randrange(60_000) if fate == "cut up" else None
            down = {"cut down": self._chance.randrange(1, 400), "no answer": 0}.get(fate)
            # The first that ends, ends both.
            async with asyncio.TaskGroup() as ways:
                ways.create_task(self._carry(reader, there, up, hangs=fate == "hangs"))
                ways.create_task(self._carry(back, writer, down))
        except* (OSError, _Broken):
            pass
        finally:
            for one in (there, writer):
                if one is not None:
                    one.transport.abort()  # to the other side it is as if the line were dead

    async def _carry(
        self,
        source: asyncio.StreamReader,
        target: asyncio.StreamWriter,
        cut_after: int | None,
        *,
        hangs: bool = False,
    ) -> None:
        """Pass on what comes, until either end has enough; raises `_Broken` then."""
        carried = 0
        while data := await source.read(CHUNK):
            await asyncio.sleep(self._chance.uniform(0, self._latency_s))
            if hangs and carried:
                await asyncio.sleep(HANGS_S)
            if cut_after is not None and carried + len(data) >= cut_after:
                target.write(data[: cut_after - carried])
                with suppress(OSError):
                    await target.drain()
                raise _Broken
            target.write(data)
            await target.drain()
            carried += len(data)
        raise _Broken


class _Broken(Exception):  # noqa: N818 - reads as what it is
    """The line is broken, or done with."""
