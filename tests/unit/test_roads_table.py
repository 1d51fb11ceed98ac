"""The table of special roads: what it means, and how what it cannot mean is refused."""

from __future__ import annotations

from datetime import date
from pathlib import Path

import pytest

import boundaries
from boundaries.readers import SourceError, SourceNotFoundError
from boundaries.roads import AreaOperator, RoadsSource
from boundaries.roads_table import read_roads_table

EXAMPLE = Path(boundaries.__file__).with_name("roads.example.toml")
ONE = """
[[trunk]]
file = "roads.gpkg"
operator = { code = "X1", name = "Roads" }
"""
SHARED = """
[[trunk]]
file = "roads.gpkg"
areas_of = "district"
operators = [{ code = "X1", name = "Roads", areas = ["A"] }]
"""


def read(folder: Path, text: str) -> dict[str, list[RoadsSource]]:
    (folder / "roads.toml").write_text(text, encoding="utf-8")
    return read_roads_table(folder / "roads.toml")


def test_little_need_be_said(tmp_path: Path) -> None:
    assert read(tmp_path, ONE) == {
        "trunk": [
            RoadsSource(tmp_path / "roads.gpkg", body=("X1", "Roads"), number_field="road"),
        ]
    }


def test_all_that_can_be_said(tmp_path: Path) -> None:
    text = """
    [[red_route]]
    file = "red.gpkg"
    operator_code_field = "body"
    operator_name_field = "body_name"

    [[trunk]]
    file = "sub/roads.gpkg"
    number_field = "number"
    buffer_m = 12
    buffer_by_class = { dual = 20.5, single = 9 }
    class_field = "kind"
    operator = { code = "REST", name = "The rest" }
    areas_of = "district"
    valid_from = 2026-04-01
    valid_to = 2034-04-01
    valid_from_field = "opened"
    valid_to_field = "closed"

    [[trunk.operators]]
    code = "N"
    name = "North"
    areas = ["A", "B"]

    [[trunk.operators]]
    code = "S"
    name = "South"
    file = "contracts.gpkg"
    areas = ["A"]

    [[trunk]]
    file = "more.gpkg"
    operator = { code = "M", name = "More" }
    """
    found = read(tmp_path, text)
    assert list(found) == ["red_route", "trunk"]
    assert found["red_route"][0].body_fields == ("body", "body_name")
    assert found["trunk"][0] == RoadsSource(
        path=tmp_path / "sub/roads.gpkg",
        body=("REST", "The rest"),
        buffer_m=12.0,
        buffer_by_class={"dual": 20.5, "single": 9.0},
        class_field="kind",
        number_field="number",
        operators=(
            AreaOperator(("N", "North"), ("A", "B")),
            AreaOperator(("S", "South"), ("A",), tmp_path / "contracts.gpkg"),
        ),
        areas_of="district",
        valid_from=date(2026, 4, 1),
        valid_to=date(2034, 4, 1),
        valid_from_field="opened",
        valid_to_field="closed",
    )
    assert found["trunk"][1].path == tmp_path / "more.gpkg"


def test_the_example_parses_and_covers_the_nations() -> None:
    found = read_roads_table(EXAMPLE)
    assert list(found) == ["trunk", "red_route"]
    england, wales, scotland = found["trunk"]
    assert england.body == ("NATIONAL-HIGHWAYS", "National Highways")
    north, south = wales.operators
    assert (north.body[0], len(north.areas)) == ("NMWTRA", 8)
    assert (south.body[0], len(south.areas)) == ("SWTRA", 14)
    # 1 to 24 without the codes of 7 and 17, which were replaced
    codes = {f"W060000{n:02}" for n in range(1, 25) if n not in {7, 17}}
    assert set(north.areas) | set(south.areas) == codes
    assert all(one.file and "FILL IN" in one.body[1] for one in scotland.operators)
    assert found["red_route"][0].body == ("TFL", "Transport for London")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("[[trunk]]\nfile = ", "line 2: this is no TOML: .*; correct that line"),
        ("trunk = 1", "line 1: the file: trunk must list tables, one for each trunk source"),
        ('[[trunk]]\noperator = "X"', "line 2: trunk source 1, operator must be a table"),
        ("[[trunk]]\nbuffer_m = 9", "trunk source 1 has no file; add it"),
        ('[[trunk]]\nfile = "a"', "trunk source 1 does not say who mends the roads; add operator,"),
        (
            ONE + "bufer_m = 9",
            "line 5: trunk source 1: 'bufer_m' means nothing here, 'buffer_m' does; remove or",
        ),
        (ONE + "buffer_m = 0", "line 5: trunk source 1: buffer_m is in metres .* from 0.1 to 200"),
        (ONE + "buffer_m = nan", "line 5: trunk source 1: buffer_m must be a number"),
        (ONE + "buffer_by_class = { motorway = 900 }", "buffer_by_class is in metres each side"),
        (ONE + "buffer_by_class = { dual = 20 }", "name the field that holds 'dual' as class_fi"),
        (ONE + 'class_field = "kind"', "line 5: .* class_field goes with buffer_by_class; add"),
        (ONE + 'valid_from = "soon"', "line 5: .* valid_from must be a date such as 2027-04-01"),
        (
            ONE + "valid_from = 2027-04-01\nvalid_to = 2027-04-01",
            "line 6: .* it would end before it begins",
        ),
        (ONE + 'areas_of = "district"', "areas_of names the layer in which the areas of operat"),
        (SHARED.replace("areas_of", "# "), "areas_of names the layer in which the areas of oper"),
        (SHARED.replace(', areas = ["A"]', ""), "operator 1 does not say where; add areas, or a"),
        (SHARED.replace('["A"]', "[]"), 'operator 1: areas must list codes of areas, such as "W'),
        (SHARED.replace('["A"]', '["A", "A"]'), "line 5: .* area 'A' is given twice; remove one"),
        (
            SHARED + 'operator_code_field = "a"\noperator_name_field = "b"',
            "operators and fields exclude each other; remove one of them",
        ),
        (ONE + 'operator_code_field = "a"', "trunk source 1 has no operator_name_field; add it"),
    ],
)
def test_what_means_nothing_is_refused(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(SourceError, match=message) as refused:
        read(tmp_path, text)
    assert str(refused.value).startswith(f"{tmp_path / 'roads.toml'}, line ")


def test_a_table_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(SourceNotFoundError, match="does not exist"):
        read_roads_table(tmp_path / "roads.toml")
    (tmp_path / "roads.toml").write_bytes(b"\xff\xfe")
    with pytest.raises(SourceError, match="it must be a text in UTF-8"):
        read_roads_table(tmp_path / "roads.toml")
