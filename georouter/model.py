"""The frozen values that the core speaks in: layers, areas, categories, candidates, decisions.

They carry no behaviour beyond reading themselves, know nothing of storage or wire formats, and
compare by value, so that a decision can be stored, replayed and compared with a later one.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
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
    """What an area of a roads layer stands for: a stretch of a road, and the body that mends it."""

    number: str
    body: str
    body_name: str


@dataclass(frozen=True, slots=True)
class RoadRule:
    """A roads layer that outranks the areas of a tier, all of it or some road numbers only."""

    layer: str
    number: str = ""

    def applies_to(self, road: Road) -> bool:
        """Whether the rule's pattern, where it has one, matches the whole road number."""
        return not self.number or re.fullmatch(self.number, road.number) is not None


@dataclass(frozen=True, slots=True)
class Delegation:
    """A body that answers for a tier in the place of the areas whose codes match `codes`.

    `codes` is a pattern of the shell, such as "N09*"; `reason` says why, for the decision.
    """

    codes: str
    body: str
    body_name: str
    reason: str

    def applies_to(self, code: str) -> bool:
        """Whether the area with this code has handed the tier over."""
        return fnmatchcase(code, self.codes)


@dataclass(frozen=True, slots=True)
class Tier:
    """Who answers for a group of categories: special roads by rank, then layers of areas.

    The first of `layers` is the right one.

    Where the first layer gives no answer, above all because a dataset lacks it, the next is asked
    and the decision is marked `degraded`: it never passes silently for the real answer.
    """

    name: str
    layers: tuple[str, ...]
    roads: tuple[RoadRule, ...] = ()
    delegations: tuple[Delegation, ...] = ()


@dataclass(frozen=True, slots=True)
class Category:
    """Our kind of defect, in words a citizen understands, and the tier that answers for it."""

    code: str
    name: str
    description: str
    tier: Tier


class DecisionState(StrEnum):
    """How much a decision can be relied on."""

    CERTAIN = "certain"
    AMBIGUOUS = "ambiguous"
    DEGRADED = "degraded"
    OUTSIDE = "outside"


@dataclass(frozen=True, slots=True)
class Candidate:
    """An authority that may be responsible, why it is considered, and how far off its ground is.

    `road` is the number of the special road it would be responsible for, else empty.
    """

    code: str
    name: str
    layer: str
    reason: str
    distance_m: float = 0.0
    road: str = ""


@dataclass(frozen=True, slots=True)
class Decision:
    """Who is responsible for a point, by which rule, in which dataset version.

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

    @property
    def responsible(self) -> Candidate | None:
        """The authority that a report with this decision is forwarded to."""
        return self.candidates[0] if self.candidates else None
