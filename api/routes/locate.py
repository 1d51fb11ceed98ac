"""`GET /v1/locate`: who would be responsible here, without reporting anything.

Outside the service area is an answer like any other, so that an app can ask while its pin moves.
"""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Query

from api import errors, schemas
from api.routes.wiring import Calling, Wired
from georouter.model import NotACandidate, UnknownCategory

router = APIRouter(prefix="/v1", tags=["locate"])


@router.get(
    "/locate",
    operation_id="locate",
    summary="Who is responsible at a point",
    responses=errors.documented(
        errors.VALIDATION_FAILED,
        UnknownCategory,
        NotACandidate,
        errors.NoActiveDataset,
        *errors.KEYED,
    ),
)
async def locate(
    place: Annotated[schemas.Place, Query()], wired: Wired, _caller: Calling
) -> schemas.DecisionOut:
    """Decide who is responsible for a category of defects at a point.

    Within `accuracy_m` of a border `state` is "ambiguous" and `question` asks which candidate is
    meant; ask again with its code as `chosen` to settle it. Outside the service area `state` is
    "outside", `authority` null and `candidates` empty. `as_of` asks about another day: by the
    dataset that was in force when it ended, or is planned to be, and the authorities of that day.
    """
    as_of = place.as_of or wired.live.today()
    table = await wired.live.on(wired.pool, as_of)
    return table.decide(place, as_of=as_of)
