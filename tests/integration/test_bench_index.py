"""The benchmark of the index runs through, and its answers agree with its peers'.

It asserts no time: how fast a shared machine is says nothing.
"""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]


def run(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", *arguments],
        cwd=ROOT,
        check=False,
        capture_output=True,
        text=True,
        timeout=240,
    )


def test_benchmark_without_real_boundaries_says_so_and_agrees_with_its_peers(
    tmp_path: Path,
) -> None:
    image = tmp_path / "growth.png"
    arguments = ("--quick", "--data", str(tmp_path / "none"), "--plot", str(image))
    done = run("scripts.bench_index", *arguments)
    assert done.returncode == 0, done.stderr
    assert "IS NOT HERE" in done.stderr
    assert "sjoin" in done.stdout
    found = json.loads(done.stdout.splitlines()[-1])
    assert found["mismatches"] == 0
    assert found["compared"] > 50_000
    assert {"single_population_p50", "bulk_border", "open", "size", "build_s"} <= set(
        found["figures"]
    )
    assert [row["name"] for row in found["growth"]] == ["example", "invented_16", "invented_64"]
    assert image.stat().st_size > 10_000


def test_long_check_finds_no_mismatch_on_the_example_country(tmp_path: Path) -> None:
    done = run("scripts.verify_index", "--points", "60000", "--data", str(tmp_path / "none"))
    assert done.returncode == 0, done.stdout
    found = json.loads(done.stdout.splitlines()[-1])
    assert found["mismatches"] == 0
    assert found["points"] > 59_000
    assert found["exact_points"] > 5_000
    assert found["single_points"] == found["points"]
