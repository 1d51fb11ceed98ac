"""What forwarding costs: throughput beside httpx alone, the claim, an idle worker, the first try.

Everything is real: a PostgreSQL of its own (as it is shipped, with fsync), worker processes, a stub
authority in a process of its own. Nothing is asserted; the last line is JSON.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import multiprocessing
import os
import secrets
import statistics
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from multiprocessing.queues import SimpleQueue
from pathlib import Path
from typing import Any, Final
from uuid import UUID, uuid4

import asyncpg
import httptools
import httpx

from api import db, embedded
from api.delivery import liveness, outbox, signing
from api.delivery.worker import PER_ENDPOINT
from api.store import reports
from api.store.followers import NewFollower
from scripts.demo import georouter_process, temporary_folder

SIGNED_POSTS: Final = 6_000
DELIVERIES: Final = 12_000
PROCESSES: Final = 2
ENDPOINTS: Final = 50
IN_FLIGHT: Final = 50
SECRET: Final = signing.new_secret(lambda size: bytes(range(size)))
DECISION: Final[dict[str, Any]] = {
    "state": "certain",
    "rule": "covering-area",
    "reason": "the point lies inside Hearthmere",
    "question": None,
    "category": "pothole",
    "tier": "highway",
    "dataset": "doggerland-1",
    "candidates": [],
}
DESCRIPTION: Final = "Deep hole in the left lane, about 40 cm wide, opposite the bus stop. " * 3
CLAIMS: Final = 30
IDLE_S: Final = 20.0
FIRST_TRIES: Final = 500
FIRST_TRIES_PER_S: Final = 50


def main() -> int:
    """Print the figures."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="not with 10^6 waiting deliveries")
    quick = parser.parse_args().quick
    with ExitStack() as stack:
        folder = stack.enter_context(temporary_folder())
        stack.callback(embedded.stop, folder / "postgres")
        dsn = embedded.ensure(folder / "postgres")
        port = stack.enter_context(_stub())
        print(json.dumps(asyncio.run(_measure(dsn, folder, port, quick=quick))))
    return 0


async def _measure(dsn: str, folder: Path, port: int, *, quick: bool) -> dict[str, Any]:
    await db.migrate(dsn)
    conn = await db.connect(dsn)
    try:
        url = f"http://127.0.0.1:{port}/intake"
        lone = await _prepare(conn, url, endpoints=1)
        place = await _prepare(conn, url, endpoints=ENDPOINTS)
        figures: dict[str, Any] = {"processes": PROCESSES}
        with _workers(1, dsn, folder) as (pid,):
            await asyncio.sleep(3)
            figures["idle_cpu_percent"] = await _idle_cpu(pid)
            print(f"idle worker: {figures['idle_cpu_percent']:.2f} % of a core over {IDLE_S:g} s")
            figures |= await _first_tries(dsn, conn, lone)
            print(
                f"first try after the commit: p50 {figures['first_try_p50_s'] * 1e3:.0f} ms, "
                f"p95 {figures['first_try_p95_s'] * 1e3:.0f} ms"
            )
        figures["httpx_per_s"] = _httpx_alone(port)
        figures["deliveries_per_s"] = await _throughput(dsn, folder, conn, place)
        figures["ratio_to_httpx"] = figures["deliveries_per_s"] / figures["httpx_per_s"]
        print(
            f"{PROCESSES} processes of httpx alone: {figures['httpx_per_s']:.0f} posts/s; of our "
            f"worker: {figures['deliveries_per_s']:.0f} deliveries/s "
            f"({figures['ratio_to_httpx']:.2f} x)"
        )
        figures["claim_ms"] = await _claim_costs(conn, place, [3, 4, 5] if quick else [3, 4, 5, 6])
        return figures
    finally:
        await conn.close()


# --- the parts ------------------------------------------------------------------------------------


async def _idle_cpu(pid: int) -> float:
    before = _cpu_s(pid)
    await asyncio.sleep(IDLE_S)
    return (_cpu_s(pid) - before) / IDLE_S * 100


def _cpu_s(pid: int) -> float:
    fields = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


