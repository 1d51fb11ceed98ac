"""Answers against a category's questions, and the schema that says the same."""

from __future__ import annotations

from typing import Any

import pytest

from api.routing import load_rules
from api.schemas import CategoryOut
from georouter.model import AnswerType, Category, Emergency, Question, Tier
from georouter.questions import (
    LONGEST_TEXT,
    answers_schema,
    check_answers,
    emergencies_at,
    emergency_schema,
    is_emergency,
)

LAMP = Category(
    "lamp",
    "Lamp",
    "A lamp.",
    Tier("highway", ("highway",)),
    (
        Question("out", "Is it out?", AnswerType.YES_NO, required=True),
        Question("height", "How high?", AnswerType.NUMBER, unit="m", bounds=(0.5, 12)),
        Question("tilt", "How far does it lean?", AnswerType.NUMBER),
        Question("column", "What number is on it?", AnswerType.TEXT),
        Question(
            "colour", "What colour?", AnswerType.CHOICE, choices={"w": "White", "y": "Yellow"}
        ),
    ),
)
PLAIN = Category("plain", "Plain", "Asks nothing.", LAMP.tier)


@pytest.mark.parametrize(
    "answers",
    [
        {"out": True},
        {"out": False, "height": 0.5, "tilt": -1e300, "column": "7", "colour": "w"},
        {"out": False, "height": 12, "column": "x" * LONGEST_TEXT},
    ],
)
def test_answers_that_fit(answers: dict[str, Any]) -> None:
    assert check_answers(LAMP, answers) == []
    assert check_answers(PLAIN, {}) == []


@pytest.mark.parametrize(
    ("answers", "code", "message"),
    [
        ({}, "out", "is required: Is it out?"),
        ({"out": 1}, "out", "must be true or false"),
        ({"out": "yes"}, "out", "must be true or false"),
        ({"out": True, "height": 0.49}, "height", "must be a number of m from 0.5 to 12"),
        ({"out": True, "height": 12.01}, "height", "must be a number of m from 0.5 to 12"),
        ({"out": True, "height": "6"}, "height", "must be a number of m from 0.5 to 12"),
        ({"out": True, "height": True}, "height", "must be a number of m from 0.5 to 12"),
        ({"out": True, "height": float("nan")}, "height", "must be a number of m from 0.5 to 12"),
        ({"out": True, "tilt": float("inf")}, "tilt", "must be a number"),
        ({"out": True, "tilt": 10**400}, "tilt", "must be a number"),
        ({"out": True, "column": 7.0}, "column", "must be a text of 1 to 500 characters"),
        ({"out": True, "column": ""}, "column", "must be a text of 1 to 500 characters"),
        ({"out": True, "column": "x" * 501}, "column", "must be a text of 1 to 500 characters"),
        ({"out": True, "colour": "White"}, "colour", "must be one of: w, y"),
        ({"out": True, "colour": True}, "colour", "must be one of: w, y"),
        (
            {"out": True, "watts": 60.0},
            "watts",
            "is no question of 'lamp'; known are: out, height, tilt, column, colour",
        ),
    ],
)
def test_answers_that_do_not(answers: dict[str, Any], code: str, message: str) -> None:
    assert check_answers(LAMP, answers) == [(code, message)]


def test_every_fault_is_named() -> None:
    faults = check_answers(LAMP, {"watts": 60.0, "height": 0.0})
    assert [code for code, _ in faults] == ["out", "height", "watts"]
    assert check_answers(PLAIN, {"out": True}) == [
        ("out", "is no question of 'plain'; it has none, leave this out")
    ]


def test_the_schema_says_all_of_it() -> None:
    assert answers_schema(LAMP) == {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "Lamp",
        "type": "object",
        "properties": {
            "out": {"title": "Is it out?", "type": "boolean"},
            "height": {
                "title": "How high?",
                "description": "m",
                "type": "number",
                "minimum": 0.5,
                "maximum": 12,
            },
            "tilt": {"title": "How far does it lean?", "type": "number"},
            "column": {
                "title": "What number is on it?",
                "type": "string",
                "minLength": 1,
                "maxLength": 500,
            },
            "colour": {
                "title": "What colour?",
                "type": "string",
                "oneOf": [{"const": "w", "title": "White"}, {"const": "y", "title": "Yellow"}],
            },
        },
        "required": ["out"],
        "additionalProperties": False,
    }
    empty = answers_schema(PLAIN)
    assert (empty["properties"], empty["required"]) == ({}, [])


