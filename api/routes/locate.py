"""`GET /v1/locate`: who would be responsible here, without reporting anything.

Outside the service area is an answer like any other, so that an app can ask while its pin moves.
"""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Query, Response

from api import errors, schemas
from api.routes.wiring import Calling, IfNoneMatch, Wired, names
from georouter.model import NotACandidate, UnknownCategory

router = APIRouter(prefix="/v1", tags=["locate"])

# How long an app may show an answer without asking again.
KEPT_S = 60

CACHED = {
    "ETag": {"description": "Of dataset, rules and day.", "schema": {"type": "string"}},
    "Cache-Control": {"description": "How long it may be kept.", "schema": {"type": "string"}},
}


@router.get(
    "/locate",
    operation_id="locate",
    summary="Who is responsible at a point",
    response_model=schemas.DecisionOut,
    responses={
        200: {"headers": CACHED},
        304: {"description": "Nothing has changed", "headers": CACHED},
        **errors.documented(
            errors.VALIDATION_FAILED,
            UnknownCategory,
            NotACandidate,
            errors.NoActiveDataset,
            *errors.KEYED,
        ),
    },
)
async def locate(
    place: Annotated[schemas.Place, Query()],
    wired: Wired,
    _caller: Calling,
    if_none_match: IfNoneMatch = None,
) -> Response:
    """Decide who is responsible for a category of defects at a point.

    Within `accuracy_m` of a border `state` is "ambiguous" and `question` asks which candidate is
    meant; ask again with its code as `chosen` to settle it. Outside the service area `state` is
    "outside", `authority` null and `candidates` empty. `as_of` asks about another day: by the
    dataset that was in force when it ended, or is planned to be, and the authorities of that day.
    An answer may be kept for a minute, and for as long as its `ETag` is confirmed.
    """
    as_of = place.as_of or wired.live.today()
    table = await wired.live.on(wired.pool, as_of)
    kept = {"ETag": table.etag(as_of), "Cache-Control": f"private, max-age={KEPT_S}"}
    if names(if_none_match, kept["ETag"]):
        return Response(status_code=304, headers=kept)
    decision = table.decide(place, as_of=as_of)
    # As it is, and not by the framework, which would check and copy it once more.
    return Response(decision.model_dump_json(), headers=kept, media_type="application/json")
