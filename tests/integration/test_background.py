"""The worker process whole: what a council's answer sets off reaches the next council by itself."""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from ipaddress import ip_network
from pathlib import Path

import pytest
from pydantic import SecretStr

from api import db
from api.background import run_background
from api.settings import Settings
from tests.support.app import KEY, SHIRE, WEST, Api
from tests.support.stub_authority import OK, Answer, StubAuthority

BESIDE = {"lon": 0.9999, "lat": 50.5}  # 7 m west of the border, in West


@asynccontextmanager
async def background(api: Api, dsn: str) -> AsyncIterator[None]:
    stop = asyncio.Event()
    settings = Settings(
        database_url=SecretStr(dsn),
        egress_allow=(ip_network("127.0.0.0/8"),),
        dataset_poll_s=0.05,
        delivery_mode="live",
        secret_keys=SecretStr(KEY),
        photos="memory:///",
    )
    async with asyncio.TaskGroup() as tasks:
        tasks.create_task(run_background(settings, stop=stop, open_version=api.shelf.open))
        try:
            yield
        finally:
            stop.set()


async def test_not_ours_reaches_the_neighbour(api: Api, database_url: str) -> None:
    async with StubAuthority() as stub:
        answer = {"not_ours": True, "responsible": SHIRE}
        stub.answer("/west", Answer(422, json.dumps(answer).encode()))
        stub.answer("/shire", OK)
        await api.register(WEST, url=stub.url("/west"))
        await api.register(SHIRE, url=stub.url("/shire"))
        posted = (await api.post_report(**BESIDE)).json()
        async with background(api, database_url):
            await stub.wait_for(2)
            async with asyncio.timeout(5):
                while True:
                    report = (await api.get(f"/v1/reports/{posted['id']}")).json()
                    if report["state"] == "forwarded":
                        break
                    await asyncio.sleep(0.05)
        west, shire = stub.received
        assert (west.path, shire.path) == ("/west", "/shire")
        message = json.loads(shire.body)
        assert message["data"]["authority"]["name"] == "Shire"
        assert message["data"]["decision"]["rule"] == "named"
        assert message["data"]["report"]["id"] == posted["id"]
        assert west.headers["webhook-id"] != shire.headers["webhook-id"]


async def test_an_attempt_is_in_the_log_a_moment_later(api: Api, database_url: str) -> None:
    async with StubAuthority() as stub:
        stub.answer("/west", OK)
        await api.register(WEST, url=stub.url("/west"))
        posted = (await api.post_report()).json()
        async with background(api, database_url), asyncio.timeout(10):
            while True:
                events = (await api.get(f"/v1/reports/{posted['id']}")).json()["events"]
                if len(events) > 1:
                    break
                await asyncio.sleep(0.05)
    assert [event["kind"] for event in events] == ["received", "attempted"]
    assert (events[1]["outcome"], events[1]["authority"]) == ("delivered", "West")


async def test_it_stops_when_it_is_told_and_waits_for_a_database(api: Api) -> None:
    async with asyncio.timeout(10), background(api, "postgresql://nobody@127.0.0.1:9/nothing"):
        await asyncio.sleep(0.2)


async def test_a_database_without_the_schema_is_said_plainly(empty_database_url: str) -> None:
    settings = Settings(
        database_url=SecretStr(empty_database_url), delivery_mode="dry_run", photos="memory:///"
    )
    with pytest.raises(db.SchemaOutdated, match="georouter migrate"):
        await run_background(settings, stop=asyncio.Event())


@pytest.mark.parametrize("command", ["serve", "worker"])
async def test_a_process_that_cannot_start_says_why_in_a_line(
    command: str, empty_database_url: str, tmp_path: Path
) -> None:
    done = await asyncio.to_thread(
        subprocess.run,
        [sys.executable, "-m", "scripts.cli", command],
        cwd=Path(__file__).parents[2],
        env={
            "PATH": os.defpath,
            "GEOROUTER_DATABASE_URL": empty_database_url,
            "GEOROUTER_DATA_DIR": str(tmp_path),
        },
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    assert done.returncode == 1
    assert "Traceback" not in done.stderr
    assert done.stderr.splitlines()[-1].endswith("run `georouter migrate` first")
