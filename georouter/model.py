"""The frozen values that the core speaks in: layers, areas, categories, candidates, decisions.

They carry no behaviour beyond reading themselves, know nothing of storage or wire formats, and
compare by value, so that a decision can be stored, replayed and compared with a later one.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import date
from enum import StrEnum
from fnmatch import fnmatchcase


class InvalidCoordinate(ValueError):  # noqa: N818 - the name is part of the public shape
    """A longitude or latitude that is not a finite number of degrees within range.

    `field` names the offending one: "lon" or "lat".
    """

    def __init__(self, field: str, message: str) -> None:
        super().__init__(message)
        self.field = field


class UnknownCategory(LookupError):  # noqa: N818 - reads as the sentence it is
    """A category code that the catalogue in force does not have."""

    def __init__(self, code: str, known: tuple[str, ...]) -> None:
        super().__init__(f"unknown category {code!r}; known are: {', '.join(known)}")
        self.code = code
        self.known = known


class MissingLayer(LookupError):  # noqa: N818 - reads as the sentence it is
    """A dataset without any of the layers that a tier of the catalogue asks."""


class NotACandidate(LookupError):  # noqa: N818 - reads as the sentence it is
    """A choice between candidates that is none of them."""

    def __init__(self, chosen: str, candidates: tuple[str, ...]) -> None:
        offered = ", ".join(candidates) or "nobody"
        super().__init__(f"{chosen!r} is no candidate at this place; candidates are: {offered}")
        self.chosen = chosen
        self.candidates = candidates


@dataclass(frozen=True, slots=True)
class NearBorder:
    """An area that does not cover the point: its position in `Index.areas`, and how far it is."""

    area: int
    distance_m: float


@dataclass(frozen=True, slots=True)
class Area:
    """One authority's ground in one layer: what `Index.covering` answers with, by position."""

    layer: str
    code: str
    name: str


@dataclass(frozen=True, slots=True)
class Layer:
    """All areas of one kind; they occupy `areas[first:stop]` of the index, ascending by code."""

    name: str
    first: int
    stop: int


@dataclass(frozen=True, slots=True)
class Road:
    """What an area of a roads layer stands for: a stretch of a road, and the body that mends it.

    Dates are days in the country's time: the first in force, and the first no longer so. Null is
    "always" and "until further notice", here and below.
    """

    number: str
    body: str
    body_name: str
    valid_from: date | None = None
    valid_to: date | None = None


@dataclass(frozen=True, slots=True)
class RoadRule:
    """A roads layer that outranks the areas of a tier, all of it or a part.

    `number` is a pattern of road numbers, `categories` lists the only ones it counts for. Where the
    codes of the areas at a point match `required_in`, a dataset without this layer cannot be sure.
    """

    layer: str
    number: str = ""
    categories: tuple[str, ...] = ()
    required_in: tuple[str, ...] = ()

    def applies_to(self, road: Road, category: str) -> bool:
        """Whether the rule decides for this road and category."""
        return (not self.categories or category in self.categories) and (
            not self.number or re.fullmatch(self.number, road.number) is not None
        )


@dataclass(frozen=True, slots=True)
class Tier:
    """Who answers for a group of categories: special roads by rank, then layers of areas.

    The first of `layers` is the right one. Where it gives no answer, above all because a dataset
    lacks it, the next is asked and the decision is marked `degraded`: it never passes silently for
    the real answer.
    """

    name: str
    layers: tuple[str, ...]
    roads: tuple[RoadRule, ...] = ()


class AnswerType(StrEnum):
    """What kind of answer a question wants."""

    YES_NO = "yes_no"
    NUMBER = "number"
    TEXT = "text"
    CHOICE = "choice"


@dataclass(frozen=True, slots=True)
class Question:
    """Something to ask about a defect beyond where it is; `bounds` are of a number, inclusive."""

    code: str
    ask: str
    type: AnswerType
    required: bool = False
    unit: str = ""
    bounds: tuple[float, float] | None = None
    choices: Mapping[str, str] = field(default_factory=dict, hash=False)