def test_what_a_client_is_shown_of_questions() -> None:
    shown = CategoryOut.of(LAMP, []).model_dump(mode="json")
    assert shown["answers_schema"] == answers_schema(LAMP)
    out, height, _, _, colour = shown["questions"]
    assert out == {
        "code": "out",
        "ask": "Is it out?",
        "type": "yes_no",
        "required": True,
        "unit": None,
        "least": None,
        "most": None,
        "choices": [],
    }
    assert (height["unit"], height["least"], height["most"]) == ("m", 0.5, 12.0)
    assert colour["choices"] == [
        {"value": "w", "label": "White"},
        {"value": "y", "label": "Yellow"},
    ]


# --- the catalogue that is shipped ----------------------------------------------------------------

# Stored with reports and known to apps: a code may be added, never taken away.
CODES = {
    "highway": "pothole footway kerb cycle_lane manhole drain flooding ice street_light "
    "traffic_signal crossing road_sign road_marking barrier bridge overgrowth weeds obstruction "
    "roadworks spillage",
    "cleaning": "litter bin fly_tipping graffiti fly_posting dog_fouling broken_glass needles "
    "dead_animal abandoned_vehicle public_toilet street_name",
}


def test_the_shipped_codes_and_their_tiers_stay() -> None:
    shipped = load_rules(None).categories
    for tier, codes in CODES.items():
        for code in codes.split():
            assert shipped[code].tier.name == tier, code


def test_the_shipped_questions_are_few_and_none_is_required() -> None:
    for category in load_rules(None).categories.values():
        assert check_answers(category, {}) == [], category.code
        assert len(category.questions) <= 3, category.code
        assert not {"description", "photo"} & {question.code for question in category.questions}
        for question in category.questions:
            assert question.ask.endswith(("?", ".")), (category.code, question.code)


# --- emergencies ----------------------------------------------------------------------------------

DANGER = Emergency(
    "danger",
    "Call.",
    "999",
    categories=frozenset({"plain"}),
    answers={("lamp", "colour"): ("w",), ("lamp", "out"): (True,)},
    at_least={("lamp", "height"): 10.0},
)


def test_what_a_client_is_told_of_emergencies() -> None:
    assert emergency_schema(DANGER, "plain") is True
    assert emergency_schema(DANGER, "other") is False
    assert emergency_schema(DANGER, "lamp") == {
        "anyOf": [
            {"properties": {"colour": {"enum": ["w"]}}, "required": ["colour"]},
            {"properties": {"out": {"enum": [True]}}, "required": ["out"]},
            {
                "properties": {"height": {"type": "number", "minimum": 10.0}},
                "required": ["height"],
            },
        ]
    }


@pytest.mark.parametrize(
    ("category", "answers", "is_one"),
    [
        ("plain", {}, True),
        ("other", {"out": True, "height": 12}, False),
        ("lamp", {}, False),
        ("lamp", {"out": True}, True),
        ("lamp", {"out": False}, False),
        ("lamp", {"colour": "w", "out": False}, True),
        ("lamp", {"colour": "y"}, False),
        ("lamp", {"height": 10}, True),
        ("lamp", {"height": 9.9}, False),
        ("lamp", {"height": True}, False),
        ("lamp", {"height": "12"}, False),
    ],
)
def test_a_category_or_an_answer_makes_an_emergency(
    category: str, answers: dict[str, Any], *, is_one: bool
) -> None:
    assert is_emergency(DANGER, category, answers) is is_one


def test_a_number_is_given_where_it_is_answered() -> None:
    emergencies = load_rules(None).emergencies
    wires = {"fault": "wires"}

    def phones(code: str) -> list[str]:
        return [
            one.phone
            for one in emergencies_at(emergencies, [code])
            if is_emergency(one, "street_light", wires)
        ]

    assert phones("E08000010") == phones("S12000036") == phones("W06000015") == ["105"]
    assert phones("N09000003") == ["03457 643 643"]
    assert emergencies_at([DANGER], []) == [DANGER]
