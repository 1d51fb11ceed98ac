"""`/v1/notices` and `/v1/authorities/{id}/notices`: what an owner or the operator should know."""

from __future__ import annotations

from typing import Annotated
from uuid import UUID

from fastapi import APIRouter, Query
from pydantic import TypeAdapter

from api import db, errors, schemas
from api.auth import Role, require_management, require_role
from api.routes import paging
from api.routes.wiring import Calling, Wired, Wiring
from api.store import notices

router = APIRouter(prefix="/v1", tags=["notices"])

PLACE = TypeAdapter(tuple[schemas.Time, UUID])
FAILURES = errors.documented(errors.RoleForbidden, errors.VALIDATION_FAILED, *errors.KEYED)


@router.get(
    "/authorities/{authority_id}/notices",
    operation_id="listAuthorityNotices",
    summary="What an authority should know",
    responses=FAILURES,
)
async def list_authority_notices(
    authority_id: UUID,
    asked: Annotated[schemas.Page, Query()],
    wired: Wired,
    caller: Calling,
) -> schemas.NoticePage:
    """List what happened to an authority's endpoints and deliveries, the newest first."""
    require_management(caller, authority_id)
    return await _page(wired, asked, authority_id)


@router.get(
    "/notices",
    operation_id="listNotices",
    summary="What the operator should know",
    responses=FAILURES,
)
async def list_notices(
    asked: Annotated[schemas.Page, Query()], wired: Wired, caller: Calling
) -> schemas.NoticePage:
    """List the notices of all authorities, the newest first."""
    require_role(caller, Role.OPERATOR)
    return await _page(wired, asked, None)


async def _page(
    wired: Wiring, asked: schemas.Page, authority_id: UUID | None
) -> schemas.NoticePage:
    after = paging.decode(asked.cursor, PLACE)
    async with db.acquire(wired.pool) as conn:
        rows = await notices.list_notices(
            conn, authority_id=authority_id, after=after, limit=asked.limit + 1
        )
    page, cursor = paging.cut(rows, limit=asked.limit, key=("at", "id"), shape=PLACE)
    items = [schemas.NoticeOut.model_validate(dict(row)) for row in page]
    return schemas.NoticePage(items=items, next_cursor=cursor)
