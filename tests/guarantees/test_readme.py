"""The commands in the README are run, in order, as written."""

from __future__ import annotations

import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

from scripts.demo import temporary_folder

ROOT = Path(__file__).parents[2]
README = (ROOT / "README.md").read_text(encoding="utf-8")


def commands() -> list[str]:
    block = re.search(r"## By hand.*?```console\n(.*?)```", README, re.DOTALL)
    assert block is not None
    return [line for line in block[1].splitlines() if line.startswith("georouter ")]


def test_make_has_the_two_commands() -> None:
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    for target in re.findall(r"^make (\w+)$", README, re.MULTILINE):
        assert re.search(rf"^{target}:.*##", makefile, re.MULTILINE), target


def test_the_commands_by_hand_work(tmp_path: Path) -> None:
    (tmp_path / "boundaries").symlink_to(ROOT / "boundaries")
    said: dict[str, str] = {}
    with temporary_folder() as data_dir:
        environment = {
            **os.environ,  # noqa: TID251 - the user's own, so that PATH and HOME are real
            "GEOROUTER_DATA_DIR": str(data_dir),
            "PYTHONPATH": str(ROOT),
        }
        try:
            for command in commands():
                _, *arguments = shlex.split(command)
                if arguments == ["serve"]:  # stays up; the acceptance tests run it
                    continue
                done = subprocess.run(
                    [sys.executable, "-m", "scripts.cli", *arguments],
                    cwd=tmp_path,
                    env=environment,
                    capture_output=True,
                    text=True,
                    check=False,
                )
                assert done.returncode == 0, (command, done.stderr)
                said[arguments[0]] = done.stdout
        finally:
            subprocess.run(
                [sys.executable, "-m", "scripts.cli", "db", "stop"],
                cwd=tmp_path,
                env=environment,
                check=True,
                capture_output=True,
            )
    assert said["locate"].strip() in README
    assert said["keys"].startswith("grk_")
