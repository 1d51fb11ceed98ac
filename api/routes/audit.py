"""`/v1/audit` and `/v1/authorities/{id}/audit`: who did what to an authority's intake, and when."""

from __future__ import annotations

from typing import Annotated
from uuid import UUID

from fastapi import APIRouter, Query
from pydantic import Field, TypeAdapter

from api import db, errors, schemas
from api.auth import Role, require_management, require_role
from api.routes import paging
from api.routes.wiring import Calling, Wired, Wiring
from api.store import audit

router = APIRouter(prefix="/v1", tags=["audit"])

PLACE = TypeAdapter(tuple[Annotated[int, Field(ge=0, lt=2**63)]])
FAILURES = errors.documented(errors.RoleForbidden, errors.VALIDATION_FAILED, *errors.KEYED)


@router.get(
    "/authorities/{authority_id}/audit",
    operation_id="listAuthorityAudit",
    summary="What was done to an authority's intake",
    responses=FAILURES,
)
async def list_authority_audit(
    authority_id: UUID,
    asked: Annotated[schemas.Page, Query()],
    wired: Wired,
    caller: Calling,
) -> schemas.AuditPage:
    """List who did what to an authority's intake, the newest first."""
    require_management(caller, authority_id)
    return await _page(wired, asked, authority_id)


@router.get(
    "/audit",
    operation_id="listAudit",
    summary="What was done to the service",
    responses=FAILURES,
)
async def list_audit(
    asked: Annotated[schemas.Page, Query()], wired: Wired, caller: Calling
) -> schemas.AuditPage:
    """List who did what to the service and to all authorities' intakes, the newest first."""
    require_role(caller, Role.OPERATOR)
    return await _page(wired, asked, None)


async def _page(wired: Wiring, asked: schemas.Page, authority_id: UUID | None) -> schemas.AuditPage:
    after = paging.decode(asked.cursor, PLACE)
    async with db.acquire(wired.pool) as conn:
        rows = await audit.list_entries(
            conn,
            authority_id=authority_id,
            before=after[0] if after else None,
            limit=asked.limit + 1,
        )
    page, cursor = paging.cut(rows, limit=asked.limit, key=("id",), shape=PLACE)
    items = [schemas.AuditOut.model_validate(dict(row)) for row in page]
    return schemas.AuditPage(items=items, next_cursor=cursor)
