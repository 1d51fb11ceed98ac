"""Events polled and streamed, the streams over real sockets."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import socket
import sys
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any
from uuid import UUID

import asyncpg
import httpx
import pytest
import uvicorn

from api import db
from api.routes import event_stream
from api.store import events
from api.streams import Streams
from tests.support import rows
from tests.support.app import WEST, Api, serving, slug

ROOT = Path(__file__).parents[2]
STREAM = {"Accept": "text/event-stream"}


async def tell(api: Api, report_id: str, state: str) -> None:
    path = f"/v1/authorities/{api.authorities[WEST]}/reports/{report_id}/updates"
    assert (await api.post(path, update_id=state, state=state)).status_code == 201


async def reported(api: Api) -> tuple[str, str]:
    report_id = (await api.post_report()).json()["id"]
    async with db.acquire(api.pool) as conn:
        return report_id, await rows.follower(conn, report_id)


@asynccontextmanager
async def on_socket(api: Api) -> AsyncIterator[httpx.AsyncClient]:
    server = uvicorn.Server(uvicorn.Config(api.app, log_config=None, lifespan="off"))
    with socket.create_server(("127.0.0.1", 0)) as listening:
        base = f"http://127.0.0.1:{listening.getsockname()[1]}"
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(server.serve(sockets=[listening]))
            try:
                async with httpx.AsyncClient(base_url=base, timeout=30) as client:
                    yield client
            finally:
                server.should_exit = True


class Reader:
    """Reads a stream's messages: (id, data), or ("", None) for a comment."""

    def __init__(self, response: httpx.Response) -> None:
        self._lines = response.aiter_lines()

    async def next(self) -> tuple[str, Any]:
        fields: dict[str, str] = {}
        async for line in self._lines:
            if line:
                name, _, value = line.partition(":")
                fields[name] = value.strip()
            elif "data" in fields:
                return fields["id"], json.loads(fields["data"])
            elif "" in fields:
                return "", None
            else:
                assert fields == {"retry": "3000"}
                fields = {}
        raise EOFError


async def until_the_end(reader: Reader) -> None:
    while True:
        await reader.next()


# --- polling --------------------------------------------------------------------------------------


async def test_polling_costs_nothing_while_nothing_is_new(api: Api) -> None:
    report_id, token = await reported(api)
    for path in (f"/v1/reports/{report_id}/events", f"/v1/track/{token}/events"):
        first = await api.get(path)
        assert first.json()["last"] == 1
        assert [one["n"] for one in first.json()["items"]] == [1]
        known = {**api.headers("app"), "If-None-Match": first.headers["etag"]}
        again = await api.client.get(path, params={"since": 1}, headers=known)
        assert (again.status_code, again.content) == (304, b"")
    await tell(api, report_id, "planned")
    for path in (f"/v1/reports/{report_id}/events", f"/v1/track/{token}/events"):
        answer = await api.client.get(path, params={"since": 1}, headers=known)
        assert answer.status_code == 200
        assert [one["state"] for one in answer.json()["items"]] == ["planned"]
        assert answer.json()["last"] == 2
    assert (await api.get(path, since=2)).json()["items"] == []
    assert slug(await api.get(path, since=-1)) == "validation-failed"


async def test_events_are_for_those_who_may_read_the_report(api: Api) -> None:
    report_id, _ = await reported(api)
    path = f"/v1/reports/{report_id}/events"
    seen = {key: (await api.get(path, key=key)).status_code for key in api.keys}
    assert seen == {
        "app": 200,
        "other app": 404,
        "council": 200,
        "other council": 404,
        "operator": 200,
    }
    assert (await api.client.get(path)).status_code == 401
    stream = await api.client.get(path, headers={**api.headers("other app"), **STREAM})
    assert slug(stream) == "not-found"


# --- streams --------------------------------------------------------------------------------------


async def test_a_stream_tells_what_was_and_what_comes(api: Api) -> None:
    report_id, token = await reported(api)
    headers = {**api.headers("app"), **STREAM}
    async with (
        on_socket(api) as client,
        client.stream("GET", f"/v1/track/{token}/events", headers=STREAM) as mine,
        client.stream("GET", f"/v1/reports/{report_id}/events", headers=headers) as apps,
    ):
        assert mine.headers["content-type"].startswith("text/event-stream")
        assert mine.headers["referrer-policy"] == "no-referrer"
        own, other = Reader(mine), Reader(apps)
        assert (await own.next())[1]["sentence"].startswith("We received the report.")
        assert (await other.next())[0] == "1"
        await tell(api, report_id, "planned")
        assert await own.next() == (
            "2",
            {**(await own_last(api, token)), "sentence": "West has planned the work."},
        )
        number, told = await other.next()
        assert (number, told["state"]) == ("2", "planned")


async def own_last(api: Api, token: str) -> dict[str, Any]:
    return dict((await api.client.get(f"/v1/track/{token}/events")).json()["items"][-1])


async def test_who_comes_back_gets_what_was_missed(api: Api) -> None:
    report_id, token = await reported(api)
    await tell(api, report_id, "planned")
    await tell(api, report_id, "fixed")
    async with on_socket(api) as client:
        for headers, query, first in (
            ({"Last-Event-ID": "2"}, {}, "3"),
            ({}, {"since": "1"}, "2"),
            ({"Last-Event-ID": "2"}, {"since": "1"}, "3"),
            ({"Last-Event-ID": "garbage"}, {"since": "2"}, "3"),
        ):
            asked = {**STREAM, **headers}
            path = f"/v1/track/{token}/events"
            async with client.stream("GET", path, headers=asked, params=query) as response:
                assert (await Reader(response).next())[0] == first


