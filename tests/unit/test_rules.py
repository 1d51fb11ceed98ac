"""The rules' files: what they say, and what is said of a fault in them."""

from __future__ import annotations

from datetime import date
from pathlib import Path

import pytest

from api.routing import load_rules
from georouter.model import AnswerType
from georouter.rules import FILES, RulesError, parse_rules

CATEGORIES = """\
[tiers.highway]
layers = ["highway", "district"]
roads = [
  # comment
  { layer = "red_route", required_in = ["E09*"], categories = ["pothole"] },
  { layer = "trunk", number = 'M\\d+' },
]

[categories.pothole]
name = "Pothole"
description = "A hole."
tier = "highway"

[categories.pothole.questions.depth_cm]
ask = "How deep is it?"
type = "number"
unit = "cm"
least = 0
most = 200

[categories.pothole.questions.where]
ask = "Where on the road?"
type = "choice"
required = true
choices = { edge = "At the edge", middle = "In the middle" }

[categories.pothole.questions.cycles]
ask = "Do cycles go there?"
type = "yes_no"

[emergencies.danger]
text = "Call at once."
phone = "999"
areas = ["E*"]
categories = ["pothole"]

[emergencies.danger.when.pothole]
depth_cm = 30
where = ["middle"]
cycles = true
"""
AGREEMENTS = """\
[agreements.bridge]
body = "E06000001"
name = "Next Door"
reason = "agency agreement of 1974"
tiers = ["highway"]
ring = [[1.0, 50.0], [1.1, 50.0], [1.1, 50.1], [1.0, 50.0]]
from = 2020-01-01
to = 2030-01-01

[agreements.whole]
body = "DEPT"
name = "The Department"
reason = "by law"
categories = ["pothole"]
areas = ["N09*"]
"""
SUCCESSIONS = """\
# a county that is divided
[[successions]]
on = 2027-04-01
reason = "the order"
to_be_checked = true
ends = ["C", "D1", "D2"]

[[successions.successors]]
code = "EAST"
name = "East"
areas = ["D1"]

[[successions.successors]]
code = "WEST"
name = "West"
areas = ["D2"]
"""
TEXTS = {
    "categories.toml": CATEGORIES,
    "agreements.toml": AGREEMENTS,
    "successions.toml": SUCCESSIONS,
}


def test_everything_that_can_be_said() -> None:
    rules = parse_rules(TEXTS)

    (pothole,) = rules.categories.values()
    assert pothole.tier.layers == ("highway", "district")
    red, trunk = pothole.tier.roads
    assert (red.layer, red.required_in, red.categories) == ("red_route", ("E09*",), ("pothole",))
    assert (trunk.layer, trunk.number) == ("trunk", r"M\d+")
    depth, where, _ = pothole.questions
    assert (depth.type, depth.unit, depth.bounds) == (AnswerType.NUMBER, "cm", (0.0, 200.0))
    assert where.required
    assert where.choices["edge"] == "At the edge"
    (danger,) = rules.emergencies
    assert (danger.text, danger.phone, danger.areas) == ("Call at once.", "999", ("E*",))
    assert danger.categories == {"pothole"}
    assert danger.at_least == {("pothole", "depth_cm"): 30.0}
    assert danger.answers == {
        ("pothole", "where"): ("middle",),
        ("pothole", "cycles"): (True,),
    }
    bridge, whole = rules.agreements
    assert bridge.ring == ((1.0, 50.0), (1.1, 50.0), (1.1, 50.1))
    assert (bridge.valid_from, bridge.valid_to) == (date(2020, 1, 1), date(2030, 1, 1))
    assert bridge.categories == whole.categories == {"pothole"}
    assert whole.areas == ("N09*",)
    (surrey,) = rules.successions
    assert (surrey.on, surrey.to_be_checked) == (date(2027, 4, 1), True)
    assert [one.areas for one in surrey.successors] == [("D1",), ("D2",)]


