"""`.../reports/{report}/updates`: what an authority says of its work on a report."""

from __future__ import annotations

from uuid import UUID

import asyncpg
from fastapi import APIRouter, Depends, Response

from api import db, errors, schemas
from api.auth import require_management
from api.routes.wiring import Calling, Wired, json_only
from api.store import authorities, events, reroutes

router = APIRouter(prefix="/v1/authorities/{authority_id}/reports", tags=["updates"])


@router.post(
    "/{report_id}/updates",
    operation_id="postUpdate",
    summary="Say how a report is getting on",
    status_code=201,
    dependencies=[Depends(json_only)],
    responses={
        200: {"model": schemas.EventOut, "description": "Known already: nothing was changed"},
        **errors.documented(
            errors.MALFORMED_JSON,
            errors.RoleForbidden,
            errors.NotFound,
            errors.ReportElsewhere,
            errors.MediaTypeUnsupported,
            errors.VALIDATION_FAILED,
            *errors.KEYED,
        ),
    },
)
async def post_update(
    authority_id: UUID,
    report_id: UUID,
    body: schemas.UpdateIn,
    response: Response,
    wired: Wired,
    caller: Calling,
) -> schemas.EventOut:
    """Tell the reporter how the work is getting on, or that the report is somebody else's.

    For the authority that has the report and, when that is over, for its successors.

    With `closed` and `not_responsible` the report is routed again without you, to whom you name as
    `responsible` if you do. "closed" is never shown as "fixed".
    """
    require_management(caller, authority_id)
    async with db.acquire(wired.pool) as conn:
        async with conn.transaction():
            fresh = await _store(conn, authority_id, report_id, body)
        told = await events.list_events(conn, report_id)
    if not fresh:
        response.status_code = 200
    key = _key(authority_id, body)
    return next(schemas.EventOut.of(row) for row in told if row["key"] in (key, f"not_ours:{key}"))


async def _store(
    conn: asyncpg.Connection, authority_id: UUID, report_id: UUID, body: schemas.UpdateIn
) -> bool:
    """Store an update; whether it was new. A repeated one is fine wherever the report is now."""
    row = await reroutes.lock_report(conn, report_id)
    key = _key(authority_id, body)
    if row is not None and await events.has_event(conn, report_id, (key, f"not_ours:{key}")):
        return False
    if row is None or authority_id not in await authorities.heirs(conn, row["authority_id"]):
        if row is None or not await events.had(conn, report_id, authority_id):
            raise errors.NotFound("the authority was never given such a report")
        raise errors.ReportElsewhere(
            "the report is with another authority now; what you know of it, tell them"
        )
    return await reroutes.tell(
        conn,
        report_id,
        authority_id=authority_id,
        detail=body.model_dump(mode="json", exclude_none=True, exclude={"update_id"}),
        key=key,
    )


def _key(authority_id: UUID, body: schemas.UpdateIn) -> str:
    return f"update:{authority_id}:{body.update_id}"
