"""Reads the rules, which are data: categories and their tiers, agreements, successions.

Three texts of TOML in, one `Rules` out, or a `RulesError` that names the file, the line and the
remedy. Nothing is half taken over. It does no I/O: who reads the files is the edge's affair.
"""

from __future__ import annotations

import hashlib
import re
import tomllib
from collections.abc import Mapping
from datetime import date, datetime
from math import isfinite
from pathlib import Path
from typing import Any, Final, NoReturn

from georouter.geometry import check_coordinate
from georouter.model import (
    Agreement,
    AnswerType,
    Category,
    InvalidCoordinate,
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
MOST_VERTICES: Final = 1000

_At = tuple[str | int, ...]


class RulesError(ValueError):
    """Rules that cannot be used; the message names the file, the line and a remedy."""

    def __init__(self, file: str, line: int, message: str) -> None:
        super().__init__(f"{file}, line {line}: {message}" if line else f"{file}: {message}")
        self.file = file
        self.line = line


class _Fault(Exception):  # noqa: N818 - inside this module only
    """What is wrong, and where: the keys that lead to it from the top of the file."""

    def __init__(self, at: _At, message: str) -> None:
        super().__init__(message)
        self.at = at


def parse_rules(texts: Mapping[str, str]) -> Rules:
    """The rules in the texts of `FILES`, by file name; raises `RulesError`.

    The version is a digest of the texts, so that a decision can say by which rules it was made.
    """
    digest = hashlib.sha256()
    categories: dict[str, Category] = {}
    agreements: tuple[Agreement, ...] = ()
    successions: tuple[Succession, ...] = ()
    for file in FILES:
        text = texts[file]
        digest.update(text.encode() + b"\0")
        try:
            top = _Table((), tomllib.loads(text), "the file")
            match file:
                case "categories.toml":
                    categories = _categories(top)
                case "agreements.toml":
                    agreements = _agreements(top, categories)
                case _:
                    successions = _successions(top)
        except tomllib.TOMLDecodeError as error:
            raise RulesError(
                file, _line_of_syntax(text, error), f"this is no TOML: {error}; correct that line"
            ) from None
        except _Fault as fault:
            raise RulesError(file, _line_of(text, fault.at), str(fault)) from None
    return Rules(digest.hexdigest()[:8], categories, agreements, successions)


# --- categories and tiers -------------------------------------------------------------------------


def _categories(top: _Table) -> dict[str, Category]:
    tiers = {name: _tier(name, table) for name, table in top.tables("tiers", "tier").items()}
    found = {
        code: _category(code, table, tiers)
        for code, table in top.tables("categories", "category").items()
    }
    top.nothing_else()
    for name, table in top.tables("tiers", "tier").items():
        for rule, entry in zip(tiers[name].roads, table.each("roads", "road rule"), strict=True):
            for code in rule.categories:
                if code not in found:
                    entry.fault(
                        "categories", f"there is no category {code!r}; correct or remove it"
                    )
    return found


def _tier(name: str, table: _Table) -> Tier:
    tier = Tier(
        name=name,
        layers=table.texts("layers", hint='the right one first, such as ["highway", "district"]'),
        roads=tuple(_road_rule(item) for item in table.each("roads", "road rule")),
    )
    table.nothing_else()
    return tier


def _road_rule(table: _Table) -> RoadRule:
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


def _category(code: str, table: _Table, tiers: Mapping[str, Tier]) -> Category:
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
    )
    table.nothing_else()
    return found


def _check_code(code: str, table: _Table) -> None:
    if len(code) > LONGEST_CODE:
        raise _Fault(table.at, f"{table.what}: a code has at most {LONGEST_CODE} characters")


def _question(code: str, table: _Table) -> Question:
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


# --- agreements and successions -------------------------------------------------------------------


def _agreements(top: _Table, categories: Mapping[str, Category]) -> tuple[Agreement, ...]:
    entries = top.tables("agreements", "agreement", needed=False)
    found = tuple(_agreement(code, table, categories) for code, table in entries.items())
    top.nothing_else()
    return found


