"""Who is responsible for a place: what is asked, and the decision."""

from __future__ import annotations

from datetime import date
from typing import Annotated
from uuid import UUID

from pydantic import Field

from api import examples
from api.schemas.wire import Accuracy, Asked, CategoryCode, Chosen, RoadRef, Wire, shown
from georouter.model import DecisionState


class Place(Asked):
    """A point and a category to route, without reporting anything."""

    lon: Annotated[float, Field(ge=-180, le=180, allow_inf_nan=False, examples=[2.12])]
    lat: Annotated[float, Field(ge=-90, le=90, allow_inf_nan=False, examples=[54.71])]
    category: CategoryCode
    accuracy_m: Accuracy = None
    road_ref: RoadRef = None
    chosen: Chosen = None
    as_of: Annotated[
        date | None,
        Field(
            description="Route as on this day in the United Kingdom, e.g. 2027-04-01; today by "
            "default."
        ),
    ] = None


class AuthorityRef(Wire):
    """An authority in brief."""

    id: UUID
    code: str
    name: str


class CandidateOut(Wire):
    """An authority that may be responsible, and why."""

    code: str
    name: str
    layer: Annotated[
        str | None, Field(description="The boundary layer, or null of an agreement's own ground.")
    ]
    reason: str
    distance_m: float = 0.0
    road: Annotated[
        str | None, Field(description="The special road that it would be responsible for.")
    ] = None
    agreement: Annotated[
        str | None, Field(description="The agreement by which it answers in another's place.")
    ] = None
    succeeds: Annotated[
        str | None, Field(description="Code of the authority that it has taken over from.")
    ] = None


class DecisionOut(Wire):
    """Who is responsible, by which rule, in which dataset version. `authority` is null outside.

    Where there is a `question`, the app shows it with the candidates' names, and sends the code of
    the one chosen as `chosen`. Unanswered, the first candidate is taken.
    """

    model_config = shown(examples.DECISION)

    state: DecisionState
    rule: str
    reason: str
    category: str
    tier: str
    dataset: str
    rules: Annotated[str | None, Field(description="Version of the rules that decided.")] = None
    as_of: Annotated[
        date | None, Field(description="The day whose authorities and agreements count.")
    ] = None
    authority: AuthorityRef | None
    candidates: list[CandidateOut]
    question: str | None = None
