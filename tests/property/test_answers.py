"""Answers drawn from a category's questions are taken, spoiled ones refused by name.

The oracle is a reader of the few words of JSON Schema that our schemas use, written from its
specification: the checks and the schema that clients see must agree on every answer.
"""

from __future__ import annotations

import json
import math
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from api.examples import REPORT_IN
from api.schemas import ReportIn
from georouter.model import AnswerType, Category, Question, Tier
from georouter.questions import LONGEST_TEXT, Answer, answers_schema, check_answers

SETTINGS = settings(max_examples=300, deadline=None, derandomize=True)

CODES = ("a", "b", "c", "d")
numbers = st.floats(allow_nan=False, allow_infinity=False)
words = st.text(st.characters(categories=("L", "N", "P")), min_size=1, max_size=40)
anything = st.booleans() | st.floats() | st.integers() | st.text(max_size=3) | st.just("x" * 501)


@st.composite
def questions(draw: st.DrawFn, code: str) -> Question:
    kind = draw(st.sampled_from(AnswerType))
    bounds, choices = None, {}
    if kind is AnswerType.NUMBER and draw(st.booleans()):
        least, most = sorted((draw(numbers), draw(numbers)))
        bounds = (least, most)
    if kind is AnswerType.CHOICE:
        choices = draw(st.dictionaries(words, words, min_size=1, max_size=3))
    required = draw(st.booleans())
    return Question(code, "What?", kind, required=required, bounds=bounds, choices=choices)


@st.composite
def categories(draw: st.DrawFn) -> Category:
    asked = [draw(questions(code)) for code in draw(st.sets(st.sampled_from(CODES)))]
    return Category("x", "X", "An x.", Tier("t", ("t",)), tuple(asked))


def fitting(question: Question) -> st.SearchStrategy[Answer]:
    match question.type:
        case AnswerType.YES_NO:
            return st.booleans()
        case AnswerType.NUMBER:
            least, most = question.bounds or (None, None)
            return st.floats(least, most, allow_nan=False, allow_infinity=False)
        case AnswerType.TEXT:
            return words | st.just("x" * LONGEST_TEXT)
        case AnswerType.CHOICE:
            return st.sampled_from(sorted(question.choices))


@st.composite
def answered(draw: st.DrawFn) -> tuple[Category, dict[str, Answer]]:
    category = draw(categories())
    return category, {
        question.code: draw(fitting(question))
        for question in category.questions
        if question.required or draw(st.booleans())
    }


def taken(schema: dict[str, Any], value: Any) -> bool:
    """Whether a schema takes a value, by the words of JSON Schema that ours use."""
    kind = schema["type"]
    if kind == "object":
        assert schema["additionalProperties"] is False
        properties = schema["properties"]
        return set(schema["required"]) <= value.keys() and all(
            name in properties and taken(properties[name], one) for name, one in value.items()
        )
    if kind == "boolean":
        return value is True or value is False
    if kind == "number":
        number = isinstance(value, int | float) and value is not True and value is not False
        return (
            number
            and math.isfinite(value)  # JSON has no others
            and schema.get("minimum", value) <= value <= schema.get("maximum", value)
        )
    assert kind == "string"
    return (
        isinstance(value, str)
        and schema.get("minLength", 0) <= len(value) <= schema.get("maxLength", len(value))
        and ("oneOf" not in schema or [one["const"] for one in schema["oneOf"]].count(value) == 1)
    )


@SETTINGS
@given(answered())
def test_answers_drawn_from_the_questions_are_taken(
    drawn: tuple[Category, dict[str, Answer]],
) -> None:
    category, answers = drawn
    assert check_answers(category, answers) == []
    assert taken(answers_schema(category), answers)
    # They come through JSON and the wire model as they were.
    body = ReportIn.model_validate_json(json.dumps({**REPORT_IN, "answers": answers}))
    assert body.answers == answers
    assert {code: type(one) for code, one in body.answers.items()} == {
        code: type(one) for code, one in answers.items()
    }
    assert body.model_dump(mode="json")["answers"] == answers


@SETTINGS
@given(answered(), st.sampled_from(CODES), anything)
def test_one_spoiled_answer_is_refused_by_name_if_the_schema_refuses_it(
    drawn: tuple[Category, dict[str, Answer]], code: str, answer: Answer
) -> None:
    category, answers = drawn
    spoiled = {**answers, code: answer}
    refused = [name for name, _ in check_answers(category, spoiled)]
    assert refused == ([] if taken(answers_schema(category), spoiled) else [code])


@SETTINGS
@given(answered(), st.data())
def test_a_required_answer_left_out_is_missed(
    drawn: tuple[Category, dict[str, Answer]], data: st.DataObject
) -> None:
    category, answers = drawn
    gone = data.draw(st.sets(st.sampled_from(sorted(answers)))) if answers else set()
    left = {code: one for code, one in answers.items() if code not in gone}
    missed = [question.code for question in category.questions if question.required]
    assert [code for code, _ in check_answers(category, left)] == [
        code for code in missed if code in gone
    ]
