"""`/v1/nearby` and the list of `/v1/reports`: what anybody with a key may see of reports."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Annotated
from uuid import UUID

from fastapi import APIRouter, Query, Request, Response
from fastapi.responses import JSONResponse
from pydantic import TypeAdapter

from api import db, errors, schemas
from api.routes import paging
from api.routes.wiring import Calling, Wired
from api.store import places
from georouter.model import UnknownCategory

router = APIRouter(prefix="/v1", tags=["public"])

PLACE = TypeAdapter(tuple[schemas.Time, UUID])


class GeoJson(JSONResponse):
    """GeoJSON by its own media type."""

    media_type = "application/geo+json"


@router.get(
    "/nearby",
    operation_id="listNearby",
    summary="Open reports that may be the same",
    responses=errors.documented(errors.VALIDATION_FAILED, UnknownCategory, *errors.KEYED),
)
async def list_nearby(
    near: Annotated[schemas.Near, Query()], wired: Wired, _caller: Calling
) -> schemas.Nearby:
    """List open reports of a category within `radius_m`, the nearest first.

    Show them before a report is sent: who finds theirs sends it as `duplicate_of`.
    """
    if near.category not in wired.live.rules.categories:
        raise UnknownCategory(near.category, tuple(wired.live.rules.categories))
    async with db.acquire(wired.pool) as conn:
        rows = await places.find_near(
            conn,
            lon=near.lon,
            lat=near.lat,
            category=near.category,
            radius_m=near.radius_m,
            limit=near.limit,
        )
    now = datetime.fromtimestamp(wired.clock(), UTC)
    return schemas.Nearby(items=[schemas.NearbyReport.of(row, now=now) for row in rows])


@router.get(
    "/reports",
    operation_id="listReports",
    summary="Reports as GeoJSON",
    response_model=schemas.ReportCollection,
    response_class=GeoJson,
    responses={
        200: {
            "headers": {
                "Link": {
                    "description": "The next page, if there is one.",
                    "schema": {"type": "string"},
                }
            }
        },
        **errors.documented(errors.VALIDATION_FAILED, *errors.KEYED),
    },
)
async def list_reports(
    asked: Annotated[schemas.ReportFilter, Query()],
    request: Request,
    wired: Wired,
    _caller: Calling,
) -> Response:
    """List what anybody may know of reports, the newest first.

    No list names a reporter; what is hidden or thought to be spam is left out.
    """
    wanted = places.Wanted(
        box=asked.box,
        category=asked.category,
        authority=asked.authority,
        closed=asked.closed,
        received_from=asked.received_from,
        received_to=asked.received_to,
        updated_since=asked.updated_since,
    )
    after = paging.decode(asked.cursor, PLACE)
    async with db.acquire(wired.pool) as conn:
        rows = await places.list_reports(conn, wanted, after=after, limit=asked.limit + 1)
    page, cursor = paging.cut(rows, limit=asked.limit, key=("received_at", "id"), shape=PLACE)
    found = schemas.ReportCollection(
        features=[schemas.Feature.of(row) for row in page], next_cursor=cursor
    )
    links = {}
    if cursor is not None:
        following = request.url.include_query_params(cursor=cursor)
        links["Link"] = f'<{following.path}?{following.query}>; rel="next"'
    return Response(found.model_dump_json(), media_type=GeoJson.media_type, headers=links)
