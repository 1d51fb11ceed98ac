from __future__ import annotations

import asyncio
import os
import subprocess
import sys
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import asyncpg
import pytest

from tests.support.app import Api, serving

ROOT = Path(__file__).parents[2]


@pytest.fixture
async def api(database_url: str, pool: asyncpg.Pool) -> AsyncIterator[Api]:
    async with serving(database_url, pool) as api:
        yield api


@pytest.fixture
def georouter(database_url: str, tmp_path: Path) -> Any:
    """`georouter boundaries ...` on the test's database, run beside the test."""
    environment = {
        **os.environ,  # noqa: TID251 - the user's own, so that PATH and HOME are real
        "GEOROUTER_DATABASE_URL": database_url,
        "GEOROUTER_DATA_DIR": str(tmp_path / "data"),
        "PYTHONPATH": str(ROOT),
        "COLUMNS": "200",
    }

    def run(*arguments: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, "-m", "scripts.cli", "boundaries", *arguments],
            cwd=tmp_path,
            env=environment,
            capture_output=True,
            text=True,
            check=False,
        )

    async def run_beside(*arguments: str) -> subprocess.CompletedProcess[str]:
        return await asyncio.to_thread(run, *arguments)

    return run_beside