async def _first_tries(dsn: str, conn: asyncpg.Connection, place: dict[str, Any]) -> dict[str, Any]:
    """Take reports in at a steady pace, as the web process does."""
    async with await db.create_pool(dsn, size=2) as pool, liveness.Notifier(pool) as notifier:
        for _ in range(FIRST_TRIES):
            async with db.acquire(pool) as each:
                await reports.insert_report(
                    each,
                    report_id=uuid4(),
                    idempotency_key=str(uuid4()),
                    request_sha256=bytes(32),
                    lon=2.0,
                    lat=55.0,
                    accuracy_m=5.0,
                    road_ref=None,
                    follower=NewFollower(
                        id=uuid4(), token_sha256=uuid4().bytes * 2, token=str(uuid4())
                    ),
                    chosen=None,
                    observed_at=None,
                    category="pothole",
                    description=DESCRIPTION,
                    answers={},
                    decision=DECISION,
                    # by name, so that the types are checked
                    api_key_id=place["api_key_id"],
                    dataset_id=place["dataset_id"],
                    authority_id=place["authority_id"],
                )
            notifier.poke()
            await asyncio.sleep(1 / FIRST_TRIES_PER_S)
        await _all_delivered(conn)
    waits: list[float] = [
        row["wait_s"]
        for row in await conn.fetch(
            """
            SELECT extract(epoch FROM started_at - received_at)::float8 AS wait_s
            FROM attempt
            JOIN delivery ON delivery.id = delivery_id
            JOIN report ON report.id = report_id
            WHERE n = 1
            """
        )
    ]
    cuts = statistics.quantiles(waits, n=100)
    return {"first_try_p50_s": cuts[49], "first_try_p95_s": cuts[94]}


def _httpx_alone(port: int) -> float:
    """Posts per second of processes that do nothing but sign and post with httpx."""
    results: SimpleQueue[tuple[float, float]] = _processes.SimpleQueue()
    running = [
        _processes.Process(target=_post_signed, args=(port, results)) for _ in range(PROCESSES)
    ]
    for process in running:
        process.start()
    for process in running:
        process.join()
    times = [results.get() for _ in running]
    return PROCESSES * SIGNED_POSTS / (max(end for _, end in times) - min(at for at, _ in times))


def _post_signed(port: int, results: SimpleQueue[tuple[float, float]]) -> None:
    asyncio.run(_post_all(f"http://127.0.0.1:{port}/intake", results))


async def _post_all(url: str, results: SimpleQueue[tuple[float, float]]) -> None:
    body = _body()
    left = iter(range(SIGNED_POSTS))

    async def post() -> None:
        for n in left:
            headers = signing.headers(
                [SECRET], message_id=str(n), timestamp=int(time.time()), body=body
            )
            headers["content-type"] = "application/json"
            (await client.post(url, content=body, headers=headers)).raise_for_status()

    limits = httpx.Limits(max_connections=IN_FLIGHT, max_keepalive_connections=IN_FLIGHT)
    async with httpx.AsyncClient(trust_env=False, limits=limits) as client:
        await client.post(url, content=body)
        started = time.time()
        await asyncio.gather(*(post() for _ in range(IN_FLIGHT)))
        results.put((started, time.time()))


def _body() -> bytes:
    """As long as what the worker sends."""
    report = {"id": str(UUID(int=1)), "description": DESCRIPTION, "lon": 2.0, "lat": 55.0}
    return json.dumps({"type": "report.created", "report": report, "decision": DECISION}).encode()


