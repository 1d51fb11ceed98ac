"""Reads the rules, which are data: categories and tiers, emergencies, agreements, successions.

Three texts of TOML in, one `Rules` out, or a `RulesError` that names the file, the line and the
remedy. Nothing is half taken over. It does no I/O: who reads the files is the edge's affair.
"""

from __future__ import annotations

import hashlib
import re
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Final

from georouter.entries import Fault, Table, line_of, line_of_syntax
from georouter.model import (
    Agreement,
    AnswerType,
    Category,
    Emergency,
    Question,
    RoadRule,
    Rules,
    Succession,
    Successor,
    Tier,
)
from georouter.questions import MOST_ANSWERS

FILES: Final = ("categories.toml", "agreements.toml", "successions.toml")
"""The names of the files, in the order in which `parse_rules` wants their texts."""

SHIPPED: Final = Path(__file__).with_name("shipped")
"""The folder of the files that come with the project."""

LONGEST_CODE: Final = 64


class RulesError(ValueError):
    """Rules that cannot be used; the message names the file, the line and a remedy."""

    def __init__(self, file: str, line: int, message: str) -> None:
        super().__init__(f"{file}, line {line}: {message}" if line else f"{file}: {message}")
        self.file = file
        self.line = line


def parse_rules(texts: Mapping[str, str]) -> Rules:
    """The rules in the texts of `FILES`, by file name; raises `RulesError`.

    The version is a digest of the texts, so that a decision can say by which rules it was made.
    """
    digest = hashlib.sha256()
    categories: dict[str, Category] = {}
    agreements: tuple[Agreement, ...] = ()
    successions: tuple[Succession, ...] = ()
    emergencies: tuple[Emergency, ...] = ()
    for file in FILES:
        text = texts[file]
        digest.update(text.encode() + b"\0")
        try:
            top = Table((), tomllib.loads(text), "the file")
            match file:
                case "categories.toml":
                    categories, emergencies = _categories(top)
                case "agreements.toml":
                    agreements = _agreements(top, categories)
                case _:
                    successions = _successions(top)
        except tomllib.TOMLDecodeError as error:
            raise RulesError(
                file, line_of_syntax(text, error), f"this is no TOML: {error}; correct that line"
            ) from None
        except Fault as fault:
            raise RulesError(file, line_of(text, fault.at), str(fault)) from None
    return Rules(digest.hexdigest()[:8], categories, agreements, successions, emergencies)


# --- categories and tiers -------------------------------------------------------------------------


def _categories(top: Table) -> tuple[dict[str, Category], tuple[Emergency, ...]]:
    tiers = {name: _tier(name, table) for name, table in top.tables("tiers", "tier").items()}
    found = {
        code: _category(code, table, tiers)
        for code, table in top.tables("categories", "category").items()
    }
    emergencies = tuple(
        _emergency(code, table, found)
        for code, table in top.tables("emergencies", "emergency", needed=False).items()
    )
    top.nothing_else()
    for name, table in top.tables("tiers", "tier").items():
        for rule, entry in zip(tiers[name].roads, table.each("roads", "road rule"), strict=True):
            for code in rule.categories:
                if code not in found:
                    entry.fault(
                        "categories", f"there is no category {code!r}; correct or remove it"
                    )
    return found, emergencies


def _tier(name: str, table: Table) -> Tier:
    tier = Tier(
        name=name,
        layers=table.texts("layers", hint='the right one first, such as ["highway", "district"]'),
        roads=tuple(_road_rule(item) for item in table.each("roads", "road rule")),
    )
    table.nothing_else()
    return tier


def _road_rule(table: Table) -> RoadRule:
    number = table.text("number", default="")
    try:
        re.compile(number)
    except re.error as error:
        table.fault("number", f"number {number!r} is no regular expression: {error}; correct it")
    rule = RoadRule(
        layer=table.text("layer"),
        number=number,
        categories=table.texts("categories", default=()),
        required_in=table.texts("required_in", default=()),
    )
    table.nothing_else()
    return rule


def _category(code: str, table: Table, tiers: Mapping[str, Tier]) -> Category:
    _check_code(code, table)
    tier = table.text("tier")
    if tier not in tiers:
        table.fault(
            "tier",
            f"there is no tier {tier!r}; take one of {', '.join(sorted(tiers))}, or add "
            f"[tiers.{tier}]",
        )
    questions = table.tables("questions", "question", needed=False)
    if len(questions) > MOST_ANSWERS:
        table.fault("questions", f"there are more than {MOST_ANSWERS} questions; remove some")
    found = Category(
        code=code,
        name=table.text("name"),
        description=table.text("description"),
        tier=tiers[tier],
        questions=tuple(_question(name, entry) for name, entry in questions.items()),
        areas=table.texts("areas", default=()),
    )
    table.nothing_else()
    return found


def _check_code(code: str, table: Table) -> None:
    if len(code) > LONGEST_CODE:
        raise Fault(table.at, f"{table.what}: a code has at most {LONGEST_CODE} characters")


def _question(code: str, table: Table) -> Question:
    _check_code(code, table)
    wanted = table.text("type")
    if wanted not in set(AnswerType):
        table.fault("type", f"type must be one of {', '.join(AnswerType)}, not {wanted!r}")
    kind = AnswerType(wanted)
    bounds = None
    if table.has("least", "most"):
        bounds = (table.number("least"), table.number("most"))
        if kind is not AnswerType.NUMBER or bounds[0] > bounds[1]:
            table.fault("least", "least and most are the bounds of a number, in this order")
    choices = table.labels("choices") if kind is AnswerType.CHOICE else {}
    found = Question(
        code=code,
        ask=table.text("ask"),
        type=kind,
        required=table.flag("required"),
        unit=table.text("unit", default=""),
        bounds=bounds,
        choices=choices,
    )
    table.nothing_else()
    return found


