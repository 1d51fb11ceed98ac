"""Clients that others' generators make of the OpenAPI document compile, and work."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from tests.support import node
from tests.support.web import Web, web

SNAPSHOT = Path(__file__).parents[1] / "guarantees" / "openapi.json"
PYTHON = """
import os
from georouter_client import AuthenticatedClient
from georouter_client.api.locate import locate
from georouter_client.api.reports import get_report, post_report
from georouter_client.models import DecisionOut, Posted, ReportIn, ReportOut

client = AuthenticatedClient(base_url=os.environ["BASE"], token=os.environ["APP_KEY"])
where = locate.sync(client=client, lon=2.12, lat=54.71, category="pothole")
assert isinstance(where, DecisionOut), where
body = ReportIn(lon=2.12, lat=54.71, category="pothole", description="A deep hole")
posted = post_report.sync(client=client, body=body, idempotency_key="one")
again = post_report.sync(client=client, body=body, idempotency_key="one")
assert isinstance(posted, Posted) and again == posted, (posted, again)
shown = get_report.sync(posted.id, client=client)
assert isinstance(shown, ReportOut), shown
print(shown.events[0].kind)
"""
TYPESCRIPT = """
import type { operations, paths } from "./api.js";

type Post = operations["postReport"];
type Body = Post["requestBody"]["content"]["application/json"];
type Posted = Post["responses"][201]["content"]["application/json"];
const path: keyof paths = "/v1/reports";
const headers = { Authorization: `Bearer ${process.env["APP_KEY"]}` };
const place = { lon: 2.12, lat: 54.71, category: "pothole", description: "A deep hole" };
const body: Partial<Body> = place;
const answer = await fetch(process.env["BASE"] + path, {
  method: "POST",
  headers: { ...headers, "Content-Type": "application/json", "Idempotency-Key": "one" },
  body: JSON.stringify(body),
});
const posted = (await answer.json()) as Posted;
type Shown = operations["getReport"]["responses"][200]["content"]["application/json"];
const found = await fetch(process.env["BASE"] + posted.links.self, { headers });
const shown = (await found.json()) as Shown;
console.log(shown.events[0]?.kind);
"""


@pytest.fixture
async def site(database_url: str, tmp_path: Path) -> AsyncIterator[Web]:
    async with web(database_url, tmp_path / "site") as site:
        yield site


async def test_openapi_python_client(site: Web, tmp_path: Path) -> None:
    def tell(*command: str) -> str:
        return node.run(tmp_path, *command, BASE=site.base, APP_KEY=site.keys["app"])

    made = await asyncio.to_thread(
        tell,
        *(sys.executable, "-m", "openapi_python_client", "generate"),
        *("--url", f"{site.base}/openapi.json"),
        *("--meta", "none", "--output-path", "georouter_client"),
    )
    # What it cannot express it leaves out with a warning; the main path is not among that.
    assert "postReport" not in made
    await asyncio.to_thread(tell, sys.executable, "-m", "compileall", "-q", "georouter_client")
    (tmp_path / "use.py").write_text(PYTHON)
    checked = ("--strict", "--follow-imports", "silent", "--cache-dir", "/dev/null", "use.py")
    await asyncio.to_thread(tell, sys.executable, "-m", "mypy", *checked)
    assert await asyncio.to_thread(tell, sys.executable, "use.py") == "received\n"


async def test_openapi_typescript(site: Web, tmp_path: Path) -> None:
    folder = tmp_path / "client"
    folder.mkdir()
    await asyncio.to_thread(node.installed, folder)
    await asyncio.to_thread(node.types_of, SNAPSHOT, folder)
    (folder / "use.ts").write_text(TYPESCRIPT)
    await asyncio.to_thread(node.compiled, folder, "use.ts")
    said = await asyncio.to_thread(
        node.run, folder, "node", "use.js", BASE=site.base, APP_KEY=site.keys["app"]
    )
    assert said == "received\n"