def _agreement(code: str, table: _Table, categories: Mapping[str, Category]) -> Agreement:
    tiers = {category.tier.name for category in categories.values()}
    named = table.texts("categories", default=())
    for one in named:
        if one not in categories:
            table.fault("categories", f"there is no category {one!r}; correct or remove it")
    whole = table.texts("tiers", default=())
    for one in whole:
        if one not in tiers:
            table.fault("tiers", f"no category is of tier {one!r}; take {', '.join(sorted(tiers))}")
    if not named and not whole:
        raise _Fault(table.at, f"{table.what} has neither categories nor tiers; add what it is for")
    ring = table.ring("ring")
    areas, roads = table.texts("areas", default=()), table.texts("roads", default=())
    if bool(ring) == bool(areas or roads):
        raise _Fault(
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


def _successions(top: _Table) -> tuple[Succession, ...]:
    found = tuple(_succession(table) for table in top.each("successions", "succession"))
    top.nothing_else()
    ended: dict[str, int] = {}
    for position, one in enumerate(found):
        for code in one.ends:
            if code in ended:
                raise _Fault(
                    ("successions", position, "ends"),
                    f"{code} ends twice, in succession {ended[code] + 1} too; remove one",
                )
            ended[code] = position
    return found


def _succession(table: _Table) -> Succession:
    day = table.day("on")
    if day is None:
        raise _Fault(table.at, f"{table.what} has no on; add the day, such as on = 2027-04-01")
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
        raise _Fault(
            table.at, f"{table.what}: of several successors each needs the areas that it takes"
        )
    if len(set(taken)) < len(taken):
        twice = next(code for code in taken if taken.count(code) > 1)
        raise _Fault(table.at, f"{table.what}: {twice} is given to two successors; remove one")
    return found


# --- tables ---------------------------------------------------------------------------------------

_NEEDED: Final[Any] = object()


class _Table:
    """A table of the file: gives its values checked, and knows which nobody asked for."""

    def __init__(self, at: _At, entry: object, what: str) -> None:
        if not isinstance(entry, dict):
            raise _Fault(at, f"{what} must be a table")
        self.at = at
        self.what = what
        self._entry: dict[str, Any] = entry
        self._asked: set[str] = set()

    def fault(self, key: str, message: str) -> NoReturn:
        raise _Fault((*self.at, key), f"{self.what}: {message}")

    def has(self, *keys: str) -> bool:
        return any(key in self._entry for key in keys)

    def nothing_else(self) -> None:
        for key in self._entry:
            if key not in self._asked:
                self.fault(key, f"{key!r} means nothing here; remove or correct it")

    def _value(self, key: str, default: Any = _NEEDED) -> Any:
        self._asked.add(key)
        value = self._entry.get(key, default)
        if value is _NEEDED:
            raise _Fault(self.at, f"{self.what} has no {key}; add it")
        return value

    def text(self, key: str, *, default: str = _NEEDED) -> str:
        value = self._value(key, default)
        if key in self._entry and not _is_text(value):
            self.fault(key, f"{key} must be a text that says something")
        return str(value)

    def texts(
        self, key: str, *, default: tuple[str, ...] = _NEEDED, hint: str = "texts"
    ) -> tuple[str, ...]:
        value = self._value(key, default)
        if key not in self._entry:
            return default
        if not isinstance(value, list) or not value or not all(_is_text(item) for item in value):
            self.fault(key, f"{key} must list {hint}")
        return tuple(value)

    def labels(self, key: str) -> dict[str, str]:
        value = self._value(key)
        if (
            not isinstance(value, dict)
            or not value
            or not all(_is_text(label) for label in value.values())
        ):
            self.fault(key, f'{key} must be a table of codes and labels: {{ small = "A cup" }}')
        return dict(value)

    def number(self, key: str) -> float:
        value = self._value(key)
        if isinstance(value, bool) or not isinstance(value, int | float) or not isfinite(value):
            self.fault(key, f"{key} must be a number")
        return float(value)

    def flag(self, key: str) -> bool:
        value = self._value(key, default=False)
        if not isinstance(value, bool):
            self.fault(key, f"{key} must be true or false")
        return value

    def day(self, key: str) -> date | None:
        value = self._value(key, default=None)
        if value is not None and (not isinstance(value, date) or isinstance(value, datetime)):
            self.fault(key, f"{key} must be a date such as 2027-04-01, without quotes")
        return value

    def ring(self, key: str) -> tuple[tuple[float, float], ...]:
        value = self._value(key, default=[])
        try:
            ring = tuple((float(lon), float(lat)) for lon, lat in value)
            for lon, lat in ring:
                check_coordinate(lon, lat)
        except (TypeError, ValueError, InvalidCoordinate) as error:
            self.fault(key, f"{key} must list pairs of longitude and latitude: {error}")
        ring = ring[:-1] if ring[1:] and ring[0] == ring[-1] else ring
        if key in self._entry and not 3 <= len(set(ring)) <= MOST_VERTICES:
            self.fault(key, f"{key} must have 3 to {MOST_VERTICES} different points")
        return ring

    def tables(self, key: str, what: str, *, needed: bool = True) -> dict[str, _Table]:
        value = self._value(key, _NEEDED if needed else {})
        if not isinstance(value, dict) or (needed and not value):
            self.fault(key, f"[{key}.<code>] tables are wanted here, one for each {what}")
        inside = f"{self.what}, " if self.at else ""
        return {
            code: _Table((*self.at, key, code), entry, f"{inside}{what} {code!r}")
            for code, entry in value.items()
        }

    def each(self, key: str, what: str) -> list[_Table]:
        value = self._value(key, default=[])
        if not isinstance(value, list):
            self.fault(key, f"{key} must list tables, one for each {what}")
        inside = f"{self.what}, " if self.at else ""
        return [
            _Table((*self.at, key, position), entry, f"{inside}{what} {position + 1}")
            for position, entry in enumerate(value)
        ]


def _is_text(value: object) -> bool:
    return isinstance(value, str) and bool(value.strip())


# --- lines ----------------------------------------------------------------------------------------


def _line_of(text: str, at: _At) -> int:
    """The line on which what the keys lead to begins: it is in the file from there on, not before.

    tomllib says nothing of lines, so ever longer beginnings of the file are read. Of a key that is
    in no line, such as one of an inline table, the line is that of the table around it.
    """
    lines = text.splitlines()
    before = 0
    for count in range(1, len(lines) + 1):
        try:
            read: Any = tomllib.loads("\n".join(lines[:count]))
        except tomllib.TOMLDecodeError:
            continue  # in the middle of a value
        try:
            for key in at:
                read = read[key]
        except (KeyError, IndexError, TypeError):
            before = count
            continue
        opening = range(before, count)
        return next((n for n in opening if lines[n].strip() and lines[n].strip()[0] != "#"), 0) + 1
    return 1


def _line_of_syntax(text: str, error: tomllib.TOMLDecodeError) -> int:
    found = re.search(r"at line (\d+)", str(error))
    return int(found[1]) if found else text.count("\n") + 1