async def _throughput(
    dsn: str, folder: Path, conn: asyncpg.Connection, place: dict[str, Any]
) -> float:
    """Deliveries per second from the first attempt to the last settlement."""
    with _workers(PROCESSES, dsn, folder):
        await asyncio.sleep(3)
        since = await conn.fetchval("SELECT now()")
        await _owe(conn, place, DELIVERIES // ENDPOINTS)
        await conn.execute(f"NOTIFY {liveness.WAKE_UP}")
        await _all_delivered(conn)
    row = await conn.fetchrow(
        """
        SELECT count(*) AS attempts, max(finished_at) - min(started_at) AS took
        FROM attempt WHERE started_at >= $1
        """,
        since,
    )
    print(f"{row['attempts']} attempts for {DELIVERIES} deliveries")
    return float(DELIVERIES / row["took"].total_seconds())


async def _claim_costs(
    conn: asyncpg.Connection, place: dict[str, Any], powers: Sequence[int]
) -> dict[str, float]:
    """Median milliseconds to claim fifty of so many that wait, undone each time."""
    costs = {}
    waiting = 0
    for power in powers:
        await _owe(conn, place, (10**power - waiting) // ENDPOINTS)
        waiting = 10**power
        await conn.execute("VACUUM ANALYZE delivery")
        times = []
        for _ in range(CLAIMS):
            transaction = conn.transaction()
            await transaction.start()
            start = time.perf_counter()
            claimed = await outbox.claim(
                conn, worker=1, limit=IN_FLIGHT, lease_s=60.0, per_endpoint=PER_ENDPOINT
            )
            times.append(time.perf_counter() - start)
            await transaction.rollback()
            if len(claimed) != IN_FLIGHT:
                raise RuntimeError(f"claimed {len(claimed)}")
        costs[f"1e{power}"] = statistics.median(times) * 1e3
        print(f"claim of {IN_FLIGHT} with 10^{power} waiting: {costs[f'1e{power}']:.2f} ms")
    return costs


# --- what they stand on ---------------------------------------------------------------------------

# Not forked: an event loop and a database connection would be.
_processes = multiprocessing.get_context("spawn")


async def _prepare(conn: asyncpg.Connection, url: str, *, endpoints: int) -> dict[str, Any]:
    """An authority with so many endpoints at one address; what a report there refers to."""
    authority_id = await conn.fetchval(
        "INSERT INTO authority (name) VALUES ('Hearthmere') RETURNING id"
    )
    key_id = await conn.fetchval(
        """
        INSERT INTO api_key (secret_sha256, role, label) VALUES ($1, 'operator', 'bench')
        RETURNING id
        """,
        secrets.token_bytes(32),
    )
    dataset_id = await conn.fetchval(
        """
        INSERT INTO dataset (version, manifest) VALUES ($1, '{}')
        RETURNING id
        """,
        f"bench-{endpoints}",
    )
    await conn.execute(
        """
        INSERT INTO endpoint (authority_id, channel, url, secret, state, created_by)
        SELECT $1, 'webhook', $2, $3, 'active', $4 FROM generate_series(1, $5)
        """,
        authority_id,
        url,
        SECRET,
        key_id,
        endpoints,
    )
    return {"api_key_id": key_id, "dataset_id": dataset_id, "authority_id": authority_id}


async def _owe(conn: asyncpg.Connection, place: dict[str, Any], count: int) -> None:
    """So many reports, each owed to every endpoint, in one transaction."""
    await conn.execute(
        """
        WITH more AS (
            INSERT INTO report (id, api_key_id, lon, lat, category, description, decision,
                                dataset_id, authority_id, held_on_receipt)
            SELECT gen_random_uuid(), $2, 2.0, 55.0, 'pothole', $5, $6, $3, $4, false
            FROM generate_series(1, $1)
            RETURNING id
        )
        INSERT INTO delivery (report_id, endpoint_id)
        SELECT more.id, endpoint.id FROM more CROSS JOIN endpoint WHERE authority_id = $4
        """,
        count,
        place["api_key_id"],
        place["dataset_id"],
        place["authority_id"],
        DESCRIPTION,
        DECISION,
    )


async def _all_delivered(conn: asyncpg.Connection) -> None:
    left = "SELECT EXISTS (SELECT FROM delivery WHERE state IN ('pending', 'leased'))"
    while await conn.fetchval(left):  # noqa: ASYNC110 - the event is in another process
        await asyncio.sleep(0.1)


@contextmanager
def _workers(count: int, dsn: str, folder: Path) -> Iterator[list[int]]:
    """Worker processes as an operator starts them; their process ids."""
    environment = {
        "PATH": "/usr/bin:/bin",
        "GEOROUTER_DATABASE_URL": dsn,
        "GEOROUTER_EGRESS_ALLOW": '["127.0.0.0/8"]',
    }
    with ExitStack() as stack:
        yield [
            stack.enter_context(georouter_process("worker", environment, folder / f"worker{n}.log"))
            for n in range(count)
        ]


class _Answering(asyncio.Protocol):
    """One connection of the stub authority: reads a request, answers 200, stays open."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport: Any = transport
        self._parser = httptools.HttpRequestParser(self)

    def data_received(self, data: bytes) -> None:
        self._parser.feed_data(data)

    def on_message_complete(self) -> None:
        """Called by the parser."""
        body = b'{"reference": "HM-2026-10433"}'
        self._transport.write(
            b"HTTP/1.1 200 OK\r\ncontent-length: %d\r\n\r\n%b" % (len(body), body)
        )


@contextmanager
def _stub() -> Iterator[int]:
    """A stub authority in a process of its own; its port."""
    ports: SimpleQueue[int] = _processes.SimpleQueue()
    process = _processes.Process(target=_serve, args=(ports,), daemon=True)
    process.start()
    try:
        yield ports.get()
    finally:
        process.terminate()
        process.join()


def _serve(ports: SimpleQueue[int]) -> None:
    async def serve() -> None:
        server = await asyncio.get_running_loop().create_server(_Answering, "127.0.0.1", 0)
        ports.put(server.sockets[0].getsockname()[1])
        await server.serve_forever()

    asyncio.run(serve())


if __name__ == "__main__":
    sys.exit(main())
