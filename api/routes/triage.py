"""`/v1/triage`: the operator's queue of reports that no rule finds a body for."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated
from uuid import UUID

from fastapi import APIRouter, Depends, Query
from pydantic import TypeAdapter

from api import db, errors, rerouting, schemas
from api.auth import Role, require_role
from api.routes import paging
from api.routes.wiring import Calling, Wired, json_only
from api.store import audit, reroutes

router = APIRouter(prefix="/v1/triage", tags=["triage"])

PLACE: TypeAdapter[tuple[datetime, UUID]] = TypeAdapter(tuple[datetime, UUID])


@router.get(
    "",
    operation_id="listTriage",
    summary="Reports that wait for an operator",
    responses=errors.documented(errors.RoleForbidden, errors.VALIDATION_FAILED, *errors.KEYED),
)
async def list_triage(
    asked: Annotated[schemas.Page, Query()], wired: Wired, caller: Calling
) -> schemas.TriagePage:
    """List the operator's queue, the oldest first."""
    require_role(caller, Role.OPERATOR)
    after = paging.decode(asked.cursor, PLACE)
    async with db.acquire(wired.pool) as conn:
        rows = await reroutes.find_triage(conn, after=after, limit=asked.limit + 1)
    page, cursor = paging.cut(rows, limit=asked.limit, key=("since", "report_id"), shape=PLACE)
    items = [schemas.TriageItem.model_validate(dict(row)) for row in page]
    return schemas.TriagePage(items=items, next_cursor=cursor)


@router.post(
    "/{report_id}/assign",
    operation_id="assignReport",
    summary="Give a report to an authority",
    status_code=204,
    dependencies=[Depends(json_only)],
    responses=errors.documented(
        errors.MALFORMED_JSON,
        errors.RoleForbidden,
        errors.NotFound,
        errors.MediaTypeUnsupported,
        errors.VALIDATION_FAILED,
        errors.NoActiveDataset,
        *errors.KEYED,
    ),
)
async def assign_report(
    report_id: UUID, body: schemas.AssignIn, wired: Wired, caller: Calling
) -> None:
    """Give a report to an authority, in the queue or not, even to one that refused it before."""
    require_role(caller, Role.OPERATOR)
    table = wired.live.require()
    authority = table.authority(body.authority)
    if authority is None:
        raise errors.FieldRefused("authority", "is no code of an authority that we know")
    async with db.acquire(wired.pool) as conn, conn.transaction():
        row = await reroutes.lock_report(conn, report_id)
        if row is None:
            raise errors.NotFound("there is no such report")
        decision = rerouting.assigned(row, authority, table, as_of=wired.live.today())
        await rerouting.give(
            conn,
            report_id,
            decision,
            authority,
            table,
            before=None if row["with_operator"] else row["authority_id"],
            because="given by an operator",
        )
        await audit.record(
            conn,
            "report.assigned",
            api_key_id=caller.key_id,
            authority_id=authority.id,
            target=report_id,
            detail={"authority": authority.code, "from": str(row["authority_id"])},
        )
    wired.notifier.poke()