@dataclass(frozen=True, slots=True)
class Category:
    """Our kind of defect, in words a citizen understands, and the tier that answers for it.

    `areas` are patterns of the codes of the areas where it is offered; none means everywhere.
    """

    code: str
    name: str
    description: str
    tier: Tier
    questions: tuple[Question, ...] = ()
    areas: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Emergency:
    """What a citizen must do at once, beside reporting: in words, and whom to call.

    It is one in whole `categories`, or where a question, by its category's code and its own, has
    one of the `answers` or a number of `at_least` so much. `areas` are patterns of the codes of the
    areas where `phone` is answered; none means everywhere.
    """

    code: str
    text: str
    phone: str
    categories: frozenset[str] = frozenset()
    answers: Mapping[tuple[str, str], tuple[bool | str, ...]] = field(
        default_factory=dict, hash=False
    )
    at_least: Mapping[tuple[str, str], float] = field(default_factory=dict, hash=False)
    areas: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Agreement:
    """A body that answers in the place of another, for some categories: beats the polygons.

    Where: on a `ring` of ground, (longitude, latitude) pairs in degrees; or in the place of whoever
    answers for the `roads` with these numbers, or for the areas whose codes match `areas` (patterns
    of the shell, such as "N09*"); of both, for these roads in these areas.
    """

    code: str
    body: str
    body_name: str
    reason: str
    categories: frozenset[str]
    areas: tuple[str, ...] = ()
    roads: tuple[str, ...] = ()
    ring: tuple[tuple[float, float], ...] = ()
    valid_from: date | None = None
    valid_to: date | None = None


@dataclass(frozen=True, slots=True)
class Successor:
    """A body that takes over; `areas` are the codes of the areas that it takes, none means all."""

    code: str
    name: str
    areas: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Succession:
    """On a day, the bodies with the codes `ends` end, and others take over their ground."""

    on: date
    reason: str
    ends: tuple[str, ...]
    successors: tuple[Successor, ...]
    to_be_checked: bool = False


@dataclass(frozen=True, slots=True)
class Rules:
    """Everything that is known beside the polygons; `version` changes with any of it."""

    version: str
    categories: Mapping[str, Category]
    agreements: tuple[Agreement, ...] = ()
    successions: tuple[Succession, ...] = ()
    emergencies: tuple[Emergency, ...] = ()

    @property
    def tiers(self) -> tuple[Tier, ...]:
        """The tiers that categories name, each once."""
        return tuple(dict.fromkeys(category.tier for category in self.categories.values()))


def matches(code: str, patterns: Iterable[str]) -> bool:
    """Whether one of the patterns of the shell matches the whole code, case by case."""
    return any(fnmatchcase(code, pattern) for pattern in patterns)


def in_force(day: date | None, *, valid_from: date | None, valid_to: date | None) -> bool:
    """Whether something counts on a day; asked about no day in particular, everything does."""
    return day is None or (
        (valid_from is None or valid_from <= day) and (valid_to is None or day < valid_to)
    )


class DecisionState(StrEnum):
    """How much a decision can be relied on."""

    CERTAIN = "certain"
    AMBIGUOUS = "ambiguous"
    DEGRADED = "degraded"
    OUTSIDE = "outside"


@dataclass(frozen=True, slots=True)
class Candidate:
    """An authority that may be responsible, why it is considered, and how far off its ground is.

    `road` is the number of the special road it would be responsible for; `agreement` the code of
    the agreement by which it answers in the place of another; `succeeds` the code of the body that
    it has taken over from. Each is empty where there is none.
    """

    code: str
    name: str
    layer: str
    reason: str
    distance_m: float = 0.0
    road: str = ""
    agreement: str = ""
    succeeds: str = ""


@dataclass(frozen=True, slots=True)
class Decision:
    """Who is responsible for a point, by which rule, in which dataset version, on which day.

    `candidates` are in order of preference; the first is the responsible one. They are empty
    exactly when `state` is `outside`. `question` asks the citizen, in words, which of them is
    meant; it is empty when there is nothing to ask.
    """

    state: DecisionState
    rule: str
    reason: str
    category: str
    tier: str
    dataset: str
    candidates: tuple[Candidate, ...] = ()
    question: str = ""
    as_of: date | None = None

    @property
    def responsible(self) -> Candidate | None:
        """The authority that a report with this decision is forwarded to."""
        return self.candidates[0] if self.candidates else None