def test_the_version_changes_with_any_word() -> None:
    versions = {parse_rules(TEXTS).version}
    for name in FILES:
        versions.add(parse_rules({**TEXTS, name: TEXTS[name] + "# more\n"}).version)
    assert len(versions) == 4
    assert parse_rules(TEXTS).version in versions


@pytest.mark.parametrize(
    ("file", "old", "new", "line", "message"),
    [
        ("categories", 'tier = "highway"', 'tier = "sky"', 12, "there is no tier 'sky'; take one"),
        ("categories", 'tier = "highway"\n', "\n", 9, "category 'pothole' has no tier; add it"),
        ("categories", 'name = "Pothole"', 'name = " "', 10, "name must be a text that says"),
        ("categories", 'name = "Pothole"', "name = 7", 10, "name must be a text that says"),
        ("categories", '"A hole."', '"A hole."\ncolour = 1', 12, "'colour' means nothing here"),
        ("categories", "[categories.pothole]", f"[categories.{'p' * 65}]", 9, "at most 64 char"),
        ("categories", '["highway", "district"]', "[]", 2, "layers must list the right one first"),
        ("categories", '["highway", "district"]', '["highway", 1]', 2, "layers must list"),
        ("categories", 'layer = "trunk", ', "", 3, "tier 'highway', road rule 2 has no layer"),
        ("categories", r"'M\d+'", "'('", 3, "number '(' is no regular expression"),
        ("categories", 'categories = ["pothole"]', 'categories = ["x"]', 3, "no category 'x'"),
        ("categories", 'type = "number"', 'type = "colour"', 16, "type must be one of yes_no,"),
        ("categories", "most = 200", "most = -1", 18, "the bounds of a number, in this order"),
        ("categories", "most = 200", 'most = "x"', 19, "most must be a number"),
        ("categories", "most = 200", "most = inf", 19, "most must be a number"),
        ("categories", "questions.where]", f"questions.{'q' * 65}]", 21, "at most 64 characters"),
        ("categories", "required = true", "required = 1", 24, "required must be true or false"),
        (
            "categories",
            'choices = { edge = "At the edge", middle',
            "choices = []#",
            25,
            "codes and",
        ),
        ("categories", 'phone = "999"', "", 31, "emergency 'danger' has no phone; add it"),
        (
            "categories",
            'categories = ["pothole"]\n\n',
            'categories = ["x"]\n',
            35,
            "no category 'x'",
        ),
        ("categories", "when.pothole]", "when.x]", 37, "there is no category 'x'"),
        ("categories", "depth_cm = 30", "deep = 30", 38, "there is no question 'deep'"),
        ("categories", "depth_cm = 30", "depth_cm = true", 38, "depth_cm must be a number"),
        ("categories", '["middle"]', '["centre"]', 39, "'centre' is no choice of it"),
        ("categories", "cycles = true", 'cycles = ["a"]', 40, "cycles must be true or false"),
        ("categories", "[tiers.highway]", "[tiers.highway", 1, "this is no TOML: "),
        ("categories", CATEGORIES, "[tiers]", 1, "tables are wanted here, one for each tier"),
        ("categories", CATEGORIES, "tiers = 1", 1, "tables are wanted here"),
        ("categories", CATEGORIES, "", 1, "the file has no tiers; add it"),
        ("agreements", 'tiers = ["highway"]', 'tiers = ["sky"]', 5, "no category is of tier 'sky'"),
        ("agreements", 'tiers = ["highway"]', "", 1, "neither categories nor tiers"),
        ("agreements", 'categories = ["pothole"]', 'categories = ["x"]', 14, "no category 'x'"),
        ("agreements", 'areas = ["N09*"]', "", 10, "must say where: a ring, or roads, areas"),
        ("agreements", "[1.0, 50.0], [1.1, 50.0]", "[1.0, 50.0], [1.1]", 6, "pairs of longitude"),
        ("agreements", "[1.0, 50.0], [1.1, 50.0]", "[1.0, 50.0], [191.0, 5]", 6, "lon must be"),
        ("agreements", "[1.1, 50.0], [1.1, 50.1]", "[1.0, 50.0]", 6, "must have 3 to 1000"),
        ("agreements", "2030-01-01", "2019-01-01", 8, "it would end before it begins"),
        ("agreements", "2030-01-01", '"2019-01-01"', 8, "to must be a date such as"),
        ("agreements", "2030-01-01", "2019-01-01T00:00:00", 8, "to must be a date such as"),
        ("successions", "on = 2027-04-01", "", 2, "has no on; add the day"),
        ("successions", 'areas = ["D2"]', "", 2, "each needs the areas that it takes"),
        ("successions", 'areas = ["D2"]', 'areas = ["D1"]', 2, "D1 is given to two successors"),
        ("successions", 'code = "WEST"', "", 13, "succession 1, successor 2 has no code"),
    ],
)
def test_a_fault_is_named_with_its_line_and_remedy(
    file: str, old: str, new: str, line: int, message: str
) -> None:
    name = f"{file}.toml"
    assert old in TEXTS[name]
    with pytest.raises(RulesError) as raised:
        parse_rules({**TEXTS, name: TEXTS[name].replace(old, new, 1)})
    assert message in str(raised.value)
    assert (raised.value.file, raised.value.line) == (name, line)
    assert str(raised.value).startswith(f"{name}, line {line}: ")


