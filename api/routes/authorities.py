"""`/v1/authorities`: the public bodies that reports are routed to."""

from __future__ import annotations

from typing import Annotated
from uuid import UUID

from fastapi import APIRouter, Query
from pydantic import TypeAdapter

from api import db, errors, schemas
from api.routes import paging
from api.routes.wiring import Calling, Wired
from api.store import authorities

router = APIRouter(prefix="/v1/authorities", tags=["authorities"])

PLACE = TypeAdapter(tuple[schemas.Name, UUID])


@router.get(
    "",
    operation_id="listAuthorities",
    summary="Authorities by name",
    responses=errors.documented(errors.VALIDATION_FAILED, *errors.KEYED),
)
async def list_authorities(
    asked: Annotated[schemas.AuthorityFilter, Query()], wired: Wired, _caller: Calling
) -> schemas.AuthorityPage:
    """List the authorities, all of them or the one with a code."""
    after = paging.decode(asked.cursor, PLACE)
    async with db.acquire(wired.pool) as conn:
        rows = await authorities.list_authorities(
            conn, code=asked.code, after=after, limit=asked.limit + 1
        )
    page, cursor = paging.cut(rows, limit=asked.limit, key=("name", "id"), shape=PLACE)
    items = [schemas.AuthorityOut.model_validate(dict(row)) for row in page]
    return schemas.AuthorityPage(items=items, next_cursor=cursor)


@router.get(
    "/{authority_id}",
    operation_id="getAuthority",
    summary="One authority",
    responses=errors.documented(errors.NotFound, errors.VALIDATION_FAILED, *errors.KEYED),
)
async def get_authority(
    authority_id: UUID, wired: Wired, caller: Calling
) -> schemas.AuthorityDetail:
    """Show an authority and whether it takes reports.

    The number of reports held for it is told to itself and to operators.
    """
    async with db.acquire(wired.pool) as conn:
        row = await authorities.find_authority(conn, authority_id)
    if row is None:
        raise errors.NotFound("there is no such authority")
    shown = schemas.AuthorityDetail.model_validate(dict(row))
    return shown if caller.manages(authority_id) else shown.model_copy(update={"held": None})
