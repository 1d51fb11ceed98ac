"""HTTP load from a process of its own, over connections that stay open and are never idle.

It reads one JSON object a line (a `Burst`) and answers each with what it took, one line. It says
nothing of a server's capacity above what its connections ask for at once.
"""

from __future__ import annotations

import asyncio
import json
import sys
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any, Final, cast
from uuid import UUID, uuid4

import uvloop

FRESH: Final = b"{fresh}"
HEAD_ENDS: Final = b"\r\n\r\n"


@dataclass(frozen=True, slots=True)
class Burst:
    """Requests in turns, as they go over the wire; in each `{fresh}` is replaced by a new UUID.

    It ends after `seconds`, or when `requests` have been answered.
    """

    port: int
    connections: int
    texts: Sequence[str]
    seconds: float = 3600.0
    requests: int = sys.maxsize


@dataclass(frozen=True, slots=True)
class Came:
    """What a burst came to. `statuses` counts answers by status, `odd` is one that was no 2xx."""

    answered: int
    seconds: float
    p50_ms: float
    p99_ms: float
    statuses: dict[int, int]
    odd: str | None

    @property
    def per_s(self) -> float:
        """Answers in a second."""
        return self.answered / self.seconds


class _Round:
    """What the connections of a burst share."""

    def __init__(self, burst: Burst) -> None:
        self._texts = [text.encode() for text in burst.texts]
        self._limit = burst.requests
        self._until = time.perf_counter() + burst.seconds
        self._asked = 0
        self.times: list[float] = []
        self.statuses: Counter[int] = Counter()
        self.odd: str | None = None

    def next_text(self) -> bytes | None:
        """What to ask next; None when it is over."""
        if self._asked >= self._limit or time.perf_counter() >= self._until:
            return None
        self._asked += 1
        text = self._texts[self._asked % len(self._texts)]
        return text.replace(FRESH, str(uuid4()).encode()) if FRESH in text else text

    def note(self, head: bytes, body: bytes, took: float) -> None:
        """An answer has come."""
        status = int(head[9:12])
        self.times.append(took)
        self.statuses[status] += 1
        if status >= 300 and self.odd is None:
            self.odd = f"{status}: {body[:300].decode(errors='replace')}"


class _Connection(asyncio.Protocol):
    """Asks, reads the answer whole, asks again."""

    def __init__(self, shared: _Round) -> None:
        self._shared = shared
        self._came = b""
        self._asked_at = 0.0
        self.over: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)
        self._ask()

    def data_received(self, data: bytes) -> None:
        self._came += data
        head, found, body = self._came.partition(HEAD_ENDS)
        if not found:
            return
        length = int(head.lower().partition(b"\r\ncontent-length:")[2].partition(b"\r\n")[0] or 0)
        if len(body) < length:
            return
        self._came = b""
        self._shared.note(head, body, time.perf_counter() - self._asked_at)
        self._ask()

    def connection_lost(self, exc: Exception | None) -> None:
        if not self.over.done():
            self.over.set_exception(exc or ConnectionError("the server hung up"))

    def _ask(self) -> None:
        text = self._shared.next_text()
        if text is None:
            self.over.set_result(None)
            self._transport.close()
            return
        self._asked_at = time.perf_counter()
        self._transport.write(text)


async def run(burst: Burst) -> Came:
    """Make a burst; raises `OSError` where the server does not keep up its side."""
    shared = _Round(burst)
    loop = asyncio.get_running_loop()
    started = time.perf_counter()
    opened = [
        await loop.create_connection(lambda: _Connection(shared), "127.0.0.1", burst.port)
        for _ in range(burst.connections)
    ]
    await asyncio.gather(*(connection.over for _, connection in opened))
    took = time.perf_counter() - started
    times = sorted(shared.times)
    return Came(
        answered=len(times),
        seconds=took,
        p50_ms=times[len(times) // 2] * 1e3,
        p99_ms=times[len(times) * 99 // 100] * 1e3,
        statuses=dict(shared.statuses),
        odd=shared.odd,
    )


def spell(
    method: str, path: str, key: str | None = None, body: Any = None, *, label: bool = False
) -> str:
    """A request as it goes over the wire; `label` gives each its own Idempotency-Key."""
    content = "" if body is None else json.dumps(body)
    length = len(content.replace(FRESH.decode(), str(UUID(int=0))))
    lines = [
        f"{method} {path} HTTP/1.1",
        "host: bench",
        *([f"authorization: Bearer {key}"] if key else []),
        *(["content-type: application/json", f"content-length: {length}"] if content else []),
        *([f"idempotency-key: {FRESH.decode()}"] if label else []),
    ]
    return "\r\n".join([*lines, "", ""]) + content


def main() -> int:
    """Make the bursts that standard input asks for, until it ends."""
    for line in sys.stdin:
        came = uvloop.run(run(Burst(**json.loads(line))))
        print(json.dumps(asdict(came)), flush=True)  # noqa: T201 - its answer
    return 0


if __name__ == "__main__":
    sys.exit(main())
