"""A short chaos run, and a search of all that it wrote for secrets."""

from __future__ import annotations

import base64
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from api.delivery import signing
from scripts.chaos import EVIDENCE
from tests.acceptance.test_demo import left_behind

ROOT = Path(__file__).parents[2]
REPORTS, KILLS = 300, 8


@dataclass(frozen=True, slots=True)
class Ran:
    figures: dict[str, Any]
    said: str
    folder: Path
    left_behind: list[str]


@pytest.fixture(scope="module")
def ran(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Ran]:
    # Short enough for a unix socket, and open to the user that runs PostgreSQL for root
    with tempfile.TemporaryDirectory(prefix="gr-") as name:
        tmp = Path(name)
        tmp.chmod(0o711)
        folder = tmp_path_factory.mktemp("chaos")
        sizes = ["--reports", str(REPORTS), "--kills", str(KILLS), "--seed", "7"]
        done = subprocess.run(
            [sys.executable, "-m", "scripts.chaos", *sizes, "--keep", str(folder)],
            cwd=ROOT,
            env={"PATH": os.defpath, "HOME": name, "TMPDIR": name},
            capture_output=True,
            text=True,
            check=False,
            timeout=280,
        )
        assert done.returncode == 0, done.stdout + done.stderr
        figures = json.loads(done.stdout.splitlines()[-1])
        yield Ran(figures, done.stdout + done.stderr, folder, left_behind(tmp))


def test_nothing_is_lost_doubled_or_misrouted(ran: Ran) -> None:
    figures = ran.figures
    assert figures["acknowledged"] == REPORTS
    assert figures["delivered"] + figures["waiting"] == REPORTS
    assert [figures[name] for name in ("lost", "misrouted", "doubled", "faults")] == [0] * 4
    # All who behave have what is theirs, and something of each kind was killed.
    assert figures["delivered"] >= REPORTS * 41 // 50
    assert figures["kills"] == KILLS
    assert figures["killed"].keys() == {"worker", "web", "database", "backend"}
    assert ran.left_behind == []


def test_no_secret_is_in_anything_written(ran: Ran) -> None:
    kept = json.loads((ran.folder / "secrets.json").read_text())
    assert len(kept["endpoints"]) == 50
    secrets = [*kept["endpoints"], *kept["keys"], kept["vault"]]
    spelled = {secret.encode(): secret for secret in secrets}
    for secret in kept["endpoints"]:
        encoded = secret.removeprefix(signing.PREFIX)
        spelled[encoded.encode()] = secret
        spelled[base64.b64decode(encoded).hex().encode()] = secret
    written = {path.name: path.read_bytes() for path in (ran.folder / EVIDENCE).iterdir()}
    assert written.keys() == {
        *("web-0.log", "web-1.log", "worker-0.log", "worker-1.log", "log"),
        *("answers", "payloads", "dump"),
    }
    # Not empty, and what they should be
    assert written["answers"].count(b"application/problem+json") >= 10
    assert written["payloads"].count(b"report.created") >= REPORTS * 41 // 50
    assert written["dump"].count(b"\nreport ") >= REPORTS - 1
    assert b"delivery_attempted" in written["worker-0.log"] + written["worker-1.log"]
    assert b'"request"' in written["web-0.log"]
    for name, content in (*written.items(), ("what it said", ran.said.encode())):
        shown = [spelled[one][:12] for one in spelled if one in content]
        assert shown == [], name
