"""`georouter demo --once` does the whole job as a user starts it, and leaves nothing behind."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


def demo(tmp: Path, *arguments: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-m", "scripts.cli", "demo", *arguments],
        cwd=ROOT,
        env={"PATH": os.defpath, "HOME": str(tmp), "TMPDIR": str(tmp), "PYTHONUNBUFFERED": "1"},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


@pytest.fixture
def tmp() -> Iterator[Path]:
    """Short enough for a unix socket, and open to the user that runs PostgreSQL for root."""
    folder = Path(tempfile.mkdtemp(prefix="gr-"))
    folder.chmod(0o711)
    yield folder
    folder.rmdir()  # fails if anything is left in it


def left_behind(tmp: Path) -> list[str]:
    found = [str(path) for path in tmp.iterdir() if "georouter" in path.name]
    tmp_bytes = os.fsencode(tmp)
    for process in Path("/proc").glob("[0-9]*"):
        try:
            command = (process / "cmdline").read_bytes()
        except OSError:
            continue
        if tmp_bytes in command:
            found.append(command.replace(b"\0", b" ").decode())
    return found


def test_once_does_the_job_and_leaves_nothing(tmp: Path) -> None:
    process = demo(tmp, "--once")
    said, _ = process.communicate(timeout=120)
    assert process.returncode == 0, said
    assert "every report arrived where it should, once, signed" in said
    assert left_behind(tmp) == []


@pytest.mark.parametrize("ending", [signal.SIGINT, signal.SIGTERM])
def test_it_stays_up_until_told_to_end(tmp: Path, ending: signal.Signals) -> None:
    process = demo(tmp)
    assert process.stdout is not None
    said = ""
    deadline = time.monotonic() + 90
    while "/docs" not in said and time.monotonic() < deadline:
        line = process.stdout.readline()
        assert line, said
        said += line
    process.send_signal(ending)
    process.communicate(timeout=60)
    assert left_behind(tmp) == []
