"""The app guide's examples, run as they stand against the running application."""

from __future__ import annotations

import asyncio
import json
import os
import re
import shutil
import sys
from collections.abc import AsyncIterator
from pathlib import Path

import asyncpg
import pytest

from tests.support import node
from tests.support.pictures import encoded, pixels
from tests.support.web import Web, web

ROOT = Path(__file__).parents[2]
GUIDE = (ROOT / "docs" / "app-guide.md").read_text(encoding="utf-8")
SNAPSHOT = ROOT / "tests" / "guarantees" / "openapi.json"


def examples(language: str) -> str:
    """All examples in a language, one after the other."""
    found = re.findall(rf"^```{language}\n(.*?)^```", GUIDE, re.MULTILINE | re.DOTALL)
    assert found
    return "\n".join(found)


@pytest.fixture
async def site(database_url: str, tmp_path: Path) -> AsyncIterator[Web]:
    async with web(database_url, tmp_path / "site") as site:
        yield site


@pytest.fixture
def beside(tmp_path: Path) -> Path:
    """A folder with a photo, where an example runs."""
    folder = tmp_path / "app"
    folder.mkdir()
    (folder / "hole.jpg").write_bytes(encoded(pixels()))
    return folder


def run(site: Web, folder: Path, *command: str) -> str:
    return node.run(folder, *command, BASE=site.base, APP_KEY=site.keys["app"])


async def stored(pool: asyncpg.Pool) -> list[int]:
    """How many reports there are, and how many photos on reports."""
    row = await pool.fetchrow(
        """
        SELECT (SELECT count(*) FROM report) AS reports,
               (SELECT count(*) FROM photo WHERE attached_at IS NOT NULL) AS photos
        """
    )
    return list(row)


async def test_curl(site: Web, beside: Path, pool: asyncpg.Pool) -> None:
    if shutil.which("curl") is None or shutil.which("bash") is None:
        pytest.skip("curl is not installed: the guide's commands are not run")
    (beside / "steps.sh").write_text(f"set -euo pipefail\n{examples('sh')}")
    said = await asyncio.to_thread(run, site, beside, "bash", "steps.sh")
    receipt = json.loads((beside / "receipt.json").read_text())
    assert json.loads((beside / "again.json").read_text()) == receipt
    assert receipt["decision"]["authority"]["name"] == "Hearthmere"
    assert f'"report_id":"{receipt["id"]}"' in said
    assert '"last":1}' in said
    first, second = json.loads((beside / "batch.json").read_text())["items"]
    assert (first["status"], first["replayed"], first["receipt"]) == (201, True, receipt)
    assert second["problem"]["type"] == "urn:georouter:problem:invalid-idempotency-key"
    assert await stored(pool) == [1, 1]


async def test_python(site: Web, beside: Path, pool: asyncpg.Pool) -> None:
    (beside / "app.py").write_text(examples("python"))
    said = await asyncio.to_thread(run, site, beside, sys.executable, "app.py")
    assert "it is for Hearthmere\nReceived. " in said
    assert " received " in said
    assert not list((beside / "queue").iterdir())
    assert await stored(pool) == [1, 1]
    # What was reported already is shown to the next.
    said = await asyncio.to_thread(run, site, beside, sys.executable, "app.py")
    assert "reported already: A deep hole 0.0 m away" in said


async def test_python_type_checks(beside: Path) -> None:
    (beside / "app.py").write_text(examples("python"))
    command = (sys.executable, "-m", "mypy", "--strict", "--cache-dir", os.devnull, "app.py")
    await asyncio.to_thread(node.run, beside, *command)


async def test_typescript(site: Web, beside: Path, pool: asyncpg.Pool) -> None:
    await asyncio.to_thread(node.installed, beside)
    await asyncio.to_thread(node.types_of, SNAPSHOT, beside)
    (beside / "app.ts").write_text(examples("ts"))
    await asyncio.to_thread(node.compiled, beside, "app.ts")
    said = await asyncio.to_thread(run, site, beside, "node", "app.js")
    assert "it is for Hearthmere\nReceived. " in said
    assert " received " in said
    assert await stored(pool) == [1, 1]