def _emergency(code: str, table: Table, categories: Mapping[str, Category]) -> Emergency:
    answers: dict[tuple[str, str], tuple[bool | str, ...]] = {}
    at_least: dict[tuple[str, str], float] = {}
    for name, of in table.tables("when", "category", needed=False).items():
        if name not in categories:
            table.fault("when", f"there is no category {name!r}; correct or remove it")
        asked = {question.code: question for question in categories[name].questions}
        for key in of:
            if key not in asked:
                of.fault(key, f"there is no question {key!r}; correct or remove it")
            if asked[key].type is AnswerType.NUMBER:
                at_least[name, key] = of.number(key)
            else:
                answers[name, key] = _answers(of, asked[key])
    found = Emergency(
        code=code,
        text=table.text("text"),
        phone=table.text("phone"),
        categories=frozenset(_known(table, categories)),
        answers=answers,
        at_least=at_least,
        areas=table.texts("areas", default=()),
    )
    table.nothing_else()
    if not (found.categories or answers or at_least):
        raise Fault(table.at, f"{table.what} is never one; add categories, or answers as when")
    return found


def _answers(table: Table, question: Question) -> tuple[bool | str, ...]:
    if question.type is AnswerType.YES_NO:
        return (table.flag(question.code),)
    found = table.texts(question.code, hint="choices of the question")
    for choice in found:
        if choice not in question.choices:
            table.fault(question.code, f"{choice!r} is no choice of it; correct or remove it")
    return found


def _known(table: Table, categories: Mapping[str, Category]) -> tuple[str, ...]:
    """The categories that an entry names."""
    named = table.texts("categories", default=())
    for one in named:
        if one not in categories:
            table.fault("categories", f"there is no category {one!r}; correct or remove it")
    return named


# --- agreements and successions -------------------------------------------------------------------


def _agreements(top: Table, categories: Mapping[str, Category]) -> tuple[Agreement, ...]:
    entries = top.tables("agreements", "agreement", needed=False)
    found = tuple(_agreement(code, table, categories) for code, table in entries.items())
    top.nothing_else()
    return found


def _agreement(code: str, table: Table, categories: Mapping[str, Category]) -> Agreement:
    tiers = {category.tier.name for category in categories.values()}
    named = _known(table, categories)
    whole = table.texts("tiers", default=())
    for one in whole:
        if one not in tiers:
            table.fault("tiers", f"no category is of tier {one!r}; take {', '.join(sorted(tiers))}")
    if not named and not whole:
        raise Fault(table.at, f"{table.what} has neither categories nor tiers; add what it is for")
    ring = table.ring("ring")
    areas, roads = table.texts("areas", default=()), table.texts("roads", default=())
    if bool(ring) == bool(areas or roads):
        raise Fault(
            table.at, f"{table.what} must say where: a ring, or roads, areas or both of these"
        )
    found = Agreement(
        code=code,
        body=table.text("body"),
        body_name=table.text("name"),
        reason=table.text("reason"),
        categories=frozenset(named)
        | {category.code for category in categories.values() if category.tier.name in whole},
        areas=areas,
        roads=roads,
        ring=ring,
        valid_from=table.day("from"),
        valid_to=table.day("to"),
    )
    if found.valid_from and found.valid_to and found.valid_from >= found.valid_to:
        table.fault("to", "it would end before it begins; `to` is the first day without it")
    table.nothing_else()
    return found


def _successions(top: Table) -> tuple[Succession, ...]:
    found = tuple(_succession(table) for table in top.each("successions", "succession"))
    top.nothing_else()
    ended: dict[str, int] = {}
    for position, one in enumerate(found):
        for code in one.ends:
            if code in ended:
                raise Fault(
                    ("successions", position, "ends"),
                    f"{code} ends twice, in succession {ended[code] + 1} too; remove one",
                )
            ended[code] = position
    for position, one in enumerate(found):
        for heir in one.successors:
            later = ended.get(heir.code)
            if later is not None and found[later].on <= one.on:
                raise Fault(
                    ("successions", position),
                    f"{heir.code} takes over, but ends on {found[later].on} itself; it must begin "
                    "before it ends",
                )
    return found


def _succession(table: Table) -> Succession:
    day = table.day("on")
    if day is None:
        raise Fault(table.at, f"{table.what} has no on; add the day, such as on = 2027-04-01")
    successors = []
    for item in table.each("successors", "successor"):
        code, name = item.text("code"), item.text("name")
        successors.append(Successor(code, name, item.texts("areas", default=())))
        item.nothing_else()
    found = Succession(
        on=day,
        reason=table.text("reason"),
        ends=table.texts("ends", hint="the codes of the bodies that end"),
        successors=tuple(successors),
        to_be_checked=table.flag("to_be_checked"),
    )
    table.nothing_else()
    taken = [code for one in successors for code in one.areas]
    if not successors or (successors[1:] and not all(one.areas for one in successors)):
        raise Fault(
            table.at, f"{table.what}: of several successors each needs the areas that it takes"
        )
    if len(set(taken)) < len(taken):
        twice = next(code for code in taken if taken.count(code) > 1)
        raise Fault(table.at, f"{table.what}: {twice} is given to two successors; remove one")
    return found
