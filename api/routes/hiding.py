"""`.../reports/{report}/hide` and `unhide`: what the public is shown of reports."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from uuid import UUID

import asyncpg
from fastapi import APIRouter, Depends

from api import db, errors, schemas
from api.auth import Caller, Role, require_management
from api.routes.wiring import Calling, Wired, json_only
from api.store import audit, authorities, events, reroutes, shown

router = APIRouter(prefix="/v1/authorities/{authority_id}/reports", tags=["hiding"])

REFUSALS = (
    errors.RoleForbidden,
    errors.NotFound,
    errors.ReportElsewhere,
    errors.VALIDATION_FAILED,
    *errors.KEYED,
)


@router.post(
    "/{report_id}/hide",
    operation_id="hideReport",
    summary="Show a report to the public no more",
    status_code=204,
    dependencies=[Depends(json_only)],
    responses=errors.documented(
        errors.MALFORMED_JSON, errors.MediaTypeUnsupported, errors.BODY_TOO_LARGE, *REFUSALS
    ),
)
async def hide_report(
    authority_id: UUID, report_id: UUID, body: schemas.HideIn, wired: Wired, caller: Calling
) -> None:
    """Take a report, and its photos, out of all that the public sees. Its work goes on.

    For the authority that has the report, and for operators. A second time changes nothing.
    """
    async with db.acquire(wired.pool) as conn, conn.transaction():
        await _change(conn, authority_id, report_id, caller, shown.hide, "hidden", body.reason)


@router.post(
    "/{report_id}/unhide",
    operation_id="unhideReport",
    summary="Show a report to the public again",
    status_code=204,
    responses=errors.documented(*REFUSALS),
)
async def unhide_report(authority_id: UUID, report_id: UUID, wired: Wired, caller: Calling) -> None:
    """Show what was hidden, or was thought to be spam: whoever says so has looked."""
    async with db.acquire(wired.pool) as conn, conn.transaction():
        await _change(conn, authority_id, report_id, caller, shown.unhide, "unhidden", None)


async def _change(
    conn: asyncpg.Connection,
    authority_id: UUID,
    report_id: UUID,
    caller: Caller,
    change: Callable[[asyncpg.Connection, UUID], Awaitable[bool]],
    kind: str,
    reason: str | None,
) -> None:
    require_management(caller, authority_id)
    row = await reroutes.lock_report(conn, report_id)
    heirs = [] if row is None else await authorities.heirs(conn, row["authority_id"])
    if row is None or authority_id not in heirs:
        if row is None or not await events.had(conn, report_id, authority_id):
            raise errors.NotFound("the authority was never given such a report")
        if caller.role is not Role.OPERATOR:
            raise errors.ReportElsewhere("the report is with another authority now; tell them")
    if not await change(conn, report_id):
        return
    detail = {} if reason is None else {"reason": reason}
    await events.add_event(conn, report_id, kind=kind, authority_id=authority_id, detail=detail)
    await audit.record(
        conn,
        f"report.{kind}",
        api_key_id=caller.key_id,
        authority_id=authority_id,
        target=report_id,
        detail=detail,
    )
