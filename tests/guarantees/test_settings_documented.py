from __future__ import annotations

from pathlib import Path

from api.settings import Settings

OPERATIONS = Path(__file__).parents[2] / "docs" / "operations.md"


def test_every_setting_is_documented_and_no_other() -> None:
    documented = {
        line.split("`")[1]
        for line in OPERATIONS.read_text(encoding="utf-8").splitlines()
        if line.startswith("| `GEOROUTER_")
    }
    assert documented == {f"GEOROUTER_{name.upper()}" for name in Settings.model_fields}