async def test_a_silent_stream_is_kept_open_by_comments_and_ends_in_time(
    api: Api, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = event_stream.EventStream.__init__

    def shorter(*arguments: Any) -> None:
        made(*arguments, heartbeat_s=0.05, lasts_s=1.0)

    monkeypatch.setattr(event_stream.EventStream, "__init__", shorter)
    _, token = await reported(api)
    async with on_socket(api) as client:
        path = f"/v1/track/{token}/events?since=1"
        async with client.stream("GET", path, headers=STREAM) as response:
            reader = Reader(response)
            assert [await reader.next() for _ in range(3)] == [("", None)] * 3
            with pytest.raises(EOFError):
                await until_the_end(reader)
        assert not api.app.state.wiring.streams._open


async def test_there_are_only_so_many_streams(database_url: str, pool: asyncpg.Pool) -> None:
    async with serving(database_url, pool, max_streams=2) as api:
        _, token = await reported(api)
        path = f"/v1/track/{token}/events"
        async with on_socket(api) as client:
            async with (
                client.stream("GET", path, headers=STREAM) as first,
                client.stream("GET", path, headers=STREAM),
            ):
                reader = Reader(first)  # kept: the connection ends with it
                await reader.next()
                refused = await client.get(path, headers=STREAM)
                assert (refused.status_code, slug(refused)) == (503, "too-many-streams")
                assert int(refused.headers["retry-after"]) > 0
                assert (await client.get(path)).status_code == 200  # polling goes on
            while api.app.state.wiring.streams._open:  # noqa: ASYNC110 - theirs to notice
                await asyncio.sleep(0.01)
            async with client.stream("GET", path, headers=STREAM) as third:
                assert third.status_code == 200


async def test_streams_hold_no_connection(database_url: str, pool: asyncpg.Pool) -> None:
    async with serving(database_url, pool, database_pool=1) as api:
        report_id, token = await reported(api)
        streams = [api.app.state.wiring.streams.open(UUID(report_id), 1) for _ in range(50)]
        assert (await api.client.get(f"/v1/track/{token}")).status_code == 200
        await tell(api, report_id, "fixed")
        for stream in streams:
            [row] = await stream.take(within_s=10)
            assert row["n"] == 2
            api.app.state.wiring.streams.close(stream)


async def test_a_cut_off_database_costs_a_stream_no_event(
    pool: asyncpg.Pool, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with db.acquire(pool) as conn:
        report_id = await rows.report(conn, await rows.authority(conn))
        for kind in ("received", "photo"):
            await events.add_event(conn, report_id, kind=kind)
    asked = events.list_news
    failures = iter([db.DatabaseUnavailable("gone"), ValueError("a bug")])

    async def failing(*arguments: Any) -> Any:
        for failure in failures:
            raise failure
        return await asked(*arguments)

    monkeypatch.setattr(events, "list_news", failing)
    streams = Streams(pool, limit=9, every_s=0.01)
    async with asyncio.TaskGroup() as tasks:
        feed = tasks.create_task(streams.run())
        ahead, behind = streams.open(report_id, 1), streams.open(report_id, 0)
        assert [row["n"] for row in await behind.take(within_s=10)] == [1, 2]
        assert [row["n"] for row in await ahead.take(within_s=10)] == [2]
        feed.cancel()


async def test_a_stopped_server_does_not_wait_for_its_streams(
    database_url: str, pool: asyncpg.Pool, tmp_path: Path
) -> None:
    async with db.acquire(pool) as conn:
        report_id = await rows.report(conn, await rows.authority(conn))
        await events.add_event(conn, report_id, kind="received")
        token = await rows.follower(conn, report_id)
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
    environment = {
        **os.environ,  # noqa: TID251 - the user's own, so that PATH and HOME are real
        "GEOROUTER_DATABASE_URL": database_url,
        "GEOROUTER_DATA_DIR": str(tmp_path),
        "GEOROUTER_PORT": str(port),
        "PYTHONPATH": str(ROOT),
    }
    server = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "scripts.cli", "serve"),
        env=environment,
        stderr=asyncio.subprocess.PIPE,
    )
    try:
        async with httpx.AsyncClient(base_url=f"http://127.0.0.1:{port}", timeout=60) as client:
            until = time.monotonic() + 60
            while time.monotonic() < until:
                try:
                    await client.get("/healthz")
                    break
                except httpx.TransportError:
                    await asyncio.sleep(0.1)
            path = f"/v1/track/{token}/events"
            async with client.stream("GET", path, headers=STREAM) as response:
                reader = Reader(response)
                assert (await reader.next())[0] == "1"
                server.send_signal(signal.SIGTERM)
                with pytest.raises(EOFError):  # at its end, rather than cut off
                    await reader.next()
            async with asyncio.timeout(10):
                assert await server.wait() in {0, -signal.SIGTERM}
        assert server.stderr is not None
        assert token.encode() not in await server.stderr.read()
    finally:
        if server.returncode is None:
            server.kill()
            await server.wait()
