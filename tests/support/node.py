"""What the tests of TypeScript clients need: node, and the packages of tests/clients."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest

CLIENTS = Path(__file__).parents[1] / "clients"
STRICT = ("--strict", "--noEmitOnError", "--module", "nodenext", "--target", "es2022")
MORE = ("--exactOptionalPropertyTypes", "--noUncheckedIndexedAccess", "--skipLibCheck", "false")


def installed(folder: Path) -> Path:
    """A folder with the packages in it; the test is skipped where they are not to be had."""
    if shutil.which("node") is None or shutil.which("npm") is None:
        pytest.skip("node and npm are not installed: TypeScript clients are not tested")
    for name in ("package.json", "package-lock.json"):
        shutil.copy(CLIENTS / name, folder / name)
    command = ["npm", "ci", "--no-audit", "--no-fund", "--ignore-scripts"]
    try:
        done = subprocess.run(
            command, cwd=folder, capture_output=True, text=True, timeout=180, check=False
        )
    except subprocess.TimeoutExpired:
        pytest.skip("npm ci takes too long: TypeScript clients are not tested")
    if done.returncode != 0:
        pytest.skip(f"npm ci found no packages: {done.stderr[-300:]}")
    return folder


def types_of(document: Path, folder: Path) -> None:
    """Generate `api.ts` of an OpenAPI document."""
    run(folder, "node_modules/.bin/openapi-typescript", str(document), "-o", "api.ts")


def compiled(folder: Path, name: str) -> None:
    """Compile a file strictly, and what it imports."""
    run(folder, "node_modules/.bin/tsc", *STRICT, *MORE, "--types", "node", name)


def run(folder: Path, *command: str, **environment: str) -> str:
    """What a command says; an assertion fails with its output if it fails."""
    done = subprocess.run(
        command,
        cwd=folder,
        env={"PATH": "/usr/local/bin:/usr/bin:/bin", "HOME": str(folder), **environment},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, f"{command[0]}: {done.stdout}\n{done.stderr}"
    return done.stdout
