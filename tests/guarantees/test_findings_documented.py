from __future__ import annotations

from pathlib import Path

from boundaries.findings import KINDS

OPERATIONS = Path(__file__).parents[2] / "docs" / "boundaries.md"


def test_every_kind_of_finding_is_documented_and_no_other() -> None:
    lines = OPERATIONS.read_text(encoding="utf-8").splitlines()
    begin = lines.index("| finding | severity | means |") + 2
    table = lines[begin : lines.index("", begin)]
    assert table == [
        f"| `{code}` | {kind.severity}{', stops every build' if kind.stops else ''} "
        f"| {kind.means} |"
        for code, kind in KINDS.items()
    ]
