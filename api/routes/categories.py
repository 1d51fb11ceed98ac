"""`GET /v1/categories`: what can be reported, and what more is worth asking.

The list changes with the rules, and at a place with the dataset; their versions are its entity tag.
"""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Query, Response

from api import errors, schemas
from api.routes.wiring import Calling, IfNoneMatch, Wired, names
from georouter.model import matches
from georouter.questions import emergencies_at

router = APIRouter(prefix="/v1", tags=["categories"])

ETAG = {"ETag": {"description": "Of the versions behind it.", "schema": {"type": "string"}}}


@router.get(
    "/categories",
    operation_id="listCategories",
    summary="What can be reported",
    response_model=schemas.CategoryList,
    responses={
        200: {"headers": ETAG},
        304: {"description": "Nothing has changed", "headers": ETAG},
        **errors.documented(errors.VALIDATION_FAILED, errors.NoActiveDataset, *errors.KEYED),
    },
)
async def list_categories(
    where: Annotated[schemas.Where, Query()],
    response: Response,
    wired: Wired,
    _caller: Calling,
    if_none_match: IfNoneMatch = None,
) -> schemas.CategoryList | Response:
    """List the categories with their questions, in the order in which to show them.

    With `lon` and `lat`, those that are offered there, and the emergency numbers that are answered
    there; without, those that hold everywhere. Each `answers_schema` is a JSON Schema of the
    `answers` that a report in the category may carry.
    """
    rules = wired.live.rules
    codes: list[str] = []
    etag = f'"{rules.version}"'
    if where.lon is not None and where.lat is not None:
        table = wired.live.require()
        codes = table.codes_at(lon=where.lon, lat=where.lat)
        etag = table.etag(wired.live.today())
    if names(if_none_match, etag):
        return Response(status_code=304, headers={"ETag": etag})
    response.headers["ETag"] = etag
    emergencies = emergencies_at(rules.emergencies, codes)
    items = [
        schemas.CategoryOut.of(category, emergencies)
        for category in rules.categories.values()
        if not category.areas or where.lon is None or any(matches(c, category.areas) for c in codes)
    ]
    return schemas.CategoryList(version=rules.version, items=items)
