"""Real UK boundaries, which lie beside the project and are no part of it."""

from __future__ import annotations

from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
FOLDER = ROOT.parent / "shared" / "data"


def real_data() -> Path:
    """The folder of real boundaries; skips the test, and says so, where it is absent."""
    if not (FOLDER / "README.md").is_file():
        pytest.skip(f"REAL DATA ABSENT: {FOLDER} does not exist; nothing is proved on it here")
    return FOLDER