def test_an_emergency_says_when_it_is_one() -> None:
    start = CATEGORIES.index('categories = ["pothole"]\n\n')
    with pytest.raises(RulesError, match=r"line 31: .* is never one; add categories, or answers"):
        parse_rules({**TEXTS, "categories.toml": CATEGORIES[:start]})


def test_no_more_questions_than_a_report_may_answer() -> None:
    asked = "".join(
        f'[categories.pothole.questions.q{n}]\nask = "?"\ntype = "yes_no"\n' for n in range(27)
    )
    assert len(parse_rules({**TEXTS, "categories.toml": CATEGORIES + asked}).categories) == 1
    one_more = asked + asked[:60].replace("q0", "q27")
    with pytest.raises(RulesError, match="more than 30 questions; remove some"):
        parse_rules({**TEXTS, "categories.toml": CATEGORIES + one_more})


def test_a_body_ends_once() -> None:
    with pytest.raises(RulesError, match="C ends twice, in succession 1 too") as raised:
        parse_rules({**TEXTS, "successions.toml": SUCCESSIONS + SUCCESSIONS})
    assert raised.value.line == SUCCESSIONS.count("\n") + 6  # where the second one says so


@pytest.mark.parametrize("ends", ['["C", "D1", "EAST"]', '["C", "WEST"]'])
def test_nobody_takes_over_who_has_ended(ends: str) -> None:
    texts = {**TEXTS, "successions.toml": SUCCESSIONS.replace('["C", "D1", "D2"]', ends)}
    with pytest.raises(RulesError, match=r"line 2: .* takes over, but ends on 2027-04-01 itself"):
        parse_rules(texts)


def test_the_shipped_ones_load() -> None:
    rules = load_rules(None)
    assert rules.categories["pothole"].tier.layers == ("highway", "district")
    assert rules.categories["litter"].tier.layers == ("district", "highway")
    assert all(code == category.code for code, category in rules.categories.items())


def test_each_file_of_an_operator_replaces_the_one_shipped(tmp_path: Path) -> None:
    (tmp_path / "agreements.toml").write_text("", encoding="utf-8")
    rules = load_rules(tmp_path)
    assert rules.agreements == ()
    assert rules.categories == load_rules(None).categories
    assert rules.version != load_rules(None).version


def test_a_folder_without_rules_and_a_file_that_cannot_be_read(tmp_path: Path) -> None:
    with pytest.raises(RulesError, match="GEOROUTER_RULES"):
        load_rules(tmp_path)
    (tmp_path / "agreements.toml").write_bytes("# hôle".encode("latin-1"))
    with pytest.raises(RulesError, match=r"agreements\.toml: it cannot be read"):
        load_rules(tmp_path)
