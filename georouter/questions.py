"""The questions of a category: what answers fit them, and which of these make an emergency.

The check and the schema are read off the same questions, and promise to agree: answers that the
schema takes are accepted. That a text is stripped and plain, the edge sees to before.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from sys import float_info
from typing import Any, Final, assert_never

from georouter.model import AnswerType, Category, Emergency, Question, matches

MOST_ANSWERS: Final = 30
"""How many questions a category may ask, and a report answer."""

LONGEST_TEXT: Final = 500
"""How many characters the answer to a question may have."""

DIALECT: Final = "https://json-schema.org/draft/2020-12/schema"

Answer = bool | float | str
"""A question answered: yes or no, a number, or a text, which may be a choice's code."""


def check_answers(category: Category, answers: Mapping[str, Answer]) -> list[tuple[str, str]]:
    """What is wrong, as pairs of a question's code and what to do; empty if nothing is."""
    faults = []
    for question in category.questions:
        if question.code in answers:
            if not _takes(question, answers[question.code]):
                faults.append((question.code, f"must be {_wanted(question)}"))
        elif question.required:
            faults.append((question.code, f"is required: {question.ask}"))
    known = [question.code for question in category.questions]
    remedy = f"known are: {', '.join(known)}" if known else "it has none, leave this out"
    faults += [
        (code, f"is no question of {category.code!r}; {remedy}")
        for code in answers
        if code not in known
    ]
    return faults


def _takes(question: Question, answer: Answer) -> bool:
    match question.type:
        case AnswerType.YES_NO:
            return isinstance(answer, bool)
        case AnswerType.NUMBER:
            if isinstance(answer, bool | str):
                return False
            least, most = question.bounds or (-float_info.max, float_info.max)
            return least <= answer <= most  # not so of NaN
        case AnswerType.TEXT:
            return isinstance(answer, str) and 0 < len(answer) <= LONGEST_TEXT
        case AnswerType.CHOICE:
            return isinstance(answer, str) and answer in question.choices
        case _:
            assert_never(question.type)


def _wanted(question: Question) -> str:
    match question.type:
        case AnswerType.YES_NO:
            return "true or false"
        case AnswerType.NUMBER:
            unit = f" of {question.unit}" if question.unit else ""
            least, most = question.bounds or (None, None)
            return f"a number{unit}" + ("" if least is None else f" from {least:g} to {most:g}")
        case AnswerType.TEXT:
            return f"a text of 1 to {LONGEST_TEXT} characters"
        case AnswerType.CHOICE:
            return f"one of: {', '.join(question.choices)}"
        case _:
            assert_never(question.type)


def answers_schema(category: Category) -> dict[str, Any]:
    """The JSON Schema of a report's `answers` in this category; a form can be made of it."""
    return {
        "$schema": DIALECT,
        "title": category.name,
        "type": "object",
        "properties": {question.code: _schema(question) for question in category.questions},
        "required": [question.code for question in category.questions if question.required],
        "additionalProperties": False,
    }


def _schema(question: Question) -> dict[str, Any]:
    told: dict[str, Any] = {"title": question.ask}
    if question.unit:
        told["description"] = question.unit
    match question.type:
        case AnswerType.YES_NO:
            return told | {"type": "boolean"}
        case AnswerType.NUMBER:
            bounds = zip(("minimum", "maximum"), question.bounds or (), strict=False)
            return told | {"type": "number"} | dict(bounds)
        case AnswerType.TEXT:
            return told | {"type": "string", "minLength": 1, "maxLength": LONGEST_TEXT}
        case AnswerType.CHOICE:
            choices = [{"const": code, "title": text} for code, text in question.choices.items()]
            return told | {"type": "string", "oneOf": choices}
        case _:
            assert_never(question.type)


# --- emergencies ----------------------------------------------------------------------------------


def emergencies_at(emergencies: Iterable[Emergency], codes: Sequence[str]) -> list[Emergency]:
    """Those whose number is answered in the areas with these codes."""
    return [
        one for one in emergencies if not one.areas or any(matches(c, one.areas) for c in codes)
    ]


def emergency_schema(emergency: Emergency, category: str) -> dict[str, Any] | bool:
    """The JSON Schema of the answers that make a report of a category one; as `is_emergency`."""
    if category in emergency.categories:
        return True
    told: dict[str, dict[str, Any]] = {
        key: {"enum": list(given)}
        for (of, key), given in emergency.answers.items()
        if of == category
    }
    told |= {
        key: {"type": "number", "minimum": least}
        for (of, key), least in emergency.at_least.items()
        if of == category
    }
    return bool(told) and {
        "anyOf": [{"properties": {key: one}, "required": [key]} for key, one in told.items()]
    }


def is_emergency(emergency: Emergency, category: str, answers: Mapping[str, Answer]) -> bool:
    """Whether a report of a category with these answers is one."""
    return (
        category in emergency.categories
        or any(
            of == category and question in answers and answers[question] in given
            for (of, question), given in emergency.answers.items()
        )
        or any(
            of == category and _reaches(answers.get(question), least)
            for (of, question), least in emergency.at_least.items()
        )
    )


def _reaches(answer: Answer | None, least: float) -> bool:
    return isinstance(answer, int | float) and not isinstance(answer, bool) and answer >= least
